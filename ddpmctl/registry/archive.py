"""A model as one file: a plain zip of its weights, its manifest and its history, and the suspicious way back."""

import io
import json
import re
import stat
import tempfile
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

from ddpmctl.errors import CheckpointError
from ddpmctl.registry.card import NO_LICENCE, card
from ddpmctl.registry.checkpoint import HISTORY, MANIFEST, WEIGHTS, Checkpoint
from ddpmctl.registry.durable import replace_file
from ddpmctl.registry.manifest import MAX_BYTES, Manifest
from ddpmctl.registry.store import Registry
from ddpmctl.registry.writer import check_name, fit_name

MEMBERS = (WEIGHTS, MANIFEST, HISTORY)
CARD = "README.md"
"""For people; nothing is read from it."""

UNPACKS_TO = 100
"""Times its packed size: weights hardly pack at all, and a history never so well."""

HINT = "ddpmctl models export MODEL FILE.zip makes one"


def export(checkpoint: Checkpoint, path: Path, licence: str | None = None) -> int:
    """Write a model to an archive, in the place of what was there; the state of its training is left out.

    Args:
        checkpoint: the model.
        path: of the archive.
        licence: for its card; None for none chosen.

    Returns:
        Its size in bytes.

    Raises:
        CheckpointError: for a damaged model.
        OSError: where it cannot be written.
    """
    files = {name: checkpoint.read(name) for name in (WEIGHTS, HISTORY)}
    records = {name: checkpoint.manifest.files[name] for name in files}
    manifest = replace(_without_places(checkpoint.manifest), resume=None, files=records)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        told = {
            MANIFEST: manifest.to_json().encode(),
            CARD: card(replace(checkpoint, manifest=manifest), licence).encode(),
        }
        for name, data in {**files, **told}.items():
            # A fixed date: the same model makes the same archive.
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
    replace_file(path, packed.getvalue())
    return len(packed.getvalue())


def export_weights(checkpoint: Checkpoint, path: Path, licence: str | None = None) -> int:
    """Write the bare weights, with what is needed to build their network in the metadata; the rest as `export`."""
    from safetensors.numpy import save

    manifest = _without_places(checkpoint.manifest)
    about = {
        "made_by": "ddpmctl",
        "config": json.dumps(manifest.config.to_dict()),
        "classes": json.dumps(manifest.classes),
        "dataset": manifest.dataset.name,
        "digest": checkpoint.digest,
        "licence": licence or NO_LICENCE,
    }
    data = save(checkpoint.weights(), metadata=about)
    replace_file(path, data)
    return len(data)


def _without_places(manifest: Manifest) -> Manifest:
    """The manifest without the place where its owner keeps the images, which is nobody's business."""
    return replace(manifest, dataset=replace(manifest.dataset, name=without_place(manifest.dataset.name)))


def without_place(dataset: str) -> str:
    """The name of a dataset without the folders above its own."""
    kind, _, place = dataset.partition(":")
    return f"{kind}:{Path(place).name}" if "/" in place or "\\" in place else dataset


def import_archive(registry: Registry, path: Path, name: str | None) -> Path:
    """Take a model from an archive into the registry.

    Args:
        registry: where to.
        path: of the archive.
        name: for the model; None for the file's, or a made-up one where that is not fit.

    Returns:
        The directory of its one commit.

    Raises:
        CheckpointError: when it is not such an archive; nothing is left then.
        UsageError: for a bad or taken name.
    """
    if name is not None:
        check_name(name)
    files = read_archive(path)
    with tempfile.TemporaryDirectory() as folder:
        for member, data in files.items():
            (Path(folder) / member).write_bytes(data)
        # The one loader says whether it is a model.
        try:
            checkpoint = Checkpoint.open(str(path), Path(folder))
            checkpoint.verify()
        except CheckpointError as error:
            reason = error.message.replace(f"{folder}/", "").removeprefix("damaged checkpoint: ")
            raise CheckpointError(f"{path} is no archive of a model: {reason}", HINT) from error
        manifest = checkpoint.manifest
    if manifest.resume is not None:
        raise CheckpointError(f"{path} is no archive of a model: it speaks of a training that is not in it", HINT)
    made_up = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-_")[:64]
    stem = f"{manifest.dataset.name.partition(':')[0]}-{manifest.preset}"
    with registry.writer(
        name or (made_up if fit_name(made_up) else None), stem, hint="choose another --name"
    ) as writer:
        return writer.put({WEIGHTS: files[WEIGHTS], HISTORY: files[HISTORY]}, manifest, best=True, last=True)


def read_archive(path: Path) -> dict[str, bytes]:
    """The files of an archive by name. No name in it is used, and nothing is unpacked that cannot be a model's.

    Raises:
        CheckpointError: for anything that `export` would not write.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            names = sorted(info.filename for info in archive.infolist())
            if names not in (sorted(MEMBERS), sorted((*MEMBERS, CARD))):
                raise ValueError(f"it does not hold {', '.join(MEMBERS)} and nothing else")
            for member in members.values():
                _check(member, size)
            manifest = Manifest.from_json(_bounded(archive, members[MANIFEST]).decode())
            for name, record in manifest.files.items():
                if name in members and members[name].file_size != record.size:
                    raise ValueError(f"{name} has not the size that the manifest gives")
            return {name: _bounded(archive, members[name]) for name in MEMBERS}
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no file {path}", HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", HINT) from error
    except (ValueError, RuntimeError, LookupError, EOFError, OverflowError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path} is no archive of a model: {error}", HINT) from error


def _check(member: zipfile.ZipInfo, size: int) -> None:
    """See that a member can be part of an archive of this size, as far as the table of contents tells.

    Raises:
        ValueError: when it cannot.
    """
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise ValueError(f"{member.filename} is no regular file")
    if member.flag_bits & 1:
        raise ValueError(f"{member.filename} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is packed in an unusual way")
    if member.compress_size > size:
        raise ValueError(f"{member.filename} is longer than the archive")
    if member.file_size > UNPACKS_TO * (member.compress_size + 100):
        raise ValueError(f"{member.filename} unpacks to {member.file_size} bytes from {member.compress_size}")
    if member.filename == MANIFEST and member.file_size > MAX_BYTES:
        raise ValueError("its manifest is far too large")


def _bounded(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes; no more than its size is ever unpacked."""
    with archive.open(member) as opened:
        data = opened.read(member.file_size + 1)
    if len(data) != member.file_size:
        raise ValueError(f"{member.filename} has not the size that the archive gives")
    return data
