"""The noise of samples: the published test vectors, the documented normals, and their dependencies."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ddpmctl.core.noise import key_words, normal, normal_from_key, threefry2x32

LARGEST = 2**63 - 1
SHAPE = (1, 32, 32)

# Salmon et al. 2011, kat_vectors of Random123: threefry2x32 with 20 rounds.
PUBLISHED = [
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


def array(*words: int) -> NDArray[np.uint32]:
    return np.array(words, np.uint32)


def tensor(*words: int) -> torch.Tensor:
    return torch.from_numpy(array(*words).view(np.int32))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("counter", "key", "words"), PUBLISHED)
def test_the_words_are_the_published_ones(
    counter: tuple[int, int], key: tuple[int, int], words: tuple[int, int]
) -> None:
    low, high = threefry2x32((array(key[0]), array(key[1])), (array(counter[0]), array(counter[1])))
    assert (int(low[0]), int(high[0])) == words


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 4), min_size=1, max_size=50))
def test_torch_and_numpy_agree_on_every_word(inputs: list[tuple[int, int, int, int]]) -> None:
    columns = list(zip(*inputs, strict=True))
    (key0, key1, counter0, counter1), torch_columns = (
        [make(*column) for column in columns] for make in (array, tensor)
    )
    expected = threefry2x32((key0, key1), (counter0, counter1))
    words = threefry2x32((torch_columns[0], torch_columns[1]), (torch_columns[2], torch_columns[3]))
    for word, same in zip(words, expected, strict=True):
        assert np.array_equal(word.numpy().view(np.uint32), same)


def documented(seed: int, draw: int, element: int) -> float:
    """One element by the docstring of the module, in plain Python."""
    mask = 0xFFFFFFFF
    k0, k1, (x0, x1) = seed & mask, seed >> 32, (draw, element // 2)
    k = [k0, k1, k0 ^ k1 ^ 0x1BD11BDA]
    x0, x1 = (x0 + k0) & mask, (x1 + k1) & mask
    for r in range(20):
        left = [13, 15, 26, 6, 17, 29, 16, 24][r % 8]
        x0 = (x0 + x1) & mask
        x1 = ((x1 << left | x1 >> 32 - left) & mask) ^ x0
        if (r + 1) % 4 == 0:
            n = (r + 1) // 4
            x0, x1 = (x0 + k[n % 3]) & mask, (x1 + k[(n + 1) % 3] + n) & mask
    radius = math.sqrt(-2 * math.log((x0 + 0.5) / 2**32))
    angle = 2 * math.pi * ((x1 + 0.5) / 2**32)
    return radius * (math.sin(angle) if element % 2 else math.cos(angle))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.integers(0, LARGEST), min_size=1, max_size=4),
    st.integers(0, 2**31 - 1),
    st.sampled_from([(1, 2, 3), (3, 3, 3), (1, 1, 1), (5,)]),
)
def test_every_element_is_the_documented_one(seeds: list[int], draw: int, shape: tuple[int, ...]) -> None:
    drawn = normal(seeds, draw, shape)
    assert (drawn.dtype, drawn.shape) == (torch.float32, (len(seeds), *shape))
    expected = [[documented(seed, draw, element) for element in range(math.prod(shape))] for seed in seeds]
    torch.testing.assert_close(drawn.reshape(len(seeds), -1).double(), torch.tensor(expected).double())


def test_tensors_on_a_device_draw_the_same() -> None:
    seeds = [0, 1, 2**32 - 1, 2**32, 7 * 2**40 + 5, LARGEST]
    for draw, shape in [(0, SHAPE), (1000, (3, 5, 5)), (2**31 - 1, (1, 1, 1))]:
        key = torch.from_numpy(key_words(seeds).view(np.int32))
        drawn = normal_from_key(key, torch.tensor(draw, dtype=torch.int32), shape=shape)
        assert torch.equal(drawn, normal(seeds, draw, shape))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_image_has_the_same_noise_alone_and_among_a_thousand(threads: int) -> None:
    torch.set_num_threads(threads)
    together = normal(range(40, 1040), 3, SHAPE)
    for k in (0, 1, 2, 499, 998, 999):
        assert torch.equal(normal([40 + k], 3, SHAPE)[0], together[k])
    assert torch.equal(normal(range(47, 110), 3, SHAPE), together[7:70])
    assert torch.equal(normal([1039, 40], 3, SHAPE), together[[-1, 0]])


def test_every_seed_draw_and_element_has_noise_of_its_own() -> None:
    seeds = [0, 1, 2**31, 2**32, 2**32 + 1, 2**62, LARGEST]
    drawn = torch.cat([normal(seeds, draw, (1, 8, 8)).flatten() for draw in range(20)])
    # Rounding to float32 makes a few of them equal.
    assert len(drawn.unique()) > len(drawn) - 10


def test_the_noise_is_standard_normal() -> None:
    x = normal(range(1000), 0, SHAPE).double().flatten()
    error = 1 / math.sqrt(len(x))
    assert abs(x.mean()) < 4 * error
    assert abs(x.square().mean() - 1) < 4 * math.sqrt(2) * error
    assert abs(x.pow(3).mean()) < 4 * math.sqrt(15) * error
    assert abs(x.pow(4).mean() - 3) < 4 * math.sqrt(96) * error
    for limit in (0.5, 1.0, 2.0, 3.0, 4.0):
        share = math.erfc(limit / math.sqrt(2))
        assert abs((x.abs() > limit).double().mean() - share) < 4 * math.sqrt(share) * error, limit
    assert x.isfinite().all()


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    """In standard errors."""
    return float((one * other).mean()) * math.sqrt(one.numel())


def test_neighbours_are_not_correlated() -> None:
    by_draw = torch.stack([normal(range(200), draw, SHAPE) for draw in range(3)]).double().flatten(2)
    first = by_draw[0]
    pairs = {
        "seeds": (first[:-1], first[1:]),
        "draws": (by_draw[:-1], by_draw[1:]),
        "elements": (first[:, :-1], first[:, 1:]),
        "of a pair": (first[:, ::2], first[:, 1::2]),
        "rows": (first[:, :-32], first[:, 32:]),
        "seed and draw": (by_draw[0, 1:], by_draw[1, :-1]),
        "high words of seeds": (first, normal([k << 32 for k in range(200)], 0, SHAPE).double().flatten(1)),
    }
    for name, (one, other) in pairs.items():
        rest = slice(1, None) if name.startswith("high") else slice(None)  # seed 0 is both
        assert abs(correlation(one[rest], other[rest])) < 4, name
        squares = [part[rest].square() - 1 for part in (one, other)]
        assert abs(correlation(*squares)) / 2 < 4, name
