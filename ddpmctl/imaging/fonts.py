"""Fonts for titles: Pillow's own, and an installed one for characters that it lacks, such as CJK and emoji."""

import os
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont

Face = Callable[[float], "ImageFont.FreeTypeFont | ImageFont.ImageFont"]
"""Creates a font of a size in pixels."""

SUFFIXES = (".ttf", ".otf", ".ttc")
TRIED_AT = 24.0
NOWHERE = "\U0010fffe"
"""Not a character: every font draws its box for missing ones."""

INVISIBLE = "\u200c\u200d\ufe0e\ufe0f"
"""Joiners and variation selectors, which choose between forms that a title can do without."""


def font_folders() -> list[Path]:
    """Folders of fonts on this operating system."""
    home = os.path.expanduser("~")  # noqa: PTH111  stays as it is for a user without a home directory
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA", home)
        windows = os.environ.get("WINDIR", "C:\\Windows")
        return [Path(windows, "Fonts"), Path(local, "Microsoft", "Windows", "Fonts")]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path(home, "Library", "Fonts")]
    data = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    return [Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), Path(data, "fonts"), Path(home, ".fonts")]


@lru_cache(maxsize=1)
def installed() -> tuple[Path, ...]:
    """Files of fonts: the one that comes with matplotlib first, then plain sans-serif ones."""
    spec = find_spec("matplotlib")  # without importing it
    bundled = [
        Path(place, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        for place in (spec.submodule_search_locations if spec else None) or ()
    ]
    found = {
        Path(folder, name)
        for top in font_folders()
        for folder, _, names in os.walk(top)
        for name in names
        if name.lower().endswith(SUFFIXES)
    }
    return (*bundled, *sorted(found, key=_plainness))


def _plainness(path: Path) -> tuple[bool, bool, str]:
    name = path.name.lower()
    return "sans" not in name, any(word in name for word in ("bold", "italic", "oblique", "light")), str(path)


def face_for(text: str) -> Face:
    """The font that has most of the characters of a text: Pillow's own if no other has more."""
    best, lacking = _default(), _lacked(_default(), text)
    for path in installed() if lacking else ():
        face = partial(ImageFont.truetype, str(path))
        fewer = _lacked(face, text)
        if len(fewer) < len(lacking):
            best, lacking = face, fewer
        if not lacking:
            break
    return best


def missing_characters(texts: Iterable[str]) -> str:
    """The characters of some texts that are drawn as boxes, since no installed font for the text has them."""
    return "".join(sorted({char for text in texts for char in _lacked(face_for(text), text)}))


def _default() -> Face:
    return ImageFont.load_default


def _lacked(face: Face, text: str) -> str:
    """The characters that a font lacks; all for a font that is not scalable, such as emoji bitmaps."""
    visible = "".join(char for char in dict.fromkeys(text) if char not in INVISIBLE and not char.isspace())
    try:
        font = face(TRIED_AT)
        box = _drawn(font, NOWHERE)
        return "".join(char for char in visible if _drawn(font, char) == box)
    except (OSError, UnicodeEncodeError):
        return visible


def _drawn(font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", char: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(char)
    return mask.size, bytes(mask)
