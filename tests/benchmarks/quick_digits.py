"""Label accuracy of a ``quick`` model over training time.

    python -m tests.benchmarks.quick_digits --max-time 90s

Trains on the real MNIST in a home of its own, generates the same number of each digit with the recommended sampler,
and has the small classifier in ``tests/`` read them. Names the machine, since the time depends on it.
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import numpy as np

from tests.digit_classifier import classify

from .machine import ddpmctl


def main() -> None:
    """Train, generate, read, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max-time", default="90s", help="training time, as in ddpmctl train")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--model", help="a model that is there, instead of training one")
    parser.add_argument("-n", type=int, default=100, help="images a digit")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(os.environ["DDPMCTL_HOME"]) if options.model else Path(folder)
        model = options.model or "benchmark"
        if not options.model:
            ddpmctl(home, "train", "--preset", options.preset, "--max-time", options.max_time, "--name", model)
        report = json.loads(ddpmctl(home, "inspect", model, "--json").stdout)["result"]
        archive = Path(folder) / "digits.npz"
        ddpmctl(home, "generate", *range(10), "-n", options.n, "--seed", 0, "--model", model, "-o", archive)
        images = np.load(archive)["images"]
    right = (classify(images) == np.repeat(np.arange(10), options.n)).reshape(10, options.n).mean(axis=1)
    run, sampling = report["run"], report["config"]["sampling"]
    print(f"machine: {run['device']}, {run['precision']}, python {platform.python_version()}")
    rate = run["images"] / run["seconds"]
    print(f"training: {run['images']:,} images in {run['seconds']:.0f} s, {rate:,.0f} images/s")
    low, high = sampling["guidance_interval"]
    guidance = f"guidance {sampling['guidance']:g} from {low:g} to {high:g}"
    print(f"sampling: {sampling['sampler']}, {sampling['steps']} steps, {guidance}")
    print("right by digit: " + ", ".join(f"{digit}: {share:.1%}" for digit, share in enumerate(right)))
    print(f"right of {10 * options.n:,}: {right.mean():.2%}")


if __name__ == "__main__":
    main()
