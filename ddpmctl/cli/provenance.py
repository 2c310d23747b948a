"""How pictures were made: written into each, told by ``inspect``, and done again by ``generate --like``."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import Request
from ddpmctl.config import SamplingConfig
from ddpmctl.errors import CheckpointError, DataError, UsageError
from ddpmctl.paths import expand_home
from ddpmctl.registry import Checkpoint, Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.engine import Engine

SUFFIXES = (".png", ".gif", ".webp", ".npz")


def made_by(
    request: Request,
    engine: "Engine",
    kind: str,
    labels: list[int],
    command: list[object],
    *,
    seed: int | None = None,
    count: int = 1,
    upscale: int = 1,
    interpolation: str = "nearest",
    positional: bool = False,
) -> "Provenance":
    """The record of a picture.

    Args:
        request: what was asked for.
        engine: what made it.
        kind: see `Provenance`.
        labels: of the images in it.
        command: what is typed for it, without what the commands that sample have in common: model, seed, sampling
            and enlargement.
        seed: of its first image; the request's by default.
        count: images of the whole request.
        upscale: how many times it is enlarged, and ``interpolation`` how.
        positional: whether the command takes its model as an argument, and enlarges by itself.
    """
    from ddpmctl.sampling.engine import BATCH_SIZES

    sampling, start = request.sampling, request.seed if seed is None else seed
    model = told_name(request.checkpoint)
    low, high = sampling.guidance_interval
    name, *rest = command
    typed: list[object] = ["ddpmctl", name, model, *rest] if positional else ["ddpmctl", *command, "--model", model]
    typed += ["--seed", start]
    typed += ["--sampler", sampling.sampler, "--steps", sampling.steps, "--guidance", f"{sampling.guidance:g}"]
    typed += ["--guidance-interval", f"{low:g}:{high:g}"] if sampling.guidance != 1.0 else []
    typed += ["--device", engine.device.type, "--precision", engine.precision]
    typed += [] if positional else ["--upscale", upscale]
    return record(
        request.checkpoint,
        kind,
        labels,
        sampling,
        typed,
        seed=start,
        device=engine.device.type,
        precision=engine.precision,
        batch=min(count, BATCH_SIZES[engine.device.type]),
        upscale=upscale,
        interpolation=interpolation,
    )


def record(
    checkpoint: Checkpoint,
    kind: str,
    labels: list[int],
    sampling: SamplingConfig | None,
    command: Sequence[object],
    *,
    seed: int,
    device: str,
    precision: str,
    batch: int,
    upscale: int,
    interpolation: str = "cubic",
) -> "Provenance":
    """The record of a picture whose command is known whole; without sampling, each part of it is one answer."""
    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.versions import versions

    return Provenance(
        kind=kind,  # type: ignore[arg-type]
        model=told_name(checkpoint),
        digest=checkpoint.digest,
        labels=tuple(labels),
        classes=tuple(checkpoint.manifest.classes[label] for label in labels),
        seed=seed,
        sampler=sampling.sampler if sampling else "none",
        steps=sampling.steps if sampling else 0,
        guidance=sampling.guidance if sampling else 1.0,
        guidance_interval=sampling.guidance_interval if sampling else (0.0, 1.0),
        device=device,
        precision=precision,
        batch=batch,
        upscale=upscale,
        interpolation=interpolation,
        command=shlex.join(map(str, command)),
        versions=versions(),
    )


def told_name(checkpoint: Checkpoint) -> str:
    """The name of a model as a picture tells it: nothing of where its maker keeps things."""
    return checkpoint.path.parent.name if Path(checkpoint.name).is_absolute() else checkpoint.name


def is_picture(reference: str | None) -> bool:
    """Whether what is to be inspected is a picture and no model."""
    if reference is None or Path(reference).suffix.lower() not in SUFFIXES:
        return False
    return not expand_home(reference).is_dir()


def tell(path: Path) -> Iterator[tuple[str, str]]:
    """What a picture tells of its making, as names and words; the JSON is printed by the caller."""
    from ddpmctl.imaging.provenance import read_provenance

    made = read_provenance(path)
    yield "picture", f"{path}, {made.kind}"
    yield "shows", ", ".join(made.classes[:20]) or "what its array of labels says"
    yield "model", f"{made.model}, {fate(made)}"
    yield "digest", made.digest
    yield "seed", str(made.seed)
    guidance = "no guidance" if made.guidance == 1 else f"guidance {made.guidance:g}"
    if made.guidance != 1 and made.guidance_interval != (0, 1):
        guidance += " from {:g} to {:g} of the chain".format(*made.guidance_interval)
    yield "sampling", f"{made.sampler}, {made.steps} steps, {guidance}"
    yield "machine", f"{made.device} in {made.precision}, {made.batch} at once at most"
    yield "enlarged", f"{made.upscale} times ({made.interpolation})" if made.upscale > 1 else "no"
    yield "made by", ", ".join(f"{name} {version}" for name, version in made.versions.items())
    yield "again", made.command


def fate(made: "Provenance") -> str:
    """What has become of the model, in words."""
    checkpoint = find(made)
    if checkpoint is None:
        return "which has other weights now" if made.model in Registry().names() else "which is not here"
    return "which is here" if checkpoint.name == made.model else f"which is '{checkpoint.name}' now"


def find(made: "Provenance") -> Checkpoint | None:
    """The model that made a picture, under whatever name; None where no model has its weights."""
    whole = [entry for entry in Registry().survey() if isinstance(entry, Checkpoint)]
    whole.sort(key=lambda entry: entry.name != made.model)
    try:
        by_path = [Registry().open(made.model)]
    except CheckpointError:
        by_path = []
    return next((entry for entry in [*by_path, *whole] if entry.digest == made.digest), None)


@dataclass(frozen=True, slots=True)
class Liked:
    """A picture that is to be made again.

    Attributes:
        path: where it lies.
        made: how it was made.
        labels: of its images.
    """

    path: Path
    made: "Provenance"
    labels: list[int]

    @classmethod
    def read(cls, path: Path) -> "Liked":
        """Read a picture.

        Raises:
            DataError: when it does not tell how it was made.
            UsageError: when another command makes such pictures.
        """
        from ddpmctl.imaging.provenance import read_provenance

        made = read_provenance(path)
        if made.kind in ("sheet", "animation"):
            raise UsageError(f"{path} is no image alone but of the kind {made.kind}", made.command)
        labels = list(made.labels)
        if made.kind == "images":
            labels = _array(path, "labels").tolist()
            if _array(path, "seeds").tolist() != list(range(made.seed, made.seed + len(labels))):
                raise DataError(f"{path} holds other seeds than it tells", "make it anew: ddpmctl generate")
        return cls(path, made, labels)

    def model(self) -> str:
        """The name of the model that made it.

        Raises:
            CheckpointError: when it is gone, or has other weights now.
        """
        found = find(self.made)
        if found:
            return found.name
        name, digest = self.made.model, self.made.digest[:12]
        if name in Registry().names():
            raise CheckpointError(
                f"'{name}' has changed since it made {self.path}: its weights were {digest}",
                f"with the weights of today: --model {name}",
            )
        raise CheckpointError(
            f"the model that made {self.path} is gone: '{name}' with the weights {digest}",
            "with another: --model NAME; ddpmctl models lists them",
        )

    def completed(self, given: dict[str, Any]) -> dict[str, Any]:
        """What was asked for, by the names of `prepare`, with the rest as the picture was made.

        Raises:
            CheckpointError: when the model that made it is needed, and gone.
        """
        made, filled = self.made, dict(given)
        filled["model"] = given["model"] or self.model()
        filled["seed"] = made.seed if given["seed"] is None else given["seed"]
        if given["sampler"] is None and given["steps"] is None:
            filled |= {"sampler": made.sampler, "steps": made.steps}
        if given["guidance"] is None:
            filled["guidance"] = made.guidance
            if given["interval"] is None and made.guidance != 1.0:
                filled["interval"] = "{}:{}".format(*made.guidance_interval)
        for name in ("device", "precision"):
            filled[name] = getattr(made, name) if given[name] == "auto" else given[name]
        return filled

    def default_file(self) -> Path | None:
        """Where it goes when nothing is said: an archive of many into another archive."""
        from ddpmctl.imaging.files import free_path

        return free_path(Path("images.npz")) if self.made.kind == "images" else None

    def is_asked_for(self, request: Request, wanted: list[int], factor: int) -> bool:
        """Whether nothing was given that makes another picture, so that the two are to be compared."""
        made, sampling = self.made, request.sampling
        way = (sampling.sampler, sampling.steps, sampling.guidance, sampling.guidance_interval)
        before = (made.sampler, made.steps, made.guidance, made.guidance_interval)
        return (way, request.seed, wanted, factor) == (before, made.seed, self.labels, made.upscale)

    def compare(self, out: Output, images: "Images") -> bool | None:
        """Say whether what was made now is the same; None where the sizes differ.

        Args:
            out: says it.
            images: as they were written, uint8[N,..].
        """
        import numpy as np

        before = self._pixels()
        if before.shape != images.shape:
            return None
        apart = int(np.abs(before.astype(int) - images.astype(int)).max())
        if apart:
            versions = ", ".join(f"{name} {version}" for name, version in self.made.versions.items())
            out.warn(
                f"not bit for bit as {self.path}: up to {apart} grey levels apart; it was made on {self.made.device} "
                f"in {self.made.precision} by {versions}"
            )
        else:
            out.note(f"bit for bit as {self.path}")
        return not apart

    def _pixels(self) -> "Images":
        import numpy as np
        from PIL import Image

        if self.made.kind == "images":
            return _array(self.path, "images")
        with Image.open(self.path) as image:
            return np.asarray(image)[None]


def _array(path: Path, name: str) -> "NDArray[Any]":
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            found: NDArray[Any] = archive[name]
            return found
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read: {error}", "make it anew: ddpmctl generate") from error


def as_record(path: Path) -> dict[str, Any]:
    """What a picture tells, for ``--json``."""
    from ddpmctl.imaging.provenance import read_provenance

    made = read_provenance(path)
    found = find(made)
    return {"file": str(path), **asdict(made), "model_now": found.name if found else None}
