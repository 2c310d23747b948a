"""All lessons as one page that needs nothing beside itself."""

import base64
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from ddpmctl.lessons.findings import Finding, Picture

TYPES = {".png": "image/png", ".gif": "image/gif"}


def page(findings: Sequence[Finding], folder: Path) -> str:
    """The page of these lessons, as HTML, with the pictures of the folder in it.

    Raises:
        OSError: when a picture is not there.
    """

    def data(picture: Picture) -> str:
        path = folder / picture.file
        return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"

    # Everything is escaped: names of classes and folders are whatever their owner chose.
    environment = Environment(
        loader=PackageLoader("ddpmctl.lessons", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(findings=findings, data=data)
