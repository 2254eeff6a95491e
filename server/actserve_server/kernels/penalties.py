"""The loops of regularizers: terms and slopes, in float64, element by element, slice by slice, and between vectors.

What is summed is summed elsewhere, exactly; each value here depends on its element, its slice or its pair of vectors alone,
and is computed in one order. This module knows neither states nor what is done with the values.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np

from actserve_server.elementary.bits import fma, sqrt
from actserve_server.elementary.source import kernel
from actserve_server.elementary.wide import wide_compensated
from actserve_server.kernels.build import Unit
from actserve_server.kernels.forms import Form
from actserve_server.regularizers.catalogue import BY_NAME, REGULARIZERS
from actserve_server.regularizers.spec import Pointwise, Record, Slicewise

__all__ = ["cosines", "norms", "penalty_unit", "penalty_units", "products", "record_parts"]

Function = Callable[..., Any]

_DOUBLE = np.dtype(np.float64)


def _each(form: Form, function: Function) -> Function:
    store = form.store

    def each(x, out, params):  # type: ignore[no-untyped-def]
        if x.size != out.size:
            raise ValueError("out must have as many elements as x")
        for p in range(out.size):
            out[p] = store(x[p], function(x[p], *params))

    return each


def _slice_terms(form: Form, term: Function) -> Function:
    def slice_terms(x, out, params):  # type: ignore[no-untyped-def]
        outer, _, inner = x.shape
        if out.size != outer * inner:
            raise ValueError("out must have an element for each slice")
        for o in range(outer):
            for j in range(inner):
                out[o * inner + j] = term(x[o], j, *params)

    return slice_terms


def _slice_slopes(form: Form, slope: Function) -> Function:
    def slice_slopes(x, out, params):  # type: ignore[no-untyped-def]
        outer, _, inner = x.shape
        if out.shape != x.shape:
            raise ValueError("out must have the shape of x")
        for o in range(outer):
            for j in range(inner):
                slope(x[o], j, out[o], *params)

    return slice_slopes


@kernel
def products(x, i, out):  # type: ignore[no-untyped-def]
    """out[0, j] = column i . column j for j < i of x[m, n], as if it were rounded once unless much cancels.

    All the products of a row at a time: each sum has its order, and they are in step, so that the loop vectorizes.
    """
    for j in range(i):
        out[0, j] = 0.0
        out[1, j] = 0.0
    for k in range(x.shape[0]):
        v = x[k, i]
        for j in range(i):
            product = v * x[k, j]
            total, rest = wide_compensated(out[0, j], out[1, j], product)
            out[0, j] = total
            out[1, j] = rest + fma(v, x[k, j], -product)
    for j in range(i):
        out[0, j] += out[1, j]


@kernel
def norms(x, out):  # type: ignore[no-untyped-def]
    """out[0, i] is the norm of row i of x[n, m]."""
    for i in range(x.shape[0]):
        largest = 0.0
        for k in range(x.shape[1]):
            v = abs(x[i, k])
            largest = v if v != v or v > largest else largest
        total = 0.0
        rest = 0.0
        if largest != 0.0:
            for k in range(x.shape[1]):
                q = x[i, k] / largest
                square = q * q
                total, rest = wide_compensated(total, rest, square)
                rest = rest + fma(q, q, -square)
        out[0, i] = largest * sqrt(total + rest)


@kernel
def cosines(signs, x, out):  # type: ignore[no-untyped-def]
    """out[i] = sum over j of signs[i, j] x[j], for rows of x[n, m]."""
    for i in range(out.shape[0]):
        for k in range(x.shape[1]):
            out[i, k] = 0.0
        for j in range(x.shape[0]):
            sign = signs[i, j]
            if sign != 0.0:
                for k in range(x.shape[1]):
                    out[i, k] += sign * x[j, k]


_VECTORS: dict[str, tuple[Function, tuple[str, ...]]] = {
    "products": (products, ("columns", "index", "table")),
    "norms": (norms, ("columns", "table")),
    "cosines": (cosines, ("columns", "columns", "table")),
}


def record_parts(record: Record) -> tuple[str, ...]:
    """The loops that a regularizer has of its own."""
    if isinstance(record, Slicewise):
        return ("term", "slope")
    if isinstance(record, Pointwise):
        return ("slope",) if record.term is None else ("term", "slope")
    return ()


def penalty_unit(name: str, part: str) -> Unit:
    """What to compile for a part of a regularizer, "term" or "slope", or for a loop between vectors under the name "".

    ==================  =====================================================================
    term, pointwise     (a, out, params), one-dimensional; slope: the same with coefficients
    term, slicewise     (x[outer, n, inner], out[outer * inner], params)
    slope, slicewise    (x[outer, n, inner], out of the same shape, params)
    ==================  =====================================================================
    """
    if not name:
        function, arguments = _VECTORS[part]
        return Unit(f"penalty-{part}", None, (cast(types.FunctionType, function),), arguments, _DOUBLE)
    record = BY_NAME[name]
    label = f"penalty-{name}-{part}"
    if isinstance(record, Pointwise):
        chosen = record.term if part == "term" else record.slope
        width = record.slope_width if part == "slope" else len(record.parameters)
        return Unit(label, _each, (cast(types.FunctionType, chosen),), ("input", "output", "params"), _DOUBLE, width)
    assert isinstance(record, Slicewise)
    chosen = record.term if part == "term" else record.slope
    loop, out = (_slice_terms, "output") if part == "term" else (_slice_slopes, "result_block")
    width = sum(parameter.kind != "axis" for parameter in record.parameters)
    return Unit(label, loop, (cast(types.FunctionType, chosen),), ("block", out, "params"), _DOUBLE, width)


def penalty_units() -> Iterator[tuple[tuple[str, ...], Unit]]:
    """All there are, under the keys by which they are loaded."""
    names = [(record.name, part) for record in REGULARIZERS for part in record_parts(record)]
    for name, part in [*names, *(("", part) for part in _VECTORS)]:
        yield ("penalty", name, part), penalty_unit(name, part)
