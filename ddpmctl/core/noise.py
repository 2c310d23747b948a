"""Standard normal noise as a function of seed, draw and element: a counter-based generator.

The generator is stateless: an image has the same noise alone or among thousands, on every device, in any order.
The definition, which is all that another program needs to draw the same noise:

1. Key: ``(seed mod 2**32, seed >> 32)``, the image's seed in 0..2**63-1 as two 32-bit words, the low word first.
2. Counter: ``(draw, j)``, two 32-bit words. ``draw`` is 0 for the initial noise of sampling, then 1, 2 and so on;
   ``j`` is the number of a pair of elements, ``2j`` and ``2j + 1`` in C order of the shape (channel, row, column).
3. Words: ``(w0, w1) = threefry2x32(key, counter)`` with 20 rounds (Salmon et al. 2011, section 3.3).
   Additions are modulo 2**32; ``rotl`` rotates a 32-bit word to the left:

   - ``k2 = k0 ^ k1 ^ 0x1BD11BDA``; start from ``x0 = c0 + k0``, ``x1 = c1 + k1``;
   - round r = 0..19: ``x0 += x1``, ``x1 = rotl(x1, R[r mod 8]) ^ x0`` with ``R = 13, 15, 26, 6, 17, 29, 16, 24``;
   - after every fourth round, for n = 1..5: ``x0 += k[n mod 3]``, ``x1 += k[(n + 1) mod 3] + n``.
4. Uniforms: ``u0 = (w0 + 0.5) / 2**32`` and ``u1 = (w1 + 0.5) / 2**32``, exact in float64, never 0 or 1.
5. Normals (Box & Muller 1958): ``r = sqrt(-2 log u0)``; element ``2j`` is ``r cos(2 pi u1)`` and element ``2j + 1`` is
   ``r sin(2 pi u1)``, computed in float64 and rounded to float32. An odd number of elements leaves the last sine out.

The words are equal on every machine. The normals are equal up to the last bit of float64 functions, which rounding to
float32 hides but for about one element in a hundred million.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Words = Any
"""32-bit words: uint32 of NumPy, or int32 of torch, which has no arithmetic on uint32; the bits are the same."""

ROUNDS = 20
ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
ONE = 2.0**32


def normal(seeds: Sequence[int], draw: int, shape: tuple[int, ...]) -> Tensor:
    """Noise for images of this shape: float32[N, *shape] on the CPU.

    There is one seed per image, 0..2**63-1; draw 0 is the initial noise of sampling.
    """
    # NumPy has the integers: torch would divide each of these many short operations among threads.
    low, high = key_words(seeds)[:, :, None]
    pairs = np.arange(-(-math.prod(shape) // 2), dtype=np.uint32)
    words = threefry2x32((low, high), (np.full_like(pairs, draw), pairs))
    return _box_muller(shape, *(torch.from_numpy(word.astype(np.float64)) for word in words))


def normal_from_key(key: Tensor, draw: Tensor, *, shape: tuple[int, ...]) -> Tensor:
    """As `normal` on a device, which needs float64, without waiting for it.

    The key is the bits of `key_words`, int32[2, N], and the draw int32[].
    """
    low, high = key[:, :, None]
    pairs = torch.arange(-(-math.prod(shape) // 2), dtype=torch.int32, device=key.device)
    words = threefry2x32((low, high), (draw.expand_as(pairs), pairs))
    # In int64 the mask turns a negative int32 into the uint32 of the same bits.
    return _box_muller(shape, *((word.long() & 0xFFFFFFFF).double() for word in words))


def key_words(seeds: Sequence[int]) -> NDArray[np.uint32]:
    """Seeds in 0..2**63-1 as low and high words, uint32[2, N]."""
    seed_words = np.array(seeds, np.uint64)
    return np.stack([seed_words & np.uint64(0xFFFFFFFF), seed_words >> np.uint64(32)]).astype(np.uint32)


def threefry2x32(key: tuple[Words, Words], counter: tuple[Words, Words]) -> tuple[Words, Words]:
    """Two random words of each key and counter: 32-bit arrays, the keys' broadcast against the counters'."""
    k = (*key, key[0] ^ key[1] ^ PARITY)
    x0, x1 = counter[0] + k[0], counter[1] + k[1]
    for r in range(ROUNDS):
        left = ROTATIONS[r % len(ROTATIONS)]
        x0 += x1
        right = x1 >> (32 - left)
        right &= (1 << left) - 1  # without the copies of the sign that a shift of int32 brings in
        x1 <<= left
        x1 |= right
        x1 ^= x0
        if r % 4 == 3:
            n = r // 4 + 1
            x0 += k[n % 3]
            x1 += k[(n + 1) % 3] + n
    return x0, x1


def _box_muller(shape: tuple[int, ...], first: Tensor, second: Tensor) -> Tensor:
    """Normals of words, float64[N, pairs] each: float32[N, *shape]."""
    radius = torch.sqrt(-2 * torch.log((first + 0.5) / ONE))
    angle = 2 * math.pi * ((second + 0.5) / ONE)
    pairs = torch.stack([(radius * angle.cos()).float(), (radius * angle.sin()).float()], -1)
    return pairs.reshape(len(pairs), -1)[:, : math.prod(shape)].reshape(-1, *shape)
