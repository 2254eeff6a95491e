"""What a tree can come to over a whole interval of x: bounds that hold for every real number in it.

Every bound is moved outwards by more than its computation can be wrong. Bounds are wide where a formula says x more than once;
over shorter intervals they are narrower. This module knows neither what is to be proved nor how intervals are cut.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

from actserve_server.formulas import tree
from actserve_server.formulas.parse import builtin_tree
from actserve_server.formulas.tree import Node

__all__ = ["Interval", "bounds"]

_INFINITY = math.inf
_LARGEST = 1.79e308
_LEAST = 5e-324
_TWO_OVER_SQRT_PI = 2 / math.sqrt(math.pi)
_SLACK = 2.0**-48
"""Relative; the C library's functions are wrong by some 2^-52."""


@dataclasses.dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, both included; `undefined` where it may also be NaN."""

    low: float
    high: float
    undefined: bool = False


_ALL = Interval(-_INFINITY, _INFINITY, undefined=True)


def _out(low: float, high: float, *, undefined: bool = False, underflows: bool = False) -> Interval:
    """Bounds moved outwards. A 0 is exact unless it may be a number too small to be told from it (`underflows`)."""
    if math.isnan(low) or math.isnan(high):
        return _ALL
    if low == _INFINITY:  # of what overflowed, and may be any large number
        low = _LARGEST
    if high == -_INFINITY:
        high = -_LARGEST
    below = math.nextafter(low - abs(low) * _SLACK, -_INFINITY) if low or underflows else 0.0
    above = math.nextafter(high + abs(high) * _SLACK, _INFINITY) if high or underflows else 0.0
    return Interval(low if math.isinf(low) else below, high if math.isinf(high) else above, undefined=undefined)


def _unary(function: Callable[[float], float], u: float) -> float:
    try:
        return function(u)
    except OverflowError:
        return math.copysign(_INFINITY, u)


def _rising(
    function: Callable[[float], float], low: float = -_INFINITY, *, underflows: bool = False
) -> Callable[[Interval], Interval]:
    """Of a function that never falls, defined from `low` on."""

    def of(u: Interval) -> Interval:
        if u.high < low:
            return _ALL
        ends = _unary(function, max(u.low, low)), _unary(function, u.high)
        return _out(*ends, undefined=u.undefined or u.low < low, underflows=underflows)

    return of


def _log_or(function: Callable[[float], float], end: float) -> Callable[[float], float]:
    return lambda u: -_INFINITY if u <= end else (u if u == _INFINITY else function(u))


def _add(a: Interval, b: Interval) -> Interval:
    return _out(a.low + b.low, a.high + b.high, undefined=_either(a, b))


def _sub(a: Interval, b: Interval) -> Interval:
    return _out(a.low - b.high, a.high - b.low, undefined=_either(a, b))


def _either(a: Interval, b: Interval) -> bool:
    return a.undefined or b.undefined


def _times(a: float, b: float) -> float:
    if a == 0 or b == 0:
        return 0.0
    return a * b or math.copysign(_LEAST, a) * math.copysign(1.0, b)


def _mul(a: Interval, b: Interval) -> Interval:
    corners = [_times(p, q) for p in (a.low, a.high) for q in (b.low, b.high)]
    return _out(min(corners), max(corners), undefined=_either(a, b))


def _div(a: Interval, b: Interval) -> Interval:
    if b.low < 0 < b.high or b.low == b.high == 0:
        return _ALL
    if b.low == 0 or b.high == 0:
        other = Interval(1 / b.high, _INFINITY) if b.low == 0 else Interval(-_INFINITY, 1 / b.low)
        # 0/0 is the one quotient that a bound does not cover.
        touching = a.low <= 0 <= a.high
        found = _mul(a, other)
        return Interval(found.low, found.high, undefined=found.undefined or touching or _either(a, b))
    return _mul(a, _out(1 / b.high, 1 / b.low, undefined=b.undefined, underflows=True))


def _power(u: Interval, exponent: int) -> Interval:
    def raised(v: float) -> float:
        try:
            return v**exponent
        except OverflowError:
            return -_INFINITY if v < 0 and exponent % 2 else _INFINITY

    ends = raised(u.low), raised(u.high)
    if exponent % 2:
        return _out(*ends, undefined=u.undefined, underflows=True)
    found = _out(0.0 if u.low <= 0 <= u.high else min(ends), max(ends), undefined=u.undefined, underflows=True)
    return Interval(max(found.low, 0.0), found.high, found.undefined)


def _even(function: Callable[[float], float]) -> Callable[[Interval], Interval]:
    """Of a function that is even, and monotonic on each side of 0."""

    def of(u: Interval) -> Interval:
        ends = [_unary(function, u.low), _unary(function, u.high)] + ([function(0.0)] if u.low <= 0 <= u.high else [])
        return _out(min(ends), max(ends), undefined=u.undefined, underflows=function is not abs)

    return of


def _wave(phase: float) -> Callable[[Interval], Interval]:
    """cos(u - phase)."""

    def of(u: Interval) -> Interval:
        if not (math.isfinite(u.low) and math.isfinite(u.high)) or u.high - u.low > 6 or max(-u.low, u.high) > 1e6:
            return Interval(-1.0, 1.0, undefined=u.undefined or not math.isfinite(u.low - u.high))
        ends = [math.cos(u.low - phase), math.cos(u.high - phase)]
        margin = 1e-9

        def holds(extreme: float) -> bool:
            turn = math.ceil((u.low - phase - extreme - margin) / math.tau)
            return turn * math.tau + extreme <= u.high - phase + margin

        low = -1.0 if holds(math.pi) else min(ends) - margin
        high = 1.0 if holds(0.0) else max(ends) + margin
        return Interval(max(low, -1.0), min(high, 1.0), undefined=u.undefined)

    return of


def _sign(u: Interval) -> Interval:
    def sign(v: float) -> float:
        return float((v > 0) - (v < 0))

    return Interval(sign(u.low), sign(u.high), undefined=u.undefined)


def _erfc(u: Interval) -> Interval:
    found = _out(math.erfc(u.high), math.erfc(u.low), undefined=u.undefined, underflows=True)
    return Interval(max(found.low, 0.0), found.high, found.undefined)


def _positive(of: Callable[[Interval], Interval]) -> Callable[[Interval], Interval]:
    """Of a function that is never negative, however it is rounded."""

    def bounded(u: Interval) -> Interval:
        found = of(u)
        return Interval(max(found.low, 0.0), found.high, found.undefined)

    return bounded


def _min(a: Interval, b: Interval) -> Interval:
    return Interval(min(a.low, b.low), min(a.high, b.high), undefined=_either(a, b))


def _max(a: Interval, b: Interval) -> Interval:
    return Interval(max(a.low, b.low), max(a.high, b.high), undefined=_either(a, b))


def _bell(u: float) -> float:
    """1/cosh(u)^2, which is less than any number of float64 from 375 on."""
    if abs(u) > 375:
        return 0.0
    decay = 1 / math.cosh(u)
    return decay * decay


def _gaussian(u: Interval) -> Interval:
    """exp(-u^2), of an interval for u^2: what rounding does to a square of 500 is more than the slack."""
    square = _power(u, 2)
    return _FUNCTIONS["exp"](Interval(-square.high, -square.low, square.undefined))


def _erf_slope(u: Interval) -> Interval:
    found = _mul(_gaussian(u), Interval(_TWO_OVER_SQRT_PI, _TWO_OVER_SQRT_PI))
    return Interval(max(found.low, 0.0), found.high, found.undefined)


def _real_power(u: Interval, v: Interval) -> Interval:
    """Of a negative number a whole power is a number too, and changes its sign where the exponent is odd."""
    least, most = max(u.low, -u.high, 0.0), max(abs(u.low), abs(u.high))
    found: Interval = _FUNCTIONS["exp"](_mul(v, _FUNCTIONS["log"](Interval(least, most, u.undefined))))
    if u.low >= 0.0:
        return found
    whole = v.low == v.high and (math.isinf(v.low) or v.low == math.floor(v.low))
    if whole and (math.isinf(v.low) or v.low % 2 == 0):
        return found
    if whole and u.high < 0.0:
        return Interval(-found.high, -found.low, found.undefined)
    return Interval(-found.high, found.high, found.undefined or not whole)


_FUNCTIONS: Mapping[str, Callable[..., Interval]] = {
    "exp": _positive(_rising(math.exp, underflows=True)),
    "expm1": _rising(math.expm1),
    "log": _rising(_log_or(math.log, 0.0), 0.0),
    "log1p": _rising(_log_or(math.log1p, -1.0), -1.0),
    "sqrt": _positive(_rising(lambda u: math.sqrt(u) if u < _INFINITY else u, 0.0)),
    "tanh": _rising(math.tanh),
    "sinh": _rising(math.sinh),
    "atan": _rising(math.atan),
    "erf": _rising(math.erf),
    "erfc": _erfc,
    "cosh": _even(lambda u: _INFINITY if abs(u) > 710 else math.cosh(u)),
    "abs": _even(abs),
    "sech_squared": _positive(_even(_bell)),
    "erf_slope": _erf_slope,
    "gaussian": _gaussian,
    "sin": _wave(math.pi / 2),
    "cos": _wave(0.0),
    "sign": _sign,
    "min": _min,
    "max": _max,
    "power": _real_power,
    "lower_power": lambda u, v: _real_power(u, _sub(v, Interval(1.0, 1.0))),
}

_OPERATIONS: Mapping[str, Callable[..., Interval]] = {
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "neg": lambda a: Interval(-a.high, -a.low, a.undefined),
}

Truth = tuple[bool, bool]
"""Whether a condition can hold, and whether it can fail."""


def _condition(op: str, args: list[Interval | Truth]) -> Truth:
    if op in ("true", "false"):
        return (op == "true", op == "false")
    truths = [arg for arg in args if isinstance(arg, tuple)]
    match op:
        case "not":
            return truths[0][1], truths[0][0]
        case "and":
            return all(holds for holds, _ in truths), any(fails for _, fails in truths)
        case "or":
            return any(holds for holds, _ in truths), all(fails for _, fails in truths)
    a, b = (arg for arg in args if isinstance(arg, Interval))
    undefined = _either(a, b)
    match op:
        case "lt":
            return a.low < b.high, a.high >= b.low or undefined
        case "le":
            return a.low <= b.high, a.high > b.low or undefined
        case "gt":
            return a.high > b.low, a.low <= b.high or undefined
        case "ge":
            return a.high >= b.low, a.low < b.high or undefined
    same = a.low == a.high == b.low == b.high and not undefined
    meet = a.low <= b.high and b.low <= a.high
    return (meet, not same) if op == "eq" else (not same, meet)


def bounds(node: Node, x: Interval, parameters: Mapping[str, float]) -> Interval:
    """What the tree lies between for every x of the interval.

    >>> bounds(parse("exp(x) + 1", ()), Interval(0, 1), {}).high < 3.7183
    True
    """
    done: dict[int, Interval | Truth] = {}
    for current in tree.walk(node):
        args = [done[id(arg)] for arg in current.args]
        numbers = [arg for arg in args if isinstance(arg, Interval)]
        found: Interval | Truth
        match current.op:
            case "number":
                found = Interval(current.value, current.value)
            case "x":
                found = x
            case "parameter":
                found = Interval(parameters[current.value], parameters[current.value])
            case "where":
                found = _chosen(args)
            case "power":
                found = _power(numbers[0], current.value)
            case "call":
                found = _FUNCTIONS[current.value](*numbers)
            case "builtin":
                found = bounds(builtin_tree(*current.value), numbers[0], parameters)
            case op if op in tree.CONDITIONS:
                found = _condition(op, args)
            case op:
                found = _OPERATIONS[op](*numbers)
        done[id(current)] = found
    result = done[id(node)]
    assert isinstance(result, Interval)
    return result


def _chosen(args: list[Interval | Truth]) -> Interval:
    (holds, fails), then, otherwise = args  # type: ignore[misc]  # as `tree.where` makes them
    assert isinstance(then, Interval) and isinstance(otherwise, Interval)
    if not fails:
        return then
    if not holds:
        return otherwise
    return Interval(min(then.low, otherwise.low), max(then.high, otherwise.high), undefined=_either(then, otherwise))
