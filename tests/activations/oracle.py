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
from actserve_server.activations.catalogue import find
from actserve_server.activations.spec import Activation, AxisActivation, Parameter, Record

Real = Any  # mpmath ships no types

DIGITS = 450
"""Enough that 1 + exp(-745) still knows its second term, and that its difference from 1 has a hundred digits left."""


def _erfc(x: Real) -> Real:
    """erfc, and its limit where mpmath would work for very long on a result that no float64 can tell from it."""
    return mp.erfc(x) if abs(x) < 3000 else mp.mpf(1 - mp.sign(x))


_NAMES: dict[str, Any] = {
    name: getattr(mp, name)
    for name in ("cosh", "erf", "exp", "expm1", "fsum", "log", "log1p", "pi", "sign", "sqrt", "tanh")
}
_NAMES["erfc"] = _erfc


def parameters(record: Record, given: Mapping[str, float | str] | None = None) -> tuple[float, ...]:
    """What a kernel is given: every parameter in order, words as their index."""
    given = given or {}
    return tuple(_number(parameter, given.get(parameter.name, parameter.default)) for parameter in record.parameters)


def _number(parameter: Parameter, value: float | str) -> float:
    return float(parameter.choices.index(str(value))) if parameter.choices else float(value)


def _names(record: Record, values: Sequence[float]) -> dict[str, Any]:
    return _NAMES | {p.name: mp.mpf(value) for p, value in zip(record.parameters, values, strict=True)}


def value(record: Activation, x: float | Real, params: Sequence[float] = (), *, derivative: bool = False) -> Real:
    """f(x), or f'(x), at a finite number."""
    return _value(record.name, record.derivative_formula if derivative else record.formula, x, tuple(params))


@functools.cache
def _value(name: str, formula: str, x: float | Real, params: tuple[float, ...]) -> Real:
    record = find(name)
    assert record is not None
    with mp.workdps(DIGITS):
        return mp.mpf(eval(formula, _names(record, params) | {"x": mp.mpf(x)}))


def slice_values(record: AxisActivation, x: Sequence[float], params: Sequence[float]) -> list[Real]:
    """All elements of the result for one slice of finite numbers and -inf."""
    with mp.workdps(DIGITS):
        code = compile(record.formula, record.name, "eval")
        names = _names(record, params) | {"x": [mp.mpf(v) for v in x]}
        return [mp.mpf(eval(code, names | {"i": i})) for i in range(len(x))]


def slice_jacobian(record: AxisActivation, x: Sequence[float], params: Sequence[float]) -> list[list[Real]]:
    """dy_i/dx_k for all i, k of one slice."""
    with mp.workdps(DIGITS):
        code = compile(record.derivative_formula, record.name, "eval")
        results = slice_values(record, x, params)
        names = _names(record, params) | {"x": [mp.mpf(v) for v in x], record.name: lambda _, i: results[i]}
        return [[mp.mpf(eval(code, names | {"i": i, "k": k})) for k in range(len(x))] for i in range(len(x))]


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
