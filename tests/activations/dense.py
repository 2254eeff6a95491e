"""Kernels of float32 held to those of float64 at many points: more than a reference at high precision could be asked for.

The float64 kernels, which are held to the formulas elsewhere, are exact beside a unit of float32. Some millions of points find the rare
ones where all roundings add up. Used by tests and by `make accuracy`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import bounds
import numpy as np
from actserve_server.activations.spec import Activation
from actserve_server.modes.evaluate import fits_single

Array = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class Scan:
    """The largest error found in a form, where it was, and what is beyond its bound."""

    form: bounds.Form
    ulp: float
    at: float
    failures: tuple[str, ...]


def _points(count: int) -> Array:
    generator = np.random.default_rng(12)
    bits = generator.integers(0, 2**32, count, np.uint64).astype(np.uint32).view(np.float32)
    near = [generator.uniform(-size, size, count).astype(np.float32) for size in (1, 8, 110)]
    return np.concatenate([*near, bits[np.isfinite(bits)]])


def _apart(record: Activation, operation: str, roots: Array, x: Array) -> Array:
    """Which elements lie where relative accuracy is asked for. Of what has zeros without end that is not known far out."""
    endless = math.isnan(record.limits[1 if operation == "forward" else 3])
    known = (np.abs(x) < 60) | (not endless)
    if not roots.size:
        return known
    ordered = np.sort(roots)
    after = np.searchsorted(ordered, x)
    distances = [np.abs(x - ordered[np.clip(after - step, 0, roots.size - 1)]) for step in (0, 1)]
    return known & (np.minimum(*distances) >= bounds.NEAR_ZERO)


def scans(record: Activation, operation: str, params: tuple[float, ...], count: int) -> Iterator[Scan]:
    """The exact kernel of float32 and, where it answers, the fast one at about 4 `count` points."""
    x = _points(count)
    x = x[_apart(record, operation, bounds.zeros(record, operation, params), x)]
    exact = bounds.run(record, operation, bounds.FORMS[2], x.astype(np.float64), params)
    with np.errstate(divide="ignore"):
        unit = np.maximum(2.0 ** (np.floor(np.log2(np.abs(exact))) - 23), 2.0**-149)
    for form in bounds.FORMS[:2]:
        if form.name == "fast" and not all(map(fits_single, params)):
            continue  # then the exact kernel answers
        results = bounds.run(record, operation, form, x, params)
        with np.errstate(over="ignore"):
            agreed = np.isinf(results) & (results == exact.astype(np.float32)) | np.isnan(results) & np.isnan(exact)
        with np.errstate(invalid="ignore"):
            errors = np.where(agreed, 0.0, np.abs(results - exact) / unit)
        limit = bounds.budget(record, operation, form)
        if form.name == "fast":
            limit = bounds.FAST_ULP_BEYOND.get((record.name, operation), limit)
        normal = np.abs(exact) >= np.finfo(np.float32).tiny
        failures = np.flatnonzero(~(errors <= np.where(normal, limit, max(limit, 1.0))))
        most = int(np.argmax(np.where(normal & ~np.isnan(errors), errors, 0.0)))
        yield Scan(
            form,
            float(errors[most]) if normal[most] else 0.0,
            float(x[most]),
            tuple(
                f"{form.name} at {x[k]!r}: {results[k]!r}, in float64 {exact[k]!r}, {errors[k]:.3g} units"
                for k in failures[np.argsort(-errors[failures])]
            ),
        )
