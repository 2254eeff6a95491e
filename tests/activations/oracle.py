"""What a record's formulas say at high precision: the reference that kernels are held to.

A formula is evaluated by mpmath, where the naive form is exact enough: whatever it cancels is smaller than the digits
carried. It shares no code with the kernels, and knows nothing of how they are compiled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
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


@functools.cache
def _entmax_threshold(x: tuple[Real, ...], alpha: Real) -> Real:
    """tau, where the sum of max((alpha - 1) x - tau, 0)^(1/(alpha - 1)) is 1: exactly at 2 and 3/2."""
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
    with mp.workdps(240):
        top = h[0]
        below = [v - top for v in h]
        low, high = mp.mpf(-1), mp.mpf(0)
        # An element may lie as close to tau as its probability to the power of alpha - 1.
        for _ in range(700):
            if high - low < 1e-60 * min(v - low for v in below if v > low):
                break
            middle = (low + high) / 2
            over = mp.fsum((v - middle) ** (1 / (alpha - 1)) for v in below if v > middle) > 1
            low, high = (middle, high) if over else (low, middle)
    return top + low


_THRESHOLDS = {
    "sparsemax_threshold": lambda x: _entmax_threshold(tuple(x), mp.mpf(2)),
    "entmax_threshold": lambda x, alpha: _entmax_threshold(tuple(x), mp.mpf(alpha)),
}
"""What formulas of sparse maps may name beside the functions."""


def gate(record: GatedActivation, u: float, v: float, params: Sequence[float], *, partial: str = "") -> Real:
    """The value of a gated unit at finite numbers, or its partial derivative with respect to "u" or "v"."""
    formula = {"": record.formula, "u": record.u_formula, "v": record.v_formula}[partial]
    with mp.workdps(DIGITS):
        return mp.mpf(eval(compiled(formula), names(record, params) | {"u": mp.mpf(u), "v": mp.mpf(v)}))


def slice_values(record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any) -> list[Real]:
    """All elements of the result for one slice of finite numbers and masks; a formula may name `others`, lists of numbers, too.

    There is no noise unless they bring it.
    """
    return list(_values(record, tuple(x), tuple(params), _lists(others)))


def slice_jacobian(
    record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any
) -> list[list[Real]]:
    """dy_i/dx_k for all i, k of one slice."""
    return [list(row) for row in _jacobian(record, tuple(x), tuple(params), _lists(others))]


Lists = tuple[tuple[str, tuple[Real, ...]], ...]


def _lists(others: Mapping[str, Sequence[Real]]) -> Lists:
    return tuple((name, tuple(values)) for name, values in others.items())


@functools.lru_cache(4096)
def _values(record: AxisActivation, x: tuple[float, ...], params: tuple[float, ...], others: Lists) -> tuple[Real, ...]:
    """Remembered, as several tests ask for the same slices'."""
    with mp.workdps(DIGITS):
        known = names(record, params) | _of_slices(x) | dict(others) | {"x": [mp.mpf(v) for v in x]}
        return tuple(mp.mpf(eval(compiled(record.formula), known | {"i": i})) for i in range(len(x)))


@functools.lru_cache(4096)
def _jacobian(
    record: AxisActivation, x: tuple[float, ...], params: tuple[float, ...], others: Lists
) -> tuple[tuple[Real, ...], ...]:
    every = range(len(x))
    with mp.workdps(DIGITS):
        known = _slice_names(record, x, params, **dict(others)) | dict(others)
        code = compiled(record.derivative_formula)
        return tuple(tuple(mp.mpf(eval(code, known | {"i": i, "k": k})) for k in every) for i in every)


def slice_gradient(
    record: AxisActivation, of: ParameterGradient, x: Sequence[float], params: Sequence[float]
) -> list[Real]:
    """dy_i/dparameter for all i of one slice."""
    with mp.workdps(DIGITS):
        known = _slice_names(record, x, params)
        return [mp.mpf(eval(compiled(of.formula), known | {"i": i})) for i in range(len(x))]


def _of_slices(x: Sequence[float]) -> dict[str, Any]:
    """What formulas of slices may name beside all others."""
    return {**_THRESHOLDS, "noise": [0] * len(x)}


def _slice_names(record: AxisActivation, x: Sequence[float], params: Sequence[float], **others: Any) -> dict[str, Any]:
    results = slice_values(record, x, params, **others)
    return names(record, params) | _of_slices(x) | {"x": [mp.mpf(v) for v in x], record.name: lambda _, i: results[i]}


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
