"""``ddpmctl generate``."""

from typing import Annotated

import typer

from ddpmctl.cli import options
from ddpmctl.cli.images import ImageArguments, generate_images
from ddpmctl.cli.output import Output
from ddpmctl.cli.sampling import SamplingArguments
from ddpmctl.cli.shards import ShardArguments, generate_shards

Mix = Annotated[
    list[str] | None,
    typer.Option(
        rich_help_panel="Sampling",
        metavar="<label:weight>",
        help="Mix predictions of another class into those of the label, which has the rest; repeatable.",
    ),
]


def generate(
    labels: options.Labels = None,
    count: options.Count = None,
    model: options.Model = None,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    guidance_interval: options.Interval = None,
    mix: Mix = None,
    seed: options.Seed = None,
    like: options.Like = None,
    interactive: options.Interactive = False,
    every_class: options.All = False,
    shard_size: options.ShardSize = None,
    batch_size: options.BatchSize = None,
    share: options.Share = None,
    output: options.ImagesOutput = None,
    upscale: options.UpscaleOrNone = None,
    interpolation: options.InterpolationOrNone = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    show: options.Show = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Generate images of the classes you name.

    Example: ddpmctl generate 8 --upscale 4 -o eight.png

    Image k of a request is generated from seed + k, so each can be reproduced alone.

    Show how an image was generated, and reproduce it: ddpmctl inspect eight.png; ddpmctl generate --like eight.png

    Halfway between two classes: ddpmctl generate 3 --mix 8:0.5

    Prompt for labels; the model stays loaded: ddpmctl generate --interactive

    Generate many images as shards, in any number of processes: ddpmctl generate --all -n 1000 -o images
    """
    out = Output("generate", as_json=as_json, quiet=quiet)
    sampling = SamplingArguments(
        model=model, sampler=sampler, steps=steps, guidance=guidance, interval=guidance_interval, seed=seed,
        device=device, precision=precision,
    )  # fmt: skip
    sharded = ShardArguments(output=output, count=count, shard_size=shard_size, batch_size=batch_size, share=share)
    if every_class:
        unused = {"labels": labels, "like": like, "interactive": interactive, "mix": mix, "upscale": upscale}
        generate_shards(out, sharded, sampling, {**unused, "interpolation": interpolation, "show": show})
        return
    sharded.check_unused()
    generate_images(
        out,
        sampling,
        ImageArguments(
            labels=labels or [], count=1 if count is None else count, upscale=upscale, interpolation=interpolation,
            output=output, like=like, show=show, mix=mix or [],
        ),
        interactive=interactive,
    )  # fmt: skip
