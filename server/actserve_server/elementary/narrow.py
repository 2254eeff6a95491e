"""Elementary functions for float32 results: float64 arithmetic, relative error about 2^-40, one rounding to come.

That error makes at most 0.5001 units in the last place of a float32. Results are right where a float32 can hold them;
below its range they may be 0. Otherwise as `elementary.wide`, whose every function has its counterpart here.

The constants are printed by `tools/fit_elementary.py` under the names they have here.
"""

from __future__ import annotations

from actserve_server.elementary.bits import bits_of, copysign, float_of, fma, polynomial
from actserve_server.elementary.source import kernel
from actserve_server.elementary.wide import (
    BIASED_ZERO,
    EXPONENT_MASK,
    INTEGER_BITS,
    INTEGER_ORIGIN,
    LN2_HI,
    LN2_LO,
    LOG2_E_HI,
    MANTISSA_BITS,
    MANTISSA_MASK,
    ROUNDER,
    SQRT_HALF_BITS,
    power_of_two,
)

# q in exp(r) = 1 + r + r^2 q(r), on [-0.34657, 0.34657]: error 2^-39.68
NARROW_EXP = (
    0.5000000000426761,
    0.16666666784440648,
    0.041666664405407595,
    0.008333281808249092,
    0.0013889197075996995,
    0.00019908938911953792,
    2.470831415007472e-05,
)

# p in log(1 + f) = 2s + s z p(z), z = s^2, on [0.0, 0.029437]: error 2^-44.94
NARROW_LOG = (
    0.6666666667579968,
    0.39999995622587703,
    0.2857210904812066,
    0.22176194437313915,
    0.19584054199714343,
)

# (a + 4) exp(a^2/2) Phi(-a) of t = (a - 4)/(a + 4), a up to 16, on [-1.0, 0.6]: error 2^-41.38
NARROW_TAIL = (
    0.755285130415972,
    -0.6078966419750351,
    0.3871374006973803,
    -0.18652185773383637,
    0.060396576462104654,
    -0.007540193148138651,
    -0.003479714364751685,
    0.001630847166887969,
    0.00013349886143636854,
    -0.00023115443289804387,
    -2.4824658221521304e-06,
    3.498885979401312e-05,
    1.7663222048299976e-06,
    -5.082335515541422e-06,
    -1.2695265687945623e-06,
)

# silu'(root + d)/d, on [-0.2501, 0.2501]: error 2^-45.2
NARROW_SILU_SLOPE = (
    0.21781170571979508,
    0.14664879699702119,
    0.018874814227860203,
    -0.015222655241655367,
    -0.006606589666870222,
    0.0001266287217900427,
    0.0007985458354017695,
    0.00018566874280946931,
    -4.13499119009151e-05,
    -2.9235818760513697e-05,
)

# gelu'(root + d)/d, on [-0.2501, 0.2501]: error 2^-41.28
NARROW_GELU_SLOPE = (
    0.4314939923142029,
    0.3882849829890551,
    -0.018199676524208012,
    -0.11400823296617497,
    -0.014771506011627966,
    0.019421659621535785,
    0.004538502817474181,
    -0.002239057220297906,
    -0.000731500133596257,
    0.00018185551782250813,
)


@kernel
def narrow_working(parameter: float) -> float:
    return parameter


@kernel
def narrow_two_product(a: float, x: float) -> tuple[float, float]:
    return a * x, 0.0


@kernel
def narrow_quotient(x: float, a: float) -> tuple[float, float]:
    return x / a, 0.0


@kernel
def narrow_offset(x: float, hi: float, lo: float) -> float:
    return (x - hi) - lo


@kernel
def _narrow_exp_parts(x: float) -> tuple[float, float]:
    """n + ROUNDER and s with exp(x) = 2^n (1 + s), |s| < 0.42."""
    shifted = fma(x, LOG2_E_HI, ROUNDER)
    n = shifted - ROUNDER
    r = fma(-n, LN2_LO, fma(-n, LN2_HI, x))
    return shifted, fma(r * r, polynomial(r, NARROW_EXP), r)


@kernel
def narrow_exp(x: float) -> float:
    shifted, s = _narrow_exp_parts(min(max(x, -1400.0), 708.0))
    return float_of(bits_of(1.0 + s) + (bits_of(shifted) << MANTISSA_BITS)) if x > -708.0 else 0.0


@kernel
def narrow_exp_sum(hi: float, lo: float) -> float:
    """exp(hi + lo); what lo adds is below 2^-43 of the result."""
    return narrow_exp(hi)


@kernel
def narrow_scaled_exp(y: float, hi: float, lo: float) -> float:
    """y exp(hi + lo) for hi <= 0. A parameter may make y large, so the power of two is applied in halves."""
    shifted, s = _narrow_exp_parts(min(max(hi, -1400.0), 708.0))
    n = shifted - ROUNDER
    half = fma(n, 0.5, ROUNDER) - ROUNDER
    return y * power_of_two(half) * (1.0 + s) * power_of_two(n - half)


@kernel
def narrow_exp_of_negative(hi: float, lo: float) -> float:
    """exp(hi + lo) for hi <= 0, at least 1e-304; a NaN stays one. What lo adds is below 2^-43 of the result.

    By Horner's rule, in the fewest instructions: loops that sum are split, which hides its latency.
    """
    x = -700.0 if hi < -700.0 else hi
    shifted = fma(x, LOG2_E_HI, ROUNDER)
    r = fma(shifted - ROUNDER, -(LN2_HI + LN2_LO), x)
    q = fma(NARROW_EXP[6], r, NARROW_EXP[5])
    q = fma(q, r, NARROW_EXP[4])
    q = fma(q, r, NARROW_EXP[3])
    q = fma(q, r, NARROW_EXP[2])
    q = fma(q, r, NARROW_EXP[1])
    q = fma(q, r, NARROW_EXP[0])
    q = fma(q, r, 1.0)
    q = fma(q, r, 1.0)
    return float_of(bits_of(q) + (bits_of(shifted) << MANTISSA_BITS))


@kernel
def narrow_compensated(total: float, rest: float, term: float) -> tuple[float, float]:
    """Plainly, as 2^20 roundings of a float64 come to 2^-33 at worst."""
    return total + term, rest


@kernel
def narrow_split(term: float, coarse: float) -> tuple[float, float]:
    return term, 0.0


@kernel
def narrow_expm1(x: float) -> float:
    shifted, s = _narrow_exp_parts(min(max(x, -40.0), 708.0))
    power = float_of(BIASED_ZERO + (bits_of(shifted) << MANTISSA_BITS))
    return copysign(fma(power, s, power - 1.0), x)


@kernel
def narrow_log1p(x: float) -> float:
    """log(1 + x) for -1 < x < 2^1000: the rounding error of 1 + x is carried along."""
    u = 1.0 + x
    lost = x - (u - 1.0)
    shifted = bits_of(u) - SQRT_HALF_BITS + BIASED_ZERO
    n = float_of(((shifted >> MANTISSA_BITS) & EXPONENT_MASK) | INTEGER_BITS) - INTEGER_ORIGIN
    f = float_of((shifted & MANTISSA_MASK) + SQRT_HALF_BITS) - 1.0
    f = f + (lost if n == 0.0 else 0.0)
    s = f / (2.0 + f)
    z = s * s
    return copysign(fma(n, LN2_HI + LN2_LO, s * fma(z, polynomial(z, NARROW_LOG), 2.0)), x)


@kernel
def narrow_over_sum(numerator: float, a: float, b: float) -> float:
    return numerator / (a + b)


@kernel
def narrow_tanh(x: float) -> float:
    growth = narrow_expm1(2.0 * min(abs(x), 20.0))
    return copysign(growth / (growth + 2.0), x)


@kernel
def narrow_scaled_normal_tail(a: float) -> float:
    """exp(a^2/2) Phi(-a) for 0 <= a <= 16; beyond, anything times exp(-a^2/2) is 0 in float32."""
    inverse = 1.0 / (a + 4.0)
    return inverse * polynomial(fma(-8.0, inverse, 1.0), NARROW_TAIL)


@kernel
def narrow_silu_slope_quotient(d: float) -> float:
    return polynomial(d, NARROW_SILU_SLOPE)


@kernel
def narrow_gelu_slope_quotient(d: float) -> float:
    return polynomial(d, NARROW_GELU_SLOPE)
