"""Jinja templates beside the modules of this package."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def load_template(package: str, name: str) -> Template:
    """A template of a package. In one of HTML, whatever is put in is escaped, and tags leave no whitespace."""
    html = name.endswith(".html.j2")
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=html,
        lstrip_blocks=html,
    )
    return environment.get_template(name)
