"""All lessons as one self-contained page."""

import base64
from collections.abc import Sequence
from pathlib import Path

from ddpmctl.lessons.result import Picture, Result
from ddpmctl.templates import load_template

TYPES = {".png": "image/png", ".gif": "image/gif"}


def render_page(results: Sequence[Result], folder: Path) -> str:
    """The page of these lessons as HTML, with the images of the folder embedded."""

    def data_url(picture: Picture) -> str:
        path = folder / picture.file
        return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"

    return load_template("ddpmctl.lessons", "page.html.j2").render(results=results, data_url=data_url)
