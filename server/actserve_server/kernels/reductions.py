"""Loops that boil a tensor down to a mergeable state: exact sums of squares, and of the values of each channel.

States are integers, and merging is integer addition: a result depends neither on how the input was split nor on the
order of the pieces. The loops are plain functions, compiled by `compiler.load_reduction`; what is derived from a state,
and its form on the wire, are not known here.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from actserve_server.elementary.bits import bits_of, float_of, fma
from actserve_server.elementary.source import kernel

__all__ = [
    "REDUCTIONS",
    "Reduction",
    "SQUARE_UNIT_EXPONENT",
    "add_channel_squares",
    "add_squares",
    "add_values",
    "new_square_sum",
    "new_square_sums",
    "new_value_sums",
    "settle",
    "settle_squares",
    "square_sum",
    "value_counts",
    "value_sum",
]

# The tally of squares, int64: _LIMBS limbs that each hold a digit of 32 bits and the carries not yet passed on, limb k
# in units of 2**(32 * k - _OFFSET); then how many elements were seen, how many were NaN, how many infinite.
# The smallest square of a float64 is 2**-2148 and the largest less than 2**2048; two limbs more hold 2**64 of those.
_OFFSET = 2176
_LIMBS = 134
_COUNT, _NAN, _INFINITE = _LIMBS, _LIMBS + 1, _LIMBS + 2

SQUARE_UNIT_EXPONENT = -2148
"""`square_sum` counts in units of 2 to this power: the square of the smallest float64."""

_DIGIT = 0xFFFFFFFF
_BLOCK = 4096
# A block deposits at most 9 digits into one limb for each of its elements: 2**30 digits fit beside each other in int64.
_BLOCKS_BETWEEN_CARRIES = 16384

_FRACTION = (1 << 52) - 1
_MAGNITUDE = (1 << 63) - 1
_EXPONENT_MASK = 0x7FF

# The quick way splits numbers below 2**k into integer multiples of 2**(k - 50), of 2**(k - 101) and so on: adding
# 1.5 * 2**(b + 52) rounds a number below 2**(b + 50) to a multiple of 2**b and leaves that multiple in the low bits of
# the result. A block of 4096 such integers sums without overflow, in any order, and nothing is lost: what
# remains after the last level is looked at, and if it is not zero the block goes the slow way.
_LEVEL_BITS = 51
_MAGIC = 1.5

# Within these bounds no intermediate result of the quick way overflows or loses digits to underflow.
_LEAST, _MOST = 1e-120, 1e150


@kernel
def _power_of_two(exponent):  # type: ignore[no-untyped-def]
    return float_of((exponent + 1023) << 52)


@kernel
def _deposit(tally, number, position):  # type: ignore[no-untyped-def]
    """Add number * 2**(position - _OFFSET); the number lies within (-2**63, 2**63)."""
    limb = position >> 5
    shift = position & 31
    low = (number & _DIGIT) << shift
    high = ((number >> 32) << shift) + (low >> 32)
    tally[limb] += low & _DIGIT
    tally[limb + 1] += high & _DIGIT
    tally[limb + 2] += high >> 32


@kernel
def _carry(tally):  # type: ignore[no-untyped-def]
    """Bring every limb but the last to a digit in [0, 2**32), which makes equal sums equal arrays."""
    for limb in range(_LIMBS - 1):
        tally[limb + 1] += tally[limb] >> 32
        tally[limb] &= _DIGIT


@kernel
def _magnitude_bits(x):  # type: ignore[no-untyped-def]
    return bits_of(np.float64(x)) & _MAGNITUDE


@kernel
def _add_each(tally, block):  # type: ignore[no-untyped-def]
    """The slow way: the square of the significand, an integer of 106 bits, in three products of its halves."""
    for p in range(block.size):
        bits = _magnitude_bits(block[p])
        exponent = bits >> 52
        significand = bits & _FRACTION
        if exponent == _EXPONENT_MASK:
            tally[_NAN if significand else _INFINITE] += 1
            continue
        if exponent > 0:
            significand |= _FRACTION + 1
        else:
            exponent = 1
        high = significand >> 27
        low = significand & 0x7FFFFFF
        position = 2 * (exponent - 1075) + _OFFSET
        _deposit(tally, low * low, position)
        _deposit(tally, high * low, position + 28)
        _deposit(tally, high * high, position + 54)


@kernel
def _add_together(tally, block, largest, smallest):  # type: ignore[no-untyped-def]
    """The quick way, for magnitudes that are 0 or in [smallest, largest]; False if it would not have been exact."""
    if float_of(largest) > _MOST or float_of(smallest) < _LEAST:
        return False
    first = 2 * ((largest >> 52) - 1022) - _LEVEL_BITS + 1
    second = first - _LEVEL_BITS
    third = second - _LEVEL_BITS
    magic_1 = _MAGIC * _power_of_two(first + 52)
    magic_2 = _MAGIC * _power_of_two(second + 52)
    magic_3 = _MAGIC * _power_of_two(third + 52)
    bits_1 = bits_of(magic_1)
    bits_2 = bits_of(magic_2)
    bits_3 = bits_of(magic_3)
    sum_1 = 0
    sum_2 = 0
    sum_3 = 0
    errors_2 = 0
    errors_3 = 0
    rest = 0
    for p in range(block.size):
        x = np.float64(block[p])
        square = x * x
        error = fma(x, x, -square)
        square_1 = square + magic_1
        square -= square_1 - magic_1
        square_2 = square + magic_2
        square -= square_2 - magic_2
        square_3 = square + magic_3
        square -= square_3 - magic_3
        error_2 = error + magic_2
        error -= error_2 - magic_2
        error_3 = error + magic_3
        error -= error_3 - magic_3
        sum_1 += bits_of(square_1) - bits_1
        sum_2 += bits_of(square_2) - bits_2
        sum_3 += bits_of(square_3) - bits_3
        errors_2 += bits_of(error_2) - bits_2
        errors_3 += bits_of(error_3) - bits_3
        rest |= bits_of(square) | bits_of(error)
    if rest & _MAGNITUDE:
        return False
    _deposit(tally, sum_1, first + _OFFSET)
    _deposit(tally, sum_2 + errors_2, second + _OFFSET)
    _deposit(tally, sum_3 + errors_3, third + _OFFSET)
    return True


@kernel
def add_squares(x, tally):  # type: ignore[no-untyped-def]
    """Add the square of every element of x, exactly, to a tally made by `new_square_sum`; leaves no carry."""
    tally[_COUNT] += x.size
    blocks = 0
    for begin in range(0, x.size, _BLOCK):
        block = x[begin : begin + _BLOCK]
        largest = 0
        smallest = _MAGNITUDE
        for p in range(block.size):
            bits = _magnitude_bits(block[p])
            largest = max(largest, bits)
            smallest = min(smallest, bits if bits != 0 else _MAGNITUDE)
        if largest == 0:
            continue
        if not _add_together(tally, block, largest, smallest):
            _add_each(tally, block)
        blocks += 1
        if blocks % _BLOCKS_BETWEEN_CARRIES == 0:
            _carry(tally)
    _carry(tally)


@kernel
def add_channel_squares(x, start, inner, tallies):  # type: ignore[no-untyped-def]
    """Add the square of every element, exactly, to its channel's tally: element p belongs to channel ((start + p) // inner) %
    channels. Leaves carries: `settle_squares` after at most 2**26 elements, and before `square_sum`."""
    channels = tallies.shape[0]
    if start < 0 or inner < 1 or channels < 1:
        raise ValueError("start must not be negative, and inner and the number of channels must be positive")
    for p in range(x.size):
        tally = tallies[(start + p) // inner % channels]
        tally[_COUNT] += 1
        _add_each(tally, x[p : p + 1])


def settle_squares(tallies: npt.NDArray[np.int64]) -> None:
    """Carry what limbs hold beyond their digits; the sums stay the same."""
    for limb in range(_LIMBS - 1):
        tallies[:, limb + 1] += tallies[:, limb] >> 32
        tallies[:, limb] &= _DIGIT


def new_square_sums(channels: int) -> npt.NDArray[np.int64]:
    """Tallies of nothing, for `add_channel_squares`; each is one that `square_sum` reads."""
    return np.zeros((channels, _LIMBS + 3), np.int64)


def new_square_sum() -> npt.NDArray[np.int64]:
    """A tally of nothing, for `add_squares`."""
    return np.zeros(_LIMBS + 3, np.int64)


@dataclasses.dataclass(frozen=True, slots=True)
class SquareTally:
    """What a tally holds, as Python integers."""

    count: int
    nan: int
    infinite: int
    total: int
    """The sum over the finite elements, in units of 2**SQUARE_UNIT_EXPONENT."""


def square_sum(tally: npt.NDArray[np.int64]) -> SquareTally:
    """Read a tally.

    >>> tally = new_square_sum()
    >>> load_reduction("add_squares", np.float64)(np.array([3.0, 4.0]), tally)
    >>> square_sum(tally).total == 25 << -SQUARE_UNIT_EXPONENT
    True
    """
    total = int.from_bytes(tally[:_LIMBS].astype("<u4").tobytes(), "little") >> (_OFFSET + SQUARE_UNIT_EXPONENT)
    return SquareTally(int(tally[_COUNT]), int(tally[_NAN]), int(tally[_INFINITE]), total)


# Limb k of a sum of values is in units of 2**(32 * k - 1074). A limb takes 2**31 digits of 32 bits before it overflows, and
# two more limbs hold what the sum outgrows the largest float64 by.
_VALUE_LIMBS = 67
_VALUE_NAN, _VALUE_POSITIVE, _VALUE_NEGATIVE = _VALUE_LIMBS, _VALUE_LIMBS + 1, _VALUE_LIMBS + 2
_VALUE_UNIT = Fraction(1, 1 << 1074)


@kernel
def add_values(values, start, inner, limbs):  # type: ignore[no-untyped-def]
    """Add float64 values, exactly, to their channels' tallies: element p belongs to channel ((start + p) // inner) % channels.

    limbs is int64[channels, len of `new_value_sums`]; it may be given to `value_sum` after any number of calls.
    """
    channels = limbs.shape[0]
    if start < 0 or inner < 1 or channels < 1:
        raise ValueError("start must not be negative, and inner and the number of channels must be positive")
    for p in range(values.size):
        tally = limbs[(start + p) // inner % channels]
        bits = bits_of(np.float64(values[p]))
        exponent = (bits >> 52) & _EXPONENT_MASK
        significand = bits & _FRACTION
        if exponent == _EXPONENT_MASK:
            tally[_VALUE_NAN if significand else (_VALUE_POSITIVE if bits > 0 else _VALUE_NEGATIVE)] += 1
            continue
        if exponent > 0:
            significand |= _FRACTION + 1
        else:
            exponent = 1
        sign = 1 if bits >= 0 else -1
        position = exponent - 1
        limb, shift = position >> 5, position & 31
        low = (significand & _DIGIT) << shift
        high = ((significand >> 32) << shift) + (low >> 32)
        tally[limb] += sign * (low & _DIGIT)
        tally[limb + 1] += sign * (high & _DIGIT)
        tally[limb + 2] += sign * (high >> 32)


def new_value_sums(channels: int) -> npt.NDArray[np.int64]:
    """Tallies of nothing, for `add_values`."""
    return np.zeros((channels, _VALUE_LIMBS + 3), np.int64)


def settle(limbs: npt.NDArray[np.int64]) -> None:
    """Carry what limbs hold beyond their digits, so that 2**31 values more can be added; the sums stay the same."""
    for limb in range(_VALUE_LIMBS - 1):
        limbs[:, limb + 1] += limbs[:, limb] >> 32
        limbs[:, limb] &= _DIGIT


def value_counts(tally: npt.NDArray[np.int64]) -> tuple[int, int, int, int]:
    """What a channel holds: the sum of its finite values, in units of 2**-1074, and how many were NaN, +inf and -inf."""
    total = sum(int(digit) << (32 * limb) for limb, digit in enumerate(tally[:_VALUE_LIMBS]))
    return total, int(tally[_VALUE_NAN]), int(tally[_VALUE_POSITIVE]), int(tally[_VALUE_NEGATIVE])


def value_sum(tally: npt.NDArray[np.int64]) -> float:
    """The sum of a channel, rounded once; NaN and infinities as IEEE addition has them.

    >>> limbs = new_value_sums(1)
    >>> load_reduction("add_values", np.float64)(np.array([1e300, 1.0, -1e300]), 0, 1, limbs)
    >>> value_sum(limbs[0])
    1.0
    """
    positive, negative = bool(tally[_VALUE_POSITIVE]), bool(tally[_VALUE_NEGATIVE])
    if tally[_VALUE_NAN] or (positive and negative):
        return math.nan
    if positive or negative:
        return math.inf if positive else -math.inf
    total = sum(int(digit) << (32 * limb) for limb, digit in enumerate(tally[:_VALUE_LIMBS]))
    try:
        return float(total * _VALUE_UNIT)
    except OverflowError:
        return math.inf if total > 0 else -math.inf


@dataclasses.dataclass(frozen=True, slots=True)
class Reduction:
    """A loop to compile, and the arguments it takes in the words of `build.ARGUMENTS`."""

    function: Callable[..., None]
    arguments: tuple[str, ...]


REDUCTIONS: dict[str, Reduction] = {
    "add_channel_squares": Reduction(add_channel_squares, ("input", "index", "index", "counts")),
    "add_squares": Reduction(add_squares, ("input", "tally")),
    "add_values": Reduction(add_values, ("wide_input", "index", "index", "counts")),
}
"""What `compiler.load_reduction` offers."""
