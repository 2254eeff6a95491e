"""The elementary functions that kernels are written in, each in three precisions under one name.

`WIDE` is for float64 results; `NARROW` for results that will be rounded to float32 or less (float64 arithmetic, error about
2^-40); `FAST` is float32 arithmetic for float32 results, within a few units in the last place. The compiler binds a
kernel's names to one of them. As attributes of this module the names are the wide ones. What is called a number below is
a float64, in FAST a float32; parameters of activations and constants marked `Exact` are float64 everywhere.

    LARGEST                 the largest finite number
    TRIG_LIMIT              up to where sin_sum and cos_sum are right
    EXP_LIMIT               up to where the exponential of a number or its opposite is an ordinary number
    working(a)              a parameter as a number
    two_product(a, x)       a * x as hi + lo, where a is a parameter or Exact; lo is 0 where hi is infinite
    quotient(x, a)          x / a likewise
    line(a, x, b)           a * x + b for finite x, where a and b are parameters: with all digits of both where it is near 0
    offset(x, hi, lo)       x - (hi + lo), where hi + lo is a constant in two Exact parts
    fma(a, b, c)            a * b + c, rounded once
    copysign(a, b)          the magnitude of a with the sign of b
    sqrt(x)
    exp(x)
    exp_sum(hi, lo)         exp(hi + lo): lo is what rounding took from hi, and would cost digits if it were left out
    decay_sum(hi, lo)       exp(hi + lo) for hi <= 0, in fewer instructions

    decayed(y, hi, lo)      y * exp(hi + lo) for hi <= 0 and |y| < 2^300, right also where exp alone would have
                            underflowed; for little more than a product where exp_sum(hi, lo) is there already
    scaled_exp(y, hi, lo)   y * exp(hi + lo), right also where exp alone would have underflowed
    power(u, v)             u**v as C99's pow, also at 0, infinity and NaN, and for negative numbers to whole powers
    lower_power(u, v)       u**(v - 1), as if v - 1 were not rounded
    log_in_parts(hi, lo)    log(hi + lo) as a number and its rest, for 0 < hi < inf; in NARROW the rest is 0, and lo not asked
    expm1(x), log1p(x), log(x), tanh(x), erf(x), atan(x)
    tanh_alone(x), erf_alone(x)    as a result, not a part of one: in fewer instructions, and as good once it is rounded to
                            the result's type, but for FAST, where they are within 3.4 and 2.9 units, not 1
    quotient_rest(x, a, hi)  (x - hi a)/a where hi is x/a, rounded, for a > 0 and a normal hi; 0 in NARROW and FAST
    over_sum(a, b, c)       a/(b + c) for finite numbers, as if b + c were not rounded
    scaled_normal_tail(a)   exp(a^2/2) Phi(-a) for a >= 0: the tail of the normal distribution without its underflow
    normal_tail_parts(a)    the same as a numerator and a denominator
    gelu_slope_ratio(a)     S in gelu'(-a) = (r - a) S exp(-a^2/2) for a >= 0, where r is its zero: does not cancel
    sin_sum(hi, lo), cos_sum(hi, lo)       of hi + lo, for |hi| <= TRIG_LIMIT
    sin_in_parts(hi, lo)    sin_sum as a number and its rest, for a bit more; in NARROW the rest is 0
    sin_huge(hi, lo, k), cos_huge(hi, lo, k)   of (hi + lo) 2^k, for any finite number and 0 <= k <= 1024; slow, and not for
                            loops that vectorize
    silu_slope_quotient(d)  silu'(r + d)/d around the zero r of silu', for |d| <= 1/4
    log_of_more(e)          log(1 + e) for 0 <= e <= 1
    log_of_more_in_parts(e)  the same as hi + lo; in NARROW and FAST lo is 0

Polynomials, as `slopes` says, of t = x - SLOPE_MIDDLE for |t| <= SLOPE_REACH:

    SMISH_SLOPE, LOGISH_SLOPE, SERF_SLOPE, TANH_EXP_SLOPE      f'(x)/(x - root)
    PHISH_SLOPE                                                the same, with PHISH_MIDDLE and PHISH_REACH

For the quick kernels of records, in fewer instructions:

    quick_product(a, x)     two_product where it neither overflows nor underflows
    quick_exp(hi, lo)       exp_sum for |hi| <= EXP_LIMIT
    square_of_more(e)       (1 + e)^2 for e >= 0; in FAST within 0.54 units, where e < 2^24
    gate_slope(y, g, rest, hi, lo)   y (s + (g + rest) s (1 - s)), where s = 1/(1 + exp(-(hi + lo))) and |hi| <= EXP_LIMIT; |y| <= 1000
    swish_slope(hi, lo)     the derivative of z/(1 + exp(-z)) at hi + lo, for |hi| <= EXP_LIMIT
    scaled_swish_slope(y, x)   y times that derivative at x

For sums along slices, whose totals are float64 in every precision:

    CHUNK                   how many numbers may be summed in any order before the sum is added to the total
    exp_of_difference(v, m) exp(v - m) for v <= m; NaN in, NaN out; may be 1e-304 instead of 0 where v is -inf
    exp_of_quotient(v, m, inverse, rest)   exp((v - m) * (inverse + rest)) likewise; inverse and rest are float64
    add_in_any_order(a, b)  a + b in a loop that sums, whose order the compiler chooses
    larger(a, b)            the larger; unspecified where one is NaN
    compensated(a, b, c)    a + b + c as a sum and what its roundings took; plainly where the result is a float32
    split(c, coarse)        c as hi + lo, where sums of at most 2^26 hi are exact if |c| <= coarse/2^27; plainly as c + 0
                            where the result is a float32

FAST expects parameters that a float32 can hold, and of `scaled_exp` that |y| < 2^100.

This package knows neither activations nor loops. Nothing here can be called from Python: it is source for the compiler.
"""

from __future__ import annotations

import sys
from typing import Any

from actserve_server.elementary import fast, narrow, powers, slopes, wide
from actserve_server.elementary.bits import add_in_any_order as add_in_any_order
from actserve_server.elementary.bits import copysign as copysign
from actserve_server.elementary.bits import fma as fma
from actserve_server.elementary.bits import larger as larger
from actserve_server.elementary.bits import sqrt as sqrt

# The names that have counterparts in every precision, as `wide_exp`, `narrow_exp`, `fast_exp`.
_NAMES = (
    "working",
    "two_product",
    "quotient",
    "quotient_rest",
    "line",
    "offset",
    "exp",
    "exp_sum",
    "exp_of_difference",
    "exp_of_quotient",
    "compensated",
    "split",
    "decay_sum",
    "decayed",
    "scaled_exp",
    "expm1",
    "log1p",
    "log",
    "tanh",
    "tanh_alone",
    "erf",
    "erf_alone",
    "atan",
    "over_sum",
    "scaled_normal_tail",
    "normal_tail_parts",
    "gelu_slope_ratio",
    "sin_sum",
    "sin_in_parts",
    "cos_sum",
    "sin_huge",
    "cos_huge",
    "silu_slope_quotient",
    "log_of_more",
    "log_of_more_in_parts",
    "quick_product",
    "quick_exp",
    "square_of_more",
    "gate_slope",
    "swish_slope",
    "scaled_swish_slope",
)
_POWERS = ("power", "lower_power", "log_in_parts")
_SLOPES = ("SMISH_SLOPE", "LOGISH_SLOPE", "SERF_SLOPE", "TANH_EXP_SLOPE", "PHISH_SLOPE")
_SAME: dict[str, Any] = {
    "fma": fma,
    "copysign": copysign,
    "sqrt": sqrt,
    "larger": larger,
    "add_in_any_order": add_in_any_order,
}


def _precision(module: Any, prefix: str, largest: float) -> dict[str, Any]:
    constants = {name: getattr(module, name) for name in ("TRIG_LIMIT", "EXP_LIMIT", "CHUNK")} | {"LARGEST": largest}
    found = {name: getattr(module, f"{prefix}_{name}") for name in _NAMES}
    found |= {name: getattr(powers, f"{prefix}_{name}") for name in _POWERS}
    # A slope that cancels is never computed with the narrow functions.
    found |= {name: getattr(slopes, f"{'FAST' if prefix == 'fast' else 'WIDE'}_{name}") for name in _SLOPES}
    return _SAME | constants | found


WIDE: dict[str, Any] = _precision(wide, "wide", sys.float_info.max)
NARROW: dict[str, Any] = _precision(narrow, "narrow", sys.float_info.max)
FAST: dict[str, Any] = _precision(fast, "fast", (2.0 - 2.0**-23) * 2.0**127)

LARGEST: float = WIDE["LARGEST"]
TRIG_LIMIT: float = WIDE["TRIG_LIMIT"]
EXP_LIMIT: float = WIDE["EXP_LIMIT"]
CHUNK: int = WIDE["CHUNK"]
working = wide.wide_working
two_product = wide.wide_two_product
quotient = wide.wide_quotient
quotient_rest = wide.wide_quotient_rest
line = wide.wide_line
offset = wide.wide_offset
exp = wide.wide_exp
exp_sum = wide.wide_exp_sum
exp_of_difference = wide.wide_exp_of_difference
exp_of_quotient = wide.wide_exp_of_quotient
compensated = wide.wide_compensated
split = wide.wide_split
decay_sum = wide.wide_decay_sum
decayed = wide.wide_decayed
scaled_exp = wide.wide_scaled_exp
expm1 = wide.wide_expm1
log1p = wide.wide_log1p
log = wide.wide_log
tanh = wide.wide_tanh
tanh_alone = wide.wide_tanh_alone
erf = wide.wide_erf
erf_alone = wide.wide_erf_alone
atan = wide.wide_atan
over_sum = wide.wide_over_sum
scaled_normal_tail = wide.wide_scaled_normal_tail
normal_tail_parts = wide.wide_normal_tail_parts
gelu_slope_ratio = wide.wide_gelu_slope_ratio
sin_sum = wide.wide_sin_sum
sin_in_parts = wide.wide_sin_in_parts
cos_sum = wide.wide_cos_sum
sin_huge = wide.wide_sin_huge
cos_huge = wide.wide_cos_huge
silu_slope_quotient = wide.wide_silu_slope_quotient
log_of_more = wide.wide_log_of_more
log_of_more_in_parts = wide.wide_log_of_more_in_parts
quick_product = wide.wide_quick_product
quick_exp = wide.wide_quick_exp
square_of_more = wide.wide_square_of_more
gate_slope = wide.wide_gate_slope
swish_slope = wide.wide_swish_slope
scaled_swish_slope = wide.wide_scaled_swish_slope
SMISH_SLOPE: tuple[float, ...] = WIDE["SMISH_SLOPE"]
LOGISH_SLOPE: tuple[float, ...] = WIDE["LOGISH_SLOPE"]
SERF_SLOPE: tuple[float, ...] = WIDE["SERF_SLOPE"]
TANH_EXP_SLOPE: tuple[float, ...] = WIDE["TANH_EXP_SLOPE"]
PHISH_SLOPE: tuple[float, ...] = WIDE["PHISH_SLOPE"]
SLOPE_MIDDLE: float = slopes.MIDDLE
SLOPE_REACH: float = slopes.REACH
PHISH_MIDDLE: float = slopes.PHISH_MIDDLE
PHISH_REACH: float = slopes.PHISH_REACH
power = powers.wide_power
lower_power = powers.wide_lower_power
log_in_parts = powers.wide_log_in_parts

__all__ = [
    "FAST",
    "NARROW",
    "WIDE",
    *_NAMES,
    *_POWERS,
    *_SLOPES,
    *_SAME,
    "CHUNK",
    "EXP_LIMIT",
    "LARGEST",
    "PHISH_MIDDLE",
    "PHISH_REACH",
    "SLOPE_MIDDLE",
    "SLOPE_REACH",
    "TRIG_LIMIT",
]
