"""The elementary functions that kernels are written in, each in two precisions under one name.

`WIDE` is for float64 results, `NARROW` for results that will be rounded to float32; the compiler binds a kernel's
names to the one or the other. As attributes of this module the names are the wide ones. All take and return float64.

    fma(a, b, c)            a * b + c, rounded once
    copysign(a, b)          the magnitude of a with the sign of b
    exp(x)
    exp_sum(hi, lo)         exp(hi + lo): lo is what rounding took from hi, and would cost digits if it were left out
    scaled_exp(y, hi, lo)   y * exp(hi + lo), right also where exp alone would have underflowed
    expm1(x), log1p(x), tanh(x)
    over_sum(a, b, c)       a/(b + c) for finite numbers, as if b + c were not rounded
    scaled_normal_tail(a)   exp(a^2/2) Phi(-a) for a >= 0: the tail of the normal distribution without its underflow
    silu_slope_quotient(d), gelu_slope_quotient(d)      f'(r + d)/d around the zero r of f', for |d| <= 1/4

This package knows neither activations nor loops. Nothing here can be called from Python: it is source for the compiler.
"""

from __future__ import annotations

from actserve_server.elementary import narrow, wide
from actserve_server.elementary.bits import copysign, fma
from actserve_server.elementary.source import Kernel

__all__ = [
    "NARROW",
    "WIDE",
    "copysign",
    "exp",
    "exp_sum",
    "expm1",
    "fma",
    "gelu_slope_quotient",
    "log1p",
    "over_sum",
    "scaled_exp",
    "scaled_normal_tail",
    "silu_slope_quotient",
    "tanh",
]

exp = wide.wide_exp
exp_sum = wide.wide_exp_sum
scaled_exp = wide.wide_scaled_exp
expm1 = wide.wide_expm1
log1p = wide.wide_log1p
tanh = wide.wide_tanh
over_sum = wide.wide_over_sum
scaled_normal_tail = wide.wide_scaled_normal_tail
silu_slope_quotient = wide.wide_silu_slope_quotient
gelu_slope_quotient = wide.wide_gelu_slope_quotient

WIDE: dict[str, Kernel] = {
    "fma": fma,
    "copysign": copysign,
    "exp": exp,
    "exp_sum": exp_sum,
    "scaled_exp": scaled_exp,
    "expm1": expm1,
    "log1p": log1p,
    "tanh": tanh,
    "over_sum": over_sum,
    "scaled_normal_tail": scaled_normal_tail,
    "silu_slope_quotient": silu_slope_quotient,
    "gelu_slope_quotient": gelu_slope_quotient,
}

NARROW: dict[str, Kernel] = {
    "fma": fma,
    "copysign": copysign,
    "exp": narrow.narrow_exp,
    "exp_sum": narrow.narrow_exp_sum,
    "scaled_exp": narrow.narrow_scaled_exp,
    "expm1": narrow.narrow_expm1,
    "log1p": narrow.narrow_log1p,
    "tanh": narrow.narrow_tanh,
    "over_sum": narrow.narrow_over_sum,
    "scaled_normal_tail": narrow.narrow_scaled_normal_tail,
    "silu_slope_quotient": narrow.narrow_silu_slope_quotient,
    "gelu_slope_quotient": narrow.narrow_gelu_slope_quotient,
}
