"""``ddpmctl models rm|prune|verify|export|import``: keeping, checking and carrying models."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from ddpmctl.cli.options import ExistingModel, ExistingModels, Json, Quiet, model_names
from ddpmctl.cli.output import Output, escaped
from ddpmctl.cli.sampling import open_model
from ddpmctl.errors import CheckpointError, DdpmctlError, ExitCode, Interrupted, UsageError
from ddpmctl.paths import check_writable, typed_file, typed_path
from ddpmctl.registry import Registry
from ddpmctl.registry.checkpoint import Vanished
from ddpmctl.registry.durable import discard, size_of

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def rm(
    names: ExistingModels,
    yes: Yes = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove models with all their checkpoints.

    Example: ddpmctl models rm mnist-quick-1
    """
    out = Output("models rm", as_json=as_json, quiet=quiet)
    registry = Registry()
    known = {*registry.names(), *registry.names("last")}
    for name in names:
        if name not in known:
            registry.open(name)  # says which one was meant
            raise CheckpointError(f"'{name}' is not in the registry", "ddpmctl models lists what is")
        if registry.in_training(name):
            raise CheckpointError(f"another process is training '{name}'", "wait for it, or end it")
    if not yes:
        _ask(f"remove {', '.join(names)}?")
    freed = {name: registry.remove(name) for name in dict.fromkeys(names)}
    for name, size in freed.items():
        out.note(f"removed '{name}', {_words(size)} freed")
    out.result({"removed": [{"name": name, "bytes": size} for name, size in freed.items()]}, bare=list(freed))


def use(
    name: ExistingModel,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Set the default model of commands without --model.

    Example: ddpmctl models use mnist-quick-1
    """
    out = Output("models use", as_json=as_json, quiet=quiet)
    Registry().use(name)
    out.note(f"'{name}' is taken from now on where no model is named")
    out.result({"model": name}, bare=[name])


def mv(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Model name.", autocompletion=model_names)],
    new: Annotated[str, typer.Argument(metavar="NEW", help="New name.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Rename a model.

    Example: ddpmctl models mv mnist-quick-1 digits
    """
    out = Output("models mv", as_json=as_json, quiet=quiet)
    Registry().rename(old, new)
    out.result({"model": new, "before": old}, bare=[new])


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be removed, and remove nothing.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Remove files that crashes left behind; models and checkpoints stay.

    Example: ddpmctl models prune --dry-run
    """
    out = Output("models prune", as_json=as_json, quiet=quiet)
    total, paths = 0, []
    for path in Registry().leftovers():
        total += size_of(path)
        paths.append(str(path))
        if not dry_run:
            discard(path)
    out.note(f"{_words(total)} {'could be freed' if dry_run else 'freed'}, {len(paths)} leftovers")
    out.result({"dry_run": dry_run, "bytes": total, "paths": paths}, bare=paths)


def verify(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Model name.", show_default="all models", autocompletion=model_names),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify the checksums of models.

    Example: ddpmctl models verify

    Exits with 1 if a model is damaged.
    """
    out = Output("models verify", as_json=as_json, quiet=quiet)
    registry = Registry()
    names = sorted({*registry.names(), *registry.names("last")})
    if name is not None and name not in names:
        registry.open(name)
        raise CheckpointError(f"'{name}' is not in the registry", "ddpmctl models lists what is")
    rows = [_verified(registry, each) for each in ([name] if name else names)]
    table = Table("name", "state", "checked", box=None)
    for row in rows:
        table.add_row(row["name"], escaped(row["problem"] or "whole"), _words(row["bytes"]))
    damaged = [row["name"] for row in rows if row["problem"]]
    out.result({"models": rows}, table if rows else "no models yet", bare=damaged)
    if damaged:
        raise typer.Exit(ExitCode.FAILED)


def export_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Model name or path, or latest.", autocompletion=model_names)
    ],
    file: Annotated[
        Path,
        typer.Argument(
            parser=typed_file,
            metavar="FILE",
            help="Target: x.zip, or x.safetensors for the weights alone; overwritten if it exists.",
        ),
    ],
    licence: Annotated[
        str | None, typer.Option(metavar="<SPDX>", help="Licence named in the model card, such as MIT or CC0-1.0.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Export a model into one file.

    Example: ddpmctl models export demo demo.zip

    A .zip contains weights.safetensors, manifest.json, history.csv and a model card (README.md); a .safetensors the
    weights, with the settings in its metadata. Of a model in training, the best checkpoint so far is exported.
    """
    from ddpmctl.registry.archive import export, export_weights

    out = Output("models export", as_json=as_json, quiet=quiet)
    ways = {".zip": export, ".safetensors": export_weights}
    if file.suffix.lower() not in ways:
        raise UsageError(f"{file} is not named like an archive", f"ddpmctl models export {model} {file.stem}.zip")
    if licence is not None and (not licence.strip() or "\n" in licence or len(licence) > 100):
        raise UsageError("that is no name of a licence", "--licence CC0-1.0")
    check_writable(file)
    checkpoint = open_model(out, model)
    try:
        size = ways[file.suffix.lower()](checkpoint, file, licence)
    except OSError as error:
        raise DdpmctlError(f"cannot write {file}: {error.strerror}", "choose another folder") from error
    out.note(f"wrote '{checkpoint.name}' to {file}, {_words(size)}")
    out.result({"model": checkpoint.name, "file": str(file), "bytes": size}, bare=[str(file)])


def import_model(
    file: Annotated[
        Path,
        typer.Argument(
            parser=typed_path,
            metavar="FILE",
            help="Archive of models export, or .pt checkpoint of the original scripts.",
        ),
    ],
    name: Annotated[str | None, typer.Option(metavar="<name>", help="Model name.", show_default="the file's")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Import a model from a file into the registry, after verifying it.

    Example: ddpmctl models import demo.zip --name another

    Accepts archives of ddpmctl models export, and checkpoints (.pt) of the original scripts.
    """
    out = Output("models import", as_json=as_json, quiet=quiet)
    if file.suffix.lower() in (".pt", ".pth"):
        from ddpmctl.original import import_original

        made = import_original(Registry(), file, name, out.warn)
    elif file.suffix.lower() == ".safetensors" and file.is_file():
        raise CheckpointError(
            f"{file} holds bare weights, and not all that a model is",
            "export an archive: ddpmctl models export NAME x.zip",
        )
    else:
        from ddpmctl.registry.archive import import_archive

        made = import_archive(Registry(), file, name).parent.name
    out.note(f"imported '{made}'; see it: ddpmctl grid --model {made}")
    out.result({"model": made}, bare=[made])


def _verified(registry: Registry, name: str) -> dict[str, Any]:
    while True:
        checked = 0
        try:
            for checkpoint in registry.commits(name):
                checkpoint.verify()
                checked += sum(record.size for record in checkpoint.manifest.files.values())
        except Vanished:
            continue  # it is being trained: the next commit is there already
        except CheckpointError as error:
            return {"name": name, "problem": error.message, "bytes": checked}
        return {"name": name, "problem": None, "bytes": checked}


def _ask(question: str) -> None:
    """Go on only after a yes.

    Raises:
        UsageError: where nobody can be asked.
        Interrupted: after anything else.
    """
    if not sys.stdin.isatty():
        raise UsageError(f"there is nobody to ask: {question}", "--yes")
    try:
        agreed = typer.confirm(question, err=True)
    except typer.Abort:
        agreed = False
    if not agreed:
        raise Interrupted("nothing was removed")


def _words(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
