"""Classifier-free guidance."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from ddpmctl.core.guidance import guided, scale_at

NULL = 10
X = torch.tensor([1.0, 2.0, 4.0]).view(3, 1, 1, 1)
T = torch.tensor([7, 7, 7])
LABEL = torch.tensor([0, 3, 9])


def network(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """An answer that tells every input from every other."""
    return x * t.view(-1, 1, 1, 1) + 100.0 * label.view(-1, 1, 1, 1)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 3.0])
def test_leans_from_no_label_towards_the_label(scale: float) -> None:
    labelled, unlabelled = network(X, T, LABEL), network(X, T, torch.full_like(LABEL, NULL))
    answer = guided(network, scale, NULL)(X, T, LABEL)
    assert_close(answer, (1 - scale) * unlabelled + scale * labelled)


def test_a_scale_of_one_is_the_network_itself() -> None:
    assert guided(network, 1.0, NULL) is network


def test_a_scale_of_zero_ignores_the_label() -> None:
    denoise = guided(network, 0.0, NULL)
    assert denoise(X, T, LABEL).equal(denoise(X, T, LABEL.flip(0)))


@pytest.mark.parametrize(
    ("time", "interval", "scale"),
    [(0.5, (0.3, 0.85), 2.0), (0.3, (0.3, 0.85), 2.0), (0.85, (0.3, 0.85), 2.0), (0.299, (0.3, 0.85), 1.0),
     (0.851, (0.3, 0.85), 1.0), (0.0, (0.0, 1.0), 2.0), (0.999, (0.0, 1.0), 2.0)],
)  # fmt: skip
def test_guidance_acts_inside_its_interval_alone(time: float, interval: tuple[float, float], scale: float) -> None:
    assert scale_at(time, 2.0, interval) == scale


def test_asks_the_network_once_for_both_answers() -> None:
    asked: list[tuple[list[float], list[int], list[int]]] = []

    def recording(x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        asked.append((x.flatten().tolist(), t.tolist(), label.tolist()))
        return network(x, t, label)

    guided(recording, 2.0, NULL)(X, T, LABEL)
    assert asked == [([1, 2, 4, 1, 2, 4], [7] * 6, [0, 3, 9, NULL, NULL, NULL])]
