"""Activations that change the length of an axis: CReLU and maxout. Says what they are, not how they are run."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from actserve_server.activations.spec import Library, Parameter, ResizingActivation, Traits, kernel

__all__ = ["CRELU", "MAXOUT"]


@kernel
def element(x: Any, i: int, j: int) -> float:
    """An element of a block, as a number."""
    return np.float64(x[i, j])


# NaN is neither above nor below 0, and must come out of both halves.
@kernel
def _crelu(x: Any, i: int, j: int) -> float:
    n = x.shape[0]
    v = element(x, i, j) if i < n else -element(x, i - n, j)
    return v if v > 0.0 or v != v else 0.0


@kernel
def _crelu_vjp(x: Any, g: Any, i: int, j: int) -> float:
    v = element(x, i, j)
    positive = element(g, i, j) * (1.0 if v > 0.0 else 0.0)
    negative = element(g, i + x.shape[0], j) * (1.0 if v < 0.0 else 0.0)
    return positive - negative if v == v else v


def _twice(n: int) -> int:
    return 2 * n


CRELU = ResizingActivation(
    name="crelu",
    summary="The positive parts of a slice, and after them the positive parts of its negation.",
    reference="Shang, Sohn, Almeida and Lee, Understanding and improving convolutional neural networks via concatenated "
    "rectified linear units, ICML 2016, arXiv:1603.05201",
    formula="max(x[i], 0) if i < len(x) else max(-x[i - len(x)], 0)",
    derivative_formula="(1 if x[k] > 0 else 0) if i == k else (-1 if x[k] < 0 else 0) if i == k + len(x) else 0",
    length=_twice,
    forward=_crelu,
    vjp=_crelu_vjp,
    range="[0, inf)",
    traits=Traits(monotonic=False, zero_centred=False, saturates="no", smooth=False),
    advice="For the first layers of a convolutional network, whose filters otherwise come in pairs of opposite sign.",
    aliases=("concatenated_relu",),
    libraries=(Library("tensorflow", ("crelu",)),),
)


@kernel
def _maxout(x: Any, i: int, j: int, num_units: float) -> float:
    size = x.shape[0] // int(num_units)
    most = element(x, i * size, j)
    for p in range(i * size + 1, (i + 1) * size):
        v = element(x, p, j)
        most = v if v > most or v != v else most
    return most


@kernel
def _maxout_vjp(x: Any, g: Any, i: int, j: int, num_units: float) -> float:
    size = x.shape[0] // int(num_units)
    unit = i // size
    winner = unit * size
    undefined = False
    for p in range(unit * size, (unit + 1) * size):
        undefined = undefined or element(x, p, j) != element(x, p, j)
        winner = p if element(x, p, j) > element(x, winner, j) else winner
    return math.nan if undefined else element(g, unit, j) * (1.0 if i == winner else 0.0)


def _units(n: int, num_units: int) -> int:
    if n % num_units:
        raise ValueError(f"num_units is {num_units}, and must divide the axis' length, {n}")
    return num_units


MAXOUT = ResizingActivation(
    name="maxout",
    summary="The greatest of each group of neighbours along an axis: a convex function that the network learns.",
    reference="Goodfellow, Warde-Farley, Mirza, Courville and Bengio, Maxout networks, ICML 2013, arXiv:1302.4389",
    formula="max(x[i * (len(x) // num_units) : (i + 1) * (len(x) // num_units)])",
    derivative_formula="1 if k == max(range(i * (len(x) // num_units), (i + 1) * (len(x) // num_units)), key=x.__getitem__) "
    "else 0",
    length=_units,
    forward=_maxout,
    vjp=_maxout_vjp,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    advice="Together with dropout, where a layer may have several times as many weights for one activation.",
    parameters=(
        Parameter(
            "num_units",
            "How many groups there are, each of neighbours along the axis.",
            None,
            kind="integer",
            low=1,
            low_open=False,
            aliases=("units",),
        ),
    ),
)
