"""Activations of whole slices: softmax and log-softmax. Says what they are, not how blocks reach them.

A slice is summed up by its maximum m, the place of the first element that has it (the winner), and T, the sum of
exp((x_j - m)/temperature) over all *other* elements. The winner's own term is the 1 in 1 + T, so that T keeps its
digits where one element dominates: log-softmax([50, 0])[0] = -log1p(T) = -1.93e-22, which m - log(sum) has lost.

A slice that holds a NaN or +inf has T = NaN, so that every result of it is NaN. A slice of -inf alone has no softmax:
it is NaN too, or, with all_masked="zero", has T = 0, m = 0 and the winner's place -1, whence the results follow.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from actserve_server.activations.spec import AxisActivation, Parameter, Traits, kernel, word
from actserve_server.elementary import exp_sum, fma, log1p

__all__ = ["LOG_SOFTMAX", "SOFTMAX"]

# The rows of a softmax's state, and of the state of its vector-Jacobian product.
MAXIMUM, OTHERS, WINNER, LOG_NORMALIZER = 0, 1, 2, 3
TOTAL, TOTAL_REST = 0, 1

# Slices are summed in lanes, so that loops over them vectorize also where the block is a single column: the flattened
# block is read in rows of `width` = lanes * inner elements, and a column's lanes are its elements in a row.
FOLDED_WIDTH = 256
WORTH_FOLDING = 128


@kernel
def _lanes(n: int, inner: int) -> int:
    return min(n, max(FOLDED_WIDTH // max(inner, 1), 1)) if n * inner >= WORTH_FOLDING else 1


@kernel
def _scaled_difference(value: float, maximum: float, inverse_hi: float, inverse_lo: float) -> tuple[float, float]:
    """(value - maximum)/temperature as hi + lo; exactly 0 at the maximum."""
    difference = value - maximum
    back = difference + maximum
    rest = (value - back) + ((back - difference) - maximum)
    hi = difference * inverse_hi
    lo = fma(difference, inverse_hi, -hi) + fma(difference, inverse_lo, rest * inverse_hi)
    return (0.0 if difference == 0.0 else hi), (0.0 if difference == 0.0 else lo)


@kernel
def _term(value: float, maximum: float, inverse_hi: float, inverse_lo: float) -> float:
    """exp((value - maximum)/temperature)."""
    hi, lo = _scaled_difference(value, maximum, inverse_hi, inverse_lo)
    return exp_sum(hi, lo)


@kernel
def _inverse_rest(temperature: float, inverse: float) -> float:
    """What 1/temperature has beyond its rounding."""
    return fma(-inverse, temperature, 1.0) / temperature


@kernel
def _add(total: float, rest: float, term: float) -> tuple[float, float]:
    """total + rest + term with the rounding error of the sum in rest (Knuth's two-sum)."""
    grown = total + term
    part = grown - total
    return grown, rest + ((total - (grown - part)) + (term - part))


@kernel
def _find_maxima(flat: Any, width: int, maxima: Any, places: Any) -> None:
    """The first greatest element above -inf of every lane, and its row; -1 where there is none."""
    maxima[:] = -math.inf
    places[:] = -1.0
    for start in range(0, flat.size, width):
        row = flat[start : start + width]
        place = np.float64(start // width)
        for lane in range(row.size):
            value = np.float64(row[lane])
            greater = value > maxima[lane]
            maxima[lane] = value if greater else maxima[lane]
            places[lane] = place if greater else places[lane]


@kernel
def _add_terms(flat: Any, width: int, maxima: Any, places: Any, totals: Any, rests: Any, hi: float, lo: float) -> None:
    """In every lane, the sum of the terms of all rows but that of `places`."""
    totals[:] = 0.0
    rests[:] = 0.0
    for start in range(0, flat.size, width):
        row = flat[start : start + width]
        place = np.float64(start // width)
        for lane in range(row.size):
            value = np.float64(row[lane])
            term = _term(value, maxima[lane], hi, lo)
            counted = 0.0 if place == places[lane] else term
            totals[lane], rests[lane] = _add(totals[lane], rests[lane], counted if value == value else math.nan)


@kernel
def _reduce_softmax(x: Any, state: Any, temperature: float, zero_if_masked: float) -> None:
    n, inner = x.shape
    flat = x.reshape(x.size)
    inverse = 1.0 / temperature
    inverse_rest = _inverse_rest(temperature, inverse)
    lanes = _lanes(n, inner)
    width = lanes * inner
    folded = state if lanes == 1 else np.empty((4, width))
    maxima, totals, places, rests = folded[MAXIMUM], folded[OTHERS], folded[WINNER], folded[LOG_NORMALIZER]
    if width > 0:
        _find_maxima(flat, width, maxima, places)
    for column in range(inner):
        winner = column
        for lane in range(column + inner, width, inner):
            if maxima[lane] > maxima[winner] or (maxima[lane] == maxima[winner] and places[lane] < places[winner]):
                winner = lane
        place, maximum = places[winner], maxima[winner]
        state[WINNER, column] = place * lanes + winner // inner if place >= 0.0 else -1.0
        for lane in range(column, width, inner):
            maxima[lane] = maximum if place >= 0.0 else 0.0
            places[lane] = place if lane == winner else -1.0
    if width > 0:
        _add_terms(flat, width, maxima, places, totals, rests, inverse, inverse_rest)
    for column in range(inner):
        total, rest = totals[column], rests[column]
        for lane in range(column + inner, width, inner):
            total, rest = _add(total, rest + rests[lane], totals[lane])
        others = total + rest
        defined = (
            maxima[column] < math.inf and (state[WINNER, column] >= 0.0 or zero_if_masked > 0.0) and others == others
        )
        state[MAXIMUM, column] = maxima[column]
        state[OTHERS, column] = others if defined else math.nan
        state[LOG_NORMALIZER, column] = log1p(others) if defined else math.nan


@kernel
def _sum_products(
    x: Any, g: Any, state: Any, totals_state: Any, inverse: float, inverse_rest: float, weighted: float
) -> None:
    """In every column, the sum of g, each weighted by its element's term where `weighted` says so."""
    n, inner = x.shape
    values, gradients = x.reshape(x.size), g.reshape(g.size)
    lanes = _lanes(n, inner)
    width = lanes * inner
    folded = totals_state if lanes == 1 else np.empty((2, width))
    totals, rests = folded[TOTAL], folded[TOTAL_REST]
    maxima = state[MAXIMUM]
    if lanes > 1:
        maxima = np.empty(width)
        for lane in range(width):
            maxima[lane] = state[MAXIMUM, lane % inner]
    totals[:] = 0.0
    rests[:] = 0.0
    if width > 0:
        for start in range(0, values.size, width):
            row, row_gradients = values[start : start + width], gradients[start : start + width]
            for lane in range(row.size):
                gradient = np.float64(row_gradients[lane])
                if weighted > 0.0:
                    gradient = gradient * _term(np.float64(row[lane]), maxima[lane], inverse, inverse_rest)
                totals[lane], rests[lane] = _add(totals[lane], rests[lane], gradient)
    for column in range(inner):
        total, rest = totals[column], rests[column]
        for lane in range(column + inner, width, inner):
            total, rest = _add(total, rest + rests[lane], totals[lane])
        totals_state[TOTAL, column] = total + rest if abs(total) < math.inf else total


@kernel
def _softmax_reduce(x: Any, state: Any, temperature: float, all_masked: float) -> None:
    _reduce_softmax(x, state, temperature, all_masked)


@kernel
def _softmax(v: float, i: int, j: int, state: Any, temperature: float, all_masked: float) -> float:
    inverse = 1.0 / temperature
    term = _term(v, state[MAXIMUM, j], inverse, _inverse_rest(temperature, inverse))
    others: float = state[OTHERS, j]
    return term / (1.0 + others)


@kernel
def _softmax_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any, temperature: float, all_masked: float) -> None:
    inverse = 1.0 / temperature
    _sum_products(x, g, state, vjp_state, inverse, _inverse_rest(temperature, inverse), 1.0)
    for column in range(x.shape[1]):
        vjp_state[TOTAL, column] /= 1.0 + state[OTHERS, column]


@kernel
def _softmax_vjp(
    v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, temperature: float, all_masked: float
) -> float:
    mean: float = vjp_state[TOTAL, j]
    return _softmax(v, i, j, state, temperature, all_masked) * (u - mean) / temperature


# On the diagonal y (1 - y), where 1 - y is what the other elements have: never the difference, which cancels.
@kernel
def _softmax_jacobian(
    v: float, w: float, i: int, k: int, j: int, state: Any, temperature: float, all_masked: float
) -> float:
    inverse = 1.0 / temperature
    inverse_rest = _inverse_rest(temperature, inverse)
    others: float = state[OTHERS, j]
    whole = 1.0 + others
    own = _term(v, state[MAXIMUM, j], inverse, inverse_rest)
    other = _term(w, state[MAXIMUM, j], inverse, inverse_rest)
    rest = others if np.float64(i) == state[WINNER, j] else (1.0 - own) + others
    return (own / whole) * ((rest if i == k else -other) / whole) / temperature


ALL_MASKED = word(
    "all_masked",
    "What a slice that is -inf throughout becomes: NaN, or masked (probability 0, gradient 0).",
    "nan",
    "zero",
)

SOFTMAX = AxisActivation(
    name="softmax",
    summary="A probability for every element of a slice, in proportion to its exponential.",
    reference="Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990",
    formula="exp((x[i] - max(x)) / temperature) / fsum(exp((v - max(x)) / temperature) for v in x)",
    derivative_formula="softmax(x, i) * ((1 if i == k else 0) - softmax(x, k)) / temperature",
    state_size=4,
    reduce=_softmax_reduce,
    forward=_softmax,
    vjp_state_size=2,
    vjp_reduce=_softmax_vjp_reduce,
    vjp=_softmax_vjp,
    jacobian=_softmax_jacobian,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    advice="For the output of a classifier among several classes, and for attention weights.",
    parameters=(
        Parameter(
            name="temperature", meaning="Divides the input: below 1 sharpens, above 1 flattens.", default=1.0, low=0.0
        ),
        ALL_MASKED,
    ),
)


@kernel
def _log_softmax_reduce(x: Any, state: Any, all_masked: float) -> None:
    _reduce_softmax(x, state, 1.0, all_masked)


@kernel
def _log_softmax(v: float, i: int, j: int, state: Any, all_masked: float) -> float:
    hi, lo = _scaled_difference(v, state[MAXIMUM, j], 1.0, 0.0)
    log_normalizer: float = state[LOG_NORMALIZER, j]
    return (hi - log_normalizer) + (lo if hi > -math.inf else 0.0)


@kernel
def _log_softmax_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any, all_masked: float) -> None:
    _sum_products(x, g, state, vjp_state, 1.0, 0.0, 0.0)


@kernel
def _log_softmax_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, all_masked: float) -> float:
    share = _softmax(v, i, j, state, 1.0, all_masked)
    total: float = vjp_state[TOTAL, j]
    value = u - share * total
    return value if state[WINNER, j] >= 0.0 or share != share else 0.0 * u


@kernel
def _log_softmax_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any, all_masked: float) -> float:
    others: float = state[OTHERS, j]
    whole = 1.0 + others
    term = _term(w, state[MAXIMUM, j], 1.0, 0.0)
    rest = others if np.float64(i) == state[WINNER, j] else (1.0 - term) + others
    value = (rest if i == k else -term) / whole
    return value if state[WINNER, j] >= 0.0 or others != others else 0.0


LOG_SOFTMAX = AxisActivation(
    name="log_softmax",
    summary="The logarithm of softmax, without the loss of computing it so.",
    reference="Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, section 6.2.2.3",
    formula="x[i] - max(x) - log(fsum(exp(v - max(x)) for v in x))",
    derivative_formula="(1 if i == k else 0) - exp(log_softmax(x, k))",
    state_size=4,
    reduce=_log_softmax_reduce,
    forward=_log_softmax,
    vjp_state_size=2,
    vjp_reduce=_log_softmax_vjp_reduce,
    vjp=_log_softmax_vjp,
    jacobian=_log_softmax_jacobian,
    range="[-inf, 0]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="right", smooth=True),
    advice="Before a negative log-likelihood loss: the logarithm of a rounded softmax loses digits, or is -inf.",
    parameters=(ALL_MASKED,),
)
