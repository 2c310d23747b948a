"""Export of a model to a file; the extension says what the file is for."""

from pathlib import Path

from ddpmctl.durable import replace_file
from ddpmctl.errors import DdpmctlError, Setting, UsageError
from ddpmctl.paths import check_writable
from ddpmctl.registry import Checkpoint, open_model
from ddpmctl.registry.archive import pack, pack_weights

FORMATS = {
    ".html": "a web page that samples",
    ".onnx": "the network for other runtimes",
    ".zip": "the model as an archive for ddpmctl models import",
    ".safetensors": "the weights alone",
}

LICENSED = (".zip", ".safetensors", ".onnx")
"""Formats that name a licence."""


def check_export(path: Path, licence: str | None) -> None:
    """Check the arguments of `export` before the model is opened."""
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise UsageError(f"unsupported extension: {path}", f"one of: {', '.join(path.stem + each for each in FORMATS)}")
    if licence is not None and kind not in LICENSED:
        raise UsageError(f"a {kind} file names no licence", "omit ", Setting("licence"))
    if licence is not None and (not licence.strip() or "\n" in licence or len(licence) > 100):
        raise UsageError("invalid licence name", Setting("licence", "CC0-1.0"))
    check_writable(path)
    if kind == ".onnx":
        from ddpmctl.exports.onnx import check_installed

        check_installed()


def export(model: Checkpoint | str, path: Path | str, licence: str | None = None) -> int:
    """Write a model without its training state to one file, which is overwritten.

    Args:
        model: a checkpoint, or the name or path of a model.
        path: ``.html`` for a web page that samples, ``.onnx`` for the network, ``.zip`` for an archive,
            ``.safetensors`` for the weights alone with their config in the metadata.
        licence: an SPDX name for the model card or the metadata.

    Returns:
        The size of the file in bytes.
    """
    path = Path(path)
    check_export(path, licence)
    data = _contents(model if isinstance(model, Checkpoint) else open_model(model), path.suffix.lower(), licence)
    try:
        replace_file(path, data)
    except OSError as error:
        raise DdpmctlError(f"cannot write {path}: {error.strerror}", "choose a different folder") from error
    return len(data)


def _contents(checkpoint: Checkpoint, kind: str, licence: str | None) -> bytes:
    if kind == ".html":
        from ddpmctl.exports.page import build_page

        return build_page(checkpoint).encode()
    if kind == ".onnx":
        from ddpmctl.exports.onnx import build_onnx

        return build_onnx(checkpoint, licence)
    return pack(checkpoint, licence) if kind == ".zip" else pack_weights(checkpoint, licence)
