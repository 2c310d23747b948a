"""A result that nothing was trained for."""

from ddpmctl.lessons.result import Conditions, Network, Paper, Picture, Result, Table


def made_up(lesson: str = "range", **fields: object) -> Result:
    """Every field filled; ``fields`` are put in place of some."""
    network = Network(
        name="fix", role="the fix", command="ddpmctl train", steps=1234, seconds=60.0, validation_mse=0.1,
        losses=(1.0, 0.5), gradients=(2.0, 1.0), problem="",
    )  # fmt: skip
    conditions = Conditions(
        dataset="strokes", budget=60.0, seed=0, device="cpu", precision="fp32", count=50, classifier="nothing",
        date="2026-01-31",
    )  # fmt: skip
    values: dict[str, object] = {
        "lesson": lesson,
        "title": "A title",
        "trap": "a mistake",
        "fix": "a fix",
        "claim": "a claim",
        "reproduced": False,
        "verdict": "It did not.",
        "formula": "a < b",
        "why": ("Because.",),
        "tables": (Table(title="Figures", columns=("", "accuracy"), rows=(("mistake", "12.3%"),), note="A note."),),
        "pictures": (Picture(file="one.png", caption="one"), Picture(file="two.gif", caption="two")),
        "networks": (network,),
        "papers": (Paper(authors="Ho, Jain, Abbeel 2020", title="Denoising", arxiv="2006.11239"),),
        "conditions": conditions,
    }
    return Result(**{**values, **fields})  # type: ignore[arg-type]
