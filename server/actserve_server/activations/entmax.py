"""Entmax for any alpha from 1 on: softmax at 1, sparsemax at 2, and all between and beyond. Knows not how blocks reach it.

The words of `sparse_maps` hold here too. At 1, 1.5 and 2 the exact algorithms of softmax, entmax15 and sparsemax are
used; elsewhere tau is found by Newton's method between bounds, from sums of float64, so that an element whose h - tau
is d has an error of 2^-52/d relative to itself or so, where that is more than the last digits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.softmax import INVERSE as SHARE_INVERSE
from actserve_server.activations.softmax import OTHERS as SHARE_OTHERS
from actserve_server.activations.softmax import share_of, share_slope
from actserve_server.activations.sparse_maps import (
    MAXIMUM,
    MEAN,
    OTHERS,
    TAU,
    TAU_REST,
    WINNER,
    add_pair,
    candidates_of,
    fill_quadratic,
    no_threshold,
    scaled_difference,
    slope_of,
    uniform_threshold,
)
from actserve_server.activations.spec import AxisActivation, Parameter, ParameterGradient, Traits, kernel
from actserve_server.elementary import exp_of_difference, fma, log1p
from actserve_server.elementary.bits import bits_of, float_of
from actserve_server.elementary.pairs import sum_pair
from actserve_server.elementary.wide import (
    BIASED_ZERO,
    EXPONENT_MASK,
    LN2_HI,
    LN2_LO,
    MANTISSA_BITS,
    MANTISSA_MASK,
    SQRT_HALF_BITS,
    power_of_two,
    wide_exp_sum,
    wide_log,
)

__all__ = ["ENTMAX"]

DRIFT = 1
"""The second row of the product's state: the derivative of tau with respect to alpha, with max(x) for 0; at alpha = 1 the
mean of log(y)^2."""

STEPS = 300
CLOSE = 2.0**-40
FAR = 0.01
SMALLEST = 2.0**-1000
THIRD_HI, THIRD_LO = 0.3333333333333333, 1.850371707708594e-17


@kernel
def _log(hi: float, lo: float) -> tuple[float, float]:
    """log(hi + lo) in two parts, to about 65 bits, for 2^-1000 < hi <= 2.

    With hi + lo = 2^n (1 + f) and s = f/(2 + f) it is n log 2 + 2 (s + s^3/3 + s^5/5 + ...), |s| < 0.172.
    """
    shifted = bits_of(hi) - SQRT_HALF_BITS + BIASED_ZERO
    n = np.float64(((shifted >> MANTISSA_BITS) & EXPONENT_MASK) - 1023)
    f = float_of((shifted & MANTISSA_MASK) + SQRT_HALF_BITS) - 1.0
    rest = lo * power_of_two(-n)
    whole, lost = sum_pair(2.0, f)
    s = (f + rest) / whole
    s_lo = (fma(-s, whole, f) + (rest - s * (lost + rest))) / whole
    z = s * s
    z_lo = fma(s, s, -z) + 2.0 * s * s_lo
    cube = s * z
    cube_lo = fma(s, z, -cube) + (s * z_lo + s_lo * z)
    third = cube * THIRD_HI
    third_lo = fma(cube, THIRD_HI, -third) + (cube * THIRD_LO + cube_lo * THIRD_HI)
    tail = 1.0 / 27.0
    tail = fma(tail, z, 1.0 / 25.0)
    tail = fma(tail, z, 1.0 / 23.0)
    tail = fma(tail, z, 1.0 / 21.0)
    tail = fma(tail, z, 1.0 / 19.0)
    tail = fma(tail, z, 1.0 / 17.0)
    tail = fma(tail, z, 1.0 / 15.0)
    tail = fma(tail, z, 1.0 / 13.0)
    tail = fma(tail, z, 1.0 / 11.0)
    tail = fma(tail, z, 1.0 / 9.0)
    tail = fma(tail, z, 1.0 / 7.0)
    tail = fma(tail, z, 1.0 / 5.0) * z * cube
    total, total_lo = sum_pair(n * LN2_HI, 2.0 * s)
    total, total_lo = add_pair(total, total_lo, 2.0 * third, n * LN2_LO + 2.0 * (s_lo + (third_lo + tail)))
    return sum_pair(total, total_lo)


@kernel
def _power(hi: float, lo: float, exponent: float, exponent_lo: float) -> float:
    """(hi + lo)^(exponent + exponent_lo) for 0 <= hi <= 2; 0 for what is less than 2^-1000."""
    log, log_lo = _log(max(hi, SMALLEST), lo)
    product = exponent * log
    rest = fma(exponent, log, -product) + (exponent * log_lo + exponent_lo * log)
    return wide_exp_sum(product, rest) if hi > SMALLEST else 0.0


@kernel
def _quotient(a: float, b: float) -> tuple[float, float]:
    """a/b in two parts."""
    hi = a / b
    return hi, -fma(hi, b, -a) / b


@kernel
def _threshold(highs: Any, lows: Any, count: int, alpha: float) -> tuple[float, float]:
    """tau in two parts, where the sum of (h - tau)^power over all h > tau is 1, power = 1/(alpha - 1).

    The first h is not more than 0, and one is 0, so -tau lies between count^(1 - alpha) and 1. Where the power is at least
    1, its norm of h - tau is a convex function of tau that falls to 1, so Newton's steps come closer from one side.
    """
    power, power_lo = _quotient(1.0, alpha - 1.0)
    low, high = -1.0, -(1.0 - 1e-14) * _power(1.0 / np.float64(count), 0.0, alpha - 1.0, 0.0)
    tau, tau_rest = low, 0.0
    steps_to_go = STEPS
    while steps_to_go > 0:
        steps_to_go -= 1
        total, rest, slopes = -1.0, 0.0, 0.0
        for p in range(count):
            hi, lo = _above(highs[p], lows[p], tau, tau_rest)
            if hi > 0.0:
                term = _power(hi, lo, power, power_lo)
                total, rest = add_pair(total, rest, term, 0.0)
                slopes += term / hi
        above = total + rest
        if above >= 0.0:
            low = tau
        else:
            high = tau
        step = above / (slopes * power)
        if above > FAR and power > 1.0:
            norm = wide_exp_sum(wide_log(1.0 + above) / power, 0.0)
            step = (norm - 1.0) * (1.0 + above) / (norm * slopes)
        following, lost = sum_pair(tau, tau_rest + step)
        if abs(step) <= -CLOSE * tau:
            # One more step, and the error of this one is squared.
            steps_to_go = min(steps_to_go, 1)
        elif not (low < following < high):
            following, lost = (-np.sqrt(low * high) if high > 0.25 * low else 0.5 * (low + high)), 0.0
            if not (low < following < high):
                break
        tau, tau_rest = following, lost
    return tau, tau_rest


@kernel
def _above(hi: float, lo: float, tau: float, tau_rest: float) -> tuple[float, float]:
    """hi + lo - tau in two parts."""
    difference, lost = sum_pair(hi, -tau)
    if not difference > -np.inf:
        return difference, 0.0
    return sum_pair(difference, lost + (lo - tau_rest))


@kernel
def _base(v: float, j: int, state: Any, alpha: float) -> tuple[float, float]:
    """h - tau in two parts."""
    hi, lo = scaled_difference(v, state[MAXIMUM, j], alpha - 1.0)
    return _above(hi, lo, state[TAU, j], state[TAU_REST, j])


@kernel
def _value(hi: float, lo: float, alpha: float) -> float:
    """The probability of an element whose h - tau is hi + lo."""
    if not hi > 0.0:
        return 0.0 if hi <= 0.0 else hi
    if alpha == 2.0:
        return hi
    if alpha == 1.5:
        return hi * hi
    power, power_lo = _quotient(1.0, alpha - 1.0)
    return _power(hi, lo, power, power_lo)


@kernel
def _slope(hi: float, lo: float, alpha: float) -> float:
    """That to the power of 2 - alpha, or 0 for 0."""
    if not hi > 0.0:
        return 0.0 if hi <= 0.0 else hi
    if alpha == 2.0:
        return 1.0
    if alpha == 1.5:
        return hi
    power, power_lo = _quotient(2.0 - alpha, alpha - 1.0)
    return _power(hi, lo, power, power_lo)


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
def _entmax_reduce(x: Any, state: Any, alpha: float) -> None:
    if alpha == 1.0:
        for j in range(x.shape[1]):
            _reduce_shares(x, j, state)
        return
    n, inner = x.shape
    work = np.empty((2, n))
    highs, lows = work[0], work[1]
    for j in range(inner):
        count, maximum = candidates_of(x, j, alpha - 1.0, highs, lows)
        if count == 0:
            no_threshold(state, j)
            continue
        if alpha == 1.5:
            fill_quadratic(state, j, maximum, highs, lows, count)
            continue
        if alpha == 2.0:
            tau, tau_rest, count = uniform_threshold(highs, lows, count)
        else:
            tau, tau_rest = _threshold(highs, lows, count, alpha)
        winner = _slope(-tau, -tau_rest, alpha)
        total, rest = -winner, 0.0
        for p in range(count):
            hi, lo = _above(highs[p], lows[p], tau, tau_rest)
            total, rest = add_pair(total, rest, _slope(hi, lo, alpha), 0.0)
        state[MAXIMUM, j], state[TAU, j], state[TAU_REST, j] = maximum, tau, tau_rest
        state[WINNER, j], state[OTHERS, j] = winner, total + rest


@kernel
def _entmax(v: float, i: int, j: int, state: Any, alpha: float) -> float:
    if alpha == 1.0:
        return share_of(v, j, state, 1.0, 0.0, False, False)
    hi, lo = _base(v, j, state, alpha)
    return _value(hi, lo, alpha)


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
            vjp_state[MEAN, j] = total + rest if abs(total) < np.inf else total
            vjp_state[DRIFT, j] = squares
        return
    power = 1.0 / (alpha - 1.0)
    for j in range(inner):
        total, rest, weights, weights_rest, drift = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            value = np.float64(x[i, j])
            hi, lo = _base(value, j, state, alpha)
            if hi > 0.0:
                slope = _slope(hi, lo, alpha)
                gradient = np.float64(g[i, j])
                product = slope * gradient
                total, rest = add_pair(total, rest, product, fma(slope, gradient, -product))
                weights, weights_rest = add_pair(weights, weights_rest, slope, 0.0)
                log, _ = _log(hi, lo)
                drift += slope * (value - state[MAXIMUM, j]) - power * _value(hi, lo, alpha) * log
        weight = weights + weights_rest
        vjp_state[MEAN, j] = (total + rest) / weight if abs(total) < np.inf else total / state[WINNER, j]
        vjp_state[DRIFT, j] = drift / weight


@kernel
def _entmax_vjp(v: float, u: float, i: int, j: int, state: Any, vjp_state: Any, alpha: float) -> float:
    mean: float = vjp_state[MEAN, j]
    if alpha == 1.0:
        return share_of(v, j, state, 1.0, 0.0, False, False) * (u - mean)
    hi, lo = _base(v, j, state, alpha)
    slope = _slope(hi, lo, alpha)
    return 0.0 if hi <= 0.0 else slope * (u - mean)


@kernel
def _entmax_jacobian(v: float, w: float, i: int, k: int, j: int, state: Any, alpha: float) -> float:
    if alpha == 1.0:
        return share_slope(v, w, i, k, j, state, 1.0, 0.0, False, False)
    hi, lo = _base(v, j, state, alpha)
    other_hi, other_lo = _base(w, j, state, alpha)
    own, other = _slope(hi, lo, alpha), _slope(other_hi, other_lo, alpha)
    return slope_of(own, other, i == k, state[WINNER, j], state[OTHERS, j])


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
    hi, lo = _base(v, j, state, alpha)
    if hi <= 0.0:
        return 0.0
    power = 1.0 / (alpha - 1.0)
    log, _ = _log(hi, lo)
    maximum: float = state[MAXIMUM, j]
    moved = _slope(hi, lo, alpha) * (v - maximum - drift)
    return u * power * (moved - power * _value(hi, lo, alpha) * log)


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
    state_size=5,
    reduce=_entmax_reduce,
    forward=_entmax,
    vjp_state_size=2,
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
    tried=({"alpha": 1.0}, {"alpha": 1.2}, {"alpha": 2.0}, {"alpha": 3.5}),
)
