"""Entmax for any alpha from 1 on: softmax at 1, sparsemax at 2, and all between and beyond. Knows not how blocks reach it.

The words of `sparse_maps` hold here too. At 1, 1.5 and 2 the exact algorithms of softmax, entmax15 and sparsemax are used.
Elsewhere the smallest element whose probability is more than 0 is looked for, the anchor; tau lies some d below it. Then
an element's h - tau is its distance from the anchor plus d, none of which cancels: every probability is as good as d. That is
found by Newton's method, at the end from sums of some 95 bits: right to the last digits, unless it is itself some 2^-40 of what it
is a difference of.

Slopes, of which the gradients are made, are large where alpha is more than 2 and a probability is small. So sums are taken relative
to the element with the greatest slope, the winner, by whose inverse slope w they are divided: with O the sum of all other slopes
they are s_i (g_i - g_w) - s_i w sum(s (g - g_w))/(1 + w O), and for the winner itself, where s_i w is 1, nothing overflows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.softmax import INVERSE as SHARE_INVERSE
from actserve_server.activations.softmax import OTHERS as SHARE_OTHERS
from actserve_server.activations.softmax import SOFTMAX, share_of, share_slope
from actserve_server.activations.sparse_maps import (
    ENTMAX15,
    MAXIMUM,
    OTHERS,
    SPARSEMAX,
    TAU,
    TAU_REST,
    WINNER,
    candidates_of,
    excess,
    fill_quadratic,
    fill_uniform,
    maximum_of,
    no_threshold,
    scaled_difference,
)
from actserve_server.activations.spec import AxisActivation, Parameter, ParameterGradient, Traits, kernel
from actserve_server.elementary import exp_of_difference, log1p
from actserve_server.elementary.doubled import exp_pair, log_pair
from actserve_server.elementary.pairs import add_pair, product_pair, quotient_pair, sum_pair
from actserve_server.elementary.powers import wide_log_in_parts
from actserve_server.elementary.wide import wide_exp_sum, wide_log

__all__ = ["ENTMAX"]

ANCHOR, DISTANCE, DISTANCE_REST = MAXIMUM, TAU, TAU_REST
"""Rows of the state, but for alpha = 1, 1.5 and 2: the anchor, and d in two parts."""
INVERSE = WINNER
"""w. OTHERS is O. From alpha = 2 on the anchor is the winner, and below it the maximum."""
SHARE, SHARE_REST = 5, 6
"""Beyond alpha = 2, the anchor's probability in two parts: it may be there where d is too small for a number."""
WINNER_AT = 7
"""The winner's x."""
GRADIENT, SHIFT, DRIFT = 0, 1, 2
"""Rows of the product's state: g of the winner; sum(s (g - g_w))/(1 + w O), and what stands for it in the gradient of alpha. At alpha = 1 they
are the mean of g, nothing, and the mean of log(y)^2."""

SMALLEST = 2.0**-1022
LOWEST = -600.0
"""A power with a smaller logarithm is 0 beside 1."""
NEARLY_ONE = 1.0 + 2.0**-50
"""What is further from the maximum has no probability, whatever was lost in the rounding of that distance."""
UNSURE = 1e-6
"""So far from 1 a sum in plain numbers says on which side of it the exact one is."""
STEPS = 300
FINE_STEPS = 80
CLOSE = 2.0**-40
FAR = 0.01
ULP = 2.0**-53


@kernel
def _power(hi: float, lo: float, exponent: float, exponent_lo: float) -> tuple[float, float]:
    """(hi + lo)^(exponent + exponent_lo) in two parts; 0 where it is nothing beside 1, and of what is no ordinary number."""
    log, log_lo = log_pair(max(hi, SMALLEST), lo)
    product, rest = product_pair(exponent, exponent_lo, log, log_lo)
    product, rest = sum_pair(product, rest)
    if (hi < SMALLEST) | (product < LOWEST):
        return 0.0, 0.0
    return exp_pair(product, rest)


@kernel
def _rounded_power(hi: float, lo: float, exponent: float, exponent_lo: float) -> float:
    """The same as a number, which may be as small as numbers are."""
    log, log_lo = wide_log_in_parts(max(hi, SMALLEST), lo)
    product, rest = product_pair(exponent, exponent_lo, log, log_lo)
    return wide_exp_sum(product, rest) if hi >= SMALLEST else 0.0


@kernel
def _from_anchor(v: float, anchor: float, distance: float, distance_rest: float, scale: float) -> tuple[float, float]:
    """h - tau in two parts."""
    hi, lo = scaled_difference(v, anchor, scale)
    total, rest = add_pair(hi, lo, distance, distance_rest)
    return sum_pair(total, rest)


@kernel
def _sum(
    values: Any,
    count: int,
    anchor: float,
    distance: float,
    distance_rest: float,
    share: float,
    share_rest: float,
    alpha: float,
    fine: bool,
) -> tuple[float, float, float]:
    """With tau at a distance from an anchor whose probability is `share`: by how much all probabilities together exceed 1; the sum
    of (h - tau)^(power - 1) over elements above the anchor; and how many elements are as large as it is."""
    power, power_rest = quotient_pair(1.0, alpha - 1.0)
    total, rest, slopes, ties = -1.0, 0.0, 0.0, 0.0
    for p in range(count):
        if values[p] == anchor:
            ties += 1.0
            total, rest = add_pair(total, rest, share, share_rest)
        elif values[p] > anchor:
            if fine:
                hi, lo = _from_anchor(values[p], anchor, distance, distance_rest, alpha - 1.0)
                term, term_rest = _power(hi, lo, power, power_rest)
            else:
                hi = (alpha - 1.0) * (values[p] - anchor) + distance
                term, term_rest = wide_exp_sum(power * wide_log(hi), 0.0), 0.0
            total, rest = add_pair(total, rest, term, term_rest)
            slopes += term / hi
    return total + rest, slopes, ties


@kernel
def _is_positive(values: Any, count: int, anchor: float, alpha: float) -> bool:
    """Whether an element as large as this has a probability above 0: if those above it alone, with tau here, do not reach 1."""
    above, _, _ = _sum(values, count, anchor, 0.0, 0.0, 0.0, 0.0, alpha, False)
    if abs(above) < UNSURE:
        above, _, _ = _sum(values, count, anchor, 0.0, 0.0, 0.0, 0.0, alpha, True)
    return above < 0.0


@kernel
def _anchor_of(values: Any, count: int, maximum: float, alpha: float) -> float:
    """The smallest element whose probability is above 0, by halving the distance between one that has and one that has not."""
    positive, zero = maximum, maximum - 2.0 / (alpha - 1.0)
    while True:
        middle = 0.5 * positive + 0.5 * zero
        below, above = -np.inf, np.inf
        for p in range(count):
            if zero < values[p] < positive:
                if values[p] <= middle:
                    below = max(below, values[p])
                else:
                    above = min(above, values[p])
        tried = below if below > -np.inf else above
        if tried == np.inf:
            return positive
        if _is_positive(values, count, tried, alpha):
            positive = tried
        else:
            zero = tried


@kernel
def _solve(values: Any, count: int, anchor: float, maximum: float, alpha: float) -> tuple[float, float, float, float]:
    """d and the anchor's probability, d^power, in two parts each.

    Where the power is at least 1, the sum of all probabilities is a convex function of d; where it is less, one of the anchor's
    probability; and so is the sum's root, its norm. So Newton's steps from above come closer from one side.
    """
    scale = alpha - 1.0
    power, power_rest = quotient_pair(1.0, scale)
    steep = power < 1.0
    # An error of d comes out as large in the probabilities as it is times the power.
    weight = max(power, 1.0)
    distance, distance_rest = max(1.0 - scale * (maximum - anchor), ULP / weight), 0.0
    share, share_rest = _power(distance, 0.0, power, power_rest)
    fine, steps_to_go = False, STEPS
    while steps_to_go > 0:
        steps_to_go -= 1
        above, slopes, ties = _sum(values, count, anchor, distance, distance_rest, share, share_rest, alpha, fine)
        if steep:
            step = above / (ties + slopes * (distance / share))
        else:
            slopes += ties * (share / distance)
            step = above / (power * slopes)
            if (above > FAR) & (not fine):
                norm = wide_exp_sum(wide_log(1.0 + above) / power, 0.0)
                step = (norm - 1.0) * (1.0 + above) / (norm * slopes)
        variable = share if steep else distance
        closing = weight * abs(step) <= CLOSE * variable
        step = min(step, 0.5 * variable)
        if steep:
            share, lost = sum_pair(share, -step)
            share, share_rest = sum_pair(share, share_rest + lost)
            distance, distance_rest = _power(share, share_rest, scale, 0.0)
        else:
            distance, lost = sum_pair(distance, -step)
            distance, distance_rest = sum_pair(distance, distance_rest + lost)
            share, share_rest = _power(distance, distance_rest, power, power_rest)
        if closing & fine:
            # The error that is left is about the square of this step.
            break
        if (closing | (step <= 0.0) | (steps_to_go == 0)) & (not fine):
            # A step back is one for the rounding of the sum.
            fine, steps_to_go = True, FINE_STEPS
    return distance, distance_rest, share, share_rest


@kernel
def _general(v: float, j: int, state: Any, alpha: float) -> tuple[float, float]:
    """An element's probability, and that to the power of 2 - alpha, or 0 for 0."""
    anchor, scale = state[ANCHOR, j], alpha - 1.0
    if (v == anchor) & (alpha > 2.0):
        share, share_rest = state[SHARE, j], state[SHARE_REST, j]
        return share, _rounded_power(share, share_rest, 2.0 - alpha, 0.0)
    if v < anchor:
        return 0.0, 0.0
    hi, lo = _from_anchor(v, anchor, state[DISTANCE, j], state[DISTANCE_REST, j], scale)
    if hi != hi:
        return hi, hi
    power, power_rest = quotient_pair(1.0, scale)
    other, other_rest = quotient_pair(2.0 - alpha, scale)
    return _rounded_power(hi, lo, power, power_rest), _rounded_power(hi, lo, other, other_rest)


@kernel
def _element(v: float, j: int, state: Any, alpha: float) -> tuple[float, float]:
    """The same for every alpha but 1."""
    if alpha == 2.0:
        share = excess(v, state[MAXIMUM, j], 1.0, state[TAU, j], state[TAU_REST, j])
        return share, (share if share != share else (1.0 if share > 0.0 else 0.0))
    if alpha == 1.5:
        root = excess(v, state[MAXIMUM, j], 0.5, state[TAU, j], state[TAU_REST, j])
        return root * root, root
    return _general(v, j, state, alpha)


@kernel
def _reduce_shares(x: Any, j: int, state: Any) -> None:
    """Leave in column j of the state what softmax does; plainly, for its loops are long to compile."""
    winner = 0
    for i in range(x.shape[0]):
        winner = i if x[i, j] > x[winner, j] else winner
    maximum = np.float64(x[winner, j])
    total, rest = 0.0, 0.0
    for i in range(x.shape[0]):
        if i != winner:
            total, rest = add_pair(total, rest, exp_of_difference(np.float64(x[i, j]), maximum), 0.0)
    others = total + rest if abs(maximum) < np.inf else np.nan
    state[MAXIMUM, j], state[SHARE_OTHERS, j], state[SHARE_INVERSE, j] = maximum, others, 1.0 / (1.0 + others)


@kernel
def _fill_general(x: Any, j: int, state: Any, maximum: float, values: Any, alpha: float) -> None:
    """Leave in column j of the state what the other alphas need."""
    count = 0
    for i in range(x.shape[0]):
        value = np.float64(x[i, j])
        if (alpha - 1.0) * (maximum - value) <= NEARLY_ONE:
            values[count] = value
            count += 1
    anchor = _anchor_of(values, count, maximum, alpha)
    state[ANCHOR, j] = anchor
    state[DISTANCE, j], state[DISTANCE_REST, j], state[SHARE, j], state[SHARE_REST, j] = _solve(
        values, count, anchor, maximum, alpha
    )
    winner_at = anchor if alpha > 2.0 else maximum
    total, rest, met = 0.0, 0.0, False
    for p in range(count):
        if (values[p] == winner_at) & (not met):
            met = True
        else:
            _, slope = _general(values[p], j, state, alpha)
            total, rest = add_pair(total, rest, slope, 0.0)
    if alpha > 2.0:
        inverse = _rounded_power(state[SHARE, j], state[SHARE_REST, j], alpha - 2.0, 0.0)
    else:
        _, slope = _general(maximum, j, state, alpha)
        inverse = 1.0 / slope
    state[INVERSE, j], state[OTHERS, j], state[WINNER_AT, j] = inverse, total + rest, winner_at


@kernel
def _entmax_reduce(x: Any, state: Any, alpha: float) -> None:
    if alpha == 1.0:
        for j in range(x.shape[1]):
            _reduce_shares(x, j, state)
        return
    n, inner = x.shape
    work = np.empty((2, n))
    for j in range(inner):
        if (alpha == 1.5) | (alpha == 2.0):
            count, maximum = candidates_of(x, j, alpha - 1.0, work[0], work[1])
            if count == 0:
                no_threshold(state, j)
                continue
            if alpha == 1.5:
                fill_quadratic(state, j, maximum, work[0], work[1], count)
            else:
                fill_uniform(state, j, maximum, work[0], work[1], count)
            state[INVERSE, j], state[WINNER_AT, j] = 1.0 / state[WINNER, j], maximum
        else:
            maximum = maximum_of(x, j)
            if abs(maximum) < np.inf:
                _fill_general(x, j, state, maximum, work[0], alpha)
            else:
                no_threshold(state, j)


@kernel
def _entmax(v: float, i: int, j: int, state: Any, alpha: float) -> float:
    if alpha == 1.0:
        return share_of(v, j, state, 1.0, 0.0, False, False)
    share, _ = _element(v, j, state, alpha)
    return share


@kernel
def _entmax_vjp_reduce(x: Any, g: Any, state: Any, vjp_state: Any, alpha: float) -> None:
    n, inner = x.shape
    if alpha == 1.0:
        for j in range(inner):
            total, rest, squares = 0.0, 0.0, 0.0
            for i in range(n):
                log, share = _log_share(np.float64(x[i, j]), j, state)
                total, rest = add_pair(total, rest, share * np.float64(g[i, j]), 0.0)
                squares += share * log * log if log > -np.inf else 0.0
            vjp_state[GRADIENT, j] = total + rest if abs(total) < np.inf else total
            vjp_state[DRIFT, j] = squares
        return
    for j in range(inner):
        winner_at, gradient = state[WINNER_AT, j], np.nan
        for i in range(n - 1, -1, -1):
            gradient = np.float64(g[i, j]) if x[i, j] == winner_at else gradient
        total, rest, drift = 0.0, 0.0, 0.0
        for i in range(n):
            value = np.float64(x[i, j])
            share, slope = _element(value, j, state, alpha)
            if share > 0.0:
                hi, lo = _times_difference(slope, np.float64(g[i, j]), gradient)
                total, rest = add_pair(total, rest, hi, lo)
                drift += _times(slope, value - winner_at) - share * wide_log(share)
        whole = 1.0 + state[INVERSE, j] * state[OTHERS, j]
        vjp_state[GRADIENT, j] = gradient
        vjp_state[SHIFT, j] = (total + rest if abs(total) < np.inf else total) / whole
        vjp_state[DRIFT, j] = drift / whole


@kernel
def _times(slope: float, factor: float) -> float:
    """Their product, which is 0 where the factor is: a winner's slope may have overflowed."""
    return 0.0 if factor == 0.0 else slope * factor


@kernel
def _times_difference(slope: float, a: float, b: float) -> tuple[float, float]:
    """slope (a - b) in two parts, likewise."""
    hi, lo = sum_pair(a, -b)
    if (hi == 0.0) | (not abs(hi) < np.inf):
        return _times(slope, hi), 0.0
    return product_pair(slope, 0.0, hi, lo)


@kernel
def _less_shift(moved: float, slope: float, v: float, j: int, state: Any, shift: float) -> float:
    """What is left of it when the shift of all elements is taken away."""
    return moved - (shift if v == state[WINNER_AT, j] else slope * state[INVERSE, j] * shift)


@kernel
def _entmax_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, alpha: float) -> float:
    difference: float = u - vjp_state[GRADIENT, j]
    if alpha == 1.0:
        return share_of(v, j, state, 1.0, 0.0, False, False) * difference
    share, slope = _element(v, j, state, alpha)
    if share == 0.0:
        return 0.0
    return _less_shift(_times(slope, difference), slope, v, j, state, vjp_state[SHIFT, j])


@kernel
def _entmax_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any, alpha: float) -> float:
    if alpha == 1.0:
        return share_slope(v, w, i, k, j, state, 1.0, 0.0, False, False)
    share, own = _element(v, j, state, alpha)
    other_share, other = _element(w, j, state, alpha)
    if (share == 0.0) | (other_share == 0.0):
        return 0.0
    inverse: float = state[INVERSE, j]
    others: float = state[OTHERS, j]
    winner_at: float = state[WINNER_AT, j]
    whole = 1.0 + inverse * others
    if i == k:
        # The sum of all slopes but one's own, where the difference is not taken.
        return (others if v == winner_at else own * ((1.0 - inverse * own) + inverse * others)) / whole
    if w == winner_at:
        return -own / whole
    return -(other if v == winner_at else own * (inverse * other)) / whole


@kernel
def _log_share(v: float, j: int, state: Any) -> tuple[float, float]:
    """log(y) and y at alpha = 1."""
    maximum: float = state[MAXIMUM, j]
    log = v - maximum - log1p(state[SHARE_OTHERS, j])
    return log, share_of(v, j, state, 1.0, 0.0, False, False)


@kernel
def _alpha_gradient(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, alpha: float) -> float:
    """u dy_i/dalpha. Near alpha = 1 two terms cancel, and 1/(alpha - 1) times the last digit is lost."""
    drift: float = vjp_state[DRIFT, j]
    if alpha == 1.0:
        log, share = _log_share(v, j, state)
        return u * 0.5 * share * (drift - log * log) if log > -np.inf else 0.0
    share, slope = _element(v, j, state, alpha)
    if share == 0.0:
        return 0.0
    moved = _less_shift(_times(slope, v - state[WINNER_AT, j]), slope, v, j, state, drift)
    return u * (moved - share * wide_log(share)) / (alpha - 1.0)


_SLOPES = "[entmax(x, j) ** (2 - alpha) if entmax(x, j) > 0 else 0 for j in range(len(x))]"
_ENTROPIES = "[-entmax(x, j) * log(entmax(x, j)) if entmax(x, j) > 0 else 0 for j in range(len(x))]"

ENTMAX = AxisActivation(
    name="entmax",
    summary="A family of probabilities with softmax at alpha = 1 and sparsemax at alpha = 2: the larger, the sparser.",
    reference="Peters, Niculae and Martins, Sparse sequence-to-sequence models, ACL 2019, arXiv:1905.05702;"
    " of alpha: Correia, Niculae and Martins, Adaptively sparse transformers, EMNLP 2019, arXiv:1909.00015",
    formula="exp(x[i] - max(x)) / fsum(exp(v - max(x)) for v in x) if alpha == 1"
    " else max((alpha - 1) * x[i] - entmax_threshold(x, alpha), 0) ** (1 / (alpha - 1))",
    derivative_formula=f"(lambda s: s[i] * ((1 if i == k else 0) - s[k] / fsum(s)))({_SLOPES})",
    state_size=8,
    reduce=_entmax_reduce,
    forward=_entmax,
    vjp_state_size=3,
    vjp_reduce=_entmax_vjp_reduce,
    vjp=_entmax_vjp,
    jacobian=_entmax_jacobian,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    advice="Where sparsity itself is to be tuned or, through the gradient of alpha, learned.",
    parameters=(
        Parameter(
            "alpha",
            "How sparse: 1 is softmax, 2 is sparsemax, more is sparser still.",
            1.5,
            low=1.0,
            high=40.0,
            low_open=False,
            high_open=False,
        ),
    ),
    gradients=(
        ParameterGradient(
            "alpha",
            "entmax(x, i) * (fsum(entmax(x, j) * log(entmax(x, j)) ** 2 for j in range(len(x)))"
            " - log(entmax(x, i)) ** 2) / 2 if alpha == 1 else (lambda s, h: (entmax(x, i) - s[i] / fsum(s))"
            " / (alpha - 1) ** 2 + (h[i] - s[i] * fsum(h) / fsum(s)) / (alpha - 1))"
            f"({_SLOPES}, {_ENTROPIES})",
            _alpha_gradient,
        ),
    ),
    branches=True,
    special={(1.0,): (SOFTMAX, (1.0, 0.0)), (1.5,): (ENTMAX15, ()), (2.0,): (SPARSEMAX, ())},
    tried=({"alpha": 1.0}, {"alpha": 1.2}, {"alpha": 1.9}, {"alpha": 2.0}, {"alpha": 3.5}, {"alpha": 12.0}),
)
