"""``ddpmctl export``: what it writes, and what it refuses before anything is written."""

import os
from pathlib import Path

import pytest

from tests.cli.support import complaint, reported
from tests.conftest import Cli


def test_a_page_is_written_and_named(tiny: Cli, tmp_path: Path) -> None:
    done = tiny("export", "tiny", "play.html")
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "play.html").stat().st_size
    assert done.stdout == "play.html\n" and "open it in a browser" in done.stderr and size > 1_000_000
    told = reported(tiny("export", "tiny", "play.html", "--json"), "export")
    assert told == {"model": "tiny", "file": "play.html", "bytes": size}


@pytest.mark.parametrize(
    ("typed", "code", "error", "hint"),
    [
        ("tni x.html", 1, "unknown model 'tni'", None),
        ("tiny x.pt", 2, "unsupported extension: x.pt", "one of: x.html, x.onnx, x.zip, x.safetensors"),
        ("tiny folder", 1, "unsupported extension: folder", None),
        ("tiny folder.html", 1, "folder.html is a folder", None),
        ("tiny no/x.html", 1, "the folder no does not exist", "mkdir -p 'no'"),
        ("tiny x.html --licence MIT", 2, "a .html file names no licence", "omit --licence"),
        ("tiny x.zip --licence=", 2, "invalid licence name", None),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    tiny: Cli, tmp_path: Path, typed: str, code: int, error: str, hint: str | None
) -> None:
    for name in ("folder", "folder.html"):
        (tmp_path / name).mkdir()
    done = tiny("export", *typed.split())
    said = complaint(done, 2 if "extension" in error else code)
    assert said[0].startswith(error)
    assert hint is None or said[1] == hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "folder.html"]


@pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/full").exists(), reason="needs root and /dev/full")
def test_a_disk_that_is_full_leaves_nothing(tiny: Cli, tmp_path: Path) -> None:
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        error, hint = complaint(tiny("export", "tiny", "small/x.html"), 1)
        assert error == "cannot write small/x.html: No space left on device"
        assert hint == "choose a different folder" and list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
