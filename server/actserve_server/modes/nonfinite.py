"""How many elements are NaN or infinite, counted beside whatever else is done with them."""

from __future__ import annotations

import numpy as np

from actserve_server.errors import Nonfinite
from actserve_server.kernels.compiler import load_service
from actserve_server.kernels.forms import DTYPES, SIXTEEN_BITS
from actserve_server.modes.base import Array


class NonfiniteCounts:
    """Counts of a tensor's NaN, +inf and -inf; with `reject` the first one found is an error that names its place.

    >>> counts = NonfiniteCounts("x")
    >>> counts.add(0, np.array([1.0, np.nan])); counts.nan
    1
    """

    def __init__(self, what: str, field: str = "data", *, reject: bool = False) -> None:
        self._what = what
        self._field = field
        self._reject = reject
        self._counts = np.zeros(3, np.int64)

    @property
    def nan(self) -> int:
        """How many are NaN."""
        return int(self._counts[0])

    @property
    def positive_infinity(self) -> int:
        """How many are +inf."""
        return int(self._counts[1])

    @property
    def negative_infinity(self) -> int:
        """How many are -inf."""
        return int(self._counts[2])

    @property
    def total(self) -> int:
        """All of them."""
        return int(self._counts.sum())

    def add(self, first: int, array: Array) -> None:
        """Count the elements of a flat array whose first one is element `first` of the tensor. Raises errors.Nonfinite."""
        if array.dtype not in DTYPES or not array.size:
            return
        stored = array.view(np.uint16) if array.dtype in SIXTEEN_BITS else array
        load_service("count_nonfinite", array.dtype)(stored, self._counts)
        if self._reject and self._counts.any():
            place = int(np.flatnonzero(~np.isfinite(array))[0])
            raise Nonfinite(
                f"element {first + place} of {self._what} is {float(array[place])}, and only finite ones are wanted",
                field=self._field,
                value=float(array[place]),
                index=first + place,
                allowed='finite numbers, or nonfinite="propagate"',
            )


__all__ = ["NonfiniteCounts"]
