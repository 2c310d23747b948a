"""Thread count and wait policy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ddpmctl.threads import UsableCpus, configure_threads, usable_cpus

from .conftest import Cli


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)


def group(root: Path, name: str, **files: str) -> None:
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        (folder / file.replace("__", ".")).write_text(text)


def test_the_quota_of_a_container_counts_and_so_do_those_around_it(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    group(tmp_path, "outer/inner", cpu__max="max 100000\n")
    assert usable_cpus(tmp_path, own).quota is None
    group(tmp_path, "outer", cpu__max="150000 100000\n")
    assert usable_cpus(tmp_path, own).quota == 1.5
    group(tmp_path, "outer/inner", cpu__max="50000 100000\n")
    assert usable_cpus(tmp_path, own).quota == 0.5


def test_version_one_of_control_groups_is_read(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/y\n")
    group(tmp_path, "cpu,cpuacct/docker/x", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    assert usable_cpus(tmp_path, own).quota == 3.0
    group(tmp_path, "cpu,cpuacct/docker/x", cpu__cfs_quota_us="-1\n")
    assert usable_cpus(tmp_path, own).quota is None


@pytest.mark.parametrize("text", ["", "nonsense", "0", "max 0", "1 0", "\x00"])
def test_files_that_say_nothing_set_no_limit(tmp_path: Path, text: str) -> None:
    own = tmp_path / "own"
    own.write_text("0::/x\n")
    group(tmp_path, "x", cpu__max=text)
    assert usable_cpus(tmp_path, own).quota is None
    assert usable_cpus(tmp_path, tmp_path / "missing").quota is None


@pytest.mark.parametrize(
    ("affinity", "quota", "threads"), [(64, 1.5, 2), (64, None, 64), (2, 8.0, 2), (4, 0.2, 1), (64, 3.0, 3)]
)
def test_threads_follow_affinity_and_quota(affinity: int, quota: float | None, threads: int) -> None:
    assert UsableCpus(64, affinity, quota).threads == threads


@pytest.mark.usefixtures("without_torch")
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "2"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE", "OMP_NUM_THREADS": "2"}),
        ({"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "9"}, {"GOMP_SPINCOUNT": "7", "OMP_NUM_THREADS": "9"}),
    ],
)
def test_what_the_user_has_set_stays(
    environment: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddpmctl.threads.usable_cpus", lambda: UsableCpus(64, 64, 1.5))
    configure_threads(environment)
    assert environment == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the platform has no CPU affinity")
def test_both_are_in_force_when_torch_is_loaded(tmp_path: Path) -> None:
    """libgomp reads its environment when it is loaded: the command line must have set it by then."""
    program = (
        "import os, sys\n"
        "os.environ['OMP_DISPLAY_ENV'] = 'true'\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from ddpmctl.cli.main import main\n"
        "sys.argv = ['ddpmctl', 'info', '--json']\n"
        "main()"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    done = subprocess.run([sys.executable, "-c", program], env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if "OPENMP DISPLAY ENVIRONMENT" in done.stderr:  # libgomp, the one that torch brings on Linux
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in done.stderr
    assert '"waiting": "OMP_WAIT_POLICY=PASSIVE"' in done.stdout
    assert '"cpus": "1 of ' in done.stdout
    assert '"threads": "1"' in done.stdout


def test_info_says_how_many_threads_compute_and_how_they_wait(cli: Cli) -> None:
    said = cli("info").stdout
    assert "threads" in said
    assert "OMP_WAIT_POLICY=PASSIVE" in said
