"""``ddpmctl data fetch``."""

from ddpmctl.cli.options import DatasetArgument, Json, Quiet
from ddpmctl.cli.output import Output
from ddpmctl.data import catalogue


def fetch(name: DatasetArgument = "mnist", as_json: Json = False, quiet: Quiet = False) -> None:
    """Download a dataset into the cache; the size is printed first.

    Example: ddpmctl data fetch mnist
    """
    out = Output("data fetch", as_json=as_json, quiet=quiet)
    path = str(catalogue.fetch(name))
    out.result({"name": name, "path": path}, bare=[path])
