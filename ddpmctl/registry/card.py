"""The page that goes with a model when it is given away."""

import json

from .checkpoint import Checkpoint

NO_LICENCE = "not chosen: whoever gives the model away chooses (ddpmctl models export --licence)"


def card(checkpoint: Checkpoint, licence: str | None = None) -> str:
    """A model card in Markdown, from nothing but the manifest.

    Args:
        checkpoint: the model.
        licence: under which it is given away, an SPDX name; None for none chosen.
    """
    manifest = checkpoint.manifest
    config, run = manifest.config, manifest.run
    model, chain, recipe, sampling = config.model, config.diffusion, config.training, config.sampling
    name = checkpoint.name if "/" not in checkpoint.name else "model"
    figure = "none: no epoch of it was judged"
    if manifest.metric:
        figure = f"{manifest.metric.name.replace('_', ' ')} {manifest.metric.value:.5f} ({manifest.metric.target})"
    settings = json.dumps(config.to_dict(), indent=2)
    head = [
        "---",
        f"license: {json.dumps(licence or 'other')}",
        "library_name: ddpmctl",
        "tags: [diffusion, ddpm]",
        "---",
    ]
    return "\n".join(
        [
            *head,
            "",
            f"# {name}",
            "",
            f"A class-conditional denoising diffusion model of {model.image_size}x{model.image_size} images with "
            f"{model.channels} channel{'s' if model.channels > 1 else ''}, trained from nothing.",
            "",
            f"- Classes: {', '.join(manifest.classes)}",
            f"- Weights: {manifest.parameters:,} parameters, sha256 {checkpoint.digest}",
            f"- Licence: {licence or NO_LICENCE}",
            "",
            "## Data",
            "",
            f"{manifest.dataset.name}, {manifest.dataset.count:,} images, held-out ones included"
            + (f", digest {manifest.dataset.digest}." if manifest.dataset.digest else "; which, is not told."),
            "",
            "## Recipe",
            "",
            f"- Preset {manifest.preset}: network {model.network}, {chain.schedule} schedule of {chain.timesteps} "
            f"steps, predicts {chain.target}",
            f"- {recipe.optimizer}, learning rate {recipe.lr:g}, batches of {recipe.batch_size}, seed {run.seed}",
            f"- {run.step:,} steps, {run.images:,} images in {run.seconds:.0f} s on {run.device} in {run.precision}",
            f"- Made by {', '.join(f'{package} {version}' for package, version in manifest.versions.items())}",
            f"- To be sampled with {sampling.sampler}, {sampling.steps} steps, guidance {sampling.guidance:g}",
            "",
            "All settings:",
            "",
            "```json",
            settings,
            "```",
            "",
            "## Command",
            "",
            "```console",
            f"ddpmctl train --preset {manifest.preset} --dataset {manifest.dataset.name} --seed {run.seed} "
            f"--max-steps {run.planned_steps}",
            "```",
            "",
            "Options that changed the preset's settings are to be seen in the settings above.",
            "",
            "## Figures",
            "",
            f"- At the end of its training: {figure}",
            "- How good its images are: `ddpmctl evaluate`",
            "",
            "## Limits",
            "",
            f"It makes images of the {len(manifest.classes)} classes above and of nothing else, at {model.image_size}x"
            f"{model.image_size} pixels. It knows what its training images show, with whatever is wrong or missing in "
            "them, and may come near to some of them: `ddpmctl evaluate --show-nearest sheet.png` shows the nearest.",
            "",
            "## Use",
            "",
            "```console",
            f"ddpmctl models import {name}.zip --name {name}",
            f"ddpmctl grid --model {name}",
            "```",
            "",
        ]
    )
