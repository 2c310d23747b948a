"""Animations of the denoising process."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ddpmctl.config import choose
from ddpmctl.imaging.animation import Timing, encode_animation, pick
from ddpmctl.imaging.provenance import Provenance
from ddpmctl.imaging.upscale import Images
from ddpmctl.sampling.files import Enlargement
from ddpmctl.sampling.reproduce import build_provenance
from ddpmctl.sampling.request import SamplingRequest

if TYPE_CHECKING:
    from ddpmctl.sampling.engine import Engine

ENLARGEMENT = Enlargement(4, "nearest")

VIEWS = ("x", "x0", "both")
"""The noisy image, the predicted one, or both side by side."""


@dataclass(frozen=True, slots=True)
class Animation:
    """An animation before it is encoded.

    Attributes:
        frames: upscaled, uint8[H,W] or uint8[H,W,3].
        small_frames: the same without titles and upscaling.
    """

    frames: list[Images]
    small_frames: list[Images]
    timing: Timing
    provenance: Provenance

    def encode(self, suffix: str) -> bytes:
        """The bytes of a ``.gif``, ``.webp`` or animated ``.png`` with its provenance."""
        return encode_animation(self.frames, suffix, self.timing, self.provenance)


def animate(
    engine: "Engine",
    request: SamplingRequest,
    timing: Timing,
    view: str = "x",
    enlargement: Enlargement = ENLARGEMENT,
    on_step: Callable[[int], None] | None = None,
) -> Animation:
    """Sample one image and keep evenly spaced steps, including the last.

    Args:
        request: completed by `Engine.resolve`, for one label.
        view: one of `VIEWS`.
    """
    from ddpmctl.sampling.loop import to_pixels

    choose("view", view, VIEWS)
    kept = set(pick(engine.step_count(request), timing.frames))
    limits, size = engine.diffusion.pixel_range, engine.config.model.image_size
    frames = []
    for step in engine.steps(request):
        if step.index in kept:
            parts = {"x": [step.x], "x0": [step.x0], "both": [step.x, step.x0]}[view]
            frames.append(np.concatenate([to_pixels(part, limits, size)[0] for part in parts], axis=1))
        if on_step:
            on_step(1)
    factor, interpolation = enlargement.factor, enlargement.interpolation
    argv = request.to_argv("animate", **asdict(timing), show=view, interpolation=interpolation, upscale=factor)
    provenance = build_provenance(request, "animation", argv, upscale=factor, interpolation=interpolation)
    return Animation(list(enlargement.apply(np.stack(frames))), frames, timing, provenance)


def interpolate(
    engine: "Engine",
    request: SamplingRequest,
    timing: Timing,
    enlargement: Enlargement = ENLARGEMENT,
    on_step: Callable[[int], None] | None = None,
) -> Animation:
    """Sample one image per frame, from noise between that of two seeds.

    Args:
        request: completed by `Engine.resolve`, with one label, and one fraction of `Between`, per frame.
    """
    frames = list(engine.run(request, on_step))
    factor, interpolation = enlargement.factor, enlargement.interpolation
    argv = request.to_argv("animate", **asdict(timing), interpolation=interpolation, upscale=factor)
    one = replace(request, labels=request.labels[:1], variation=request.variation.slice(0, 1))
    provenance = build_provenance(one, "animation", argv, upscale=factor, interpolation=interpolation)
    return Animation(list(enlargement.apply(np.stack(frames))), frames, timing, provenance)
