"""Jinja templates stored next to the modules of this package."""

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


def load_template(package: str, name: str) -> Template:
    """A template of a package. HTML templates are autoescaped and trim whitespace around blocks."""
    html = name.endswith(".html.j2")
    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=html,
        lstrip_blocks=html,
    )
    return environment.get_template(name)
