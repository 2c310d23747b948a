"""Scaling with the number of processes, in training and in sampling.

python -m tests.benchmarks scaling --data-dir DATA -n 4000
"""

import os
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from ddpmctl.registry import Registry, last_of
from ddpmctl.sampling.shards import Job, verify

from .machine import Ran, about_this_machine, band, ddpmctl, markdown, run

ROUNDS = 3
STEPS = 40
SHARDS = 16


def ways() -> list[tuple[int, int]]:
    """Processes and threads of each: all cores to one, one core to one, and a core to each of ever more."""
    cores = len(os.sched_getaffinity(0))
    more = sorted({2, 4, cores})
    return [(1, cores), (1, 1), *((processes, 1) for processes in more)]


def job(home: Path, processes: int, threads: int, *arguments: object) -> Ran:
    """The tool in so many processes; one of them without torchrun."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    command = [sys.executable, *launcher, "-m", "ddpmctl", *arguments]
    return run(*command, DDPMCTL_HOME=str(home), OMP_NUM_THREADS=str(threads))


def scaling(data_dir: Path, count: int) -> None:
    """Images a second by the number of processes; the shards are compared as well."""
    print(about_this_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        _training(home, data_dir)
        print(flush=True)
        _shards(home, data_dir, count)


def _training(home: Path, data_dir: Path) -> None:
    rates: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for number in range(ROUNDS):
        for preset in ("quick", "classic"):
            for processes, threads in ways():
                name = f"{preset}-{processes}-{threads}-{number}"
                about = ("--preset", preset, "--data-dir", data_dir, "--device", "cpu", "--max-steps", STEPS, "--quiet")
                job(home, processes, threads, "train", *about, "--name", name)
                last = last_of(Registry(home).open(name))
                rates[preset, processes, threads].append(float(last.history[-1]["images_per_second"]))
    rows = []
    for (preset, processes, threads), found in rates.items():
        ratio = statistics.median(found) / statistics.median(rates[preset, *ways()[0]])
        rows.append([preset, str(processes), str(threads), band(found), f"{ratio:.2f}"])
    print(markdown(["training", "processes", "threads of each", "images/s", "ratio"], rows))


def _shards(home: Path, data_dir: Path, count: int) -> None:
    ddpmctl(home, "train", "--preset", "quick", "--data-dir", data_dir, "--max-time", "60s", "--name", "it", "--quiet")
    seconds: dict[tuple[int, int], list[float]] = defaultdict(list)
    peaks: dict[tuple[int, int], float] = {}
    digests = set()
    for number in range(ROUNDS):
        for way in ways():
            folder = home / f"{way[0]}-{way[1]}-{number}"
            asked = ("-n", count, "--shard-size", -(-count // SHARDS), "--seed", 0, "--device", "cpu", "-m", "it")
            ran = job(home, *way, "generate", "--all", *asked, "-o", folder, "--quiet")
            seconds[way].append(ran.seconds)
            peaks[way] = max(peaks.get(way, 0.0), ran.peak)
            made = Job.read(folder)
            assert made is not None, "a job was begun"
            digests.add(verify(folder, made).digest)
    first = statistics.median(seconds[ways()[0]])
    rows = [
        [
            str(way[0]), str(way[1]), str(SHARDS), f"{count:,}", band(found, " s"),
            f"{count / statistics.median(found):.0f}", f"{first / statistics.median(found):.2f}", f"{peaks[way]:.0f}",
        ]
        for way, found in seconds.items()
    ]  # fmt: skip
    head = ["processes", "threads of each", "shards", "images", "seconds", "images/s", "ratio", "MiB of the largest"]
    print(markdown(head, rows))
    print(f"\n{'bit for bit the same union' if len(digests) == 1 and '' not in digests else 'THE UNIONS DIFFER'}")
    few = job(home, 1, ways()[0][1], "generate", "--all", "-n", count // 10, "-m", "it", "-o", home / "few", "--quiet")
    print(f"a tenth as many images in one shard, by one process: {few.peak:.0f} MiB")
