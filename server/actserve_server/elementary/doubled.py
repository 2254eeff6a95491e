"""The logarithm and the exponential of numbers in two parts, in two parts: to some 95 bits, for what amplifies the last digits.

Only in float64 arithmetic, for kernels that are not vectorized and have no fast form.
"""

from __future__ import annotations

import math

from actserve_server.elementary.bits import fma, polynomial
from actserve_server.elementary.pairs import product_pair, quotient_pair, sum_pair
from actserve_server.elementary.source import kernel
from actserve_server.elementary.wide import LN2_HI, LOG2_E_HI, ROUNDER, _log_parts, power_of_two

__all__ = ["exp_pair", "log_pair"]

# log 2 less the 33 bits of LN2_HI, in two parts.
LN2_MIDDLE, LN2_LO = 1.9082149292705877e-10, 1.1612227229362532e-26

# Taylor's series, up to where a rounding of all that follows is 2^-97 of the whole.
LOG_TAIL = tuple(1.0 / n for n in range(17, 43, 2))
EXP_TAIL = tuple(1.0 / math.factorial(n) for n in range(6, 11))


@kernel
def _step(a: float, a_rest: float, z: float, z_rest: float, q: float, q_rest: float) -> tuple[float, float]:
    """a + z q, where that product is smaller than a."""
    product, rest = product_pair(z, z_rest, q, q_rest)
    total = a + product
    return total, (product - (total - a)) + (a_rest + rest)


@kernel
def _inverse_step(n: float, z: float, z_rest: float, q: float, q_rest: float) -> tuple[float, float]:
    """1/n + z q likewise."""
    inverse, inverse_rest = quotient_pair(1.0, n)
    return _step(inverse, inverse_rest, z, z_rest, q, q_rest)


@kernel
def log_pair(hi: float, lo: float) -> tuple[float, float]:
    """log(hi + lo), for an ordinary hi > 0.

    With hi + lo = 2^n (1 + f) and s = f/(2 + f) it is n log 2 + 2 s (1 + s^2/3 + s^4/5 + ...), |s| < 0.172.
    """
    n, f = _log_parts(hi)
    rest = lo * power_of_two(-n)
    whole, lost = sum_pair(2.0, f)
    s = (f + rest) / whole
    s_rest = (fma(-s, whole, f) + (rest - s * (lost + rest))) / whole
    z, z_rest = product_pair(s, s_rest, s, s_rest)
    q, q_rest = _inverse_step(15.0, z, z_rest, polynomial(z, LOG_TAIL), 0.0)
    q, q_rest = _inverse_step(13.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(11.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(9.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(7.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(5.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(3.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(1.0, z, z_rest, q, q_rest)
    small, small_rest = product_pair(2.0 * s, 2.0 * s_rest, q, q_rest)
    middle, middle_rest = product_pair(n, 0.0, LN2_MIDDLE, LN2_LO)
    # n LN2_HI is exact.
    large, lost = sum_pair(n * LN2_HI, small)
    total, rest = sum_pair(large, middle)
    return sum_pair(total, rest + (lost + (small_rest + middle_rest)))


@kernel
def exp_pair(hi: float, lo: float) -> tuple[float, float]:
    """exp(hi + lo) for -700 <= hi <= 700, where |lo| is at most an ulp of hi.

    It is 2^n r^64, where |log(r)| < 0.0055.
    """
    n = fma(hi, LOG2_E_HI, ROUNDER) - ROUNDER
    middle, middle_rest = product_pair(n, 0.0, LN2_MIDDLE, LN2_LO)
    z, lost = sum_pair(fma(-n, LN2_HI, hi), -middle)
    z, z_rest = sum_pair(z, lost + (lo - middle_rest))
    z, z_rest = z / 64.0, z_rest / 64.0
    q, q_rest = _inverse_step(120.0, z, z_rest, polynomial(z, EXP_TAIL), 0.0)
    q, q_rest = _inverse_step(24.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(6.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(2.0, z, z_rest, q, q_rest)
    q, q_rest = _inverse_step(1.0, z, z_rest, q, q_rest)
    r, rest = _inverse_step(1.0, z, z_rest, q, q_rest)
    for _ in range(6):
        r, rest = product_pair(r, rest, r, rest)
    r, rest = sum_pair(r, rest)
    scale = power_of_two(n)
    return r * scale, rest * scale
