"""What a record's formulas say, at as many digits as it takes: the truth that kernels are held to.

A formula is a Python expression of the record, evaluated by mpmath, where the naive form is exact enough: whatever it
cancels is smaller than the digits carried. It is thousands of times slower than a kernel, so a server asks it only where a
kernel's result lies too near to the middle of two 16-bit numbers to say to which of them the truth rounds.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mpmath as mp

from actserve_server.activations.spec import Activation, Parameter, ParameterGradient, Record

__all__ = ["DIGITS", "FUNCTIONS", "Real", "compiled", "gradient", "names", "parameters", "value"]

Real = Any  # mpmath ships no types

DIGITS = 450
"""Enough that 1 + exp(-745) still knows its second term, and that its difference from 1 has a hundred digits left."""


def _erfc(x: Real) -> Real:
    """erfc, and its limit where mpmath would work for very long on a result that no float64 can tell from it."""
    return mp.erfc(x) if abs(x) < 3000 else mp.mpf(1 - mp.sign(x))


def _erf(x: Real) -> Real:
    return mp.erf(x) if abs(x) < 3000 else mp.mpf(mp.sign(x))


def _tanh(x: Real) -> Real:
    """tanh, and its limit where its distance from it has more digits than are carried."""
    return mp.tanh(x) if abs(x) < 3000 else mp.sign(x)


def _cosh(x: Real) -> Real:
    """cosh, and infinity where its reciprocal is as good as 0 beside any float64."""
    return mp.cosh(x) if abs(x) < 1e6 else mp.inf


_NAMES: dict[str, Any] = {
    name: getattr(mp, name)
    for name in ("atan", "cos", "exp", "expm1", "fsum", "log", "log1p", "pi", "sign", "sin", "sqrt")
}
_NAMES |= {"cosh": _cosh, "erf": _erf, "erfc": _erfc, "tanh": _tanh}
FUNCTIONS: Mapping[str, Callable[..., Real]] = _NAMES
"""The functions and constants of formulas, as mpmath has them."""


def parameters(record: Record, given: Mapping[str, Any] | None = None) -> tuple[float, ...]:
    """What a kernel is given: every parameter in order, words as their index, a seed as two numbers, no axis."""
    given = given or {}
    return tuple(n for p in record.parameters for n in _numbers(p, given.get(p.name, p.default)))


def _numbers(parameter: Parameter, value: Any) -> tuple[float, ...]:
    match parameter.kind:
        case "axis":
            return ()
        case "word":
            return (float(parameter.choices.index(value)),)
        case "seed":
            return (float((value or 0) >> 32), float((value or 0) & 0xFFFFFFFF))
    return (math.nan,) if value is None else (float(value),)


def names(record: Record, values: Sequence[float]) -> dict[str, Any]:
    """What a formula may name: the functions, and the parameters but for axes and seeds."""
    table = dict(_NAMES)
    remaining = iter(values)
    for parameter in record.parameters:
        match parameter.kind:
            case "axis":
                continue
            case "word":
                table[parameter.name] = parameter.choices[int(next(remaining))]
            case "integer":
                table[parameter.name] = int(next(remaining))
            case "seed":
                next(remaining), next(remaining)
            case _:
                table[parameter.name] = mp.mpf(next(remaining))
    return table


def value(record: Activation, x: float | Real, params: Sequence[float] = (), *, derivative: bool = False) -> Real:
    """f(x), or f'(x), at a finite number: right to 35 digits for a float, to nearly DIGITS for a number of mpmath."""
    return _value(record, record.derivative_formula if derivative else record.formula, x, tuple(params))


def gradient(record: Activation, of: ParameterGradient, x: float, params: Sequence[float]) -> Real:
    """df/dparameter at a finite number."""
    return _value(record, of.formula, x, tuple(params))


_REMEMBERED = 1 << 14
"""How many values are kept: a table asks for a few thousand, and a test for the same ones in several types."""

_precision = threading.RLock()
"""mpmath's precision belongs to the whole process: whoever changes it must be alone until it is as it was."""


@functools.lru_cache(_REMEMBERED)
def _value(record: Activation, formula: str, x: float | Real, params: tuple[float, ...]) -> Real:
    """As many digits are carried as a float needs.

    What a formula cancels it cancels against exp of at most about x^2, or against a power of a small x; so many digits and
    40 more are carried, and where half as many again say otherwise, or the result is nothing, all are.
    """

    def at(digits: int) -> Real:
        with _precision, mp.workdps(digits):
            if record.truth is not None:
                return mp.mpf(record.truth(x, params, formula == record.derivative_formula))
            return mp.mpf(eval(compiled(formula), names(record, params) | {"x": mp.mpf(x)}))

    if isinstance(x, float):
        magnitude = abs(x)
        loss = min(magnitude, 40.0) ** 2 * 0.87 + (3 * max(0.0, -math.log10(magnitude)) if magnitude else 0.0)
        digits = int(40 + loss + max(0.0, math.log10(magnitude) if magnitude else 0.0))
        if digits < DIGITS / 3:
            first, second = at(digits), at(digits + digits // 2)
            with _precision, mp.workdps(DIGITS):
                if second != 0 and abs(first - second) <= abs(second) * mp.mpf(10) ** -35:
                    return second
    return at(DIGITS)


@functools.cache
def compiled(formula: str) -> Any:
    """A formula, ready for eval."""
    return compile(formula, "formula", "eval")
