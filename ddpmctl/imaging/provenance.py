"""How a picture was made, written into the picture. No OpenCV: commands that start fast read it.

PNG keeps it in an iTXt chunk, GIF in its comment, WebP in XMP, since Pillow drops a WebP's comment, and an archive of
arrays in an array of its own; each as the same JSON.
"""

import dataclasses
import html
import json
import re
import shlex
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ddpmctl.errors import DataError
from ddpmctl.parsing import parse

KEY = "ddpmctl"
"""The keyword of the chunk, and the name of the array."""

MOST_BYTES = 1_000_000
"""Of a record; none of ours comes near."""

_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:ddpmctl="urn:ddpmctl" ddpmctl:made="{}"/></rdf:RDF></x:xmpmeta>'
)
_XMP_MADE = re.compile(r'ddpmctl:made="([^"]*)"')


Kind = Literal["image", "images", "sheet", "animation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Everything that decided what a picture shows. No date: the same request makes the same bytes.

    Attributes:
        kind: one image, an archive of many, a sheet or an animation.
        model: its name at that time.
        digest: sha256 of its weights.
        labels: class indices of the images in it, in order; empty for an archive, which holds them itself.
        classes: their names.
        seed: of the first image.
        device: ``cpu``, ``cuda`` or ``mps``.
        batch: images sampled together at most.
        upscale: the factor by which it is enlarged.
        command: makes it again.
        versions: of Python and packages, by name.
    """

    kind: Kind
    model: str
    digest: str
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    seed: int
    sampler: str
    steps: int
    guidance: float
    guidance_interval: tuple[float, ...]
    device: str
    precision: str
    batch: int
    upscale: int
    interpolation: str
    command: str
    versions: dict[str, str]

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{64}", self.digest):
            raise ValueError("digest is 64 hexadecimal digits")
        if min(self.seed, self.steps, self.batch - 1, self.upscale - 1, *self.labels) < 0:
            raise ValueError("its numbers do not fit together")
        if len(self.labels) != len(self.classes):
            raise ValueError("labels have a class each")

    def to_json(self) -> str:
        """As it is written into a picture."""
        return json.dumps(dataclasses.asdict(self))


def saved_with(suffix: str, provenance: Provenance | None) -> dict[str, Any]:
    """Arguments of Pillow's ``save`` that write it into a ``.png``, ``.gif`` or ``.webp``."""
    if provenance is None:
        return {}
    text = provenance.to_json()
    if suffix == ".png":
        chunks = PngImagePlugin.PngInfo()
        chunks.add_itxt(KEY, text)
        return {"pnginfo": chunks}
    return {"comment": text.encode()} if suffix == ".gif" else {"xmp": _XMP.format(html.escape(text)).encode()}


def read_provenance(path: Path) -> Provenance:
    """Read the provenance of a picture or an archive of images."""
    try:
        text = _in_archive(path) if path.suffix.lower() == ".npz" else _in_picture(path)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", "name a picture that ddpmctl made") from error
    except (
        OSError,
        ValueError,
        SyntaxError,
        LookupError,
        EOFError,
        zipfile.BadZipFile,
        Image.DecompressionBombError,
    ) as error:
        reason = "it is not a picture" if isinstance(error, UnidentifiedImageError) else str(error)
        raise DataError(f"{path} cannot be read: {reason}", "name a picture that ddpmctl made") from error
    if text is None:
        raise DataError(
            f"{path} has no record of how it was made",
            "only pictures made by ddpmctl have one, and editors may drop it",
        )
    try:
        found = parse(Provenance, json.loads(text))
        _check_command(found)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} has no valid record of how it was made: {error}", "a newer ddpmctl may have written it"
        ) from error
    return found


def _check_command(found: Provenance) -> None:
    """Check that the command is a single one of ours: anybody may have written it."""
    words = shlex.split(found.command)
    if words[:1] != ["ddpmctl"] or shlex.join(words) != found.command:
        raise ValueError("its command is not one of ddpmctl")


def _in_picture(path: Path) -> str | None:
    with Image.open(path) as image:
        if image.format == "PNG":
            found = getattr(image, "text", {}).get(KEY)
            return None if found is None else str(found)
        if image.format == "GIF":
            comment = image.info.get("comment")
            return comment.decode() if isinstance(comment, bytes) and comment.startswith(b"{") else None
        xmp = image.info.get("xmp", b"")
        match = _XMP_MADE.search(xmp.decode() if isinstance(xmp, bytes) else str(xmp))
        return html.unescape(match[1]) if match else None


def _in_archive(path: Path) -> str | None:
    with np.load(path, allow_pickle=False) as archive:
        if KEY not in archive.files:
            return None
        with archive.zip.open(f"{KEY}.npy") as member:
            # No more of it than an honest record has is ever unpacked.
            if len(member.read(MOST_BYTES)) == MOST_BYTES:
                raise ValueError("its record is far too large")
        return str(archive[KEY])
