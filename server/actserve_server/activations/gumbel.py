"""Gumbel-softmax: a random choice among the elements of a slice that can be trained through. Knows not how blocks reach it.

Each element gets noise of the standard Gumbel distribution, -log(-log(u)), where u follows from the seed and the element's
global index alone; added in float64, it is the same for every data type. The rest is softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.slices import find_maximum
from actserve_server.activations.softmax import inverse_of, reduce_softmax, share_of, share_slope, sum_weighted
from actserve_server.activations.spec import AxisActivation, Library, Parameter, Traits, kernel
from actserve_server.elementary import working
from actserve_server.elementary.random import uniform
from actserve_server.elementary.wide import wide_log

__all__ = ["GUMBEL_SOFTMAX"]

MEAN = 0
PLACE = 3
"""The row of the state, after those of softmax, that holds the place of the greatest element with its noise."""


@kernel
def _noisy(v: float, index: int, seed_hi: float, seed_lo: float) -> float:
    return v - wide_log(-wide_log(uniform(index, seed_hi, seed_lo)))


@kernel
def _noisy_block(x: Any, index: int, seed_hi: float, seed_lo: float) -> Any:
    n, inner = x.shape
    noisy = np.empty((n, inner))
    for i in range(n):
        for j in range(inner):
            noisy[i, j] = _noisy(np.float64(x[i, j]), index + i * inner + j, seed_hi, seed_lo)
    return noisy


@kernel
def _reduce(x: Any, state: Any, index: int, tau: float, hard: float, seed_hi: float, seed_lo: float) -> None:
    inverse, inverse_rest = inverse_of(tau)
    noisy = _noisy_block(x, index, seed_hi, seed_lo)
    reduce_softmax(noisy, state, inverse, inverse_rest, 0.0, True, False)
    column = np.empty(x.shape[0])
    for j in range(x.shape[1]):
        for i in range(x.shape[0]):
            column[i] = noisy[i, j]
        _, place = find_maximum(column, False)
        state[PLACE, j] = np.float64(place)


@kernel
def _share(v: float, j: int, state: Any, index: int, tau: float, seed_hi: float, seed_lo: float) -> float:
    inverse, inverse_rest = inverse_of(tau)
    return share_of(_noisy(v, index, seed_hi, seed_lo), j, state, inverse, inverse_rest, True, False)


@kernel
def _forward(
    v: float, i: int, j: int, state: Any, index: int, tau: float, hard: float, seed_hi: float, seed_lo: float
) -> float:
    share = _share(v, j, state, index, tau, seed_hi, seed_lo)
    chosen = 1.0 if np.float64(i) == state[PLACE, j] else 0.0
    return chosen if (hard > 0.0) & (share == share) else share


@kernel
def _vjp_reduce(
    x: Any, g: Any, state: Any, vjp_state: Any, index: int, tau: float, hard: float, seed_hi: float, seed_lo: float
) -> None:
    inverse, inverse_rest = inverse_of(tau)
    noisy = _noisy_block(x, index, seed_hi, seed_lo)
    sum_weighted(noisy, g, state, vjp_state, inverse, inverse_rest, True, True, False)


@kernel
def _vjp(
    v: float,
    u: float,
    i: int,
    j: int,
    state: Any,
    vjp_state: Any,
    index: int,
    tau: float,
    hard: float,
    seed_hi: float,
    seed_lo: float,
) -> float:
    inverse, _ = inverse_of(tau)
    share = _share(v, j, state, index, tau, seed_hi, seed_lo)
    return share * (working(u) - working(vjp_state[MEAN, j])) * working(inverse)


@kernel
def _jacobian(
    v: float,
    w: float,
    i: int,
    k: int,
    j: int,
    state: Any,
    index: int,
    tau: float,
    hard: float,
    seed_hi: float,
    seed_lo: float,
) -> float:
    inverse, inverse_rest = inverse_of(tau)
    own = _noisy(v, index, seed_hi, seed_lo)
    other = _noisy(w, index + (k - i) * state.shape[1], seed_hi, seed_lo)
    return share_slope(own, other, i, k, j, state, inverse, inverse_rest, True, False) / working(tau)


GUMBEL_SOFTMAX = AxisActivation(
    name="gumbel_softmax",
    summary="Softmax of a slice with random noise: near a one-hot choice drawn with softmax's probabilities.",
    reference="Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax, ICLR 2017, arXiv:1611.01144;"
    " Maddison, Mnih and Teh, The concrete distribution, ICLR 2017, arXiv:1611.00712",
    formula="exp((x[i] + noise[i]) / tau) / fsum(exp((x[j] + noise[j]) / tau) for j in range(len(x)))",
    derivative_formula="gumbel_softmax(x, i) * ((1 if i == k else 0) - gumbel_softmax(x, k)) / tau",
    state_size=4,
    reduce=_reduce,
    forward=_forward,
    vjp_state_size=1,
    vjp_reduce=_vjp_reduce,
    vjp=_vjp,
    jacobian=_jacobian,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    advice="To sample a category inside a network and still train what came before it.",
    parameters=(
        Parameter("tau", "The temperature: the lower, the nearer to one-hot.", 1.0, low=0.0, aliases=("temperature",)),
        Parameter(
            "hard",
            "Whether the result is one-hot; its derivative is that of the soft result (straight-through).",
            False,
            kind="flag",
        ),
        Parameter("seed", "What the noise is drawn from.", None, kind="seed"),
    ),
    libraries=(Library("torch", ("gumbel_softmax",)),),
    tried=({"seed": 7}, {"seed": 7, "tau": 0.3}, {"seed": 2**40 + 5, "hard": True}),
    indexed=True,
)
