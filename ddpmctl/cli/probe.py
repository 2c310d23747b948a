"""What ``ddpmctl inspect --at`` shows: one noise level, seen through the network."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpmctl.cli.output import Output
from ddpmctl.cli.provenance import record, told_name
from ddpmctl.cli.sampling import label_index
from ddpmctl.errors import DataError, UsageError
from ddpmctl.labels import typed_label
from ddpmctl.model_images import same_images
from ddpmctl.registry import Checkpoint

if TYPE_CHECKING:
    from ddpmctl.imaging.provenance import Provenance
    from ddpmctl.imaging.upscale import Images
    from ddpmctl.sampling.engine import Engine, Look

TITLES = ("x0", "x_t", "noise", "noise told", "x0 told")
ENLARGED = 4


def look_at(
    out: Output,
    checkpoint: Checkpoint,
    timesteps: list[int],
    label: str | None,
    seed: int,
    data_dir: Path | None,
    device: str,
    output: Path | None,
) -> "tuple[Path, list[dict[str, Any]], Images]":
    """Write a picture with one row per timestep; returns its path, the figures of each row, and the picture.

    Raises:
        UsageError: for a label or a timestep that the model has not.
    """
    if label is None:
        raise UsageError("a noise level is looked at for one label", f"--at {timesteps[0]} --label 8")
    index = label_index(out, label, checkpoint.manifest.classes)
    length = checkpoint.manifest.config.diffusion.timesteps
    for t in timesteps:
        if not 0 <= t < length:
            raise UsageError(f"there is no timestep {t}: this model's chain has {length}", f"--at 0..{length - 1}")
    from ddpmctl.imaging.files import check_target, free_path, png, write_whole
    from ddpmctl.imaging.sheet import labelled_sheet
    from ddpmctl.sampling.engine import Engine

    path = output or free_path(Path(f"at-{'-'.join(map(str, timesteps))}.png"))
    check_target(path, [".png"])
    engine = Engine(checkpoint, device, "fp32", notice=out.warn)
    image = _image(out, engine, index, seed, data_dir)
    looks = [engine.look(image, index, t, seed) for t in timesteps]
    size = engine.config.model.image_size
    rows = [_tiles(look, engine.diffusion.pixel_range, size) for look in looks]
    titles = [[f"x0, t = {t}", *TITLES[1:]] for t in timesteps]
    sheet = labelled_sheet(rows, titles, ENLARGED)
    write_whole(path, png(sheet, _made(engine, timesteps, index, seed)))
    return path, [_figures(engine, look, t) for t, look in zip(timesteps, looks, strict=True)], sheet


def _made(engine: "Engine", timesteps: list[int], label: int, seed: int) -> "Provenance":
    """The record of the picture: nothing is sampled, each row is one answer of the network."""
    checkpoint, device = engine.checkpoint, engine.device.type
    levels = [word for t in timesteps for word in ("--at", t)]
    named = ["--label", typed_label(label, checkpoint.manifest.classes)]
    typed = ["ddpmctl", "inspect", told_name(checkpoint), *levels, *named, "--seed", seed, "--device", device]
    return record(
        checkpoint, "sheet", [label], None, typed,
        seed=seed, device=device, precision=engine.precision, batch=1, upscale=ENLARGED,
    )  # fmt: skip


def _image(out: Output, engine: "Engine", index: int, seed: int, data_dir: Path | None) -> "Images":
    """An image of this class: a test image, else a training image, else one that the model generates.

    Anything but a test image is reported.
    """
    from ddpmctl.sampling.loop import channels_last_pixels

    manifest = engine.checkpoint.manifest
    reason = ""
    for train in (False, True):
        try:
            data = same_images(manifest, data_dir, train=train)
        except DataError as error:
            if train and data_dir is not None:
                raise
            reason = error.message
            continue
        found = (data.labels == index).nonzero()[:, 0]
        if len(found):
            if train:
                out.note(f"{reason}: using a training image")
            real: Images = channels_last_pixels(data.images[found[seed % len(found)]][None])[0]
            return real
        reason = f"{data.name} has no {'' if train else 'test '}image of {manifest.classes[index]}"
    out.note(f"{reason}: using an image that the model generates")
    generated: Images = engine.generate([index], seed)[0]
    return generated


def _tiles(look: "Look", pixel_range: tuple[float, float], size: int) -> "list[Images]":
    """The five pictures of a row; noise is shown from -3 to 3."""
    from ddpmctl.sampling.loop import to_pixels

    noise = (-3.0, 3.0)
    shown = ((look.x0, pixel_range), (look.x, noise), (look.epsilon, noise), (look.told_epsilon, noise))
    return [to_pixels(tensor[None], limits, size)[0] for tensor, limits in (*shown, (look.told_x0, pixel_range))]


def _figures(engine: "Engine", look: "Look", t: int) -> dict[str, Any]:
    schedule = engine.diffusion.schedule
    return {
        "t": t,
        "signal": float(schedule.alpha[t]),
        "noise": float(schedule.sigma[t]),
        "mse_of_noise": look.errors["epsilon"],
        "mse_of_x0": look.errors["x0"],
    }
