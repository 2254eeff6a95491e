"""Exact sums, one for each neuron, as columns of digits: merged by integer addition, equal where the sums are equal."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from actserve.stats.format import StateError

__all__ = ["SQUARE_OFFSET", "VALUE_OFFSET", "ExactSums"]

VALUE_OFFSET = 1088
"""Digit k of a sum of values is in units of 2**(32 * k - VALUE_OFFSET): no float64 has bits below digit 0."""

SQUARE_OFFSET = 2176
"""The same for sums of squares."""

_DIGIT_BITS = 32
_DIGIT = (1 << _DIGIT_BITS) - 1
# 2**63 squares, each below 2**2048.
_MOST_DIGITS = (SQUARE_OFFSET + 2048 + 64) // _DIGIT_BITS + 1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ExactSums:
    """Sums that are not negative: sum i is the total of digits[i, k] * 2**(32 * (first + k)), in the unit of digit 0.

    >>> sums = ExactSums.of(np.array([[0, 1], [0, 7]]), 5)
    >>> sums.first, sums.integers()
    (6, [1, 7])
    >>> sums.merge(sums).integers()
    [2, 14]

    Digits are uint32. There is no column in front or at the end in which all are zero, so equal sums have equal bytes.
    """

    first: int
    digits: npt.NDArray[np.uint32]

    def __post_init__(self) -> None:
        self.digits.flags.writeable = False

    @classmethod
    def none(cls, neurons: int) -> ExactSums:
        """Nothing summed yet."""
        return cls(0, np.zeros((neurons, 0), np.uint32))

    @classmethod
    def of(cls, limbs: npt.NDArray[np.int64], first: int) -> ExactSums:
        """The sums that limbs make which may hold more than a digit, or less than none, as long as their total does not."""
        used = np.flatnonzero(limbs.any(axis=0))
        if not used.size:
            return cls.none(limbs.shape[0])
        # Digit by digit, so that each step is over numbers that lie together.
        begin, width = int(used[0]), int(used[-1] - used[0]) + 1
        carried = np.zeros((width + 2, limbs.shape[0]), np.int64)
        carried[:width] = limbs[:, begin : begin + width].T
        for k in range(width + 1):
            carried[k + 1] += carried[k] >> _DIGIT_BITS
            carried[k] &= _DIGIT
        used = np.flatnonzero(carried.any(axis=1))
        if not used.size:
            return cls.none(limbs.shape[0])
        return cls(first + begin + int(used[0]), carried[used[0] : used[-1] + 1].astype(np.uint32).T)

    def merge(self, other: ExactSums) -> ExactSums:
        """The sums of both."""
        if not (self.digits.shape[1] and other.digits.shape[1]):
            return self if self.digits.shape[1] else other
        first = min(self.first, other.first)
        end = max(part.first + part.digits.shape[1] for part in (self, other))
        limbs = np.zeros((len(self.digits), end - first), np.int64)
        for part in (self, other):
            limbs[:, part.first - first : part.first - first + part.digits.shape[1]] += part.digits
        return ExactSums.of(limbs, first)

    def integers(self) -> list[int]:
        """The sums, in units of 2**(32 * first) of digit 0's."""
        size = 4 * self.digits.shape[1]
        raw = self.digits.astype("<u4").tobytes()
        return [
            int.from_bytes(raw[at : at + size], "little") for at in range(0, len(self.digits) * size, size or 1)
        ] or [0] * len(self.digits)

    def to_bytes(self) -> bytes:
        """The digits, digit by digit: the first of every sum, then the second, little-endian."""
        return self.digits.T.astype("<u4").tobytes()

    @classmethod
    def from_bytes(cls, first: object, width: object, neurons: int, data: bytes) -> ExactSums:
        """What `to_bytes` was called on; raises StateError."""
        if type(first) is not int or type(width) is not int or not 0 <= first <= first + width <= _MOST_DIGITS:
            raise StateError(f"exact sums of the digits {first!r} and {width!r} more are not understood")
        digits = np.frombuffer(data, "<u4").reshape(width, neurons).T.astype(np.uint32)
        if (width and not (digits[:, 0].any() and digits[:, -1].any())) or (not width and first):
            raise StateError("exact sums are not in their shortest form")
        return cls(first, digits)
