"""Measurements that take minutes each, and `all` of them some three hours; nothing here is a test.

    python -m tests.benchmarks all --data-dir DATA

DATA is the folder that holds MNIST/raw. Install '.[bench]' first: it brings the libraries that are compared.
"""

import argparse
from pathlib import Path

from .contenders import CONTENDERS
from .device import device, full, with_compile
from .growth import growth
from .original import original
from .pages import pages
from .previews import previews
from .saving import saving
from .scaling import scaling
from .side_by_side import compare, one
from .speed import race, sampling, training
from .startup import startup
from .students import students

KINDS = (
    "startup",
    "training",
    "sampling",
    "saving",
    "growth",
    "side-by-side",
    "race",
    "previews",
    "original",
    "scaling",
    "students",
    "pages",
    "device",
    "all",
    "one",
)


def main() -> None:
    """Run one kind, or all of them one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=5, help="of training, side by side and of an original")
    parser.add_argument(
        "-n", type=int, help="digits: 100 side by side, 500 in sampling, 1000 in the race, 4000 in scaling"
    )
    parser.add_argument("--most", type=float, default=30, help="times as long, in the race")
    parser.add_argument("--name", action="append", choices=list(CONTENDERS), help="only this one, side by side")
    parser.add_argument(
        "--model",
        action="append",
        help="a registered model: teacher in students, or of pages",
    )
    parser.add_argument("--device", default="auto", help="to train on, in device")
    parser.add_argument("--compile", action="store_true", help="in device: training with --compile, and nothing else")
    parser.add_argument("--full", action="store_true", help="in device: all 150 epochs, and nothing else")
    parser.add_argument("-o", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.n is not None and given.n < 100:
        parser.error("fewer than 100 digits say nothing")
    teacher = given.model[0] if given.model else None
    names = given.name or list(CONTENDERS)
    if given.kind == "one":
        one(given.data_dir, names[0], given.minutes, given.n, given.o)
        return
    ways = {
        "startup": lambda: startup(given.data_dir),
        "training": lambda: training(given.data_dir),
        "sampling": lambda: sampling(given.data_dir, given.n or 500),
        "saving": lambda: saving(given.data_dir),
        "growth": lambda: growth(given.data_dir),
        "side-by-side": lambda: compare(given.data_dir, given.minutes, given.n or 100, names),
        "previews": lambda: previews(given.data_dir),
        "original": lambda: original(given.data_dir, given.minutes),
        "scaling": lambda: scaling(given.data_dir, given.n or 4000),
        "students": lambda: students(given.data_dir, given.n or 10_000, teacher, min(given.minutes, 3)),
        "pages": lambda: pages(given.model or ["latest"]),
        "device": lambda: (full if given.full else with_compile if given.compile else device)(
            given.data_dir, given.device
        ),
        "race": lambda: race(given.data_dir, given.n or 1000, given.most),
    }
    for kind in ways if given.kind == "all" else [given.kind]:
        print(f"\n## {kind}\n", flush=True)
        ways[kind]()


if __name__ == "__main__":
    main()
