"""Several processes that train one model: the weights, and the behaviour on failures."""

import os
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpmctl.distributed.process_group import ProcessGroup, check_divisible, peer_failure
from ddpmctl.distributed.store import first_line
from ddpmctl.errors import DdpmctlError, UsageError
from ddpmctl.registry import Registry, last_of
from ddpmctl.training.restarts import EarlierRun
from tests.builders import SEGMENT
from tests.cli.support import copy_model
from tests.conftest import Cli
from tests.distributed import steps
from tests.distributed.support import HERE, QUICK, Job, ddpmctl, in_job, lone, run

pytestmark = pytest.mark.slow

HANGS = 120
"""Seconds: a job that ends earlier waited for no time limit of gloo or torchrun (half an hour)."""

linux_only = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes as Linux tells them")


def weights(home: Path, name: str) -> dict[str, np.ndarray]:
    """All that the last commit of a run holds: averaged weights, trained ones, and what the optimizers remember."""
    last = last_of(Registry(home).open(name))
    learnt = {key: array for key, array in last.state().items() if key.startswith(("model.", "optimizer."))}
    return {**last.weights(), **learnt}


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_any_number_of_processes_learns_the_same_from_the_same(tmp_path: Path, processes: int) -> None:
    from ddpmctl.distributed.process_group import SINGLE_PROCESS

    with Job(tmp_path, processes, HERE / "steps.py", tmp_path) as job:
        assert job.finish() == 0, job.said
    told = [dict(np.load(tmp_path / f"{rank}.npz")) for rank in range(processes)]
    alone = steps.learn(SINGLE_PROCESS)
    for name in ("ids", "x0", "t", "epsilon", "label"):
        parts = [there[name] for there in told]
        assert max(part.shape[1] for part in parts) - min(part.shape[1] for part in parts) <= 1
        assert np.array_equal(np.concatenate(parts, axis=1), alone[name]), name
    for there in told:
        # To rounding: sums over the images are taken in another order.
        assert np.allclose(there["loss"], alone["loss"], rtol=1e-4)
        assert np.isclose(there["validation"], alone["validation"], rtol=1e-4)
        learnt = [name for name in there if name.startswith("weights.")]
        assert all(np.array_equal(there[name], told[0][name]) for name in learnt), "the processes drift apart"
        # What was left after two steps and taken up again goes on bit for bit.
        assert np.array_equal(there["repeated"], there["loss"][-1])
        assert all(np.array_equal(there[name], there[name.replace("weights.", "again.")]) for name in learnt)


@linux_only
def test_a_run_whose_process_is_killed_ends_as_one_that_never_was(tmp_path: Path) -> None:
    options = (*QUICK, "--epochs", 2, "--checkpoint-every", "4steps")
    run(tmp_path, 2, "train", *options, "--name", "uncut")
    with ddpmctl(tmp_path, 2, "train", *options, "--name", "cut", options=("--max-restarts", 1)) as job:
        job.wait_for("epoch 1/2")
        os.kill(job.workers()[1], signal.SIGKILL)
        assert job.finish() == 0, job.said
    assert "restarted by torchrun: resuming 'cut'" in job.said
    assert len(job.errors()) == 1
    assert "ended unexpectedly" in job.errors()[0]
    assert same_bits(weights(tmp_path, "cut"), weights(tmp_path, "uncut"))
    parts = last_of(Registry(tmp_path).open("cut")).manifest.run.segments
    assert [(part.why, part.exact) for part in parts] == [("begun", True), ("resumed", True)]


def test_sigterm_saves_and_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    with ddpmctl(tmp_path, 2, "train", *QUICK, "--epochs", 2, "--name", "ended") as job:
        job.wait_for("epoch 1/2")
        started = time.monotonic()
        job.process.send_signal(signal.SIGTERM)
        job.finish()
        assert time.monotonic() - started < HANGS
    assert len(job.errors()) == 1, job.said
    assert "checkpoint saved as 'ended'" in job.errors()[0]
    last = last_of(Registry(tmp_path).open("ended")).manifest
    assert last.run.stopped == "interrupted"
    assert last.run.step >= 9
    assert "x 2 processes" in last.run.device
    went_on = lone(tmp_path, "train", "--resume", "ended")
    assert "x 2 processes, now" in went_on.stderr
    manifest = last_of(Registry(tmp_path).open("ended")).manifest
    assert (manifest.run.step, manifest.run.stopped) == (18, "done")
    assert [part.exact for part in manifest.run.segments] == [True, False]
    assert [row["step"] for row in last_of(Registry(tmp_path).open("ended")).history] == ["9", "18"]


def test_an_exception_in_one_process_ends_all_with_one_message(tmp_path: Path) -> None:
    with Job(tmp_path, 3, HERE / "faulty.py", "step", 2, "train", *QUICK, "--epochs", 9, "--name", "it") as job:
        job.wait_for("a planted fault")
        started = time.monotonic()
        assert job.finish() != 0
        assert time.monotonic() - started < HANGS
    assert len(job.errors()) == 1, job.said
    assert job.errors()[0].startswith("rank 2: unexpected error: RuntimeError: a planted fault")


def test_a_failure_to_write_is_told_to_all(tmp_path: Path) -> None:
    every = ("--checkpoint-every", "2steps")
    with Job(tmp_path, 2, HERE / "faulty.py", "disk", 0, "train", *QUICK, *every, "--epochs", 9, "--name", "it") as job:
        job.wait_for("No space left on device")
        started = time.monotonic()
        assert job.finish() != 0
        assert time.monotonic() - started < HANGS
    assert job.errors() == ["'it' cannot be saved: No space left on device"], job.said
    assert "hint: after fixing this, resume: ddpmctl train --resume it" in job.said


def test_the_clock_of_the_first_decides_for_all(tmp_path: Path) -> None:
    limits = ("--max-time", "60s", "--max-steps", 6, "--name", "it")
    with Job(tmp_path, 2, HERE / "faulty.py", "clock", 1, "train", *QUICK, *limits) as job:
        assert job.finish() == 0, job.said
    run_of_it = last_of(Registry(tmp_path).open("it")).manifest.run
    assert (run_of_it.step, run_of_it.stopped) == (6, "done")
    assert run_of_it.seconds < 60


def test_a_plan_that_follows_the_clock_of_the_first_is_taken_over_by_all(tmp_path: Path) -> None:
    limits = ("--max-time", "16s", "--name", "it")
    with Job(tmp_path, 2, HERE / "faulty.py", "count", 0, "train", *QUICK, *limits) as job:
        assert job.finish() == 0, job.said
    manifest = last_of(Registry(tmp_path).open("it")).manifest
    assert manifest.resume is not None
    plan = manifest.resume.plan
    assert (manifest.run.step, manifest.run.stopped) == (plan.steps, "done")
    assert len(plan.segments) >= 3
    assert 0.85 * 16 < manifest.run.seconds < 1.1 * 16


def test_what_is_asked_wrongly_is_said_once(tmp_path: Path, tiny_home: Path) -> None:
    copy_model(tiny_home, tmp_path, "taken")
    with ddpmctl(tmp_path, 2, "train", *QUICK, "--name", "taken") as job:
        assert job.finish() != 0
    assert job.errors() == ["a model named 'taken' already exists"], job.said


def test_what_several_processes_cannot_share_is_refused() -> None:
    class Two(ProcessGroup):
        size = 2

    check_divisible(2, "group", Two())
    with pytest.raises(UsageError, match="BatchNorm would use different statistics in several processes"):
        check_divisible(128, "batch", Two())
    with pytest.raises(UsageError, match="a batch of 1 images cannot be split over 2 processes"):
        check_divisible(1, "group", Two())
    check_divisible(1, "batch", ProcessGroup())


def test_a_port_in_use_ends_at_once_and_begins_nothing(tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("", 0))
        held.listen()
        port = held.getsockname()[1]
        with ddpmctl(tmp_path, 2, "train", *QUICK, options=("--master-port", port)) as job:
            assert job.finish(60) != 0
    assert "EADDRINUSE" in job.said
    assert not (tmp_path / "models").exists()


def test_other_commands_are_for_one_process(cli: Cli) -> None:
    for rank, says in ((0, True), (1, False)):
        done = cli("models", **in_job(rank, 2))
        assert done.returncode == 2
        assert ("error: ddpmctl models runs in one process" in done.stderr) == says
    mistyped = cli("train", "--presett", "quick", **in_job(1, 2))
    assert (mistyped.returncode, mistyped.stdout, mistyped.stderr) == (2, "", "")


def two_machines(*more: object) -> tuple[object, ...]:
    """Options of the torchrun on each of them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return ("--nnodes", 2, "--rdzv-backend", "c10d", "--rdzv-endpoint", f"localhost:{port}", *more)


def test_two_machines_train_as_one_and_the_second_needs_no_models(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    nodes = two_machines()
    training = ("train", *QUICK, "--max-steps", 4, "--name", "it")
    with ddpmctl(first, 1, *training, options=nodes) as one, ddpmctl(second, 1, *training, options=nodes) as other:
        assert (one.finish(), other.finish()) == (0, 0), one.said + other.said
    # Which of the two leads is torchrun's to choose.
    trained = [home for home in (first, second) if Registry(home).names()]
    assert len(trained) == 1
    last = last_of(Registry(trained[0]).open("it")).manifest
    assert (last.run.step, last.run.stopped) == (4, "done")
    assert "x 2 processes" in last.run.device


@linux_only
def test_two_machines_go_on_after_a_process_of_one_was_killed(tmp_path: Path) -> None:
    nodes = two_machines("--max-restarts", 3)
    training = ("train", *QUICK, "--epochs", 2, "--checkpoint-every", "4steps", "--name", "it")
    with ddpmctl(tmp_path, 1, *training, options=nodes) as one, ddpmctl(tmp_path, 1, *training, options=nodes) as other:
        while "epoch 1/2" not in one.said + other.said:
            assert one.process.poll() is None and other.process.poll() is None, one.said + other.said
            time.sleep(0.02)
        (killed,) = one.workers().values()
        os.kill(killed, signal.SIGKILL)
        assert (one.finish(), other.finish()) == (0, 0), one.said + other.said
    assert "restarted by torchrun: resuming 'it'" in one.said + other.said
    run_of_it = last_of(Registry(tmp_path).open("it")).manifest.run
    assert (run_of_it.step, run_of_it.stopped) == (18, "done")
    assert [part.why for part in run_of_it.segments] == ["begun", "resumed"]


def test_a_batch_too_large_for_several_processes_is_answered_with_one_that_fits() -> None:
    class Two(ProcessGroup):
        size = 2

        def shard(self, batch: torch.Tensor) -> torch.Tensor:
            return torch.tensor_split(batch, 2)[0]

    def limited(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("out of memory")

    step = steps.train_step(Two())
    step.model.register_forward_pre_hook(limited)
    with pytest.raises(DdpmctlError) as caught:
        step.warm_up_ddp()
    assert caught.value.message == "a batch of 10 does not fit in memory; one of 4 does"
    assert (caught.value.hint or "").startswith("batch_size=4")


def test_epochs_that_a_job_was_to_add_are_added_once_however_often_it_is_restarted() -> None:
    earlier = EarlierRun(name="it", identity="0", since="2026-01-01T00:00:00.000+00:00", is_saved=True)
    begun = replace(SEGMENT, created="2026-01-01T00:00:00.000+00:00")
    added = replace(begun, why="extended", created="2026-01-01T00:00:01.000+00:00")
    taken_up = replace(begun, why="resumed", created="2026-01-01T00:00:02.000+00:00")
    assert [earlier.has_extended(parts) for parts in ((begun,), (begun, added), (begun, added, taken_up))] == [
        False, True, True,
    ]  # fmt: skip
    assert not EarlierRun().has_extended((begun, added))


def test_the_loss_of_a_process_is_told_even_where_sigterm_comes_on_top() -> None:
    lost = RuntimeError("[/a/pair.cc:534] Connection closed by peer [127.0.0.1]:5")
    assert peer_failure(lost) is lost
    with pytest.raises(KeyboardInterrupt) as ended:
        try:
            raise lost
        finally:
            raise KeyboardInterrupt
    assert peer_failure(ended.value) is lost
    assert first_line(lost) == "Connection closed by peer [127.0.0.1]:5"
    assert peer_failure(KeyboardInterrupt()) is None
    assert peer_failure(RuntimeError("shapes differ")) is None
