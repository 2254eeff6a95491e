"""Elementary functions for float32 results: float64 arithmetic, relative error about 2^-40, one rounding to come.

That error (2^-36 where expm1 is small; 2^-37 of erf, of a tanh near 1 and of GELU's slope) makes at most 0.5002 units in
the last place of a float32. Results are right where a float32 can hold them; below its range they may be anything that
rounds to 0 there. Otherwise as `elementary.wide`, whose every function has its counterpart here.

The constants are printed by `tools/fit_elementary.py` under the names they have here.
"""

from __future__ import annotations

import math

from actserve_server.elementary.bits import bits_of, copysign, float_of, fma, polynomial, polynomial_in_halves
from actserve_server.elementary.source import kernel
from actserve_server.elementary.wide import (
    BIASED_ZERO,
    EXPONENT_MASK,
    EXPONENT_ROUNDER,
    HALF_PI_HI,
    INTEGER_BITS,
    INTEGER_ORIGIN,
    INVERSE_SQRT_2PI,
    LN2_HI,
    LN2_LO,
    LOG2_E_HI,
    MANTISSA_BITS,
    MANTISSA_MASK,
    ROUNDER,
    SQRT_HALF_BITS,
    wide_cos_huge,
    wide_sin_huge,
    wide_square_of_more,
)

CHUNK = 4096
"""A sum of so many in float64, in a dozen partial sums, is good to 2^-44."""
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

# q in exp(r) = 1 + r + r^2 q(r), on [-0.34657, 0.34657]: error 2^-51.61
NARROW_CANCELLING_EXP = (
    0.49999999999998324,
    0.16666666666611554,
    0.04166666666813632,
    0.008333333370870501,
    0.001388888851627544,
    0.00019841185235644132,
    2.480193166292373e-05,
    2.763499103258148e-06,
    2.7476817796200043e-07,
)

# p in log(1 + f) = 2s + s z p(z), z = s^2, on [0.0, 0.029437]: error 2^-44.94
NARROW_LOG = (
    0.6666666667579968,
    0.39999995622587703,
    0.2857210904812066,
    0.22176194437313915,
    0.19584054199714343,
)

# R = exp(a^2/2) Phi(-a) = p(a)/q(a), on [0.0, 16.0]: error 2^-39.33
NARROW_TAIL_ABOVE = (
    1097.5211165991577,
    1261.2569438503572,
    711.5328727130825,
    241.64121897238985,
    51.583497569007285,
    6.5799528003502745,
    0.3989423216121876,
)
NARROW_TAIL_BELOW = (
    2195.042233195145,
    4273.904196263281,
    3735.6267938078263,
    1910.7261108809103,
    622.2060056285402,
    130.30031719851067,
    16.493504499395474,
    1.0,
)

# S = 1/sqrt(2 pi) + p(a)/q(a) in gelu'(-a) = (r - a) S exp(-a^2/2), on [0.0, 16.0]: error 2^-37.78
NARROW_GELU_RATIO_ABOVE = (
    168.07574193599402,
    181.83228092474064,
    91.46149700688157,
    25.905624250375837,
    4.1249218392526155,
    0.29992127605767555,
)
NARROW_GELU_RATIO_BELOW = (
    631.541475402103,
    1102.4309937854703,
    843.9117779670469,
    365.163132507805,
    95.09948025494941,
    14.331672093954687,
    1.0,
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

# p in log(1 + e) = t + t z p(z), t = 2e/(2 + e), z = t^2, on [0.0, 0.44444]: error 2^-38.41
NARROW_LOG_OF_MORE = (
    0.083333332954441,
    0.012500016386550638,
    0.002231907765993146,
    0.00043556794925308693,
    8.374660718539961e-05,
    2.6589176346650647e-05,
)

# p in sin(r) = r + r z p(z), z = r^2, on [0.0, 2.4674]: error 2^-43.73
NARROW_SIN = (
    -0.16666666666504595,
    0.008333333321086812,
    -0.00019841266729632315,
    2.755695310423876e-06,
    -2.5030196595901095e-08,
    1.540952364057081e-10,
)

# p in atan(t) = t + t z p(z), z = t^2, on [0.0, 1.0]: error 2^-41.84
NARROW_ATAN = (
    -0.33333333325827236,
    0.19999999293417892,
    -0.14285690870128595,
    0.11110716248446535,
    -0.09086924650879458,
    0.07665952278282824,
    -0.06545593823861677,
    0.05480426156637674,
    -0.04269685712418535,
    0.028850597580028926,
    -0.015590745299957588,
    0.0061276125861997564,
    -0.001526902187884751,
    0.00017894478256712213,
)

# erf(x) = x p(z)/q(z), z = x^2, on [0.0, 25.0]: error 2^-37.59
NARROW_ERF_ABOVE = (
    858828585.5277572,
    160362703.58423337,
    47154787.21736005,
    4436858.856500028,
    500702.9634584345,
    25757.73454825935,
    1324.8343360255872,
    18.92694309984164,
    0.022462479784199716,
)
NARROW_ERF_BELOW = (
    761117016.8395405,
    395823418.2358777,
    97619278.00733833,
    15011321.49468724,
    1586247.5285035216,
    118814.77789134422,
    6164.9328511661815,
    200.22705061594374,
    1.0,
)

# erf(x) = x p(z)/q(z), z = x^2, on [0.0, 15.602]: error 2^-37.17
NARROW_ERF_ALONE_ABOVE = (
    15237991.877676614,
    2680202.126442372,
    781017.3503588253,
    65846.95435170837,
    6856.997044015397,
    286.7739463909442,
    10.13771347187835,
    0.041413205885255336,
)
NARROW_ERF_ALONE_BELOW = (
    13504318.691914503,
    6876706.84947131,
    1633962.392498645,
    236870.05007512216,
    22848.668470068525,
    1480.8964102019054,
    59.93214705239723,
    1.0,
)

# tanh(x) = x p(z)/q(z), z = x^2, on [0.0, 176.89]: error 2^-40.41
NARROW_TANH_ABOVE = (
    97432321684.10536,
    14226118003.800968,
    499363656.5262349,
    6177393.8311388455,
    28911.620107819057,
    44.65398881851568,
    0.0118685603286551,
    -1.2556942315123118e-06,
)
NARROW_TANH_BELOW = (
    97432321684.17194,
    46703558564.44457,
    3076240288.1728973,
    62701961.5320144,
    478662.0156876287,
    1330.6840584027136,
    1.0,
)

# tanh(x) = x p(z)/q(z), z = x^2, on [0.0, 82.81]: error 2^-39.01
NARROW_TANH_ALONE_ABOVE = (
    191029986.9095624,
    27292487.5101259,
    894405.6316126449,
    9443.383749587374,
    30.903827605675147,
    0.017152640942813976,
    -3.823449676339288e-06,
)
NARROW_TANH_ALONE_BELOW = (
    191029986.90990642,
    90969149.80926925,
    5746790.655038207,
    105375.13607408172,
    635.2705894905545,
    1.0,
)

INVERSE_PI_HI = 0.3183098861837907
PI_HI = 3.141592653589793
PI_LO = 1.2246467991473532e-16
SIGN_SHIFT = 63
TRIG_LIMIT = 2.0**30
EXP_LIMIT = 350.0
TANH_END = 13.3
ERF_END = 5.0
"""Beyond them tanh and erf are 1 to within 2^-37."""
TANH_ALONE_END = 9.1
ERF_ALONE_END = 3.95
"""Beyond them they are 1 in float32."""


@kernel
def narrow_working(parameter: float) -> float:
    return parameter


# The rests are for sines, of which they are a good part where the angle is large; elsewhere the compiler drops them.
@kernel
def narrow_two_product(a: float, x: float) -> tuple[float, float]:
    hi = a * x
    return hi, (fma(a, x, -hi) if abs(hi) < math.inf else 0.0)


@kernel
def narrow_quotient(x: float, a: float) -> tuple[float, float]:
    hi = x / a
    return hi, (-fma(hi, a, -x) / a if abs(hi) < math.inf else 0.0)


@kernel
def narrow_quotient_rest(x: float, a: float, hi: float) -> float:
    return 0.0


@kernel
def narrow_quick_product(a: float, x: float) -> tuple[float, float]:
    hi = a * x
    return hi, fma(a, x, -hi)


@kernel
def narrow_line(a: float, x: float, b: float) -> float:
    return fma(a, x, b)


@kernel
def narrow_offset(x: float, hi: float, lo: float) -> float:
    return (x - hi) - lo


@kernel
def _narrow_exp_parts(x: float) -> tuple[float, float]:
    """n + ROUNDER and s with exp(x) = 2^n (1 + s), |s| < 0.42."""
    shifted = fma(x, LOG2_E_HI, ROUNDER)
    r = fma(shifted - ROUNDER, -(LN2_HI + LN2_LO), x)
    return shifted, fma(r * r, polynomial(r, NARROW_EXP), r)


@kernel
def narrow_exp(x: float) -> float:
    """exp(x); at least 2^-1022, which is 0 in float32."""
    shifted, s = _narrow_exp_parts(min(max(x, -708.0), 708.0))
    return float_of(bits_of(1.0 + s) + (bits_of(shifted) << MANTISSA_BITS))


@kernel
def narrow_quick_exp(hi: float, lo: float) -> float:
    shifted, s = _narrow_exp_parts(hi)
    return float_of(bits_of(1.0 + s) + (bits_of(shifted) << MANTISSA_BITS))


@kernel
def narrow_exp_sum(hi: float, lo: float) -> float:
    """exp(hi + lo); what lo adds is below 2^-43 of the result."""
    return narrow_exp(hi)


@kernel
def narrow_decay_sum(hi: float, lo: float) -> float:
    """exp(hi + lo) for hi <= 0."""
    shifted, s = _narrow_exp_parts(max(hi, -708.0))
    return float_of(bits_of(1.0 + s) + (bits_of(shifted) << MANTISSA_BITS))


@kernel
def narrow_decayed(y: float, hi: float, lo: float) -> float:
    """y exp(hi + lo) for hi <= 0: what is below 2^-1022 is 0 in float32, whatever element multiplies it."""
    return y * narrow_exp(hi)


@kernel
def narrow_scaled_exp(y: float, hi: float, lo: float) -> float:
    """y exp(hi + lo) for hi <= 0. A parameter may make y large, so the power of two is applied in halves."""
    shifted, s = _narrow_exp_parts(min(max(hi, -1400.0), 708.0))
    n = shifted - ROUNDER
    half = fma(n, 0.5, EXPONENT_ROUNDER)
    rest = (n - (half - EXPONENT_ROUNDER)) + EXPONENT_ROUNDER
    scaled = y * float_of(bits_of(half) << MANTISSA_BITS)
    return fma(scaled, s, scaled) * float_of(bits_of(rest) << MANTISSA_BITS)


@kernel
def narrow_exp_of_difference(v: float, m: float) -> float:
    """exp(v - m) for v <= m, at least 1e-304; a NaN stays one.

    By Horner's rule, in the fewest instructions: loops that sum are split, which hides its latency.
    """
    return _narrow_exp_of_negative(v - m)


@kernel
def narrow_exp_of_quotient(v: float, m: float, inverse: float, inverse_rest: float) -> float:
    return _narrow_exp_of_negative((v - m) * inverse)


@kernel
def _narrow_exp_of_negative(hi: float) -> float:
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
def _narrow_log_parts(u: float) -> tuple[float, float]:
    """n and f with u = 2^n (1 + f), 1 + f between sqrt(1/2) and sqrt(2)."""
    shifted = bits_of(u) - SQRT_HALF_BITS + BIASED_ZERO
    n = float_of(((shifted >> MANTISSA_BITS) & EXPONENT_MASK) | INTEGER_BITS) - INTEGER_ORIGIN
    return n, float_of((shifted & MANTISSA_MASK) + SQRT_HALF_BITS) - 1.0


@kernel
def _narrow_log_of_scaled(f: float, n: float) -> float:
    """log(2^n (1 + f))."""
    s = f / (2.0 + f)
    z = s * s
    return fma(n, LN2_HI + LN2_LO, s * fma(z, polynomial(z, NARROW_LOG), 2.0))


@kernel
def narrow_log1p(x: float) -> float:
    """log(1 + x) for -1 < x < 2^1000: the rounding error of 1 + x is carried along."""
    u = 1.0 + x
    lost = x - (u - 1.0)
    n, f = _narrow_log_parts(u)
    return copysign(_narrow_log_of_scaled(f + (lost if n == 0.0 else 0.0), n), x)


@kernel
def narrow_log(x: float) -> float:
    n, f = _narrow_log_parts(x)
    value = _narrow_log_of_scaled(f, n)
    return (x if x == math.inf else value) if x > 0.0 else -math.inf


@kernel
def narrow_log_of_more(e: float) -> float:
    t = (2.0 * e) / (2.0 + e)
    z = t * t
    return fma(t * z, polynomial(z, NARROW_LOG_OF_MORE), t)


@kernel
def narrow_log_of_more_in_parts(e: float) -> tuple[float, float]:
    return narrow_log_of_more(e), 0.0


@kernel
def narrow_over_sum(numerator: float, a: float, b: float) -> float:
    return numerator / (a + b)


@kernel
def narrow_tanh(x: float) -> float:
    bounded = min(max(x, -TANH_END), TANH_END)
    z = bounded * bounded
    return bounded * polynomial_in_halves(z, NARROW_TANH_ABOVE) / polynomial_in_halves(z, NARROW_TANH_BELOW)


@kernel
def narrow_tanh_alone(x: float) -> float:
    """tanh(x) to be rounded at once: beyond TANH_ALONE_END it is what float32 rounds to 1."""
    bounded = min(max(x, -TANH_ALONE_END), TANH_ALONE_END)
    z = bounded * bounded
    return bounded * polynomial_in_halves(z, NARROW_TANH_ALONE_ABOVE) / polynomial_in_halves(z, NARROW_TANH_ALONE_BELOW)


@kernel
def narrow_erf(x: float) -> float:
    bounded = min(max(x, -ERF_END), ERF_END)
    z = bounded * bounded
    return bounded * polynomial_in_halves(z, NARROW_ERF_ABOVE) / polynomial_in_halves(z, NARROW_ERF_BELOW)


@kernel
def narrow_erf_alone(x: float) -> float:
    bounded = min(max(x, -ERF_ALONE_END), ERF_ALONE_END)
    z = bounded * bounded
    return bounded * polynomial_in_halves(z, NARROW_ERF_ALONE_ABOVE) / polynomial_in_halves(z, NARROW_ERF_ALONE_BELOW)


@kernel
def narrow_atan(x: float) -> float:
    a = abs(x)
    inverted = a > 1.0
    t = -1.0 / a if inverted else a
    z = t * t
    return copysign((HALF_PI_HI if inverted else 0.0) + fma(t * z, polynomial(z, NARROW_ATAN), t), x)


@kernel
def narrow_normal_tail_parts(a: float) -> tuple[float, float]:
    return polynomial_in_halves(a, NARROW_TAIL_ABOVE), polynomial_in_halves(a, NARROW_TAIL_BELOW)


@kernel
def narrow_scaled_normal_tail(a: float) -> float:
    """exp(a^2/2) Phi(-a) for 0 <= a <= 16; beyond, anything times exp(-a^2/2) is 0 in float32."""
    above, below = narrow_normal_tail_parts(a)
    return above / below


@kernel
def narrow_gelu_slope_ratio(a: float) -> float:
    return INVERSE_SQRT_2PI + polynomial_in_halves(a, NARROW_GELU_RATIO_ABOVE) / polynomial_in_halves(
        a, NARROW_GELU_RATIO_BELOW
    )


@kernel
def narrow_silu_slope_quotient(d: float) -> float:
    return polynomial(d, NARROW_SILU_SLOPE)


narrow_square_of_more = wide_square_of_more


# With an exponential this good the closed form is wrong by 2^-51 where its terms cancel, which no float32 of their size shows:
# there the quotient would be the longer way, and `lo` is nothing.
@kernel
def narrow_gate_slope(y: float, growth: float, rest: float, hi: float, lo: float) -> float:
    shifted = fma(hi, LOG2_E_HI, ROUNDER)
    r = fma(shifted - ROUNDER, -(LN2_HI + LN2_LO), hi)
    power = 1.0 + fma(r * r, polynomial(r, NARROW_CANCELLING_EXP), r)
    grown = float_of(bits_of(power) + (bits_of(shifted) << MANTISSA_BITS))
    whole = 1.0 + grown
    return y * (grown * (whole + growth) / (whole * whole))


@kernel
def narrow_swish_slope(hi: float, lo: float) -> float:
    return narrow_gate_slope(1.0, hi, lo, hi, lo)


@kernel
def narrow_scaled_swish_slope(y: float, x: float) -> float:
    return y * narrow_swish_slope(x, 0.0)


# One polynomial from -pi/2 to pi/2 is shorter than two and a choice, and precise enough here.
@kernel
def _narrow_sine(r: float) -> float:
    z = r * r
    return copysign(fma(r * z, polynomial(z, NARROW_SIN), r), r)


@kernel
def narrow_sin_sum(hi: float, lo: float) -> float:
    shifted = fma(hi, INVERSE_PI_HI, ROUNDER)
    turns = shifted - ROUNDER
    r = fma(-turns, PI_LO, fma(-turns, PI_HI, hi)) + lo
    value = float_of(bits_of(_narrow_sine(r)) ^ (bits_of(shifted) << SIGN_SHIFT))
    return hi if hi == 0.0 else value


@kernel
def narrow_sin_in_parts(hi: float, lo: float) -> tuple[float, float]:
    return narrow_sin_sum(hi, lo), 0.0


@kernel
def narrow_cos_sum(hi: float, lo: float) -> float:
    shifted = fma(hi, INVERSE_PI_HI, -0.5) + ROUNDER
    turns = (shifted - ROUNDER) + 0.5
    r = fma(-turns, PI_LO, fma(-turns, PI_HI, hi)) + lo
    return float_of(bits_of(_narrow_sine(-r)) ^ (bits_of(shifted) << SIGN_SHIFT))


narrow_sin_huge = wide_sin_huge
narrow_cos_huge = wide_cos_huge
