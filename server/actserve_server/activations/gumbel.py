"""Gumbel-softmax: a random choice among the elements of a slice that can be trained through. Knows not how blocks reach it.

Each element gets noise of the standard Gumbel distribution, -log(-log(u)), where u follows from the seed and the element's
global index alone, the same for every data type. The rest is softmax, which makes errors of a sum relative ones of a share: so
an element with its noise is a number and its rest.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.softmax import INVERSE, MAXIMUM, OTHERS, inverse_of, slope_of_terms
from actserve_server.activations.spec import AxisActivation, Library, Parameter, Traits, kernel
from actserve_server.elementary import log_in_parts
from actserve_server.elementary.pairs import add_pair, sum_pair
from actserve_server.elementary.random import uniform
from actserve_server.elementary.wide import wide_exp_of_quotient

__all__ = ["GUMBEL_SOFTMAX"]

MEAN = 0
MAXIMUM_REST, PLACE = 3, 4
"""Rows of the state, after those of softmax: the rest of the greatest element with its noise, and its place."""


@kernel
def _noisy(v: float, index: int, seed_hi: float, seed_lo: float) -> tuple[float, float]:
    """An element with its noise in two parts."""
    log, log_rest = log_in_parts(uniform(index, seed_hi, seed_lo), 0.0)
    noise, noise_rest = log_in_parts(-log, -log_rest)
    hi, lost = sum_pair(v, -noise)
    # In parts that do not overlap, so that they can be compared.
    return sum_pair(hi, lost - noise_rest) if abs(hi) < np.inf else (hi, 0.0)


@kernel
def _term(hi: float, lo: float, maximum: float, maximum_rest: float, tau: float) -> float:
    """exp((hi + lo - maximum)/tau)."""
    inverse, inverse_rest = inverse_of(tau)
    difference, lost = sum_pair(hi, -maximum)
    rest = lost + (lo - maximum_rest) if abs(difference) < np.inf else 0.0
    return wide_exp_of_quotient(difference, -rest, inverse, inverse_rest)


@kernel
def _term_of(v: float, index: int, j: int, state: Any, tau: float, seed_hi: float, seed_lo: float) -> float:
    hi, lo = _noisy(v, index, seed_hi, seed_lo)
    return _term(hi, lo, state[MAXIMUM, j], state[MAXIMUM_REST, j], tau)


@kernel
def _fill_column(x: Any, j: int, index: int, seed_hi: float, seed_lo: float, his: Any, los: Any) -> None:
    """Leaves a column with its noise."""
    n, inner = x.shape
    for i in range(n):
        his[i], los[i] = _noisy(np.float64(x[i, j]), index + i * inner + j, seed_hi, seed_lo)


@kernel
def _greatest(his: Any, los: Any) -> int:
    """The place of the first of the greatest numbers, or -1 where there is a NaN, or no finite one, or an infinite one."""
    place, best, best_rest = -1, -np.inf, 0.0
    for i in range(his.size):
        if not his[i] < np.inf:
            return -1
        if (his[i] > best) | ((his[i] == best) & (los[i] > best_rest)):
            place, best, best_rest = i, his[i], los[i]
    return place


@kernel
def _reduce(x: Any, state: Any, index: int, tau: float, hard: float, seed_hi: float, seed_lo: float) -> None:
    n, inner = x.shape
    work = np.empty((2, n))
    his, los = work[0], work[1]
    for j in range(inner):
        _fill_column(x, j, index, seed_hi, seed_lo, his, los)
        place = _greatest(his, los)
        if place < 0:
            state[:, j] = np.nan
            continue
        maximum, maximum_rest = his[place], los[place]
        for i in range(n):
            his[i] = _term(his[i], los[i], maximum, maximum_rest, tau)
        total, rest = 0.0, 0.0
        for i in range(n):
            if i != place:
                total, rest = add_pair(total, rest, his[i], 0.0)
        state[MAXIMUM, j], state[MAXIMUM_REST, j], state[PLACE, j] = maximum, maximum_rest, np.float64(place)
        state[OTHERS, j] = total + rest
        state[INVERSE, j] = 1.0 / (1.0 + (total + rest))


@kernel
def _share(v: float, j: int, state: Any, index: int, tau: float, seed_hi: float, seed_lo: float) -> float:
    share: float = _term_of(v, index, j, state, tau, seed_hi, seed_lo) * state[INVERSE, j]
    return share


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
    n, inner = x.shape
    for j in range(inner):
        total, rest = 0.0, 0.0
        for i in range(n):
            term = _term_of(np.float64(x[i, j]), index + i * inner + j, j, state, tau, seed_hi, seed_lo)
            total, rest = add_pair(total, rest, term * np.float64(g[i, j]), 0.0)
        vjp_state[MEAN, j] = (total + rest if abs(total) < np.inf else total) * state[INVERSE, j]


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
    product: float = _share(v, j, state, index, tau, seed_hi, seed_lo) * (u - vjp_state[MEAN, j]) / tau
    return product


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
    own = _term_of(v, index, j, state, tau, seed_hi, seed_lo)
    other = _term_of(w, index + (k - i) * state.shape[1], j, state, tau, seed_hi, seed_lo)
    return slope_of_terms(own, other, i == k, state[OTHERS, j]) / tau


GUMBEL_SOFTMAX = AxisActivation(
    name="gumbel_softmax",
    summary="Softmax of a slice with random noise: near a one-hot choice drawn with softmax's probabilities.",
    reference="Jang, Gu and Poole, Categorical reparameterization with Gumbel-softmax, ICLR 2017, arXiv:1611.01144;"
    " Maddison, Mnih and Teh, The concrete distribution, ICLR 2017, arXiv:1611.00712",
    formula="exp((x[i] + noise[i]) / tau) / fsum(exp((x[j] + noise[j]) / tau) for j in range(len(x)))",
    derivative_formula="gumbel_softmax(x, i) * ((1 if i == k else 0) - gumbel_softmax(x, k)) / tau",
    state_size=5,
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
