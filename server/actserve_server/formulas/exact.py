"""What a tree comes to at as many digits as are carried: the truth that its kernels are held to.

Real numbers only: where a function is not defined the value is NaN, and a comparison with it does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import mpmath as mp

from actserve_server.activations import formula
from actserve_server.formulas import tree
from actserve_server.formulas.parse import builtin_tree
from actserve_server.formulas.tree import Node

__all__ = ["evaluate"]

Real = Any
_TOO_LARGE = 1e300
_BEYOND_FLOAT64 = 1024
"""In powers of two: there float64 has infinity, of which sin and cos are NaN."""
_LOST_IN_ANY = 10_000
"""In powers of two: the square of a number that small is beside 1 at no precision that is used."""


def _exp(u: Real) -> Real:
    if mp.isinf(u):
        return mp.inf if u > 0 else mp.mpf(0)
    if abs(u) > _TOO_LARGE:
        return mp.inf if u > 0 else mp.mpf(0)
    return mp.exp(u)


def _log(u: Real) -> Real:
    return mp.log(u) if u > 0 else (-mp.inf if u == 0 else mp.nan)


def _log1p(u: Real) -> Real:
    return mp.log1p(u) if u > -1 else (-mp.inf if u == -1 else mp.nan)


def _power(u: Real, v: Real) -> Real:
    """As C99's pow, but that 0 has no sign here."""
    if v == 0 or u == 1:
        return mp.mpf(1)
    if mp.isnan(u) or mp.isnan(v):
        return mp.nan
    magnitude = mp.mpf(1) if u == -1 else _exp(v * _log(abs(u)))
    if u >= 0:
        return magnitude
    if not (mp.isinf(v) or mp.isint(v)):
        return magnitude if mp.isinf(u) else mp.nan
    return -magnitude if not mp.isinf(v) and v % 2 else magnitude


def _wave(function: Callable[[Real], Real], near_zero: Callable[[Real], Real]) -> Callable[[Real], Real]:
    """sin or cos; of numbers like 2**(2**99) its reduction by pi would take all time and memory that there are."""

    def of(u: Real) -> Real:
        if not u:
            return function(u)
        if mp.isinf(u) or mp.mag(u) > _BEYOND_FLOAT64:
            return mp.nan
        return near_zero(u) if mp.mag(u) < -_LOST_IN_ANY else function(u)

    return of


def _sech_squared(u: Real) -> Real:
    return mp.mpf(0) if abs(u) > _TOO_LARGE else 1 / mp.cosh(u) ** 2


def _sinh(u: Real) -> Real:
    return mp.sign(u) * mp.inf if abs(u) > _TOO_LARGE else mp.sinh(u)


_NAMES = formula.FUNCTIONS
_FUNCTIONS: Mapping[str, Callable[..., Real]] = {
    "abs": abs,
    "sign": mp.sign,
    "min": lambda a, b: mp.nan if mp.isnan(a) or mp.isnan(b) else min(a, b),
    "max": lambda a, b: mp.nan if mp.isnan(a) or mp.isnan(b) else max(a, b),
    "sqrt": lambda u: mp.sqrt(u) if u >= 0 else mp.nan,
    "exp": _exp,
    "expm1": lambda u: mp.expm1(u) if abs(u) < _TOO_LARGE else _exp(u) - 1,
    "log": _log,
    "log1p": _log1p,
    "tanh": _NAMES["tanh"],
    "cosh": _NAMES["cosh"],
    "sinh": _sinh,
    "sin": _wave(mp.sin, lambda u: u),
    "cos": _wave(mp.cos, lambda u: mp.mpf(1)),
    "atan": mp.atan,
    "erf": _NAMES["erf"],
    "erfc": _NAMES["erfc"],
    "gaussian": lambda u: _exp(-(u**2)),
    "erf_slope": lambda u: 2 / mp.sqrt(mp.pi) * _exp(-(u**2)),
    "sech_squared": _sech_squared,
    "power": _power,
    "lower_power": lambda u, v: _power(u, v - 1),
}


_MAY_LOSE_NAN = ("power", "lower_power")


def _quotient(a: Real, b: Real) -> Real:
    if b == 0:
        return mp.nan if a == 0 or mp.isnan(a) else mp.sign(a) * mp.inf
    return a / b


_OPERATIONS: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _quotient,
    "neg": lambda a: -a,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "and": lambda *conditions: all(conditions),
    "or": lambda *conditions: any(conditions),
    "not": lambda condition: not condition,
    "true": lambda: True,
    "false": lambda: False,
}


def evaluate(node: Node, x: Real, parameters: Mapping[str, Any]) -> Real:
    """The tree at a number, at mpmath's present precision.

    >>> with mp.workdps(20):
    ...     evaluate(parse("exp(x) - 1", ()), mp.mpf("1e-10"), {})
    mpf('1.00000000005e-10')
    """
    done: dict[int, Any] = {}
    for current in tree.walk(node):
        args = [done[id(arg)] for arg in current.args]
        match current.op:
            case "number":
                value: Any = mp.mpf(current.value)
            case "x":
                value = mp.mpf(x)
            case "parameter":
                value = mp.mpf(parameters[current.value])
            case "where":
                value = args[1] if args[0] else args[2]
            case "power":
                value = args[0] ** current.value
            case "call":
                lost = current.value not in _MAY_LOSE_NAN and any(mp.isnan(arg) for arg in args)
                value = mp.nan if lost else _FUNCTIONS[current.value](*args)
            case "builtin":
                value = mp.nan if mp.isnan(args[0]) else evaluate(builtin_tree(*current.value), args[0], parameters)
            case op:
                value = _OPERATIONS[op](*args)
        done[id(current)] = value
    return done[id(node)]
