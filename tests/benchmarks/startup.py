"""Start-up time of commands, relative to `import torch`, and memory of the large ones.

python -m tests.benchmarks startup --data-dir DATA
"""

import statistics
import sys
import tempfile
from pathlib import Path

from .machine import Ran, about_this_machine, band, ddpmctl, markdown, run

ROUNDS = 7


def completion(home: Path, shell: str) -> Ran:
    """Ask as a shell does after ``ddpmctl grid --model m``."""
    typed = "ddpmctl grid --model m"
    asked = {"COMP_WORDS": typed, "COMP_CWORD": "3", "_TYPER_COMPLETE_ARGS": typed}
    asked |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args", "_DDPMCTL_COMPLETE": f"complete_{shell}"}
    program = "import sys; sys.argv = ['ddpmctl']; from ddpmctl.cli.main import main; main()"
    done = run(sys.executable, "-c", program, **asked, DDPMCTL_HOME=str(home))
    assert "mnist-quick-1" in done.stdout, done.stdout
    return done


def startup(data_dir: Path) -> None:
    """Time whole processes in turn, so that a slow moment of the machine hits all of them, and weigh three."""
    print(about_this_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        training = ddpmctl(
            home, "train", "--preset", "quick", "--max-time", "20s", "--device", "cpu", "--data-dir", data_dir
        )
        ways = {
            "import torch": lambda: run(sys.executable, "-c", "import torch"),
            "ddpmctl generate 8 -o eight.png": lambda: ddpmctl(
                home, "generate", 8, "-o", home / "eight.png", "--device", "cpu"
            ),
            "ddpmctl --help": lambda: ddpmctl(home, "--help"),
            "ddpmctl models": lambda: ddpmctl(home, "models"),
            "completing the name of a model in bash": lambda: completion(home, "bash"),
            "completing it in zsh": lambda: completion(home, "zsh"),
            "completing it in fish": lambda: completion(home, "fish"),
            "ddpmctl inspect": lambda: ddpmctl(home, "inspect"),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                times[name].append(way().seconds)
        torch_time = statistics.median(times["import torch"])
        rows = [[name, band(t, " s"), f"{statistics.median(t) / torch_time:.2f}"] for name, t in times.items()]
        print(markdown(["", "median of 7", "of import torch"], rows))
        few, many = (
            ddpmctl(
                home, "generate", *range(10), "-n", each, "--steps", 2, "-o", home / "x.npz", "-q", "--device", "cpu"
            ).peak
            for each in (100, 1000)
        )
        grown = 9000 * 32 * 32 / 2**20
        print(f"\nquick training: peak {training.peak:,.0f} MiB")
        print(
            f"1,000 images to an .npz: {few:,.0f} MiB; 10,000: {many:,.0f} MiB, where 9,000 more images are {grown:.1f}"
        )
