"""The exact sum of the squares of some numbers.

Version 1 of its bytes: header "count", "nan", "infinite"; the payload is the total, little-endian, without leading zeros.
"""

from __future__ import annotations

import dataclasses
import math

from actserve.stats.format import StateError, pack, unpack

__all__ = ["SQUARE_UNIT_EXPONENT", "SquareSum"]

SQUARE_UNIT_EXPONENT = -2148
"""Sums of squares are counted in units of 2 to this power: the square of the smallest float64."""

_VERSION = 1
# The squares of 2**63 elements, each less than 2**2048.
_LARGEST_TOTAL_BITS = 2048 - SQUARE_UNIT_EXPONENT + 63
_LARGEST_COUNT = (1 << 63) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class SquareSum:
    """The exact sum of the squares of some numbers, of which NaN and infinities are only counted.

    >>> a = SquareSum(count=2, total=25 << -SQUARE_UNIT_EXPONENT)  # of 3 and 4
    >>> a.merge(SquareSum(count=1, total=1 << -SQUARE_UNIT_EXPONENT)).value()
    26.0
    """

    count: int = 0
    """How many numbers were seen, NaN and infinities included."""
    nan: int = 0
    infinite: int = 0
    total: int = 0
    """The sum over the finite ones, in units of 2**SQUARE_UNIT_EXPONENT."""

    def __post_init__(self) -> None:
        for name in ("count", "nan", "infinite", "total"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise StateError(f"{name} of a square sum must be a whole number, not {value!r}")
        if self.nan + self.infinite > self.count or self.count > _LARGEST_COUNT:
            raise StateError("the counts of a square sum contradict each other")
        if self.total.bit_length() > _LARGEST_TOTAL_BITS:
            raise StateError("the total of a square sum is larger than its numbers could make it")

    def merge(self, other: SquareSum) -> SquareSum:
        """The sum over both; `SquareSum()` is neutral."""
        return SquareSum(
            self.count + other.count, self.nan + other.nan, self.infinite + other.infinite, self.total + other.total
        )

    def value(self) -> float:
        """The sum, correctly rounded: NaN if there was one, else infinity if there was one or the sum overflows."""
        return self.scaled(1)

    def scaled(self, divisor: int) -> float:
        """The sum divided by a positive whole number, as for a mean, correctly rounded once."""
        if self.nan:
            return math.nan
        if self.infinite:
            return math.inf
        try:
            return self.total / (divisor << -SQUARE_UNIT_EXPONENT)
        except OverflowError:
            return math.inf

    def to_bytes(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        header = {"count": self.count, "nan": self.nan, "infinite": self.infinite}
        return pack("square_sum", _VERSION, header, self.total.to_bytes((self.total.bit_length() + 7) // 8, "little"))

    @classmethod
    def from_bytes(cls, data: bytes) -> SquareSum:
        """What `to_bytes` was called on; raises StateError."""
        header, payload = unpack("square_sum", _VERSION, ("count", "nan", "infinite"), data)
        if payload[-1:] == b"\0" or len(payload) * 8 > _LARGEST_TOTAL_BITS + 7:
            raise StateError("the total of a square sum is not in its shortest form")
        return cls(header["count"], header["nan"], header["infinite"], int.from_bytes(payload, "little"))
