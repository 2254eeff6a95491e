"""What a record's formulas say at high precision: the reference that kernels are held to.

A formula is evaluated by mpmath, where the naive form is exact enough: whatever it cancels is smaller than the digits
carried. It shares no code with the kernels, and knows nothing of how they are compiled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import mpmath as mp
import numpy as np
from actserve_server.activations.spec import (
    Activation,
    AxisActivation,
    GatedActivation,
    Parameter,
    ParameterGradient,
    Record,
)

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


@functools.cache
def _entmax_threshold(x: tuple[Real, ...], alpha: Real) -> Real:
    """tau, where the sum of max((alpha - 1) x - tau, 0)^(1/(alpha - 1)) is 1: exactly at 2 and 3/2, else to 60 digits."""
    h = sorted(((alpha - 1) * v for v in x if not mp.isinf(v)), reverse=True)
    if alpha in (2, 1.5):
        for count in range(len(h), 0, -1):
            mean = mp.fsum(h[:count]) / count
            if alpha == 2:
                tau = mean - mp.mpf(1) / count
            else:
                spread = (1 - mp.fsum((v - mean) ** 2 for v in h[:count])) / count
                if spread < 0:
                    continue
                tau = mean - mp.sqrt(spread)
            if h[count - 1] > tau:
                return tau
    with mp.workdps(90):
        top = h[0]
        below = [v - top for v in h]
        low, high = mp.mpf(-1), mp.mpf(0)
        for _ in range(230):
            middle = (low + high) / 2
            over = mp.fsum((v - middle) ** (1 / (alpha - 1)) for v in below if v > middle) > 1
            low, high = (middle, high) if over else (low, middle)
    return top + low


_NAMES |= {
    "sparsemax_threshold": lambda x: _entmax_threshold(tuple(x), mp.mpf(2)),
    "entmax_threshold": lambda x, alpha: _entmax_threshold(tuple(x), mp.mpf(alpha)),
}


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


def _names(record: Record, values: Sequence[float]) -> dict[str, Any]:
    """What a formula may name: the functions, and the parameters but for axes and seeds."""
    names = dict(_NAMES)
    remaining = iter(values)
    for parameter in record.parameters:
        match parameter.kind:
            case "axis":
                continue
            case "word":
                names[parameter.name] = parameter.choices[int(next(remaining))]
            case "integer":
                names[parameter.name] = int(next(remaining))
            case "seed":
                next(remaining), next(remaining)
            case _:
                names[parameter.name] = mp.mpf(next(remaining))
    return names


def value(record: Activation, x: float | Real, params: Sequence[float] = (), *, derivative: bool = False) -> Real:
    """f(x), or f'(x), at a finite number: right to 35 digits for a float, to nearly DIGITS for a number of mpmath."""
    return _value(record, record.derivative_formula if derivative else record.formula, x, tuple(params))


def gradient(record: Activation, of: ParameterGradient, x: float, params: Sequence[float]) -> Real:
    """df/dparameter at a finite number."""
    return _value(record, of.formula, x, tuple(params))


@functools.cache
def _value(record: Activation, formula: str, x: float | Real, params: tuple[float, ...]) -> Real:
    """As many digits are carried as a float needs.

    What a formula cancels it cancels against exp of at most about x^2, or against a power of a small x; so many digits and
    40 more are carried, and where half as many again say otherwise, or the result is nothing, all are.
    """
    code = _code(formula)

    def at(digits: int) -> Real:
        with mp.workdps(digits):
            return mp.mpf(eval(code, _names(record, params) | {"x": mp.mpf(x)}))

    if isinstance(x, float):
        magnitude = abs(x)
        loss = min(magnitude, 40.0) ** 2 * 0.87 + (3 * max(0.0, -math.log10(magnitude)) if magnitude else 0.0)
        digits = int(40 + loss + max(0.0, math.log10(magnitude) if magnitude else 0.0))
        if digits < DIGITS / 3:
            first, second = at(digits), at(digits + digits // 2)
            with mp.workdps(DIGITS):
                if second != 0 and abs(first - second) <= abs(second) * mp.mpf(10) ** -35:
                    return second
    return at(DIGITS)


@functools.cache
def _code(formula: str) -> Any:
    return compile(formula, "formula", "eval")


def gate(record: GatedActivation, u: float, v: float, params: Sequence[float], *, partial: str = "") -> Real:
    """The value of a gated unit at finite numbers, or its partial derivative with respect to "u" or "v"."""
    formula = {"": record.formula, "u": record.u_formula, "v": record.v_formula}[partial]
    with mp.workdps(DIGITS):
        return mp.mpf(eval(_code(formula), _names(record, params) | {"u": mp.mpf(u), "v": mp.mpf(v)}))


def slice_values(record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any) -> list[Real]:
    """All elements of the result for one slice of finite numbers and masks; a formula may name `others` too."""
    with mp.workdps(DIGITS):
        names = _names(record, params) | others | {"x": [mp.mpf(v) for v in x]}
        return [mp.mpf(eval(_code(record.formula), names | {"i": i})) for i in range(len(x))]


def slice_jacobian(
    record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any
) -> list[list[Real]]:
    """dy_i/dx_k for all i, k of one slice."""
    every = range(len(x))
    with mp.workdps(DIGITS):
        names = _slice_names(record, x, params, **others) | others
        code = _code(record.derivative_formula)
        return [[mp.mpf(eval(code, names | {"i": i, "k": k})) for k in every] for i in every]


def slice_gradient(
    record: AxisActivation, of: ParameterGradient, x: Sequence[float], params: Sequence[float]
) -> list[Real]:
    """dy_i/dparameter for all i of one slice."""
    with mp.workdps(DIGITS):
        names = _slice_names(record, x, params)
        return [mp.mpf(eval(_code(of.formula), names | {"i": i})) for i in range(len(x))]


def _slice_names(record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any) -> dict[str, Any]:
    results = slice_values(record, x, params, **others)
    return _names(record, params) | {"x": [mp.mpf(v) for v in x], record.name: lambda _, i: results[i]}


def ulp(exact: Real, dtype: Any) -> Real:
    """The unit in the last place of the binade that a number lies in; below the normal ones, the smallest subnormal."""
    information = np.finfo(dtype)
    if exact == 0:
        return mp.mpf(float(information.smallest_subnormal))
    exponent = max(mp.frexp(exact)[1] - 1, int(information.minexp))
    return mp.ldexp(1, exponent - int(information.nmant))


def error_in_ulp(result: float, exact: Real, dtype: Any) -> float:
    """How far a result is from the exact value; overflow to the right infinity counts as no error.

    >>> error_in_ulp(1.0, mp.mpf(1) + mp.mpf(2) ** -53, np.float64)
    0.5
    """
    largest = np.finfo(dtype).max
    with mp.workdps(DIGITS):
        if math.isinf(result):
            limit = mp.mpf(float(largest)) + ulp(mp.mpf(float(largest)), dtype) / 2
            return 0.0 if abs(exact) >= limit and (result > 0) == (exact > 0) else math.inf
        if math.isnan(result) or mp.isinf(exact):
            return math.inf
        return float(abs(mp.mpf(result) - exact) / ulp(exact, dtype))
