"""Start-up: imports per command, and messages for broken installations."""

import json
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from ddpmctl.cli.group import SUMMARIES
from tests.conftest import ROOT, Cli, clean_environment

from .support import complaint

HEAVY = ("torch", "torchvision", "cv2")

PROBE = """
import json, runpy, sys
sys.argv = ["ddpmctl", *json.loads(sys.argv[1])]
try:
    runpy.run_module("ddpmctl", run_name="__main__")
except SystemExit as ended:
    print(json.dumps([ended.code or 0, sorted(sys.modules)]))
"""


def imported(home: Path, folder: Path, *arguments: str) -> tuple[int, set[str]]:
    """The exit code of a command, and which of the heavy packages it imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(arguments)],
        cwd=folder,
        env=clean_environment(home),
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    return code, set(HEAVY).intersection(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["models"],
        ["models", "ls", "--json"],
        ["inspect"],
        ["inspect", "tiny", "--layers", "--history", "--json"],
        ["plugins"],
        *([command, "--help"] for command in SUMMARIES),
    ],
    ids=" ".join,
)
def test_what_only_looks_imports_neither_torch_nor_opencv(
    tiny_home: Path, tmp_path: Path, arguments: list[str]
) -> None:
    assert imported(tiny_home, tmp_path, *arguments) == (0, set())


def test_what_is_typed_wrong_is_refused_without_torch(tiny_home: Path, tmp_path: Path) -> None:
    assert imported(tiny_home, tmp_path, "train", "--epochs", "0") == (2, set())
    assert imported(tiny_home, tmp_path, "generate", "--steps", "0", "8") == (2, set())


def test_the_schedule_takes_torch_and_no_more(tiny_home: Path, tmp_path: Path) -> None:
    assert imported(tiny_home, tmp_path, "inspect", "--schedule") == (0, {"torch"})


def test_generate_takes_torch_and_no_torchvision(tiny_home: Path, tmp_path: Path) -> None:
    assert imported(tiny_home, tmp_path, "generate", "8", "--steps", "1") == (0, {"torch"})


def test_importing_ddpmctl_imports_no_torch() -> None:
    code = "import ddpmctl, sys; assert ddpmctl.__version__; print(sorted({'torch', 'cv2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_version_is_the_installed_one_however_it_is_called(cli: Cli, tmp_path: Path) -> None:
    expected = f"ddpmctl {metadata.version('ddpmctl')}\n"
    done = cli("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    script = Path(sysconfig.get_path("scripts"), "ddpmctl")
    called = subprocess.run(
        [script, "--version"], env=clean_environment(tmp_path), capture_output=True, text=True, check=True
    )
    assert called.stdout == expected


UNINSTALLED = """
import runpy, sys
from importlib import metadata

whole = metadata.Distribution.discover.__func__

def without_ddpmctl(cls, **wanted):
    return (found for found in whole(cls, **wanted) if found.metadata["Name"] != "ddpmctl")

metadata.Distribution.discover = classmethod(without_ddpmctl)
sys.argv = ["ddpmctl", *sys.argv[1:]]
runpy.run_module("ddpmctl", run_name="__main__")
"""


@pytest.mark.parametrize("arguments", [["models"], ["--help"], ["generate", "8"]])
def test_a_checkout_that_is_not_installed_says_so(tmp_path: Path, arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNINSTALLED, *arguments],
        cwd=tmp_path,
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert complaint(done, 1) == ("ddpmctl is not installed (running from a source checkout)", "pip install -e .")


def fake(folder: Path, name: str, error: str) -> str:
    """A folder for PYTHONPATH whose package of that name fails on import."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"raise {error}\n")
    return str(folder)


@pytest.fixture
def broken_torchvision(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("fake")
    return fake(folder, "torchvision", "RuntimeError('operator torchvision::nms does not exist')")


@pytest.fixture
def broken_cv2(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("fake")
    words = "libGL.so.1: cannot open shared object file: No such file or directory"
    return fake(folder, "cv2", f"ImportError('{words}')")


@pytest.mark.slow
def test_torchvision_of_another_build_than_torch_is_said_in_words(cli: Cli, broken_torchvision: str) -> None:
    done = cli("info", PYTHONPATH=broken_torchvision)
    assert done.returncode == 0
    assert (
        "torchvision is not compatible with the installed torch: operator torchvision::nms does not exist; "
        "install a matching pair: pip install --force-reinstall torch torchvision"
    ) in " ".join(done.stdout.split())
    # It reads the files of MNIST and is not needed for anything else.
    trained = cli("train", "--preset", "quick", "--dataset", "strokes:50", "--epochs", 1, PYTHONPATH=broken_torchvision)
    assert trained.returncode == 0, trained.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "8", "--upscale", "4", "-o", "x.png"],
        ["train", "--preset", "quick", "--dataset", "strokes:50", "--epochs", "1", "--name", "new"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_opencv_without_its_system_packages_is_said_in_words(
    tiny: Cli, tiny_home: Path, tmp_path: Path, broken_cv2: str, arguments: list[str]
) -> None:
    assert complaint(tiny(*arguments, PYTHONPATH=broken_cv2), 1) == (
        "OpenCV cannot be loaded: libGL.so.1: cannot open shared object file: No such file or directory",
        "it links system libraries; on Debian and Ubuntu: apt-get install libgl1 libglib2.0-0",
    )
    assert list(tmp_path.iterdir()) == []
    assert not (tiny_home / "models" / "new").exists()


def test_what_enlarges_nothing_works_though_opencv_is_broken(tiny: Cli, broken_cv2: str) -> None:
    assert tiny("generate", "8", "--steps", 1, PYTHONPATH=broken_cv2).stdout == "eight.png\n"


MAPPING = "libtorch_cpu.so: failed to map segment from shared object"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "why"),
    [
        (f"ImportError({MAPPING!r})", MAPPING),
        ("OSError(12, 'Cannot allocate memory')", "[Errno 12] Cannot allocate memory"),
        ('RuntimeError("can\'t start new thread")', "can't start new thread"),
        ("ImportError('\\n\\nPLEASE READ THIS\\nlibopenblas.so: cannot allocate memory\\n')",
         "libopenblas.so: cannot allocate memory"),
    ],
    ids=["segment", "ctypes", "thread", "page"],
)  # fmt: skip
@pytest.mark.parametrize("typed", ["generate 8", "train --dataset strokes:20 --preset quick --name new"])
def test_too_little_memory_to_import_torch(
    tiny: Cli, tiny_home: Path, tmp_path: Path, typed: str, error: str, why: str
) -> None:
    broken = fake(tmp_path / "fake", "torch", error)
    assert complaint(tiny(*typed.split(), PYTHONPATH=f"{broken}:{ROOT}"), 1) == (
        f"there is not enough memory: {why}",
        "close other programs, or raise the limit of this process (ulimit -v)",
    )
    assert not (tiny_home / "models" / "new").exists()
    assert tiny("info", PYTHONPATH=f"{broken}:{ROOT}").returncode == 0


def missing(folder: Path, package: str, name: str = "") -> str:
    """A folder for PYTHONPATH in which a package is missing, or cannot find another one."""
    name = name or package
    return fake(folder, package, f"ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "name", "install"),
    [
        ("torch", "torch", "torch"),
        ("torch", "sympy", "sympy"),
        ("PIL", "PIL", "pillow"),
        ("typer", "typer", "typer"),
        ("typer", "pydantic", "pydantic"),
        ("rich", "rich", "rich"),
        ("filelock", "filelock", "filelock"),
    ],
)
def test_a_package_that_is_missing_is_named(tiny: Cli, tmp_path: Path, package: str, name: str, install: str) -> None:
    absent = missing(tmp_path / "fake", package, name)
    assert complaint(tiny("generate", "8", PYTHONPATH=f"{absent}:{ROOT}"), 1) == (
        f"the package {install} is not installed",
        f"pip install {install}",
    )


def test_a_package_that_is_broken_is_named(tiny: Cli, tmp_path: Path) -> None:
    broken = fake(tmp_path / "fake", "safetensors", "ImportError('undefined symbol: x', name='safetensors')")
    assert complaint(tiny("generate", "8", PYTHONPATH=f"{broken}:{ROOT}"), 1) == (
        "the package safetensors cannot be imported: undefined symbol: x",
        "pip install --force-reinstall safetensors",
    )


def test_opencv_that_is_missing_is_named(tiny: Cli, tmp_path: Path) -> None:
    absent = missing(tmp_path / "fake", "cv2")
    error, hint = complaint(tiny("generate", "8", "--upscale", 4, PYTHONPATH=f"{absent}:{ROOT}"), 1)
    assert (error, hint) == ("the package opencv-python is not installed", "pip install opencv-python")
    assert tiny("info", PYTHONPATH=f"{absent}:{ROOT}").returncode == 0
