"""Saves interrupted at every disk operation."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ddpmctl.registry import Registry
from tests.builders import commit

from .support import Full, check_whole, tree, tree_of_one_commit


def fail() -> None:
    raise Full


def die() -> None:
    """As ``kill -9`` would have it: nothing is cleaned up."""
    os._exit(9)


def at_operation(monkeypatch: pytest.MonkeyPatch, number: int, happen: Callable[[], None]) -> None:
    """Let something happen in place of the n-th operation on the disk, of those that make a commit."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def operation(*arguments: Any, **settings: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                happen()
            return real(*arguments, **settings)

        return operation

    monkeypatch.setattr(os, "fsync", counted(os.fsync))
    for name in ("mkdir", "rename", "replace"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


def commit_under(happen: Callable[[], None], number: int, registry: Registry, *, second: bool) -> bool:
    """Make a model, with something happening at the n-th operation of its first or second commit; False if too late."""
    with pytest.MonkeyPatch.context() as patched:
        try:
            with registry.writer(f"tiny-{number}", "") as writer:
                if second:
                    commit(writer, 10)
                at_operation(patched, number, happen)
                commit(writer, 20)
        except Full:
            return True
    return False


@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_a_commit_that_fails_anywhere_leaves_the_old_state_or_the_new_one(registry: Registry, second: bool) -> None:
    number = 1
    while commit_under(fail, number, registry, second=second):
        name = f"tiny-{number}"
        if second or name in registry.names():
            check_whole(registry, name, 10, 20)
        half_written = [path for path in tree(registry.models) if ".tmp" in path]
        assert half_written == [], f"operation {number}"
        number += 1
    assert number > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("second", [False, True], ids=["first", "second"])
def test_a_run_killed_anywhere_leaves_the_old_state_or_the_new_one(registry: Registry, second: bool) -> None:
    number, killed = 1, True
    while killed:
        child = os.fork()
        if not child:
            commit_under(die, number, registry, second=second)
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        name = f"tiny-{number}"
        assert registry.names() in ([], [name])
        if second or name in registry.names():
            check_whole(registry, name, 10, 20)
        # The next run under the name is not kept out, and clears up.
        with registry.writer(name, "", replace=True) as writer:
            commit(writer, 30)
        check_whole(registry, name, 30)
        assert tree(registry.models) == tree_of_one_commit(name, 30)
        shutil.rmtree(registry.models)
        number += 1
    assert number > 10
