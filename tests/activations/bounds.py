"""Where an elementwise kernel is held to its formula, and by how much it may miss. Used by tests and by `make accuracy`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import mpmath as mp
import numpy as np
import oracle
from actserve_server.activations.spec import Activation
from actserve_server.elementary import FAST, NARROW, WIDE
from actserve_server.kernels.compiler import load

Array = np.ndarray[Any, Any]

DERIVATIVE_ULP = 6.0
FLOAT32_ULP = 0.501
FAST_ULP = 4.0
FAST_ULP_BEYOND = {
    ("acon_c", "forward"): 4.8,
    ("acon_c", "derivative"): 5.2,
    ("e_swish", "derivative"): 5.0,
    ("elish", "derivative"): 5.0,
    ("gelu", "forward"): 4.4,
    ("laplace", "forward"): 4.8,
    ("phish", "forward"): 5.6,
    ("phish", "derivative"): 5.2,
    ("serf", "derivative"): 5.6,
    ("smish", "derivative"): 4.2,
    ("tanh_exp", "derivative"): 5.6,
    ("xielu", "forward"): 5.6,
    ("xielu", "derivative"): 5.5,
}
"""Fast kernels whose roundings add up to more than four units at one point in some ten thousand or in millions, as dense scans find them."""
NEAR_ZERO = 0.25
"""Within this distance of an isolated zero an absolute bound may be met instead: there ULP mean nothing."""
FLOAT64_NEAR_ZERO = 2.0**-50
FLOAT32_NEAR_ZERO = 2.0**-45
FAST_NEAR_ZERO = 2.0**-21

LIMITS = sorted({precision[name] for precision in (WIDE, NARROW, FAST) for name in ("TRIG_LIMIT", "EXP_LIMIT")})
"""Up to where quick kernels reach, or where others take another way, but for a small factor."""


@dataclasses.dataclass(frozen=True)
class Form:
    """A data type and an accuracy."""

    name: str
    dtype: np.dtype[Any]
    accuracy: str


FORMS = (
    Form("float32", np.dtype(np.float32), "exact"),
    Form("fast", np.dtype(np.float32), "fast"),
    Form("float64", np.dtype(np.float64), "exact"),
)


def run(record: Activation, operation: str, form: Form, x: Array, params: tuple[float, ...]) -> Array:
    """A kernel's results."""
    out = np.empty_like(x)
    load(record, operation, x.dtype, form.accuracy)(x, out, params)
    return out


def budget(record: Activation, operation: str, form: Form) -> float:
    """The error allowed, in units in the last place."""
    if form.name == "fast":
        return FAST_ULP
    if form.name == "float32":
        return FLOAT32_ULP
    return DERIVATIVE_ULP if operation == "derivative" else record.ulp


def absolute(form: Form, exact: Any) -> float:
    """The absolute error allowed near a zero."""
    if form.name == "float64":
        return FLOAT64_NEAR_ZERO
    slack = FAST_NEAR_ZERO if form.name == "fast" else FLOAT32_NEAR_ZERO
    return float(oracle.ulp(exact, form.dtype)) / 2 + slack


def zeros(record: Activation, operation: str, params: tuple[float, ...]) -> Array:
    """The isolated zeros within +-60 that lie away from the origin, where relative accuracy is asked for all the same."""
    grid = np.linspace(-60, 60, 7681) + 1 / 512
    values = run(record, operation, FORMS[2], grid, params)
    with np.errstate(invalid="ignore", over="ignore"):
        places = np.flatnonzero(values[:-1] * values[1:] < 0)
    found = [
        _bisect(lambda x: run(record, operation, FORMS[2], np.array([x]), params)[0], grid[k], grid[k + 1])
        for k in places
    ]
    return np.array([x for x in found if abs(x) > 1e-6])


def _bisect(f: Callable[[float], float], low: float, high: float) -> float:
    sign = math.copysign(1.0, f(low))
    for _ in range(60):
        middle = (low + high) / 2
        if math.copysign(1.0, f(middle)) == sign:
            low = middle
        else:
            high = middle
    return low


def points(record: Activation, operation: str, params: tuple[float, ...], count: int) -> tuple[Array, Array]:
    """float32 and more float64 arguments: both tails, kinks, zeros, subnormal results, the overflow edge, every binade."""
    generator = np.random.default_rng(20)
    corners = [*record.kinks, *params, *(-p for p in params), *(1 / p for p in params if p), 0.0, 1.0, -1.0, 3.0, -3.0]
    corners = [c for c in corners if math.isfinite(c) and abs(c) < 1e30]
    scales = [1.0, *(1 / abs(p) for p in params if p and math.isfinite(p) and 1e-6 < abs(p) < 1e6)]
    both = []
    for dtype in (np.float32, np.float64):
        information = np.finfo(dtype)
        edge = -math.log(float(information.smallest_subnormal))
        scale = generator.choice(scales, count)
        picked = [
            generator.uniform(-1, 1, count),
            generator.uniform(-6, 6, count) * scale,
            generator.uniform(-40, 40, count // 2) * scale[: count // 2],
            (generator.choice([-1, 1], count) * (edge - generator.uniform(0, 40, count))) * scale,
            (generator.choice([-1, 1], count) * (edge - generator.uniform(0, 30, count)) / 2)[: count // 3],
            -math.sqrt(2 * edge) + generator.uniform(-0.5, 2, count // 2),
            generator.choice([-1, 1], count)
            * 2.0 ** generator.uniform(information.minexp - information.nmant, information.maxexp - 1, count),
            generator.choice([-1, 1], count) * 2.0 ** generator.uniform(-30, 12, count),
            generator.uniform(-1.5, 1.5, count) * generator.choice(LIMITS, count) * scale,
            np.array(corners),
            generator.choice(corners, count // 2)
            * (1 + generator.choice([-1, 1], count // 2) * 10 ** generator.uniform(-15, -1, count // 2)),
        ]
        roots = zeros(record, operation, params)
        if roots.size:
            near = generator.choice(roots, count // 2)
            picked.append(near + generator.choice([-1, 1], near.size) * 10 ** generator.uniform(-16, -0.6, near.size))
            # Around zeros sums cancel: most of all where an absolute bound no longer will do.
            picked.append(near + generator.choice([-1, 1], near.size) * generator.uniform(NEAR_ZERO, 1.25, near.size))
        smallest = float(information.smallest_subnormal)
        picked.append(np.array([0.0, smallest, -smallest, float(information.max), -float(information.max)]))
        picked.append(np.array([-720.0, -760.0, -1300.0, 710.0, -88.5, -104.0, 88.8]))
        with np.errstate(over="ignore"):
            x = np.concatenate(picked).astype(dtype)
        both.append(x[np.isfinite(x)])
    return both[0], both[1]


@dataclasses.dataclass(frozen=True)
class Worst:
    """The largest error found, where it was, and whether all were within bounds."""

    ulp: float
    at: float
    failures: tuple[str, ...]


def worst(
    record: Activation, operation: str, form: Form, x: Sequence[Any] | Array, params: tuple[float, ...], roots: Array
) -> Worst:
    """Hold a kernel to its formula."""
    arguments = np.asarray(x, form.dtype)
    results = run(record, operation, form, arguments, params)
    limit, tiny = budget(record, operation, form), float(np.finfo(form.dtype).tiny)
    most, at, failures = 0.0, 0.0, []
    for argument, result in zip(arguments.tolist(), results.tolist(), strict=True):
        exact = oracle.value(record, argument, params, derivative=operation == "derivative")
        error = oracle.error_in_ulp(result, exact, form.dtype)
        subnormal = abs(exact) < tiny
        near = roots.size and np.min(np.abs(roots - argument)) < NEAR_ZERO
        if near and math.isfinite(result) and abs(mp.mpf(result) - exact) <= absolute(form, exact):
            continue
        if not subnormal and error > most:
            most, at = error, argument
        if not error <= (max(limit, 1.0) if subnormal else limit):
            failures.append(
                f"{record.name} {operation} {form.name} at {argument!r}: {result!r}, exactly {mp.nstr(exact, 20)}, {error:.3g} ULP"
            )
    return Worst(most, at, tuple(failures))
