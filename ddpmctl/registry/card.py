"""The model card that accompanies an exported model."""

import json

from ddpmctl.registry.checkpoint import Checkpoint

NO_LICENCE = "not specified"


def card(checkpoint: Checkpoint, licence: str | None = None) -> str:
    """A model card in Markdown, from nothing but the manifest; ``licence`` is an SPDX name."""
    from ddpmctl.templates import load_template

    manifest = checkpoint.manifest
    config = manifest.config
    return load_template("ddpmctl.registry", "card.md.j2").render(
        name=checkpoint.name if "/" not in checkpoint.name else "model",
        digest=checkpoint.digest,
        licence=licence,
        no_licence=NO_LICENCE,
        manifest=manifest,
        config=config,
        settings=json.dumps(config.to_dict(), indent=2),
    )
