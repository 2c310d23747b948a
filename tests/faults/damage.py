"""Corrupt files: flipped bits, truncation, fuzzing. Each must give a clear error with little memory."""

import json
import random
import resource
import tempfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np

from ddpmctl.errors import CheckpointError, DataError
from ddpmctl.exports.api import export
from ddpmctl.registry import Manifest, Registry
from ddpmctl.registry.archive import import_archive
from tests.builders import commit, reseal, rewrite_manifest

from .actions import RESUME, STATE
from .tally import Tally

MOST_MEMORY = 512 * 2**20
SHRAPNEL = (b"", b"0", b"-1", b"1e999", b'"', b"{", b"}", b"[", b",", b":", b"null", b"\xff", b"9" * 500, b"../", b"\0")


def flipped(share: int, seed: int) -> Tally:
    """Every bit of every file of a small checkpoint, or one of so many; and every length that is too short."""
    fault = "a bit flipped in a checkpoint or its pointers" + (f", one in {share}" if share > 1 else "")
    tally = Tally(fault, None if share == 1 else seed)
    _damage(tally, lambda data: _flips(data, share, random.Random(seed)))
    return tally


def truncated(share: int, seed: int) -> Tally:
    """Every proper beginning of every file, or one of so many."""
    fault = "a file of a checkpoint or a pointer cut short" + (f", one in {share}" if share > 1 else "")
    tally = Tally(fault, None if share == 1 else seed)
    generator = random.Random(seed)
    _damage(tally, lambda data: (data[:k] for k in range(len(data)) if generator.randrange(share) == 0))
    return tally


def _flips(data: bytes, share: int, generator: random.Random) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        if generator.randrange(share) == 0:
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            yield bytes(damaged)


def _damage(tally: Tally, damages: Callable[[bytes], Iterator[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        with registry.writer("tiny", "") as writer:
            commit(writer, 10, state=STATE, resume=RESUME)
            commit(writer, 20, best=False, state=STATE, resume=RESUME)
        files = [path for path in (registry.models / "tiny").rglob("*") if path.is_file()]
        for path in sorted(files):
            whole = path.read_bytes()
            for number, data in enumerate(damages(whole)):
                path.write_bytes(data)
                tally.trials += 1
                try:
                    for checkpoint in registry.checkpoints("tiny"):
                        checkpoint.verify()
                    tally.failures.append(f"{path.name}, case {number}: not seen")
                except CheckpointError:
                    pass
                except Exception as error:
                    tally.failures.append(f"{path.name}, case {number}: {type(error).__name__}: {error}")
            path.write_bytes(whole)
        registry.open("tiny").verify()


def fuzzed_manifests(trials: int, seed: int) -> Tally:
    """Manifests with pieces replaced; half of them with the checksum put right, so that the rest is looked at."""
    tally, generator = Tally("a made-up manifest", seed), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        with registry.writer("tiny", "") as writer:
            text = (commit(writer, 10, state=STATE, resume=RESUME) / "manifest.json").read_bytes()
    for trial in range(trials):
        changed = _mutated(text, generator)
        data = changed.decode(errors="replace")
        sealed = bool(trial % 2)
        made = reseal(data) if sealed else data
        taken = _try(tally, f"case {trial}", lambda made=made: Manifest.from_json(made), ValueError)  # type: ignore[misc]
        tally.expect(sealed or not taken or changed == text, f"case {trial}: taken with a wrong checksum")
    return tally


def fuzzed_weights(trials: int, seed: int) -> Tally:
    """Weights for which the manifest vouches, with another header."""
    tally, generator = Tally("a made-up safetensors file that its manifest vouches for", seed), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder))
        with registry.writer("tiny", "") as writer:
            path = commit(writer, 10)
        weights = path / "weights.safetensors"
        whole = weights.read_bytes()
        values = json.loads((path / "manifest.json").read_text())
        for trial in range(trials):
            data = _mutated(whole, generator)
            if trial % 3 == 0:
                data = generator.choice((0, 1, 8, 2**31, 2**63)).to_bytes(8, "little") + data[8:]
            weights.write_bytes(data)
            record = {"sha256": sha256(data).hexdigest(), "size": len(data)}
            rewrite_manifest(path, {**values, "files": {**values["files"], "weights.safetensors": record}})
            _try(tally, f"case {trial}", lambda: registry.open("tiny").verify(), CheckpointError)
    return tally


def fuzzed_archives(trials: int, seed: int) -> Tally:
    """Archives with bytes changed: nothing lands that is not a whole model."""
    tally, generator = Tally("a made-up archive", seed), random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        registry, path = Registry(Path(folder)), Path(folder) / "tiny.zip"
        with registry.writer("tiny", "") as writer:
            commit(writer, 10)
        export(registry.open("tiny"), path)
        whole = path.read_bytes()
        for trial in range(trials):
            path.write_bytes(_mutated(whole, generator))
            landed = _try(tally, f"case {trial}", lambda: import_archive(registry, path, "evil"), CheckpointError)
            if landed:
                registry.open("evil").verify()
                registry.remove("evil")
            tally.expect(registry.names() == ["tiny"], f"case {trial}: something was left")
    return tally


def fuzzed_idx(trials: int, seed: int) -> Tally:
    """Files of MNIST's names and another content: refused before anything is parsed."""
    from ddpmctl.data import load_dataset
    from ddpmctl.data.sources import SOURCES

    tally, generator = Tally("a made-up IDX file", seed), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for trial in range(trials):
            for name in SOURCES["mnist"].files:
                magic = bytes([0, 0, 8, 3 if "images" in name else 1])
                (raw / name).write_bytes(magic + generator.bytes(int(generator.integers(0, 64))))
            taken = _try(tally, f"case {trial}", lambda: load_dataset("mnist", 32, Path(folder)), DataError)
            tally.expect(not taken, f"case {trial}: taken for MNIST")
    return tally


def _mutated(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.randint(1, 4)):
        start = generator.randrange(len(changed) or 1)
        kind = generator.randrange(3)
        if kind == 0:
            changed[start : start + generator.randint(0, 8)] = generator.choice(SHRAPNEL)
        elif kind == 1:
            changed[start : start + 4] = generator.randbytes(4)
        else:
            del changed[start : start + generator.randint(1, 60)]
    return bytes(changed)


def _try(tally: Tally, case: str, attempt: Callable[[], object], refusal: type[Exception]) -> bool:
    """Count an attempt: it may succeed or be refused, and take little memory; says whether it succeeded."""
    tally.trials += 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        attempt()
    except refusal as error:
        tally.expect(bool(str(error)), f"{case}: refused without a word")
        succeeded = False
    except Exception as error:
        tally.failures.append(f"{case}: {type(error).__name__}: {error}")
        succeeded = False
    else:
        succeeded = True
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    tally.expect(grown < MOST_MEMORY, f"{case}: took {grown:,} bytes")
    return succeeded
