"""Random numbers without a state: what an element draws follows from its place and a seed alone.

So a tensor may come in any pieces, be computed in any order and by any processor, and a derivative sees the draws that
the forward pass saw. The generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, Parallel random numbers: as easy as
1, 2, 3, SC 2011), which passes every test of TestU01, and is that of cuRAND, PyTorch and TensorFlow. Its products of 32
bits by 32 are ones that AVX2 has, so that loops around it vectorize.

This module is the same in every precision; it knows neither activations nor which distribution is made of its draws.
"""

from __future__ import annotations

from actserve_server.elementary.bits import float_of
from actserve_server.elementary.source import kernel

__all__ = ["uniform"]

WORD_BITS = 32
WORD = 0xFFFFFFFF
MULTIPLIER_0, MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
KEY_STEP_0, KEY_STEP_1 = 0x9E3779B9, 0xBB67AE85

LOW_BITS, LOW_DROPPED = 20, 12
"""A draw has 52 bits: the first word, and the second without its lowest."""
ONE_BITS = 1023 << 52
"""The bits of 1.0: with 52 random ones below them, they are those of a number in [1, 2)."""
HALF_STEP = 2.0**-53

Words = tuple[int, int, int, int]


# Words are signed 64-bit integers with 32 bits in use. A product wraps around, but its two words come out right: both
# are masked, and what a shift brings in from the sign lies above the mask.
@kernel
def _round(a: int, b: int, c: int, d: int, key_0: int, key_1: int) -> Words:
    first, second = a * MULTIPLIER_0, c * MULTIPLIER_1
    upper_0, upper_1 = (first >> WORD_BITS) & WORD, (second >> WORD_BITS) & WORD
    return upper_1 ^ b ^ (key_0 & WORD), second & WORD, upper_0 ^ d ^ (key_1 & WORD), first & WORD


@kernel
def _philox(a: int, b: int, c: int, d: int, key_0: int, key_1: int) -> Words:
    """Four random words for a counter of four words and a key of two."""
    a, b, c, d = _round(a, b, c, d, key_0, key_1)
    a, b, c, d = _round(a, b, c, d, key_0 + KEY_STEP_0, key_1 + KEY_STEP_1)
    a, b, c, d = _round(a, b, c, d, key_0 + 2 * KEY_STEP_0, key_1 + 2 * KEY_STEP_1)
    a, b, c, d = _round(a, b, c, d, key_0 + 3 * KEY_STEP_0, key_1 + 3 * KEY_STEP_1)
    a, b, c, d = _round(a, b, c, d, key_0 + 4 * KEY_STEP_0, key_1 + 4 * KEY_STEP_1)
    a, b, c, d = _round(a, b, c, d, key_0 + 5 * KEY_STEP_0, key_1 + 5 * KEY_STEP_1)
    a, b, c, d = _round(a, b, c, d, key_0 + 6 * KEY_STEP_0, key_1 + 6 * KEY_STEP_1)
    a, b, c, d = _round(a, b, c, d, key_0 + 7 * KEY_STEP_0, key_1 + 7 * KEY_STEP_1)
    a, b, c, d = _round(a, b, c, d, key_0 + 8 * KEY_STEP_0, key_1 + 8 * KEY_STEP_1)
    return _round(a, b, c, d, key_0 + 9 * KEY_STEP_0, key_1 + 9 * KEY_STEP_1)


@kernel
def uniform(index: int, seed_hi: float, seed_lo: float) -> float:
    """The number that element `index` of a tensor draws: a float64 in (0, 1), an odd multiple of 2^-53.

    The seed comes as its upper and its lower 32 bits, each a float64 as other parameters are. With the words of
    Philox4x32-10 for the counter (index mod 2^32, index div 2^32, 0, 0) and the key (seed_lo, seed_hi), the number is
    (k + 1/2)/2^52, where k is the first word followed by the upper 20 bits of the second.
    """
    first, second, _, _ = _philox(index & WORD, (index >> WORD_BITS) & WORD, 0, 0, int(seed_lo), int(seed_hi))
    fraction = (first << LOW_BITS) | (second >> LOW_DROPPED)
    return (float_of(fraction | ONE_BITS) - 1.0) + HALF_STEP
