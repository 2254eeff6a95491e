"""The functions that formulas name, as kernels: right for every number, where those of `elementary` leave that to their callers."""

from __future__ import annotations

import math
from typing import Any

from actserve_server.activations.spec import Exact, kernel
from actserve_server.elementary import (
    TRIG_LIMIT,
    atan,
    copysign,
    cos_huge,
    cos_sum,
    erf,
    exp,
    exp_sum,
    expm1,
    fma,
    log,
    log1p,
    lower_power,
    power,
    scaled_exp,
    scaled_normal_tail,
    sin_huge,
    sin_sum,
    sqrt,
    tanh,
)

__all__ = ["FUNCTIONS"]

_INFINITY = math.inf
_NAN = math.nan
_SQRT_2 = math.sqrt(2.0)
_TWO_OVER_SQRT_PI = Exact(2.0 / math.sqrt(math.pi))
_FAR = 40.0
"""From here on sinh is half an exponential, to the last digit."""


@kernel
def _sign(u: float) -> float:
    return copysign(1.0, u) if abs(u) > 0.0 else 0.0


@kernel
def _half_exp(u: float) -> float:
    """exp(u)/2, which overflows later than exp(u); of half of u, as `scaled_exp` stops short of that."""
    root = exp(0.5 * u)
    return (0.5 * root) * root


@kernel
def _cosh(u: float) -> float:
    grown = _half_exp(abs(u))
    return grown + (0.25 / grown if grown < _INFINITY else 0.0)


@kernel
def _sinh(u: float) -> float:
    small = abs(u) < _FAR
    grown = expm1(abs(u) if small else 1.0)
    large = _half_exp(1.0 if small else abs(u))
    return copysign(0.5 * (grown + grown / (grown + 1.0)) if small else large, u)


@kernel
def _sin(u: float) -> float:
    if abs(u) <= TRIG_LIMIT:
        return sin_sum(u, 0.0)
    return sin_huge(u, 0.0, 0) if abs(u) < _INFINITY else _NAN


@kernel
def _cos(u: float) -> float:
    if abs(u) <= TRIG_LIMIT:
        return cos_sum(u, 0.0)
    return cos_huge(u, 0.0, 0) if abs(u) < _INFINITY else _NAN


@kernel
def _log(u: float) -> float:
    return log(u) if u > 0.0 else (-_INFINITY if u == 0.0 else _NAN)


@kernel
def _log1p(u: float) -> float:
    return log1p(u) if u > -1.0 else (-_INFINITY if u == -1.0 else _NAN)


@kernel
def _gaussian(u: float) -> float:
    """exp(-u^2), with what rounding takes from u^2."""
    square = u * u
    rest = fma(u, u, -square) if square < _INFINITY else 0.0
    return exp_sum(-square, -rest)


@kernel
def _erf_slope(u: float) -> float:
    return _TWO_OVER_SQRT_PI * _gaussian(u)


@kernel
def _erfc(u: float) -> float:
    far = abs(u) * _SQRT_2
    tail = 2.0 * _gaussian(u) * scaled_normal_tail(far if far < 40.0 else 40.0)
    return 1.0 - erf(u) if u < 0.5 else tail


@kernel
def _sech_squared(u: float) -> float:
    """1/cosh(u)^2."""
    grown = scaled_exp(4.0, -2.0 * abs(u), 0.0)
    decay = 0.25 * grown
    return grown / fma(decay, 2.0 + decay, 1.0)


@kernel
def _power_2(u: float) -> float:
    return u * u


@kernel
def _power_3(u: float) -> float:
    return u * u * u


@kernel
def _power_4(u: float) -> float:
    return (u * u) * (u * u)


FUNCTIONS: dict[str, Any] = {
    "abs": abs,
    "min": min,
    "max": max,
    "sign": _sign,
    "sqrt": sqrt,
    "exp": exp,
    "expm1": expm1,
    "log": _log,
    "log1p": _log1p,
    "tanh": tanh,
    "cosh": _cosh,
    "sinh": _sinh,
    "sin": _sin,
    "cos": _cos,
    "atan": atan,
    "erf": erf,
    "erfc": _erfc,
    "gaussian": _gaussian,
    "erf_slope": _erf_slope,
    "sech_squared": _sech_squared,
    "power": power,
    "lower_power": lower_power,
    "power_2": _power_2,
    "power_3": _power_3,
    "power_4": _power_4,
}
"""By the name that formulas have for them; exp(-u^2), the powers, and the slopes of erf and tanh, have no such name."""
