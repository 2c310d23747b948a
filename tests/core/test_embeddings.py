"""Embeddings of timestep and class."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from ddpmctl.core.embeddings import TimestepAndClassEmbedding, sinusoidal


@pytest.mark.parametrize("dim", [4, 64, 256])
def test_sines_then_cosines_of_geometric_frequencies(dim: int) -> None:
    t = np.arange(1000)
    half = dim // 2
    angles = t[:, None] * np.exp(-np.log(10000) * np.arange(half) / (half - 1))
    expected = torch.from_numpy(np.concatenate([np.sin(angles), np.cos(angles)], axis=1)).float()
    # Angles go up to 999, where float32 knows them to 6e-5.
    assert_close(sinusoidal(torch.from_numpy(t), dim), expected, atol=2e-4, rtol=0)


def test_frequencies_fall_from_1_to_a_ten_thousandth() -> None:
    # Near zero a sine is its angle.
    slopes = sinusoidal(torch.tensor([1e-3]), 256)[0, :128] / 1e-3
    assert_close(slopes[[0, -1]], torch.tensor([1.0, 1e-4]), atol=1e-6, rtol=1e-4)


def test_whole_and_real_times_agree() -> None:
    assert sinusoidal(torch.tensor([3, 999]), 64).equal(sinusoidal(torch.tensor([3.0, 999.0]), 64))


def test_the_label_comes_first() -> None:
    embedding = TimestepAndClassEmbedding(labels=3, dim=8)
    t, label = torch.tensor([5, 0, 999]), torch.tensor([2, 0, 1])
    embedded = embedding(t, label)
    assert embedded.shape == (3, 16)
    assert embedded[:, :8].equal(embedding.label.weight[label])
    assert embedded[:, 8:].equal(sinusoidal(t, 8))


def test_only_the_label_is_learnt() -> None:
    shapes = {name: tuple(parameter.shape) for name, parameter in TimestepAndClassEmbedding(10, 256).named_parameters()}
    assert shapes == {"label.weight": (10, 256)}
