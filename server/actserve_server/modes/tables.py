"""Tables of elementwise activations at all 65,536 numbers of 16 bits, correctly rounded.

The float64 kernel gives each value to within a few units in its last place, which decides to which 16-bit number it rounds
unless it lies as near to the middle of two: there the record's formula decides, at as many digits as it takes. Without
that, silu of a subnormal x, which is x/2 and a sliver, would look like a tie and fall the wrong way.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from actserve_server.activations import formula
from actserve_server.activations.spec import Activation
from actserve_server.kernels.compiler import load, load_service
from actserve_server.modes.base import Array

_KEPT = 64
"""How many tables are kept, of 128 KiB each, or 512 KiB for products with a gradient."""

_DOUBT_ULP = 16
"""How near to a middle, in units in the last place of a float64, a kernel's result does not decide."""

_DOUBT_OF_FORMULAS_ULP = 2.0**32
"""The same of kernels made from a formula of anyone's, which may cancel: 16-bit numbers are 2**42 units apart or more, so that few are in doubt."""


def _every(dtype: np.dtype[Any]) -> npt.NDArray[np.float64]:
    """All numbers of a 16-bit type, in the order of their bits."""
    with np.errstate(invalid="ignore"):
        return np.arange(1 << 16, dtype=np.uint16).view(dtype).astype(np.float64)


def _evaluate(record: Activation, operation: str, x: Array, out: Array, parameters: tuple[float, ...]) -> None:
    """Run the float64 kernel; where it takes an index, any will do, for nothing is drawn."""
    index = (0,) if record.indexed else ()
    load(record, operation, np.float64)(x, *index, out, parameters)


@functools.lru_cache(_KEPT)
def derivative_table(
    record: Activation, operation: str, dtype: np.dtype[Any], parameters: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    """f' at all numbers of a type, not rounded: for products with a gradient, which are rounded afterwards."""
    values = np.empty(1 << 16)
    _evaluate(record, "derivative", _every(dtype), values, parameters)
    return values


@functools.lru_cache(_KEPT)
def rounded_table(
    record: Activation, operation: str, dtype: np.dtype[Any], parameters: tuple[float, ...]
) -> npt.NDArray[np.uint16]:
    """The bits of f ("forward") or f' ("derivative") at all numbers of a type."""
    x, values, bits = _every(dtype), np.empty(1 << 16), np.empty(1 << 16, np.uint16)
    _evaluate(record, operation, x, values, parameters)
    narrow = load_service("narrow", dtype)
    narrow(values, bits)
    doubt = _DOUBT_ULP if record.truth is None else _DOUBT_OF_FORMULAS_ULP
    places, middles = _doubtful(values, bits, dtype, doubt)
    for place, middle in zip(places.tolist(), middles.tolist(), strict=True):
        exact = formula.value(record, float(x[place]), parameters, derivative=operation == "derivative")
        # What is not the middle itself must not look like it once it is a float64.
        nearest = float(exact)
        away = (
            nearest
            if exact == middle or nearest != middle
            else math.nextafter(middle, math.copysign(math.inf, exact - middle))
        )
        values[place] = away
    narrow(values, bits)
    return bits


def _doubtful(values: Array, bits: Array, dtype: np.dtype[Any], doubt_ulp: float) -> tuple[Array, Array]:
    """Where a value is so near to the middle of two neighbours that its own error could decide between them, and the middle."""
    with np.errstate(all="ignore"):
        rounded = bits.view(dtype).astype(np.float64)
        middles = [(rounded + (bits + np.uint16(step)).view(dtype).astype(np.float64)) / 2 for step in (1, 0xFFFF)]
        # Beside zero a step of the bits leads to a NaN, which is no neighbour.
        middle = np.where(np.abs(middles[1] - values) < np.abs(middles[0] - values), middles[1], middles[0])
        near = np.abs(middle - values) <= doubt_ulp * np.spacing(np.abs(values))
    places = np.flatnonzero(near & np.isfinite(values) & np.isfinite(rounded) & (values != rounded))
    return places, middle[places]


__all__ = ["derivative_table", "rounded_table"]
