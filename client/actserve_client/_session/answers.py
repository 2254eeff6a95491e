"""What callers get of modes that give more than an array."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

__all__ = ["Array", "Gradients", "Regularization"]

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Regularization:
    """The answer of `regularization`: the penalty and, when it was asked for, its gradient in x's shape and type.

    `state` is what the penalty was computed from, as versioned bytes: `merge` takes it, and `regularization` for a gradient.
    """

    penalty: float
    gradient: Array | None = None
    state: bytes = dataclasses.field(default=b"", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Gradients:
    """The answer of `derivative(..., upstream=g, parameter_gradients=True)`: the derivatives of sum(g * f(x)).

    `input` is that with respect to x, in x's shape and type; `parameters` holds, by name, those with respect to the
    activation's parameters: float64, of the shape of the value that was given (a number has the shape `()`).
    """

    input: Array
    parameters: Mapping[str, Array]
