"""Elementary functions for float64 results: within about one unit in the last place over the whole domain (the normal tail,
from dense scans, within two, and the quotients of slopes within two and a half).

Scalar and free of branches, so that the loop which a kernel is compiled into is vectorized as a whole; no instruction
is needed that AVX2 lacks (a number is rounded, and its integer read, by adding 1.5 * 2^52). Overflow goes to infinity
and underflow is gradual. What a NaN gives is unspecified: whoever builds the loop puts NaN in, NaN out around it.

The constants are printed by `tools/fit_elementary.py` under the names they have here.
"""

from __future__ import annotations

import math

from actserve_server.elementary.bits import bits_of, copysign, float_of, fma, polynomial, polynomial_in_halves
from actserve_server.elementary.huge import angle
from actserve_server.elementary.source import kernel

ROUNDER = 1.5 * 2.0**52
"""Added to a number below 2^51, it leaves the nearest integer in the low bits; subtracted again, as a float64."""
EXPONENT_ROUNDER = ROUNDER + 1023.0
"""The same, with the bias of a float64's exponent."""
CHUNK = 4096
"""With `split` no digit is lost in a sum of so many."""
MANTISSA_BITS = 52
SMALLEST_NORMAL = 2.0**-1022

LN2_HI = 0.6931471803691238
LN2_LO = 1.9082149292705877e-10
LOG2_E_HI = 1.4426950408889634
SQRT_2PI = 2.5066282746310007
INVERSE_SQRT_2PI = 0.3989422804014327
INVERSE_HALF_PI_HI = 0.6366197723675814
HALF_PI_HI = 1.5707963267948966
HALF_PI_MIDDLE = 6.123233995736766e-17
HALF_PI_LO = -1.4973849048591698e-33

TRIG_LIMIT = 2.0**30
"""Up to here the number of quarter turns is known exactly, and its product with three parts of pi/2 leaves all digits."""
EXP_LIMIT = 350.0
"""exp of twice it, and of the opposite, is an ordinary number."""
SECOND_BIT_TO_SIGN = 62

SQRT_HALF_BITS = 0x3FE6A09E667F3BCD
MANTISSA_MASK = (1 << MANTISSA_BITS) - 1
BIASED_ZERO = 1023 << MANTISSA_BITS
EXPONENT_MASK = 0x7FF
"""Applied after a shift, it makes of it the unsigned one, which AVX2 has."""
INTEGER_BITS = 0x4330000000000000
"""The bits of 2^52: with a small integer in the low bits, they are those of 2^52 + that integer."""
INTEGER_ORIGIN = 2.0**52 + 1023.0

# q in exp(r) = 1 + r + r^2 q(r), on [-0.34657, 0.34657]: error 2^-60.27
WIDE_EXP = (
    0.5,
    0.16666666666666682,
    0.041666666666666095,
    0.008333333333317046,
    0.001388888888911549,
    0.00019841269896352722,
    2.4801586926781873e-05,
    2.755723489383747e-06,
    2.7557581802646767e-07,
    2.5112025447325152e-08,
    2.082662022581899e-09,
)

# p in log(1 + f) = 2s + s z p(z), z = s^2, on [0.0, 0.029437]: error 2^-58.94
WIDE_LOG = (
    0.6666666666666734,
    0.3999999999941469,
    0.2857142874238511,
    0.22222198573351978,
    0.18183564320816914,
    0.15314050623490924,
    0.14795949478481457,
)

# 1/R = a sqrt(2 pi) + 3/2 + p(a)/q(a), where R = exp(a^2/2) Phi(-a), on [0.0, 40.0]: error 2^-57.08
WIDE_TAIL_ABOVE = (
    976821.045142662,
    -142275.47944337322,
    -1090083.842805598,
    -951967.8188254468,
    -461103.75129594194,
    -148693.92657420997,
    -33804.40459821264,
    -5467.673320517464,
    -611.2445064660104,
    -43.263278462979656,
    -1.4999999999903328,
)
WIDE_TAIL_BELOW = (
    1953642.090285324,
    3274434.6004568664,
    2717305.2173564625,
    1444165.0760289368,
    539519.5048973633,
    147412.56252507912,
    29800.34039068172,
    4407.943723708158,
    458.48662326744505,
    30.513271157023528,
    1.0,
)

# S = 1/sqrt(2 pi) + p(a)/q(a) in gelu'(-a) = (r - a) S exp(-a^2/2), on [0.0, 40.0]: error 2^-53.51
WIDE_GELU_RATIO_ABOVE = (
    19852.060786780465,
    29900.979354285093,
    21668.240401911524,
    9706.99849881024,
    2921.648477123699,
    604.2302679147607,
    84.07306913152644,
    7.244730078921832,
    0.29992142525442334,
)
WIDE_GELU_RATIO_BELOW = (
    74593.74930914724,
    161865.6198695451,
    161514.6567139956,
    97549.43930790805,
    39436.04407307971,
    11113.631373435897,
    2195.030236522324,
    295.0569384848785,
    24.733791421529666,
    1.0,
)

# silu'(root + d)/d, on [-0.2501, 0.2501]: error 2^-55.04
WIDE_SILU_SLOPE = (
    0.2178117057198001,
    0.1466487969969469,
    0.018874814223782378,
    -0.015222655223188133,
    -0.006606589138373427,
    0.00012662741009247444,
    0.0007985218834470968,
    0.00018570724312746368,
    -4.090541590514408e-05,
    -2.9733535447684297e-05,
    -2.940904573976518e-06,
    2.3461009774060866e-06,
    8.398286589532458e-07,
    -3.321049431593949e-08,
)

# p in sin(r) = r + r z p(z), z = r^2, on [0.0, 0.61685]: error 2^-56.35
WIDE_SIN = (
    -0.1666666666666663,
    0.008333333333322118,
    -0.00019841269829589346,
    2.755731362130095e-06,
    -2.505074774741587e-08,
    1.5896229161307964e-10,
)

# p in log(1 + e) = t + t z p(z), t = 2e/(2 + e), z = t^2, on [0.0, 0.44444]: error 2^-58.62
WIDE_LOG_OF_MORE = (
    0.08333333333333288,
    0.012500000000048476,
    0.0022321428553216957,
    0.00043402781159479123,
    8.877804921434078e-05,
    1.8782407700736335e-05,
    4.059180135398913e-06,
    9.235339380345629e-07,
    1.5916778138904082e-07,
    8.110879991368209e-08,
)

# q in cos(r) = 1 - z/2 + z^2 q(z), z = r^2, on [0.0, 0.61685]: error 2^-59.68
WIDE_COS = (
    0.041666666666666595,
    -0.0013888888888873056,
    2.4801587288851294e-05,
    -2.755731417917785e-07,
    2.0875700825723493e-09,
    -1.135853567195201e-11,
)

# p in atan(t) = t + t z p(z), z = t^2, on [0.0, 1.0]: error 2^-55.23
WIDE_ATAN = (
    -0.33333333333333287,
    0.19999999999990445,
    -0.14285714285036577,
    0.11111111086446318,
    -0.09090908547241638,
    0.07692299711647911,
    -0.06666583721905907,
    0.05881716149498762,
    -0.05259433772548787,
    0.04744926079766222,
    -0.04286390880591867,
    0.038210064669007726,
    -0.032785432975448704,
    0.02615167779149395,
    -0.018614218117363517,
    0.011317673697886457,
    -0.005612406966778592,
    0.0021515995164912813,
    -0.0005928976970390037,
    0.0001038729270714196,
    -8.65431478867237e-06,
)

# q in erf(x) = x + x q(z), z = x^2, on [0.0, 1.0]: error 2^-56.3
WIDE_ERF_NEAR = (
    0.1283791670955126,
    -0.3761263890318375,
    0.11283791670954857,
    -0.026866170645072896,
    0.005223977624780875,
    -0.0008548326978742633,
    0.00012055331036913794,
    -1.4925593507190661e-05,
    1.6460972821184672e-06,
    -1.6350025260055095e-07,
    1.465788005199366e-08,
    -1.1365666624567702e-09,
    5.945262640753955e-11,
)

# log(1 - erf(x)), on [1.0, 6.0]: error 2^-56.24
WIDE_ERF_FAR = (
    -5.263770687993561e-09,
    -1.1283791573116113,
    -0.636619514608576,
    -0.10277467163256092,
    0.019136609048828215,
    0.0001881000632268848,
    -0.0016567127152938128,
    0.0005337584707678861,
    3.727409370489244e-05,
    -0.00012096595176294422,
    7.030785414224084e-05,
    -2.6750807560478727e-05,
    7.681738967119367e-06,
    -1.73410044961995e-06,
    3.1062762206646247e-07,
    -4.385627606578304e-08,
    4.785517542147394e-09,
    -3.8966747874173163e-10,
    2.228938599560469e-11,
    -7.98684481001192e-13,
    1.3480855455489089e-14,
)


@kernel
def wide_working(parameter: float) -> float:
    """A parameter as a number to compute with."""
    return parameter


@kernel
def wide_two_product(a: float, x: float) -> tuple[float, float]:
    """a x as hi + lo."""
    hi = a * x
    return hi, (fma(a, x, -hi) if abs(hi) < math.inf else 0.0)


@kernel
def wide_quick_product(a: float, x: float) -> tuple[float, float]:
    """The same where it neither overflows nor underflows."""
    hi = a * x
    return hi, fma(a, x, -hi)


@kernel
def wide_quotient(x: float, a: float) -> tuple[float, float]:
    """x/a as hi + lo."""
    hi = x / a
    return hi, (-fma(hi, a, -x) / a if abs(hi) < math.inf else 0.0)


@kernel
def wide_quotient_rest(x: float, a: float, hi: float) -> float:
    return fma(-hi, a, x) * min(1.0 / a, 1e308)


@kernel
def wide_line(a: float, x: float, b: float) -> float:
    return fma(a, x, b)


@kernel
def wide_offset(x: float, hi: float, lo: float) -> float:
    """x - (hi + lo) for a constant hi + lo."""
    return (x - hi) - lo


@kernel
def power_of_two(n: float) -> float:
    """2^n for a whole number n from -1022 to 1023."""
    return float_of(bits_of(n + EXPONENT_ROUNDER) << MANTISSA_BITS)


@kernel
def _exp_parts(hi: float, lo: float) -> tuple[float, float]:
    """n and s with exp(hi + lo) = 2^n (1 + s), |s| < 0.42."""
    n = fma(hi, LOG2_E_HI, ROUNDER) - ROUNDER
    exact = fma(-n, LN2_HI, hi)
    rest = fma(-n, LN2_LO, lo)
    r = exact + rest
    lost = (exact - r) + rest
    return n, r + fma(r * r, polynomial(r, WIDE_EXP), lost)


@kernel
def wide_scaled_exp(y: float, hi: float, lo: float) -> float:
    """y exp(hi + lo), where |lo| is at most an ulp of hi; for hi <= 0 right also where exp alone would underflow.

    The power of two is applied in thirds, the last of which is the first that can be inexact.
    """
    clamped = min(max(hi, -1500.0), 710.0)
    n, s = _exp_parts(clamped, lo if clamped == hi else 0.0)
    third = fma(n, 1.0 / 3.0, ROUNDER) - ROUNDER
    scale = power_of_two(third)
    scaled = y * scale
    return fma(scaled, s, scaled) * scale * power_of_two(n - third - third)


@kernel
def wide_quick_exp(hi: float, lo: float) -> float:
    """exp(hi + lo) for |hi| <= EXP_LIMIT, where the power of two is an addition to the exponent."""
    shifted = fma(hi, LOG2_E_HI, ROUNDER)
    n = shifted - ROUNDER
    exact = fma(-n, LN2_HI, hi)
    rest = fma(-n, LN2_LO, lo)
    r = exact + rest
    s = r + fma(r * r, polynomial(r, WIDE_EXP), (exact - r) + rest)
    return float_of(bits_of(1.0 + s) + (bits_of(shifted) << MANTISSA_BITS))


@kernel
def wide_exp_sum(hi: float, lo: float) -> float:
    """exp(hi + lo), where |lo| is at most an ulp of hi."""
    return wide_scaled_exp(1.0, hi, lo)


@kernel
def wide_decay_sum(hi: float, lo: float) -> float:
    """exp(hi + lo) for hi <= 0."""
    return wide_scaled_exp(1.0, hi, lo)


@kernel
def wide_decayed(y: float, hi: float, lo: float) -> float:
    return wide_scaled_exp(y, hi, lo)


@kernel
def wide_exp(x: float) -> float:
    return wide_scaled_exp(1.0, x, 0.0)


@kernel
def _difference(v: float, m: float) -> tuple[float, float]:
    """v - m as hi + lo (Knuth's two-sum)."""
    hi = v - m
    back = hi + m
    return hi, (v - back) + ((back - hi) - m)


@kernel
def _exp_of_negative(hi: float, lo: float) -> float:
    """exp(hi + lo) for hi <= 0, where |lo| is at most an ulp of hi; a NaN stays one."""
    masked = hi < -800.0
    n, s = _exp_parts(-800.0 if masked else hi, 0.0 if masked else lo)
    half = fma(n, 0.5, ROUNDER) - ROUNDER
    scale = power_of_two(half)
    return fma(scale, s, scale) * power_of_two(n - half)


@kernel
def wide_exp_of_difference(v: float, m: float) -> float:
    """exp(v - m) for v <= m; a NaN stays one."""
    hi, lo = _difference(v, m)
    return _exp_of_negative(hi, lo)


@kernel
def wide_exp_of_quotient(v: float, m: float, inverse: float, inverse_rest: float) -> float:
    """exp((v - m) * (inverse + inverse_rest)) for v <= m; a NaN stays one."""
    hi, lo = _difference(v, m)
    product = hi * inverse
    return _exp_of_negative(product, fma(hi, inverse, -product) + fma(hi, inverse_rest, lo * inverse))


@kernel
def wide_compensated(total: float, rest: float, term: float) -> tuple[float, float]:
    """total + rest + term with the rounding error of the sum in rest (Knuth's two-sum)."""
    grown = total + term
    part = grown - total
    return grown, rest + ((total - (grown - part)) + (term - part))


@kernel
def wide_split(term: float, coarse: float) -> tuple[float, float]:
    """A term as a multiple of an ulp of `coarse`, and the rest: multiples add up without rounding, in any order."""
    multiple = (term + coarse) - coarse
    return multiple, term - multiple


@kernel
def wide_expm1(x: float) -> float:
    n, s = _exp_parts(min(max(x, -40.0), 710.0), 0.0)
    half_power = power_of_two(n - 1.0)
    value = s if n == 0.0 else 2.0 * fma(half_power, s, half_power - 0.5)
    return copysign(value, x)


@kernel
def _log_parts(u: float) -> tuple[float, float]:
    """n and f with u = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2)."""
    shifted = bits_of(u) - SQRT_HALF_BITS + BIASED_ZERO
    n = float_of(((shifted >> MANTISSA_BITS) & EXPONENT_MASK) | INTEGER_BITS) - INTEGER_ORIGIN
    return n, float_of((shifted & MANTISSA_MASK) + SQRT_HALF_BITS) - 1.0


@kernel
def _log_of_scaled(f: float, lost: float, n: float) -> float:
    """log(2^n (1 + f + lost))."""
    whole = f + lost
    s = whole / (2.0 + whole)
    z = s * s
    half_square = 0.5 * whole * whole
    correction = fma(s, fma(z, polynomial(z, WIDE_LOG), half_square), fma(n, LN2_LO, lost))
    return fma(n, LN2_HI, f - (half_square - correction))


@kernel
def wide_log1p(x: float) -> float:
    """log(1 + x) for x > -1: the rounding error of 1 + x is carried along."""
    u = 1.0 + x
    lost = x - (u - 1.0) if x < 1.0 else 1.0 - (u - x)
    n, f = _log_parts(u)
    lost = lost * power_of_two(-n) if n < 60.0 else 0.0
    return x if x == math.inf else copysign(_log_of_scaled(f, lost, n), x)


@kernel
def wide_log(x: float) -> float:
    """log(x) for x >= 0, subnormal numbers included."""
    tiny = x < SMALLEST_NORMAL
    n, f = _log_parts(x * 2.0**54 if tiny else x)
    value = _log_of_scaled(f, 0.0, n - (54.0 if tiny else 0.0))
    return (x if x == math.inf else value) if x > 0.0 else -math.inf


@kernel
def wide_over_sum(numerator: float, a: float, b: float) -> float:
    """numerator/(a + b) for finite numbers as if the sum were not rounded: its error (Knuth's two-sum) is made good."""
    whole = a + b
    part = whole - a
    lost = (a - (whole - part)) + (b - part)
    inverse = 1.0 / whole
    value = numerator * inverse
    return fma(fma(-value, lost, fma(-value, whole, numerator)), inverse, value)


@kernel
def wide_log_of_more(e: float) -> float:
    """log(1 + e) for 0 <= e <= 1: shorter than log1p, which has to look for the power of two."""
    t = wide_over_sum(2.0 * e, 2.0, e)
    z = t * t
    return fma(t * z, polynomial(z, WIDE_LOG_OF_MORE), t)


@kernel
def wide_log_of_more_in_parts(e: float) -> tuple[float, float]:
    """log(1 + e) for 0 <= e <= 1 as hi + lo: what is lost where t and the sum are rounded."""
    whole = 2.0 + e
    inverse = 1.0 / whole
    t = 2.0 * e * inverse
    lost = fma(-t, e - (whole - 2.0), fma(-t, whole, 2.0 * e)) * inverse
    z = t * t
    bend = (t * z) * polynomial(z, WIDE_LOG_OF_MORE)
    hi = t + bend
    return hi, (bend - (hi - t)) + lost


@kernel
def wide_tanh(x: float) -> float:
    growth = wide_expm1(2.0 * min(abs(x), 20.0))
    return copysign(wide_over_sum(growth, 2.0, growth), x)


wide_tanh_alone = wide_tanh


@kernel
def wide_erf(x: float) -> float:
    a = min(abs(x), 6.0)
    z = a * a
    near = fma(a, polynomial(z, WIDE_ERF_NEAR), a)
    n, s = _exp_parts(polynomial(a, WIDE_ERF_FAR), 0.0)
    power = power_of_two(n)
    return copysign(near if a < 1.0 else fma(-power, s, 1.0 - power), x)


wide_erf_alone = wide_erf


@kernel
def wide_atan(x: float) -> float:
    a = abs(x)
    inverted = a > 1.0
    t = -1.0 / a if inverted else a
    z = t * t
    rest = fma(t * z, polynomial(z, WIDE_ATAN), HALF_PI_MIDDLE if inverted else 0.0)
    return copysign((HALF_PI_HI if inverted else 0.0) + (t + rest), x)


# As 1/R = a sqrt(2 pi) + 3/2 + p/q, of which the last quotient is a small part: R is as much less in error.
@kernel
def wide_normal_tail_parts(a: float) -> tuple[float, float]:
    """Numbers whose quotient is the scaled normal tail, for a caller that has more to divide."""
    below = polynomial_in_halves(a, WIDE_TAIL_BELOW)
    return below, fma(fma(a, SQRT_2PI, 1.5), below, polynomial_in_halves(a, WIDE_TAIL_ABOVE))


@kernel
def wide_scaled_normal_tail(a: float) -> float:
    """exp(a^2/2) Phi(-a) for 0 <= a <= 40, Phi being the distribution function of the standard normal."""
    above, below = wide_normal_tail_parts(a)
    return above / below


@kernel
def wide_gelu_slope_ratio(a: float) -> float:
    """S in gelu'(-a) = (r - a) S exp(-a^2/2) for 0 <= a <= 40, r being where gelu'(-r) = 0; S lies between 0.39 and 0.67."""
    return INVERSE_SQRT_2PI + polynomial_in_halves(a, WIDE_GELU_RATIO_ABOVE) / polynomial(a, WIDE_GELU_RATIO_BELOW)


@kernel
def wide_silu_slope_quotient(d: float) -> float:
    """silu'(r + d)/d near the zero r of silu', |d| <= 1/4."""
    return polynomial(d, WIDE_SILU_SLOPE)


# Printed by tools/fit_elementary.py SILU_ROOT.
SILU_ROOT_HI = -1.2784645427610737
SILU_ROOT_LO = -1.0946994183093437e-16
NEAR_ROOT = 0.25
"""How near its zero the slope is taken from the quotient by the distance, where the closed form would cancel."""


@kernel
def wide_square_of_more(e: float) -> float:
    whole = 1.0 + e
    return whole * whole


@kernel
def wide_gate_slope(y: float, growth: float, rest: float, hi: float, lo: float) -> float:
    """y (s + (growth + rest) s (1 - s)), where s = 1/(1 + exp(-(hi + lo))), for |hi| <= EXP_LIMIT."""
    grown = wide_quick_exp(hi, lo)
    whole = 1.0 + grown
    return y * (grown * ((1.0 + growth) + (grown + rest)) / (whole * whole))


@kernel
def wide_swish_slope(hi: float, lo: float) -> float:
    """The derivative of z/(1 + exp(-z)) at z = hi + lo, for |hi| <= EXP_LIMIT."""
    distance = ((hi - SILU_ROOT_HI) - SILU_ROOT_LO) + lo
    closed = wide_gate_slope(1.0, hi, lo, hi, lo)
    return distance * wide_silu_slope_quotient(distance) if abs(distance) < NEAR_ROOT else closed


@kernel
def wide_scaled_swish_slope(y: float, x: float) -> float:
    return y * wide_swish_slope(x, 0.0)


@kernel
def _rest_of_turn(hi: float, lo: float, turns: float) -> tuple[float, float]:
    """hi + lo - turns pi/2 as a sum, where it is less than 1: that makes `exact` so."""
    exact = fma(-turns, HALF_PI_HI, hi)
    product = turns * HALF_PI_MIDDLE
    first = exact - product
    rest = ((exact - first) - product) - fma(turns, HALF_PI_MIDDLE, -product)
    rest = fma(-turns, HALF_PI_LO, rest) + lo
    r = first + rest
    return r, (first - r) + rest


@kernel
def _sine_in_parts(r: float, rest: float, quadrant: int) -> tuple[float, float]:
    """sin(r + rest + quadrant pi/2) but for its sign, as a sum, for |r| <= pi/4 and a rest of at most an ulp of r."""
    z = r * r
    half = 0.5 * z
    whole = 1.0 - half
    sine = fma(r * z, polynomial(z, WIDE_SIN), rest * whole)
    cosine = ((1.0 - whole) - half) + fma(z * z, polynomial(z, WIDE_COS), -r * rest)
    odd = quadrant & 1 != 0
    return whole if odd else r, cosine if odd else sine


@kernel
def _with_sign(value: float, quadrant: int) -> float:
    return float_of(bits_of(value) ^ ((quadrant & 2) << SECOND_BIT_TO_SIGN))


@kernel
def _sine(r: float, rest: float, quadrant: int) -> float:
    """The same as a number, with its sign."""
    hi, lo = _sine_in_parts(r, rest, quadrant)
    return _with_sign(hi + lo, quadrant)


@kernel
def wide_sin_sum(hi: float, lo: float) -> float:
    """sin(hi + lo) for |hi| <= TRIG_LIMIT, to the last digits also near multiples of pi."""
    shifted = fma(hi, INVERSE_HALF_PI_HI, ROUNDER)
    r, rest = _rest_of_turn(hi, lo, shifted - ROUNDER)
    return hi if hi == 0.0 else _sine(r, rest, bits_of(shifted))


@kernel
def wide_sin_in_parts(hi: float, lo: float) -> tuple[float, float]:
    shifted = fma(hi, INVERSE_HALF_PI_HI, ROUNDER)
    r, rest = _rest_of_turn(hi, lo, shifted - ROUNDER)
    quadrant = bits_of(shifted)
    large, small = _sine_in_parts(r, rest, quadrant)
    total = large + small
    return _with_sign(total, quadrant), _with_sign((large - total) + small, quadrant)


@kernel
def wide_cos_sum(hi: float, lo: float) -> float:
    """cos(hi + lo) for |hi| <= TRIG_LIMIT."""
    shifted = fma(hi, INVERSE_HALF_PI_HI, ROUNDER)
    r, rest = _rest_of_turn(hi, lo, shifted - ROUNDER)
    return _sine(r, rest, bits_of(shifted) + 1)


@kernel
def wide_sin_huge(hi: float, lo: float, scale: int) -> float:
    """sin((hi + lo) 2^scale) for any finite number."""
    if (scale == 0) & (abs(hi) <= TRIG_LIMIT):
        return wide_sin_sum(hi, lo)
    r, rest, quadrant = angle(hi, lo, scale)
    return _sine(r, rest, quadrant)


@kernel
def wide_cos_huge(hi: float, lo: float, scale: int) -> float:
    """cos((hi + lo) 2^scale) for any finite number."""
    if (scale == 0) & (abs(hi) <= TRIG_LIMIT):
        return wide_cos_sum(hi, lo)
    r, rest, quadrant = angle(hi, lo, scale)
    return _sine(r, rest, quadrant + 1)
