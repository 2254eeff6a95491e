"""What a record's formulas say at high precision: the reference that kernels are held to.

A formula is evaluated by mpmath, where the naive form is exact enough: whatever it cancels is smaller than the digits
carried. It shares no code with the kernels, and knows nothing of how they are compiled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import mpmath as mp
from actserve_server.activations.formula import DIGITS, Real, compiled, gradient, names, parameters, value
from actserve_server.activations.spec import AxisActivation, GatedActivation, ParameterGradient

__all__ = [
    "DIGITS",
    "error_in_ulp",
    "gate",
    "gradient",
    "parameters",
    "slice_gradient",
    "slice_jacobian",
    "slice_values",
    "ulp",
    "value",
]


def gate(record: GatedActivation, u: float, v: float, params: Sequence[float], *, partial: str = "") -> Real:
    """The value of a gated unit at finite numbers, or its partial derivative with respect to "u" or "v"."""
    formula = {"": record.formula, "u": record.u_formula, "v": record.v_formula}[partial]
    with mp.workdps(DIGITS):
        return mp.mpf(eval(compiled(formula), names(record, params) | {"u": mp.mpf(u), "v": mp.mpf(v)}))


def slice_values(record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any) -> list[Real]:
    """All elements of the result for one slice of finite numbers and masks; a formula may name `others` too.

    There is no noise unless they bring it.
    """
    with mp.workdps(DIGITS):
        known = names(record, params) | _silence(x) | others | {"x": [mp.mpf(v) for v in x]}
        return [mp.mpf(eval(compiled(record.formula), known | {"i": i})) for i in range(len(x))]


def slice_jacobian(
    record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any
) -> list[list[Real]]:
    """dy_i/dx_k for all i, k of one slice."""
    every = range(len(x))
    with mp.workdps(DIGITS):
        known = _slice_names(record, x, params, **others) | _silence(x) | others
        code = compiled(record.derivative_formula)
        return [[mp.mpf(eval(code, known | {"i": i, "k": k})) for k in every] for i in every]


def slice_gradient(
    record: AxisActivation, of: ParameterGradient, x: Sequence[float], params: Sequence[float]
) -> list[Real]:
    """dy_i/dparameter for all i of one slice."""
    with mp.workdps(DIGITS):
        known = _slice_names(record, x, params)
        return [mp.mpf(eval(compiled(of.formula), known | {"i": i})) for i in range(len(x))]


def _silence(x: Sequence[float]) -> dict[str, Any]:
    return {"noise": [0] * len(x)}


def _slice_names(record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any) -> dict[str, Any]:
    results = slice_values(record, x, params, **others)
    return names(record, params) | {"x": [mp.mpf(v) for v in x], record.name: lambda _, i: results[i]}


def ulp(exact: Real, dtype: Any) -> Real:
    """The unit in the last place of the binade that a number lies in; below the normal ones, the smallest subnormal."""
    information = ml_dtypes.finfo(dtype)
    if exact == 0:
        return mp.mpf(float(information.smallest_subnormal))
    exponent = max(mp.frexp(exact)[1] - 1, int(information.minexp))
    return mp.ldexp(1, exponent - int(information.nmant))


def error_in_ulp(result: float, exact: Real, dtype: Any) -> float:
    """How far a result is from the exact value; overflow to the right infinity counts as no error.

    >>> error_in_ulp(1.0, mp.mpf(1) + mp.mpf(2) ** -53, np.float64)
    0.5
    """
    largest = ml_dtypes.finfo(dtype).max
    with mp.workdps(DIGITS):
        if math.isinf(result):
            limit = mp.mpf(float(largest)) + ulp(mp.mpf(float(largest)), dtype) / 2
            return 0.0 if abs(exact) >= limit and (result > 0) == (exact > 0) else math.inf
        if math.isnan(result) or mp.isinf(exact):
            return math.inf
        return float(abs(mp.mpf(result) - exact) / ulp(exact, dtype))
