"""A model as one file: a plain zip of its weights, manifest and history, validated completely on import."""

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
from ddpmctl.registry.manifest import MAX_BYTES, Manifest
from ddpmctl.registry.store import Registry
from ddpmctl.registry.writer import OTHER_NAME, check_name, is_valid_name

MEMBERS = (WEIGHTS, MANIFEST, HISTORY)
CARD = "README.md"
"""Human-readable; ignored on import."""

MAX_COMPRESSION = 100
"""Unpacked size over packed size: weights hardly compress at all, and a history never so well."""

HINT = "create one: ddpmctl export MODEL FILE.zip"


def pack(checkpoint: Checkpoint, licence: str | None) -> bytes:
    """A model without its training state as an archive, whose model card names the licence."""
    files = {name: checkpoint.read(name) for name in (WEIGHTS, HISTORY)}
    records = {name: checkpoint.manifest.files[name] for name in files}
    manifest = replace(_without_folder(checkpoint.manifest), resume=None, files=records)
    files[MANIFEST] = manifest.to_json().encode()
    files[CARD] = card(replace(checkpoint, manifest=manifest), licence).encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            # A fixed date: the same model always produces the same archive.
            member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            member.external_attr = 0o644 << 16
            archive.writestr(member, data)
    return packed.getvalue()


def pack_weights(checkpoint: Checkpoint, licence: str | None) -> bytes:
    """The weights alone as safetensors, with the config in the metadata."""
    from safetensors.numpy import save

    manifest = _without_folder(checkpoint.manifest)
    metadata = {
        "made_by": "ddpmctl",
        "config": json.dumps(manifest.config.to_dict()),
        "classes": json.dumps(manifest.classes),
        "dataset": manifest.dataset.name,
        "digest": checkpoint.digest,
        "licence": licence or NO_LICENCE,
    }
    return save(checkpoint.weights(), metadata=metadata)


def _without_folder(manifest: Manifest) -> Manifest:
    """The manifest without the path of the user's images."""
    return replace(manifest, dataset=replace(manifest.dataset, name=without_folder(manifest.dataset.name)))


def without_folder(dataset: str) -> str:
    """The name of a dataset without the parents of its folder."""
    kind, _, path = dataset.partition(":")
    return f"{kind}:{Path(path).name}" if "/" in path or "\\" in path else dataset


def import_archive(registry: Registry, path: Path, name: str | None) -> Path:
    """Add a model from an archive to the registry and return the directory of its checkpoint.

    Without ``name``, the model is named after the file, or after its dataset and preset if that is not a valid name.
    """
    if name is not None:
        check_name(name)
    files = read_archive(path)
    with tempfile.TemporaryDirectory() as folder:
        for member, data in files.items():
            (Path(folder) / member).write_bytes(data)
        # The common loader decides whether it is a model.
        try:
            checkpoint = Checkpoint.open(str(path), Path(folder))
            checkpoint.verify()
        except CheckpointError as error:
            reason = error.message.replace(f"{folder}/", "").removeprefix("damaged checkpoint: ")
            raise _refusal(path, reason) from error
        manifest = checkpoint.manifest
    if manifest.resume is not None:
        raise _refusal(path, "its manifest refers to a training state that it does not contain")
    file_name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-_")[:64]
    stem = f"{manifest.dataset.name.partition(':')[0]}-{manifest.preset}"
    name = name or (file_name if is_valid_name(file_name) else None)
    with registry.writer(name, stem, hint=OTHER_NAME) as writer:
        kept = {WEIGHTS: files[WEIGHTS], HISTORY: files[HISTORY]}
        return writer.save_files(kept, manifest, best=True, last=True)


def read_archive(path: Path) -> dict[str, bytes]:
    """The files of an archive by name; raises CheckpointError for anything that `pack` would not write.

    No name in the archive is used as a path, and nothing is unpacked beyond the size of a model.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            names = sorted(info.filename for info in archive.infolist())
            if names not in (sorted(MEMBERS), sorted((*MEMBERS, CARD))):
                raise ValueError(f"it must contain exactly {', '.join(MEMBERS)}, and optionally {CARD}")
            for member in members.values():
                _check_member(member, size)
            manifest = Manifest.from_json(_read_member(archive, members[MANIFEST]).decode())
            for name, record in manifest.files.items():
                if name in members and members[name].file_size != record.size:
                    raise ValueError(f"{name} does not have the size in the manifest")
            return {name: _read_member(archive, members[name]) for name in MEMBERS}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} does not exist", HINT) from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}", HINT) from error
    except (ValueError, RuntimeError, LookupError, EOFError, OverflowError, zipfile.BadZipFile, zlib.error) as error:
        raise _refusal(path, str(error)) from error


def _refusal(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(f"{path} is not an archive of a model: {reason}", HINT)


def _check_member(member: zipfile.ZipInfo, size: int) -> None:
    """Check an entry of the table of contents of an archive of ``size`` bytes; raises ValueError."""
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise ValueError(f"{member.filename} is not a regular file")
    if member.flag_bits & 1:
        raise ValueError(f"{member.filename} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} uses an unsupported compression method")
    if member.compress_size > size:
        raise ValueError(f"{member.filename} is longer than the archive")
    if member.file_size > MAX_COMPRESSION * (member.compress_size + 100):
        raise ValueError(f"{member.filename} unpacks to {member.file_size} bytes from {member.compress_size}")
    if member.filename == MANIFEST and member.file_size > MAX_BYTES:
        raise ValueError("its manifest is too large")


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """A member's bytes; no more than its declared size is ever unpacked."""
    with archive.open(member) as opened:
        data = opened.read(member.file_size + 1)
    if len(data) != member.file_size:
        raise ValueError(f"{member.filename} does not have the size in the archive's table of contents")
    return data
