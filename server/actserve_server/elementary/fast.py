"""Elementary functions for float32 results in float32 arithmetic: within about one unit in the last place, the normal tail
within three; `fast_tanh_alone` within 3.4 and `fast_erf_alone` within 2.9.

Eight numbers travel in an AVX2 register instead of four, and nothing is converted: that is the whole reason for this
precision. Every constant here is written as a float and compiled as a float32, and no operation may meet a float64 but
those that take an `Exact` constant or a parameter apart. Overflow goes to infinity and underflow is gradual. Otherwise
as `elementary.wide`, whose every function has its counterpart here.

The constants are printed by `tools/fit_elementary.py` under the names they have here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.elementary.bits import (
    bits_of,
    copysign,
    float_of,
    fma,
    nearest_float32,
    polynomial,
    polynomial_in_halves,
    rest_of_product,
)
from actserve_server.elementary.huge import angle
from actserve_server.elementary.source import kernel

ROUNDER = 1.5 * 2.0**23
"""Added to a number below 2^22, it leaves the nearest integer in the low bits; subtracted again, as a float32."""
LIFTED_ROUNDER = ROUNDER + 24.0
CHUNK = 256
"""A sum of so many in float32, in 32 partial sums, is good to two units in the last place."""
MANTISSA_BITS = 23
BIASED_ZERO = 127 << MANTISSA_BITS
RAISED_ZERO = (127 + 64) << MANTISSA_BITS
SECOND_BIT_TO_SIGN = 30
SQRT_HALF_BITS = 0x3F3504F3
SMALLEST_NORMAL = 2.0**-126
INFINITY = float("inf")
NEAR_ROOT = 0.25
TANH_ALONE_END = 9.09
ERF_ALONE_END = 3.935
"""Where what stands for tanh and for erf is 1, and it is so nowhere above 1."""

TRIG_LIMIT = 65536.0
"""Up to here what hi leaves of a turn is known to its last digits; lo, where it is large, has fewer."""

EXP_LIMIT = 87.0

FAST_LN2_HI = 0.6931471824645996
FAST_LN2_LO = -1.9046542121259336e-09
FAST_LOG2_E_HI = 1.4426950216293335
FAST_SQRT_2PI_HI = 2.5066282749176025
FAST_INVERSE_SQRT_2PI_HI = 0.3989422917366028
FAST_INVERSE_HALF_PI_HI = 0.6366197466850281
FAST_HALF_PI_HI = 1.5707963705062866
FAST_HALF_PI_MIDDLE = -4.371138828673793e-08
FAST_HALF_PI_LO = -1.7151245100058819e-15

# q in exp(r) = 1 + r + r^2 q(r), on [-0.34657, 0.34657]: error 2^-27.96
FAST_EXP = (
    0.4999999403953552,
    0.1666652113199234,
    0.04166838899254799,
    0.008368710055947304,
    0.0013814617414027452,
)

# p in log(1 + f) = f - f^2/2 + f^3 p(f), on [-0.29289, 0.41421]: error 2^-27.22
FAST_LOG = (
    0.3333333134651184,
    -0.2500081956386566,
    0.20001226663589478,
    -0.1662335842847824,
    0.14201760292053223,
    -0.13160181045532227,
    0.12761564552783966,
    -0.07634486258029938,
)

# p in tanh(x) = x + x z p(z), z = x^2, on [0.0, 0.36]: error 2^-27.66
FAST_TANH = (
    -0.33333298563957214,
    0.13331924378871918,
    -0.053783830255270004,
    0.020795969292521477,
    -0.005895155947655439,
)

# tanh(x) = x/8 + x p(z)/q(z), z = x^2, on [0.0, 81.36]: error 2^-24.68
FAST_TANH_ALONE_ABOVE = (
    1127287.125,
    97147.515625,
    335.15655517578125,
    -26.35295295715332,
    -0.10784083604812622,
)
FAST_TANH_ALONE_BELOW = (
    1288328.125,
    601817.1875,
    33330.421875,
    422.9694519042969,
    1.0,
)

# 1/R = a sqrt(2 pi) + 3/2 + p(a)/q(a), where R = exp(a^2/2) Phi(-a), on [0.0, 15.0]: error 2^-25.68
FAST_TAIL_ABOVE = (
    51.134769439697266,
    -46.306819915771484,
    -37.13566589355469,
    -11.532288551330566,
    -1.4997665882110596,
)
FAST_TAIL_BELOW = (
    102.26954650878906,
    93.69220733642578,
    40.52581787109375,
    9.352083206176758,
    1.0,
)

# S = 1/sqrt(2 pi) + p(a)/q(a) in gelu'(-a) = (r - a) S exp(-a^2/2), on [0.0, 15.0]: error 2^-25.15
FAST_GELU_RATIO_ABOVE = (
    8.874076843261719,
    6.839241027832031,
    2.2345516681671143,
    0.2999017834663391,
)
FAST_GELU_RATIO_BELOW = (
    33.344181060791016,
    47.83116149902344,
    27.922588348388672,
    8.026259422302246,
    1.0,
)

# silu'(root + d)/d, on [-0.2501, 0.2501]: error 2^-25.88
FAST_SILU_SLOPE = (
    0.2178117036819458,
    0.14664879441261292,
    0.018874801695346832,
    -0.015223275870084763,
    -0.006605969276279211,
    0.00014664461195934564,
    0.0007889109547249973,
)

# p in log(1 + e) = t + t z p(z), t = 2e/(2 + e), z = t^2, on [0.0, 0.44444]: error 2^-27.46
FAST_LOG_OF_MORE = (
    0.08333302289247513,
    0.012506727129220963,
    0.0021876408718526363,
    0.0005471092881634831,
)

# p in sin(r) = r + r z p(z), z = r^2, on [0.0, 0.61685]: error 2^-26.84
FAST_SIN = (
    -0.16666655242443085,
    0.00833216030150652,
    -0.00019515281019266695,
)

# q in cos(r) = 1 - z/2 + z^2 q(z), z = r^2, on [0.0, 0.61685]: error 2^-32.42
FAST_COS = (
    0.04166664555668831,
    -0.0013887316454201937,
    2.4433153157588094e-05,
)

# p in atan(t) = t + t z p(z), z = t^2, on [0.0, 1.0]: error 2^-26.72
FAST_ATAN = (
    -0.33333298563957214,
    0.19998548924922943,
    -0.14264242351055145,
    0.10952187329530716,
    -0.08403454720973969,
    0.05795765668153763,
    -0.031177902594208717,
    0.010914633050560951,
    -0.0017936271615326405,
)

# q in erf(x) = x + x q(z), z = x^2, on [0.0, 1.0]: error 2^-28.63
FAST_ERF_NEAR = (
    0.12837916612625122,
    -0.3761262595653534,
    0.1128358542919159,
    -0.026853812858462334,
    0.005188327748328447,
    -0.0008010193705558777,
    7.853860734030604e-05,
)

# log(1 - erf(x)), on [1.0, 4.0]: error 2^-27.79
FAST_ERF_FAR = (
    0.0002020658430410549,
    -1.1296494007110596,
    -0.6330657005310059,
    -0.10860660672187805,
    0.025348931550979614,
    -0.004270638804882765,
    0.0004603586276061833,
    -2.4754357582423836e-05,
    2.1209346812156582e-07,
)

# erf(x) = x/4 + x p(z)/q(z), z = x^2, on [0.0, 15.366]: error 2^-24.59
FAST_ERF_ALONE_ABOVE = (
    23059.658203125,
    1703.4940185546875,
    635.875,
    0.6129552125930786,
    -0.1510593295097351,
    -0.196180522441864,
)
FAST_ERF_ALONE_BELOW = (
    26252.51171875,
    13180.7978515625,
    2995.66943359375,
    392.9833679199219,
    30.519914627075195,
    1.0,
)


@kernel
def fast_working(parameter: float) -> float:
    return nearest_float32(parameter)


@kernel
def fast_two_product(a: float, x: float) -> tuple[float, float]:
    """a x as hi + lo, a being a float64 or, for a square, a float32."""
    hi = nearest_float32(a) * x
    return hi, (rest_of_product(a, x, hi) if abs(hi) < INFINITY else 0.0)


@kernel
def fast_quick_product(a: float, x: float) -> tuple[float, float]:
    hi = nearest_float32(a) * x
    return hi, rest_of_product(a, x, hi)


@kernel
def fast_quotient(x: float, a: float) -> tuple[float, float]:
    """x/a as hi + lo, a being a float64."""
    divisor = nearest_float32(a)
    hi = x / divisor
    return hi, (-rest_of_product(a, hi, x) * (1.0 / divisor) if abs(hi) < INFINITY else 0.0)


@kernel
def fast_quotient_rest(x: float, a: float, hi: float) -> float:
    return 0.0


@kernel
def fast_line(a: float, x: float, b: float) -> float:
    """a x + b for float64 a and b; the product with the rest of a is rounded apart, so that where a x is -b the sum is 0."""
    slope, intercept = nearest_float32(a), nearest_float32(b)
    whole = fma(slope, x, intercept)
    return whole + (nearest_float32(a - slope) * x + nearest_float32(b - intercept) if abs(whole) < INFINITY else 0.0)


@kernel
def fast_offset(x: float, hi: float, lo: float) -> float:
    """x - (hi + lo) for a constant hi + lo, whose first 48 bits count."""
    first = nearest_float32(hi)
    return (x - first) - nearest_float32((hi - first) + lo)


@kernel
def _exp_rest(hi: float, lo: float, n: float) -> float:
    """s with exp(hi + lo) = 2^n (1 + s), |s| < 0.42, for the n that makes it so small."""
    r = fma(-n, FAST_LN2_HI, hi) + fma(-n, FAST_LN2_LO, lo)
    return fma(r * r, polynomial(r, FAST_EXP), r)


@kernel
def _exp_parts(hi: float, lo: float) -> tuple[float, float]:
    """n + ROUNDER and s with exp(hi + lo) = 2^n (1 + s)."""
    shifted = fma(hi, FAST_LOG2_E_HI, ROUNDER)
    return shifted, _exp_rest(hi, lo, shifted - ROUNDER)


@kernel
def _power_of_two(shifted: float) -> float:
    """2^n from n + ROUNDER, for n from -126 to 127."""
    return float_of(np.int32((bits_of(shifted) << MANTISSA_BITS) + BIASED_ZERO))


@kernel
def fast_scaled_exp(y: float, hi: float, lo: float) -> float:
    """y exp(hi + lo) for |y| < 2^100; for a larger one wrong, and below 2^-120, where the result should be still less.

    The power of two is applied in halves, the second of which is the first that can be inexact.
    """
    clamped = min(max(hi, -173.0), 89.0)
    shifted, s = _exp_parts(clamped, lo if clamped == hi else 0.0)
    whole = bits_of(shifted)
    half = whole >> 1
    scaled = y * float_of(np.int32((half << MANTISSA_BITS) + BIASED_ZERO))
    return fma(scaled, s, scaled) * float_of(np.int32(((whole - half) << MANTISSA_BITS) + BIASED_ZERO))


@kernel
def fast_decay_sum(hi: float, lo: float) -> float:
    """exp(hi + lo) for hi <= 0: n + 24 is the exponent of a normal number, which the last product alone may denormalize."""
    clamped = max(hi, -104.0)
    shifted = fma(clamped, FAST_LOG2_E_HI, LIFTED_ROUNDER)
    s = _exp_rest(clamped, lo if clamped == hi else 0.0, shifted - LIFTED_ROUNDER)
    return float_of(np.int32(bits_of(1.0 + s) + (bits_of(shifted) << MANTISSA_BITS))) * 2.0**-24


@kernel
def fast_quick_exp(hi: float, lo: float) -> float:
    shifted, s = _exp_parts(hi, lo)
    return float_of(np.int32(bits_of(1.0 + s) + (bits_of(shifted) << MANTISSA_BITS)))


@kernel
def fast_decayed(y: float, hi: float, lo: float) -> float:
    return fast_scaled_exp(y, hi, lo)


@kernel
def fast_exp_sum(hi: float, lo: float) -> float:
    return fast_scaled_exp(1.0, hi, lo)


LOWEST = -110.0
"""exp of it is 0."""


@kernel
def _difference(v: float, m: float) -> tuple[float, float]:
    """v - m as hi + lo for v <= m, or less than LOWEST.

    A v so far below m that only the sign of LOWEST - hi matters is moved closer, where hi is exact if it is large.
    """
    floor = (m + LOWEST) - abs(m) * 2.0**-20
    near = floor if v < floor else v
    hi = near - m
    back = hi + m
    return hi, (near - back) + ((back - hi) - m)


@kernel
def _exp_of_negative(hi: float, lo: float) -> float:
    x = LOWEST if hi < LOWEST else hi
    shifted = fma(x, FAST_LOG2_E_HI, ROUNDER)
    n = shifted - ROUNDER
    r = fma(-n, FAST_LN2_HI, x) + fma(-n, FAST_LN2_LO, lo)
    q = fma(fma(FAST_EXP[4], r, FAST_EXP[3]), r, FAST_EXP[2])
    q = fma(fma(q, r, FAST_EXP[1]), r, FAST_EXP[0])
    q = fma(fma(q, r, 1.0), r, 1.0)
    # 2^(n + 64) is a normal number; the second factor is the first that can round.
    return q * float_of(np.int32((bits_of(shifted) << MANTISSA_BITS) + RAISED_ZERO)) * 2.0**-64


@kernel
def fast_exp_of_difference(v: float, m: float) -> float:
    """exp(v - m) for v <= m; a NaN stays one."""
    hi, lo = _difference(v, m)
    return _exp_of_negative(hi, lo)


@kernel
def fast_exp_of_quotient(v: float, m: float, inverse: float, inverse_rest: float) -> float:
    """exp((v - m) * inverse) for v <= m, where inverse is a float64; a NaN stays one."""
    hi = v - m
    back = hi + m
    lo = (v - back) + ((back - hi) - m)
    product = hi * nearest_float32(inverse)
    rest = rest_of_product(inverse, hi, product) + lo * nearest_float32(inverse)
    return _exp_of_negative(product, rest if product > LOWEST else 0.0)


@kernel
def fast_compensated(total: float, rest: float, term: float) -> tuple[float, float]:
    return total + term, rest


@kernel
def fast_split(term: float, coarse: float) -> tuple[float, float]:
    return term, 0.0


@kernel
def fast_exp(x: float) -> float:
    return fast_scaled_exp(1.0, x, 0.0)


@kernel
def fast_expm1(x: float) -> float:
    shifted, s = _exp_parts(min(max(x, -20.0), 89.0), 0.0)
    half_power = _power_of_two(shifted - 1.0)
    return copysign(s if shifted == ROUNDER else 2.0 * fma(half_power, s, half_power - 0.5), x)


@kernel
def _log_of_scaled(f: float, n: Any) -> float:
    """log(2^n (1 + f)), where 1 + f lies between sqrt(1/2) and sqrt(2)."""
    correction = fma(fma(f, polynomial(f, FAST_LOG), -0.5), f * f, n * FAST_LN2_LO)
    return fma(n, FAST_LN2_HI, f + correction)


@kernel
def fast_log1p(x: float) -> float:
    """log(1 + x) for x > -1: the rounding error of 1 + x is carried along."""
    u = 1.0 + x
    lost = x - (u - 1.0) if x < 1.0 else 1.0 - (u - x)
    bits = bits_of(u)
    n = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    power = n << MANTISSA_BITS
    # Beside a large x the 1 is lost for good, and the scale would leave its range.
    scaled = lost * float_of(np.int32(BIASED_ZERO - power)) if x < 16777216.0 else 0.0
    f = (float_of(np.int32(bits - power)) - 1.0) + scaled
    return x if x == INFINITY else copysign(_log_of_scaled(f, np.float32(np.int32(n))), x)


@kernel
def fast_log(x: float) -> float:
    """log(x) for x >= 0, subnormal numbers included."""
    tiny = x < SMALLEST_NORMAL
    bits = bits_of(x * 16777216.0 if tiny else x)
    n = (bits - SQRT_HALF_BITS) >> MANTISSA_BITS
    f = float_of(np.int32(bits - (n << MANTISSA_BITS))) - 1.0
    value = _log_of_scaled(f, np.float32(np.int32(n)) - (24.0 if tiny else 0.0))
    return (x if x == INFINITY else value) if x > 0.0 else -INFINITY


@kernel
def fast_over_sum(numerator: float, a: float, b: float) -> float:
    return numerator / (a + b)


@kernel
def fast_log_of_more(e: float) -> float:
    t = 2.0 * e / (2.0 + e)
    z = t * t
    return fma(t * z, polynomial(z, FAST_LOG_OF_MORE), t)


@kernel
def fast_log_of_more_in_parts(e: float) -> tuple[float, float]:
    return fast_log_of_more(e), 0.0


@kernel
def fast_tanh(x: float) -> float:
    z = x * x
    near = fma(x * z, polynomial(z, FAST_TANH), x)
    shifted, s = _exp_parts(min(2.0 * abs(x), 20.0), 0.0)
    power = _power_of_two(shifted)
    far = 1.0 - 2.0 / fma(power, s, power + 1.0)
    return copysign(near if z < 0.36 else far, x)


@kernel
def fast_erf(x: float) -> float:
    a = min(abs(x), 4.0)
    z = a * a
    near = fma(a, polynomial(z, FAST_ERF_NEAR), a)
    shifted, s = _exp_parts(polynomial(a, FAST_ERF_FAR), 0.0)
    power = _power_of_two(shifted)
    return copysign(near if a < 1.0 else fma(-power, s, 1.0 - power), x)


# Near 1 the quotient is a small part of the result, so that no error of it makes that exceed 1.
@kernel
def fast_tanh_alone(x: float) -> float:
    bounded = min(max(x, -TANH_ALONE_END), TANH_ALONE_END)
    z = bounded * bounded
    ratio = polynomial_in_halves(z, FAST_TANH_ALONE_ABOVE) / polynomial_in_halves(z, FAST_TANH_ALONE_BELOW)
    return fma(bounded, ratio, 0.125 * bounded)


@kernel
def fast_erf_alone(x: float) -> float:
    bounded = min(max(x, -ERF_ALONE_END), ERF_ALONE_END)
    z = bounded * bounded
    ratio = polynomial_in_halves(z, FAST_ERF_ALONE_ABOVE) / polynomial_in_halves(z, FAST_ERF_ALONE_BELOW)
    return fma(bounded, ratio, 0.25 * bounded)


@kernel
def fast_atan(x: float) -> float:
    a = abs(x)
    inverted = a > 1.0
    t = -1.0 / a if inverted else a
    z = t * t
    rest = fma(t * z, polynomial(z, FAST_ATAN), FAST_HALF_PI_MIDDLE if inverted else 0.0)
    return copysign((FAST_HALF_PI_HI if inverted else 0.0) + (t + rest), x)


@kernel
def fast_normal_tail_parts(a: float) -> tuple[float, float]:
    below = polynomial_in_halves(a, FAST_TAIL_BELOW)
    return below, fma(fma(a, FAST_SQRT_2PI_HI, 1.5), below, polynomial_in_halves(a, FAST_TAIL_ABOVE))


@kernel
def fast_scaled_normal_tail(a: float) -> float:
    """exp(a^2/2) Phi(-a) for 0 <= a <= 15; beyond, anything times exp(-a^2/2) is 0 in float32."""
    above, below = fast_normal_tail_parts(a)
    return above / below


@kernel
def fast_gelu_slope_ratio(a: float) -> float:
    return FAST_INVERSE_SQRT_2PI_HI + polynomial_in_halves(a, FAST_GELU_RATIO_ABOVE) / polynomial_in_halves(
        a, FAST_GELU_RATIO_BELOW
    )


@kernel
def fast_silu_slope_quotient(d: float) -> float:
    return polynomial(d, FAST_SILU_SLOPE)


FAST_SILU_ROOT_HI = -1.2784645557403564
FAST_SILU_ROOT_LO = 1.297928265020314e-08


@kernel
def fast_square_of_more(e: float) -> float:
    """(1 + e)^2 for e >= 0, all but rounded once where e < 2^24."""
    more = 2.0 + e
    lost = e - (more - 2.0)
    return fma(e, more, fma(e, lost, 1.0))


# Every rounding counts, or there would be more than four units of them. Where y and the rest add to them, the product's and the
# quotient's own are made good. e^z is the rounded one throughout, for so its error cancels; beyond 40 the slope is y to all digits.
@kernel
def fast_gate_slope(y: float, growth: float, rest: float, hi: float, lo: float) -> float:
    grown = fast_quick_exp(min(hi, 40.0), lo)
    total = fma(y, grown, fma(y, rest, fma(y, growth, y)))
    square = fast_square_of_more(grown)
    inverse = 1.0 / square
    above = grown * total
    quotient = above * inverse
    return fma(fma(-quotient, square, above) + fma(grown, total, -above), inverse, quotient)


@kernel
def fast_swish_slope(hi: float, lo: float) -> float:
    distance = ((hi - FAST_SILU_ROOT_HI) - FAST_SILU_ROOT_LO) + lo
    grown = fast_quick_exp(min(hi, 40.0), lo)
    closed = grown * ((1.0 + hi) + lo + grown) / fast_square_of_more(grown)
    return distance * fast_silu_slope_quotient(distance) if abs(distance) < NEAR_ROOT else closed


@kernel
def fast_scaled_swish_slope(y: float, x: float) -> float:
    distance = (x - FAST_SILU_ROOT_HI) - FAST_SILU_ROOT_LO
    closed = fast_gate_slope(y, x, 0.0, x, 0.0)
    return y * distance * fast_silu_slope_quotient(distance) if abs(distance) < NEAR_ROOT else closed


@kernel
def _rest_of_turn(hi: float, lo: float, turns: float) -> tuple[float, float]:
    """hi + lo - turns pi/2 as a sum, where it is less than 1: that makes `exact` so."""
    exact = fma(-turns, FAST_HALF_PI_HI, hi)
    product = turns * FAST_HALF_PI_MIDDLE
    first = exact - product
    rest = ((exact - first) - product) - fma(turns, FAST_HALF_PI_MIDDLE, -product)
    rest = fma(-turns, FAST_HALF_PI_LO, rest) + lo
    r = first + rest
    return r, (first - r) + rest


@kernel
def _sine_in_parts(r: float, rest: float, quadrant: int) -> tuple[float, float]:
    """sin(r + rest + quadrant pi/2) but for its sign, as a sum, for |r| <= pi/4 and a rest of at most an ulp of r."""
    z = r * r
    half = 0.5 * z
    whole = 1.0 - half
    sine = fma(r * z, polynomial(z, FAST_SIN), rest * whole)
    cosine = ((1.0 - whole) - half) + fma(z * z, polynomial(z, FAST_COS), -r * rest)
    odd = quadrant & 1 != 0
    return whole if odd else r, cosine if odd else sine


@kernel
def _with_sign(value: float, quadrant: int) -> float:
    return float_of(np.int32(bits_of(value) ^ ((quadrant & 2) << SECOND_BIT_TO_SIGN)))


@kernel
def _sine(r: float, rest: float, quadrant: int) -> float:
    """The same as a number, with its sign."""
    hi, lo = _sine_in_parts(r, rest, quadrant)
    return _with_sign(hi + lo, quadrant)


@kernel
def fast_sin_sum(hi: float, lo: float) -> float:
    shifted = fma(hi, FAST_INVERSE_HALF_PI_HI, ROUNDER)
    r, rest = _rest_of_turn(hi, lo, shifted - ROUNDER)
    return hi if hi == 0.0 else _sine(r, rest, bits_of(shifted))


@kernel
def fast_sin_in_parts(hi: float, lo: float) -> tuple[float, float]:
    shifted = fma(hi, FAST_INVERSE_HALF_PI_HI, ROUNDER)
    r, rest = _rest_of_turn(hi, lo, shifted - ROUNDER)
    quadrant = bits_of(shifted)
    large, small = _sine_in_parts(r, rest, quadrant)
    total = large + small
    return _with_sign(total, quadrant), _with_sign((large - total) + small, quadrant)


@kernel
def fast_cos_sum(hi: float, lo: float) -> float:
    shifted = fma(hi, FAST_INVERSE_HALF_PI_HI, ROUNDER)
    r, rest = _rest_of_turn(hi, lo, shifted - ROUNDER)
    return _sine(r, rest, bits_of(shifted) + 1)


# What is huge comes in float64, and so does an angle; the sine takes it in float32.
@kernel
def _narrowed(hi: float, lo: float) -> tuple[float, float]:
    near = nearest_float32(np.float64(hi))
    return near, nearest_float32((np.float64(hi) - near) + lo)


@kernel
def fast_sin_huge(hi: float, lo: float, scale: int) -> float:
    if (scale == 0) & (abs(hi) <= TRIG_LIMIT):
        near, rest = _narrowed(hi, lo)
        return fast_sin_sum(near, rest)
    remaining, lost, quadrant = angle(np.float64(hi), np.float64(lo), scale)
    near, rest = _narrowed(remaining, lost)
    return _sine(near, rest, quadrant)


@kernel
def fast_cos_huge(hi: float, lo: float, scale: int) -> float:
    if (scale == 0) & (abs(hi) <= TRIG_LIMIT):
        near, rest = _narrowed(hi, lo)
        return fast_cos_sum(near, rest)
    remaining, lost, quadrant = angle(np.float64(hi), np.float64(lo), scale)
    near, rest = _narrowed(remaining, lost)
    return _sine(near, rest, quadrant + 1)
