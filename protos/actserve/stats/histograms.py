"""Histograms by the upper 16 bits of the float32 nearest to each number: exact counts, and quantiles within 0.4 %.

A bin holds the numbers whose sign, exponent and first 7 bits of significand agree, so its middle is within 2**-8 of each of
them, relatively. Bin b of histogram h has the key h * BINS + b.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from actserve.stats.format import StateError, read_varints, varints

__all__ = ["BINS", "Histogram"]

BINS = 1 << 16
_INFINITE = 0x7F80
_NEGATIVE = 0x8000


def _order(bins: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rank of bins by their numbers: negative ones backwards, and before the others."""
    return np.where(bins < _NEGATIVE, bins + _NEGATIVE, 2 * _NEGATIVE - 1 - bins)


def _edges(bins: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The magnitudes between which a bin lies, with the sign; an infinity's are both infinite."""
    with np.errstate(over="ignore"):
        low = (bins.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        inner = np.where((bins & 0x7FFF) == _INFINITE, bins, bins + 1)
        high = (inner.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    # Above the largest bin of finite numbers the next power of two ends it.
    last = (bins & 0x7FFF) == _INFINITE - 1
    return low, np.where(last, np.copysign(2.0**128, low), high)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How often each bin was hit, of one histogram or several, without the bins that never were.

    >>> histogram = Histogram(np.array([0x3F80, 0x4000]), np.array([3, 1]))  # three numbers near 1, one near 2
    >>> histogram.total
    4
    >>> histogram.quantiles(0, [0.5]).tolist()
    [1.00390625]
    """

    keys: npt.NDArray[np.int64]
    """Ascending."""
    counts: npt.NDArray[np.int64]
    """Positive."""

    def __post_init__(self) -> None:
        self.keys.flags.writeable = False
        self.counts.flags.writeable = False

    @classmethod
    def of(cls, keys: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> Histogram:
        """Of keys in any order and any number of times each, with counts that may be zero."""
        kept = counts != 0
        found, place = np.unique(keys[kept], return_inverse=True)
        added = np.zeros(found.size, np.int64)
        np.add.at(added, place.reshape(-1), counts[kept])
        return cls(found.astype(np.int64), added)

    @property
    def total(self) -> int:
        """How many numbers there are."""
        return int(self.counts.sum())

    def merge(self, other: Histogram) -> Histogram:
        """The counts of both."""
        return Histogram.of(np.concatenate([self.keys, other.keys]), np.concatenate([self.counts, other.counts]))

    def bins(
        self, histogram: int = 0
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """The bins of one histogram that were hit, by ascending numbers: least and largest number, and count."""
        begin, end = np.searchsorted(self.keys, [histogram * BINS, (histogram + 1) * BINS])
        bins, counts = self.keys[begin:end] - histogram * BINS, self.counts[begin:end]
        ranks = np.argsort(_order(bins))
        near, far = _edges(bins[ranks])
        return np.minimum(near, far), np.maximum(near, far), counts[ranks]

    def quantiles(self, histogram: int, shares: list[float]) -> npt.NDArray[np.float64]:
        """The least number that a share of all numbers does not exceed, as its bin's middle; NaN where there is none."""
        low, high, counts = self.bins(histogram)
        reached = np.cumsum(counts)
        if not reached.size:
            return np.full(len(shares), math.nan)
        total = int(reached[-1])
        # 0.9 means nine tenths, and not the float64 above it, which would be one number more.
        ranks = [max(math.ceil(Fraction(repr(share)) * total), 1) for share in shares]
        places = np.searchsorted(reached, ranks)
        low, high = low[places], high[places]
        # What is not told apart from 0 is 0, and an infinity has no middle.
        whole = np.where((low == 0) | (high == 0), 0.0, low)
        with np.errstate(invalid="ignore"):
            return np.where((whole == 0) | np.isinf(low), whole, low + (high - low) / 2)

    def to_bytes(self) -> bytes:
        """How far each key is from the one before, then the counts."""
        return varints(np.concatenate([np.diff(self.keys, prepend=0), self.counts]).astype(np.int64))

    @classmethod
    def from_bytes(cls, histograms: int, data: bytes) -> Histogram:
        """What `to_bytes` was called on; raises StateError."""
        values = read_varints(data)
        steps, counts = np.split(values, [values.size // 2])
        if (
            steps.size != counts.size
            or (counts < 1).any()
            or (steps[1:] < 1).any()
            or (steps > histograms * BINS).any()
        ):
            raise StateError("the state's histogram is no list of bins and counts")
        keys = np.cumsum(steps)
        if (keys.size and keys[-1] >= histograms * BINS) or (keys % BINS & 0x7FFF > _INFINITE).any():
            raise StateError("the state's histogram has bins that there are not")
        return cls(keys, counts)
