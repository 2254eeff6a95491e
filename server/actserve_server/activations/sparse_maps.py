"""Sparsemax and 1.5-entmax: probabilities of which most are exactly 0. Says what they are, not how blocks reach them.

With h = (alpha - 1)(x - max(x)), which is at most 0, an element's probability is (h - tau)^(1/(alpha - 1)) where h > tau
and 0 elsewhere, and the threshold tau, at least -1, is what makes them sum to 1. So only elements with h > -1 are
looked at. A probability near 0 is a difference that cancels: h and tau are carried as a number and its rest, about 100
bits, so that every probability is right to its last digits. A slice that holds a NaN or +inf, or nothing but -inf, is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.spec import AxisActivation, Library, Traits, kernel
from actserve_server.elementary import fma
from actserve_server.elementary.pairs import add_pair, sum_pair

__all__ = [
    "ENTMAX15",
    "SPARSEMAX",
    "candidates_of",
    "excess",
    "fill_quadratic",
    "fill_uniform",
    "maximum_of",
    "no_threshold",
    "scaled_difference",
]

MAXIMUM, TAU, TAU_REST, WINNER, OTHERS = 0, 1, 2, 3, 4
"""The rows of the states: max(x), tau in two parts, and the slopes, which are (h - tau)^((2 - alpha)/(alpha - 1)), of the
first maximum and of all other elements together."""
MEAN = 0
"""Of the vector-Jacobian products: the mean of g weighted by the slopes."""

NEWTON_STEPS = 100
CLOSE = 2.0**-45


@kernel
def scaled_difference(value: float, maximum: float, scale: float) -> tuple[float, float]:
    """h = scale (value - maximum) in two parts."""
    hi, lo = sum_pair(value, -maximum)
    product = scale * hi
    return product, (fma(scale, hi, -product) + scale * lo if product > -np.inf else 0.0)


@kernel
def excess(value: float, maximum: float, scale: float, tau: float, tau_rest: float) -> float:
    """h - tau, or 0 where that is less; NaN where tau is."""
    hi, lo = scaled_difference(value, maximum, scale)
    difference = (hi - tau) + (lo - tau_rest)
    return 0.0 if difference <= 0.0 else difference


@kernel
def maximum_of(x: Any, j: int) -> float:
    """The maximum of column j, or NaN where one is."""
    maximum = -np.inf
    for i in range(x.shape[0]):
        value = np.float64(x[i, j])
        if value != value:
            return np.nan
        maximum = max(maximum, value)
    return maximum


@kernel
def candidates_of(x: Any, j: int, scale: float, highs: Any, lows: Any) -> tuple[int, float]:
    """Leaves h of the elements of column j with h > -1; their number, or 0 where there is no result, and the maximum."""
    maximum = maximum_of(x, j)
    count = 0
    if abs(maximum) < np.inf:
        for i in range(x.shape[0]):
            hi, lo = scaled_difference(np.float64(x[i, j]), maximum, scale)
            if hi >= -1.0:
                highs[count], lows[count] = hi, lo
                count += 1
    return count, maximum


@kernel
def no_threshold(state: Any, j: int) -> None:
    """The state of a slice without a result."""
    for row in range(state.shape[0]):
        state[row, j] = np.nan


@kernel
def _uniform_threshold(highs: Any, lows: Any, count: int) -> tuple[float, float, int]:
    """tau of sparsemax in two parts, and how many candidates are above it: it is (their sum - 1)/their number.

    Michelot's algorithm: those at most tau are dropped until none is. Each round raises tau, so none comes back.
    """
    while True:
        total, rest = -1.0, 0.0
        for p in range(count):
            total, rest = add_pair(total, rest, highs[p], lows[p])
        number = np.float64(count)
        quotient = (total + rest) / number
        missing = (fma(-quotient, number, total) + rest) / number
        tau, tau_rest = sum_pair(quotient, missing)
        kept = 0
        for p in range(count):
            if (highs[p] - tau) + (lows[p] - tau_rest) > 0.0:
                highs[kept], lows[kept] = highs[p], lows[p]
                kept += 1
        if kept == count:
            return tau, tau_rest, count
        count = kept


@kernel
def _quadratic_threshold(highs: Any, lows: Any, count: int) -> tuple[float, float]:
    """tau of 1.5-entmax in two parts: where the sum of (h - tau)^2 over all h > tau is 1.

    The sum is convex and falls with tau, so Newton's steps from -1 on come closer from one side. The last two are taken
    from a sum of twice the digits.
    """
    tau, tau_rest = -1.0, 0.0
    for _ in range(NEWTON_STEPS):
        squares, slopes = 0.0, 0.0
        for p in range(count):
            difference = max(highs[p] - tau, 0.0)
            squares += difference * difference
            slopes += difference
        step = (squares - 1.0) / (2.0 * slopes)
        tau += step
        if step < CLOSE:
            break
    for _ in range(2):
        total, rest, slopes = -1.0, 0.0, 0.0
        for p in range(count):
            hi, lost = sum_pair(highs[p], -tau)
            lo = lost + (lows[p] - tau_rest)
            if hi + lo > 0.0:
                square = hi * hi
                total, rest = add_pair(total, rest, square, fma(hi, hi, -square) + 2.0 * hi * lo)
                slopes += hi
        tau, lost = sum_pair(tau, (total + rest) / (2.0 * slopes))
        tau_rest += lost
    return tau, tau_rest


@kernel
def _weigh(x: Any, g: Any, j: int, state: Any, scale: float, uniform: bool) -> float:
    """The mean of g in column j, weighted by the slopes."""
    total, rest, weights, weights_rest = 0.0, 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        value = excess(np.float64(x[i, j]), state[MAXIMUM, j], scale, state[TAU, j], state[TAU_REST, j])
        slope = (1.0 if value > 0.0 else 0.0) if uniform else value
        if slope > 0.0:
            gradient = np.float64(g[i, j])
            product = slope * gradient
            total, rest = add_pair(total, rest, product, fma(slope, gradient, -product))
            weights, weights_rest = add_pair(weights, weights_rest, slope, 0.0)
    weight = weights + weights_rest
    return (total + rest) / weight if abs(total) < np.inf and weight > 0.0 else total / state[WINNER, j]


# ---- sparsemax -----------------------------------------------------------------------------------------------------


@kernel
def fill_uniform(state: Any, j: int, maximum: float, highs: Any, lows: Any, count: int) -> None:
    """Leave in column j of the state what sparsemax needs."""
    state[MAXIMUM, j] = maximum
    state[TAU, j], state[TAU_REST, j], count = _uniform_threshold(highs, lows, count)
    state[WINNER, j] = 1.0
    state[OTHERS, j] = np.float64(count - 1)


@kernel
def _sparsemax_reduce(x: Any, state: Any) -> None:
    n, inner = x.shape
    work = np.empty((2, n))
    highs, lows = work[0], work[1]
    for j in range(inner):
        count, maximum = candidates_of(x, j, 1.0, highs, lows)
        if count == 0:
            no_threshold(state, j)
        else:
            fill_uniform(state, j, maximum, highs, lows, count)


@kernel
def _sparsemax(v: float, i: int, j: int, state: Any) -> float:
    return excess(v, state[MAXIMUM, j], 1.0, state[TAU, j], state[TAU_REST, j])


@kernel
def _sparsemax_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any) -> None:
    for j in range(x.shape[1]):
        vjp_state[MEAN, j] = _weigh(x, g, j, state, 1.0, True)


@kernel
def _sparsemax_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any) -> float:
    value = _sparsemax(v, i, j, state)
    difference = u - vjp_state[MEAN, j]
    return 0.0 if value == 0.0 else difference


@kernel
def _sparsemax_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any) -> float:
    own, other = _sparsemax(v, i, j, state), _sparsemax(w, k, j, state)
    others = state[OTHERS, j]
    slope = (others if i == k else -1.0) / (1.0 + others)
    return 0.0 if (own == 0.0) | (other == 0.0) else slope


SPARSEMAX = AxisActivation(
    name="sparsemax",
    summary="The nearest point to the slice among all probability distributions: most of its elements are exactly 0.",
    reference="Martins and Astudillo, From softmax to sparsemax, ICML 2016, arXiv:1602.02068",
    formula="max(x[i] - sparsemax_threshold(x), 0)",
    derivative_formula="((1 if i == k else 0) - 1 / fsum(1 for v in x if v > sparsemax_threshold(x)))"
    " if min(x[i], x[k]) > sparsemax_threshold(x) else 0",
    state_size=5,
    reduce=_sparsemax_reduce,
    forward=_sparsemax,
    vjp_state_size=1,
    vjp_reduce=_sparsemax_vjp_reduce,
    vjp=_sparsemax_vjp,
    jacobian=_sparsemax_jacobian,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=False),
    advice="For attention or classes of which only a few should count: the others get exactly nothing.",
    libraries=(Library("keras", ("sparsemax",)),),
)


# ---- 1.5-entmax ----------------------------------------------------------------------------------------------------


@kernel
def fill_quadratic(state: Any, j: int, maximum: float, highs: Any, lows: Any, count: int) -> None:
    """Leave in column j of the state what 1.5-entmax needs."""
    tau, tau_rest = _quadratic_threshold(highs, lows, count)
    total, rest = tau, tau_rest
    for p in range(count):
        difference = (highs[p] - tau) + (lows[p] - tau_rest)
        if difference > 0.0:
            total, rest = add_pair(total, rest, difference, 0.0)
    state[MAXIMUM, j], state[TAU, j], state[TAU_REST, j] = maximum, tau, tau_rest
    state[WINNER, j], state[OTHERS, j] = -tau, total + rest


@kernel
def _entmax15_reduce(x: Any, state: Any) -> None:
    n, inner = x.shape
    work = np.empty((2, n))
    for j in range(inner):
        count, maximum = candidates_of(x, j, 0.5, work[0], work[1])
        if count == 0:
            no_threshold(state, j)
        else:
            fill_quadratic(state, j, maximum, work[0], work[1], count)


@kernel
def _root(v: float, j: int, state: Any) -> float:
    """The root of an element's probability, which is its slope too."""
    return excess(v, state[MAXIMUM, j], 0.5, state[TAU, j], state[TAU_REST, j])


@kernel
def _entmax15(v: float, i: int, j: int, state: Any) -> float:
    root = _root(v, j, state)
    return root * root


@kernel
def _entmax15_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any) -> None:
    for j in range(x.shape[1]):
        vjp_state[MEAN, j] = _weigh(x, g, j, state, 0.5, False)


@kernel
def _entmax15_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any) -> float:
    root = _root(v, j, state)
    product = root * (u - vjp_state[MEAN, j])
    return 0.0 if root == 0.0 else product


@kernel
def _slope_of(own: float, other: float, same: bool, winner: float, others: float) -> float:
    """dy_i/dx_k from the slopes of both: on the diagonal s (sum - s)/sum, where the difference is not taken."""
    return own * (((winner - own) + others if same else -other) / (winner + others))


@kernel
def _entmax15_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any) -> float:
    return _slope_of(_root(v, j, state), _root(w, j, state), i == k, state[WINNER, j], state[OTHERS, j])


ENTMAX15 = AxisActivation(
    name="entmax15",
    summary="Between softmax and sparsemax: probabilities that fall to exactly 0, but smoothly.",
    reference="Peters, Niculae and Martins, Sparse sequence-to-sequence models, ACL 2019, arXiv:1905.05702",
    formula="max(x[i] / 2 - entmax_threshold(x, 1.5), 0) ** 2",
    derivative_formula="sqrt(entmax15(x, i)) * ((1 if i == k else 0)"
    " - sqrt(entmax15(x, k)) / fsum(sqrt(entmax15(x, j)) for j in range(len(x))))",
    state_size=5,
    reduce=_entmax15_reduce,
    forward=_entmax15,
    vjp_state_size=1,
    vjp_reduce=_entmax15_vjp_reduce,
    vjp=_entmax15_vjp,
    jacobian=_entmax15_jacobian,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    advice="For attention that should be sparse but train like softmax; sparsemax is sparser.",
)
