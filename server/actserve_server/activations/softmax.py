"""Softmax, log-softmax and softmin. Says what they are, not how blocks reach them.

A slice is summed up by its maximum m, and by T, the sum of exp((x_j - m)/temperature) over all elements *but* the
winner, the first that is m. The winner's own term is the 1 in 1 + T, so that T keeps its digits where one element
dominates: log-softmax([50, 0])[0] = -log1p(T) = -1.93e-22, which m - log(sum) has lost.

A slice that holds a NaN or +inf has T = NaN, so that every result of it is NaN. A slice of -inf alone has no softmax:
it is NaN too, or, with all_masked="zero", has T = 0 and m = 0, whence its shares of 0 follow. Softmin is softmax of
the negated slice, with +inf for -inf.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.slices import (
    all_masked,
    coarse_for,
    find_maxima,
    find_maximum,
    fold,
    lanes_of,
    magnitude_of,
    place_of,
    top_of,
)
from actserve_server.activations.spec import AxisActivation, Exact, Library, Parameter, Traits, Whole, kernel, word
from actserve_server.elementary import (
    CHUNK,
    LARGEST,
    add_in_any_order,
    compensated,
    exp_of_difference,
    exp_of_quotient,
    fma,
    log1p,
    split,
    working,
)

__all__ = [
    "ALL_MASKED",
    "LOG_SOFTMAX",
    "SOFTMAX",
    "SOFTMIN",
    "inverse_of",
    "share_of",
    "share_slope",
    "slope_of_terms",
]

# The rows of the states.
MAXIMUM, OTHERS, INVERSE, LOG_TOTAL = 0, 1, 2, 3
"""m, T, 1/(1 + T), and of log-softmax log(1 + T). A masked slice has the inverse 0."""
ZERO: float = Exact(0.0)
MEAN, TOTAL = 0, 0
"""Of the vector-Jacobian products: the mean of g weighted by the shares, or its sum."""


@kernel
def inverse_of(temperature: float) -> tuple[float, float]:
    """1/temperature as hi + lo."""
    inverse = min(1.0 / temperature, LARGEST)
    return inverse, (fma(-inverse, temperature, 1.0) / temperature if inverse < LARGEST else 0.0)


@kernel
def _term(value: float, maximum: float, inverse: float, inverse_rest: float, scaled: bool) -> float:
    """exp((value - maximum)/temperature); `scaled` says whether the temperature may be other than 1."""
    if scaled:
        return exp_of_quotient(value, maximum, inverse, inverse_rest)
    return exp_of_difference(value, maximum)


@kernel
def _sum_run(
    values: Any, maximum: float, inverse: float, inverse_rest: float, coarse: float, scaled: bool, negated: bool
) -> tuple[float, float]:
    """The sum of the terms of a run of elements as total and rest."""
    total, rest = 0.0, 0.0
    for p in range(values.size):
        value = working(-values[p] if negated else values[p])
        hi, lo = split(_term(value, working(maximum), inverse, inverse_rest, scaled), coarse)
        total = add_in_any_order(total, hi)
        rest = add_in_any_order(rest, lo)
    return total, rest


@kernel
def _coarse_of_others(
    values: Any, place: int, maximum: float, inverse: float, inverse_rest: float, scaled: bool, negated: bool
) -> float:
    """What `split` takes for the terms of all elements but the winner."""
    second = max(top_of(values[:place], negated), top_of(values[place + 1 :], negated))
    return coarse_for(np.float64(_term(working(second), working(maximum), inverse, inverse_rest, scaled)))


@kernel
def _sum_of_others(
    values: Any, place: int, maximum: float, inverse: float, inverse_rest: float, scaled: bool, negated: bool
) -> float:
    """The sum of all terms but that of the winner."""
    coarse = _coarse_of_others(values, place, maximum, inverse, inverse_rest, scaled, negated)
    total, rest = ZERO, ZERO
    for run in (values[:place], values[place + 1 :]):
        for start in range(0, run.size, CHUNK):
            part, lost = _sum_run(run[start : start + CHUNK], maximum, inverse, inverse_rest, coarse, scaled, negated)
            total, rest = compensated(total, rest + lost, part)
    return total + rest


@kernel
def _sum_columns(
    flat: Any,
    maxima: Any,
    places: Any,
    sums: Any,
    rests: Any,
    inverse: float,
    inverse_rest: float,
    scaled: bool,
    negated: bool,
) -> None:
    """In every lane, the sum of the terms of all rows but that of `places`."""
    width = maxima.size
    sums[:] = 0.0
    rests[:] = 0.0
    for start in range(0, flat.size, width):
        row = flat[start : start + width]
        place = np.float64(start // width)
        for lane in range(row.size):
            value = working(-row[lane] if negated else row[lane])
            term = _term(value, working(maxima[lane]), inverse, inverse_rest, scaled)
            counted = 0.0 if place == places[lane] else term
            sums[lane], rests[lane] = compensated(sums[lane], rests[lane], counted)


@kernel
def _conclude(state: Any, column: int, maximum: float, others: float, masked: bool, zero_if_masked: float) -> None:
    """Fill in the column of a state."""
    defined = maximum < np.inf and (zero_if_masked > 0.0 if masked else True)
    state[MAXIMUM, column] = maximum
    state[OTHERS, column] = (0.0 if masked else others) if defined else np.nan
    state[INVERSE, column] = (0.0 if masked else 1.0 / (1.0 + others)) if defined else np.nan


@kernel
def _of_run(values: Any, inverse: float, inverse_rest: float, scaled: bool, negated: bool) -> tuple[float, float, bool]:
    """m and T of a slice in one run, and whether it is masked, when they are 0."""
    maximum, place = find_maximum(values, negated)
    if place >= 0:
        return maximum, _sum_of_others(values, place, maximum, inverse, inverse_rest, scaled, negated), False
    masked = all_masked(values, np.inf if negated else -np.inf)
    return ZERO, (ZERO if masked else np.nan), masked


@kernel
def reduce_softmax(
    x: Any, state: Any, inverse: float, inverse_rest: float, zero_if_masked: float, scaled: bool, negated: bool
) -> None:
    """Fill in the first three rows of a state."""
    n, inner = x.shape
    if x.size == 0:
        return
    flat = x.reshape(x.size)
    if inner == 1:
        maximum, others, masked = _of_run(flat, inverse, inverse_rest, scaled, negated)
        _conclude(state, 0, maximum, others, masked, zero_if_masked)
        return
    lanes = lanes_of(n, inner)
    width = lanes * inner
    work = np.empty((4, width))
    maxima, places, sums, rests = work[0], work[1], work[2], work[3]
    find_maxima(flat, inner, width, negated, maxima, places)
    _sum_columns(flat, maxima, places, sums, rests, inverse, inverse_rest, scaled, negated)
    fold(sums, rests, inner, width, state[OTHERS])
    for column in range(inner):
        others = state[OTHERS, column]
        masked = others == others and place_of(places, column, inner) < 0
        _conclude(state, column, maxima[column], others, masked, zero_if_masked)


@kernel
def share_of(v: float, j: int, state: Any, inverse: float, inverse_rest: float, scaled: bool, negated: bool) -> float:
    """An element's share: its result of softmax."""
    number = working(-v if negated else v)
    term = _term(number, working(state[MAXIMUM, j]), inverse, inverse_rest, scaled)
    return term * working(state[INVERSE, j])


@kernel
def share_slope(
    v: float,
    w: float,
    i: int,
    k: int,
    j: int,
    state: Any,
    inverse: float,
    inverse_rest: float,
    scaled: bool,
    negated: bool,
) -> float:
    """dy_i/dx_k of softmax but for 1/temperature and the sign."""
    maximum = working(state[MAXIMUM, j])
    own = _term(working(-v if negated else v), maximum, inverse, inverse_rest, scaled)
    other = _term(working(-w if negated else w), maximum, inverse, inverse_rest, scaled)
    return slope_of_terms(own, other, i == k, working(state[OTHERS, j]))


@kernel
def slope_of_terms(own: float, other: float, same: bool, others: float) -> float:
    """The same, given the terms of both and the sum of all terms but the winner's.

    On the diagonal it is y (1 - y), where 1 - y is what the other elements have: never the difference, which cancels.
    """
    whole = 1.0 + others
    return (own / whole) * (((1.0 - own) + others if same else -other) / whole)


@kernel
def _sum_weighted_run(
    x: Any,
    g: Any,
    maximum: float,
    inverse: float,
    inverse_rest: float,
    coarse: float,
    weighted: bool,
    scaled: bool,
    negated: bool,
) -> tuple[float, float]:
    total, rest = 0.0, 0.0
    for p in range(g.size):
        gradient = working(g[p])
        if weighted:
            gradient = gradient * _term(
                working(-x[p] if negated else x[p]), working(maximum), inverse, inverse_rest, scaled
            )
        hi, lo = split(gradient, coarse)
        total = add_in_any_order(total, hi)
        rest = add_in_any_order(rest, lo)
    return total, rest


@kernel
def _total_of_run(
    x: Any,
    g: Any,
    maximum: float,
    inverse: float,
    inverse_rest: float,
    weighted: bool,
    scaled: bool,
    negated: bool,
) -> float:
    """The sum of g, or (`weighted`) of g weighted by the terms of x."""
    coarse = coarse_for(magnitude_of(g))
    total, rest = ZERO, ZERO
    for start in range(0, g.size, CHUNK):
        part, lost = _sum_weighted_run(
            x[start : start + CHUNK],
            g[start : start + CHUNK],
            maximum,
            inverse,
            inverse_rest,
            coarse,
            weighted,
            scaled,
            negated,
        )
        total, rest = compensated(total, rest + lost, part)
    return total + rest if abs(total) < np.inf else total


@kernel
def sum_weighted(
    x: Any,
    g: Any,
    state: Any,
    sums_state: Any,
    inverse: float,
    inverse_rest: float,
    weighted: bool,
    scaled: bool,
    negated: bool,
) -> None:
    """In every column the sum of g, or (`weighted`) the mean of g, weighted by the shares. sums_state has two rows."""
    n, inner = x.shape
    if x.size == 0:
        return
    values, gradients = x.reshape(x.size), g.reshape(g.size)
    if inner == 1:
        sums_state[TOTAL, 0] = _total_of_run(
            values, gradients, state[MAXIMUM, 0], inverse, inverse_rest, weighted, scaled, negated
        )
    else:
        width = lanes_of(n, inner) * inner
        work = np.empty((3, width))
        maxima, sums, rests = work[0], work[1], work[2]
        for lane in range(width):
            maxima[lane] = state[MAXIMUM, lane % inner]
        sums[:] = 0.0
        rests[:] = 0.0
        for start in range(0, values.size, width):
            row, row_gradients = values[start : start + width], gradients[start : start + width]
            for lane in range(row.size):
                gradient = working(row_gradients[lane])
                if weighted:
                    value = working(-row[lane] if negated else row[lane])
                    gradient = gradient * _term(value, working(maxima[lane]), inverse, inverse_rest, scaled)
                sums[lane], rests[lane] = compensated(sums[lane], rests[lane], gradient)
        fold(sums, rests, inner, width, sums_state[TOTAL])
    if weighted:
        for column in range(inner):
            sums_state[MEAN, column] *= state[INVERSE, column]


# ---- slices that lie in one run ------------------------------------------------------------------------------------


@kernel
def _fill_run(
    values: Any,
    terms: Any,
    maximum: float,
    inverse: float,
    inverse_rest: float,
    coarse: float,
    scaled: bool,
    negated: bool,
) -> tuple[float, float]:
    """As `_sum_run`, and leaves the terms."""
    total, rest = 0.0, 0.0
    for p in range(values.size):
        term = _term(working(-values[p] if negated else values[p]), working(maximum), inverse, inverse_rest, scaled)
        terms[p] = term
        hi, lo = split(term, coarse)
        total = add_in_any_order(total, hi)
        rest = add_in_any_order(rest, lo)
    return total, rest


@kernel
def fill_terms(
    values: Any, terms: Any, inverse: float, inverse_rest: float, zero_if_masked: float, scaled: bool, negated: bool
) -> float:
    """Leaves the terms of a slice, and returns 1/(1 + T): what `reduce_softmax` says of it, with the same sums."""
    maximum, place = find_maximum(values, negated)
    if place < 0 or maximum == np.inf:
        terms[:] = 0.0
        masked = place < 0 and zero_if_masked > 0.0 and all_masked(values, np.inf if negated else -np.inf)
        return 0.0 if masked else np.nan
    coarse = _coarse_of_others(values, place, maximum, inverse, inverse_rest, scaled, negated)
    total, rest = ZERO, ZERO
    terms[place] = 1.0
    for begin, end in ((0, place), (place + 1, values.size)):
        run, found = values[begin:end], terms[begin:end]
        for start in range(0, run.size, CHUNK):
            part, lost = _fill_run(
                run[start : start + CHUNK],
                found[start : start + CHUNK],
                maximum,
                inverse,
                inverse_rest,
                coarse,
                scaled,
                negated,
            )
            total, rest = compensated(total, rest + lost, part)
    return 1.0 / (1.0 + (total + rest))


@kernel
def _weigh_run(terms: Any, g: Any, coarse: float) -> tuple[float, float]:
    total, rest = 0.0, 0.0
    for p in range(g.size):
        hi, lo = split(working(g[p]) * terms[p], coarse)
        total = add_in_any_order(total, hi)
        rest = add_in_any_order(rest, lo)
    return total, rest


@kernel
def weigh_terms(terms: Any, g: Any, share: float) -> float:
    """The mean of g, weighted by the terms, each times `share`."""
    coarse = coarse_for(magnitude_of(g))
    total, rest = ZERO, ZERO
    for start in range(0, g.size, CHUNK):
        part, lost = _weigh_run(terms[start : start + CHUNK], g[start : start + CHUNK], coarse)
        total, rest = compensated(total, rest + lost, part)
    return (total + rest if abs(total) < np.inf else total) * share


# ---- softmax -------------------------------------------------------------------------------------------------------


@kernel
def _softmax_reduce(x: Any, state: Any, temperature: float, masked: float) -> None:
    inverse, inverse_rest = inverse_of(temperature)
    reduce_softmax(x, state, inverse, inverse_rest, masked, True, False)


@kernel
def _softmax(v: float, i: int, j: int, state: Any, temperature: float, masked: float) -> float:
    inverse, inverse_rest = inverse_of(temperature)
    return share_of(v, j, state, inverse, inverse_rest, True, False)


@kernel
def _softmax_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any, temperature: float, masked: float) -> None:
    inverse, inverse_rest = inverse_of(temperature)
    sum_weighted(x, g, state, vjp_state, inverse, inverse_rest, True, True, False)


@kernel
def _softmax_vjp(
    v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, temperature: float, masked: float
) -> float:
    inverse, inverse_rest = inverse_of(temperature)
    share = share_of(v, j, state, inverse, inverse_rest, True, False)
    return share * (working(u) - working(vjp_state[MEAN, j])) * working(inverse)


@kernel
def _softmax_jacobian(
    v: float, w: float, i: int, k: int, j: int, state: Any, temperature: float, masked: float
) -> float:
    inverse, inverse_rest = inverse_of(temperature)
    return share_slope(v, w, i, k, j, state, inverse, inverse_rest, True, False) / working(temperature)


@kernel
def _scaled_term(v: float, term: float, share: float, unused: float) -> float:
    return term * share


@kernel
def _scaled_product(u: float, term: float, factor: float, mean: float) -> float:
    return term * factor * (u - mean)


@kernel
def _softmax_terms(x: Any, terms: Any, temperature: float, masked: float) -> float:
    if temperature == 1.0:
        return fill_terms(x, terms, 1.0, 0.0, masked, False, False)
    inverse, inverse_rest = inverse_of(temperature)
    return fill_terms(x, terms, inverse, inverse_rest, masked, True, False)


@kernel
def _softmax_look(x: Any, terms: Any, temperature: float, masked: float) -> tuple[float, float]:
    return _softmax_terms(x, terms, temperature, masked), ZERO


@kernel
def _softmax_look_vjp(x: Any, g: Any, terms: Any, temperature: float, masked: float) -> tuple[float, float]:
    share = _softmax_terms(x, terms, temperature, masked)
    return share / temperature, weigh_terms(terms, g, share)


ALL_MASKED = word(
    "all_masked",
    "What a slice that is -inf throughout becomes: NaN, or masked (probability 0, gradient 0).",
    "nan",
    "zero",
)
TEMPERATURE = Parameter(
    name="temperature", meaning="Divides the input: below 1 sharpens, above 1 flattens.", default=1.0, low=0.0
)

SOFTMAX = AxisActivation(
    name="softmax",
    summary="A probability for every element of a slice, in proportion to its exponential.",
    reference="Bridle, Probabilistic interpretation of feedforward classification network outputs, 1990",
    formula="exp((x[i] - max(x)) / temperature) / fsum(exp((v - max(x)) / temperature) for v in x)",
    derivative_formula="softmax(x, i) * ((1 if i == k else 0) - softmax(x, k)) / temperature",
    state_size=3,
    reduce=_softmax_reduce,
    forward=_softmax,
    vjp_state_size=1,
    vjp_reduce=_softmax_vjp_reduce,
    vjp=_softmax_vjp,
    jacobian=_softmax_jacobian,
    whole=Whole(look=_softmax_look, forward=_scaled_term, look_vjp=_softmax_look_vjp, vjp=_scaled_product),
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    fast=True,
    advice="For the output of a classifier among several classes, and for attention weights.",
    parameters=(TEMPERATURE, ALL_MASKED),
    libraries=(
        Library("torch", ("Softmax", "softmax", "Softmax2d")),
        Library("jax", ("softmax",)),
        Library("flax", ("softmax",)),
        Library("keras", ("softmax",)),
        Library("tensorflow", ("softmax",)),
        Library("onnx", ("Softmax",)),
        Library("onednn", ("softmax_accurate",)),
        Library("ggml", ("SOFT_MAX",)),
    ),
    tried=({"temperature": 0.7}, {"temperature": 30.0}, {"temperature": 1e-3}, {"all_masked": "zero"}),
)


# ---- log-softmax ---------------------------------------------------------------------------------------------------


@kernel
def _log_softmax_reduce(x: Any, state: Any, masked: float) -> None:
    reduce_softmax(x, state, 1.0, 0.0, masked, False, False)
    for column in range(x.shape[1]):
        others = state[OTHERS, column]
        state[LOG_TOTAL, column] = log1p(working(others)) if others == others else np.nan


@kernel
def _log_softmax(v: float, i: int, j: int, state: Any, masked: float) -> float:
    return _below(v, ZERO, working(state[MAXIMUM, j]), working(state[LOG_TOTAL, j]))


@kernel
def _below(v: float, term: float, maximum: float, log_total: float) -> float:
    """v - maximum - log_total, with what the first difference lost; the term is not needed."""
    difference, lost = compensated(working(v), 0.0, -maximum)
    return (difference - log_total) + (lost if difference > -np.inf else 0.0)


@kernel
def _log_softmax_look(x: Any, terms: Any, masked: float) -> tuple[float, float]:
    maximum, others, all_are = _of_run(x, 1.0, 0.0, False, False)
    if all_are:
        return ZERO, (ZERO if masked > 0.0 else np.nan)
    if not maximum < np.inf:
        return ZERO, np.nan
    return maximum, (np.float64(log1p(working(others))) if others == others else np.nan)


@kernel
def _log_softmax_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any, masked: float) -> None:
    sum_weighted(x, g, state, vjp_state, 1.0, 0.0, False, False, False)


@kernel
def _log_softmax_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, masked: float) -> float:
    share = share_of(v, j, state, 1.0, 0.0, False, False)
    value = working(u) - share * working(vjp_state[TOTAL, j])
    return value if state[INVERSE, j] != 0.0 else 0.0


@kernel
def _log_softmax_look_vjp(x: Any, g: Any, terms: Any, masked: float) -> tuple[float, float]:
    share = fill_terms(x, terms, 1.0, 0.0, masked, False, False)
    return share, _total_of_run(x, g, 0.0, 1.0, 0.0, False, False, False)


@kernel
def _less_share(u: float, term: float, share: float, total: float) -> float:
    value = u - term * share * total
    return value if share != 0.0 else 0.0


@kernel
def _log_softmax_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any, masked: float) -> float:
    others = working(state[OTHERS, j])
    term = _term(working(w), working(state[MAXIMUM, j]), 1.0, 0.0, False)
    value = ((1.0 - term) + others if i == k else -term) / (1.0 + others)
    return value if state[INVERSE, j] != 0.0 else 0.0


LOG_SOFTMAX = AxisActivation(
    name="log_softmax",
    summary="The logarithm of softmax, without the loss of computing it so.",
    reference="Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, section 6.2.2.3",
    formula="x[i] - max(x) - log(fsum(exp(v - max(x)) for v in x))",
    derivative_formula="(1 if i == k else 0) - exp(log_softmax(x, k))",
    state_size=4,
    reduce=_log_softmax_reduce,
    forward=_log_softmax,
    vjp_state_size=1,
    vjp_reduce=_log_softmax_vjp_reduce,
    vjp=_log_softmax_vjp,
    jacobian=_log_softmax_jacobian,
    whole=Whole(look=_log_softmax_look, forward=_below, look_vjp=_log_softmax_look_vjp, vjp=_less_share),
    range="[-inf, 0]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="right", smooth=True),
    fast=True,
    advice="Before a negative log-likelihood loss: the logarithm of a rounded softmax loses digits, or is -inf.",
    parameters=(ALL_MASKED,),
    libraries=(
        Library("torch", ("LogSoftmax", "log_softmax")),
        Library("jax", ("log_softmax",)),
        Library("flax", ("log_softmax",)),
        Library("keras", ("log_softmax",)),
        Library("tensorflow", ("log_softmax",)),
        Library("onnx", ("LogSoftmax",)),
        Library("onednn", ("softmax_log",)),
    ),
    tried=({"all_masked": "zero"},),
)


# ---- softmin -------------------------------------------------------------------------------------------------------


@kernel
def _softmin_reduce(x: Any, state: Any, masked: float) -> None:
    reduce_softmax(x, state, 1.0, 0.0, masked, False, True)


@kernel
def _softmin(v: float, i: int, j: int, state: Any, masked: float) -> float:
    return share_of(v, j, state, 1.0, 0.0, False, True)


@kernel
def _softmin_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any, masked: float) -> None:
    sum_weighted(x, g, state, vjp_state, 1.0, 0.0, True, False, True)


@kernel
def _softmin_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, masked: float) -> float:
    return share_of(v, j, state, 1.0, 0.0, False, True) * (working(vjp_state[MEAN, j]) - working(u))


@kernel
def _softmin_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any, masked: float) -> float:
    return -share_slope(v, w, i, k, j, state, 1.0, 0.0, False, True)


@kernel
def _softmin_look(x: Any, terms: Any, masked: float) -> tuple[float, float]:
    return fill_terms(x, terms, 1.0, 0.0, masked, False, True), ZERO


@kernel
def _softmin_look_vjp(x: Any, g: Any, terms: Any, masked: float) -> tuple[float, float]:
    share = fill_terms(x, terms, 1.0, 0.0, masked, False, True)
    return -share, weigh_terms(terms, g, share)


SOFTMIN = AxisActivation(
    name="softmin",
    summary="Softmax of the negated slice: the smaller an element, the larger its probability.",
    reference="Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, section 6.2.2.3 (softmax, of -x)",
    formula="exp(min(x) - x[i]) / fsum(exp(min(x) - v) for v in x)",
    derivative_formula="softmin(x, i) * (softmin(x, k) - (1 if i == k else 0))",
    state_size=3,
    reduce=_softmin_reduce,
    forward=_softmin,
    vjp_state_size=1,
    vjp_reduce=_softmin_vjp_reduce,
    vjp=_softmin_vjp,
    jacobian=_softmin_jacobian,
    whole=Whole(look=_softmin_look, forward=_scaled_term, look_vjp=_softmin_look_vjp, vjp=_scaled_product),
    range="[0, 1]",
    traits=Traits(monotonic=False, zero_centred=False, saturates="both", smooth=True),
    fast=True,
    advice="To turn distances or costs into weights: the nearest or cheapest gets the most.",
    parameters=(
        word(
            "all_masked",
            "What a slice that is inf throughout becomes: NaN, or masked (probability 0, gradient 0).",
            "nan",
            "zero",
        ),
    ),
    libraries=(Library("torch", ("Softmin", "softmin")),),
    tried=({"all_masked": "zero"},),
)
