"""Holds functions whose results come in two parts to mpmath, within the bits that they promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath as mp
import numba
import numpy as np
import pytest
from actserve_server import elementary
from actserve_server.elementary.doubled import exp_pair, log_pair
from actserve_server.elementary.powers import fast_log_in_parts, narrow_log_in_parts, wide_log_in_parts
from actserve_server.kernels import build
from actserve_server.kernels.binding import Bindings

Array = np.ndarray[Any, Any]

assert build.Unit  # imported before anything is compiled: it says for which processor

BINDINGS = {
    np.float64: Bindings(elementary.WIDE),
    np.float32: Bindings(elementary.FAST, np.float32),
}


def errors(
    function: Any, exact: Callable[[Any], Any], hi: Array, lo: Array, *, absolute: float = 0.0, scalar: Any = np.float64
) -> float:
    """The greatest relative error in bits, of what is not within `absolute`."""
    kernel = BINDINGS[scalar].inline(function)

    def loop(out, rest, a, b):  # type: ignore[no-untyped-def]
        for p in range(out.size):
            out[p], rest[p] = kernel(a[p], b[p])

    out, rest = np.empty_like(hi), np.empty_like(hi)
    numba.njit(error_model="numpy")(loop)(out, rest, hi, lo)
    worst = mp.mpf(2) ** -200
    with mp.workdps(80):
        for a, b, result, more in zip(*(v.tolist() for v in (hi, lo, out, rest)), strict=True):
            true = exact(mp.mpf(a) + mp.mpf(b))
            error = abs(mp.mpf(result) + mp.mpf(more) - true)
            assert mp.isfinite(error)
            if error > absolute:
                worst = max(worst, error / abs(true))
        return float(mp.log(worst, 2))


def with_rests(hi: Array) -> tuple[Array, Array]:
    generator = np.random.default_rng(1)
    half = np.finfo(hi.dtype).eps / 2
    return hi, (np.spacing(hi) * generator.uniform(-0.5, 0.5, hi.size) * (1 - half)).astype(hi.dtype)


def positive(dtype: Any = np.float64) -> Array:
    generator = np.random.default_rng(2)
    lowest = np.log2(np.finfo(dtype).tiny) * 0.95
    near_one = 2.0 ** generator.uniform(-30, -1, 400)
    spread = 2.0 ** generator.uniform(lowest, 3, 400)
    return np.concatenate([generator.uniform(0, 2, 400), spread, 1 - near_one, 1 + near_one]).astype(dtype)


def test_logarithms_have_ninety_bits() -> None:
    assert errors(log_pair, mp.log, *with_rests(positive()), absolute=2.0**-105) < -91
    assert errors(log_pair, mp.log, *(positive(), np.zeros(1600)), absolute=2.0**-105) < -91


def test_exponentials_have_ninety_bits() -> None:
    generator = np.random.default_rng(3)
    exponents = np.concatenate([generator.uniform(-1, 1, 400), generator.uniform(-650, 690, 400), [0.0]])
    assert errors(exp_pair, mp.exp, *with_rests(exponents)) < -91


@pytest.mark.parametrize(
    ("function", "scalar", "bits"),
    [
        (wide_log_in_parts, np.float64, -62),
        (narrow_log_in_parts, np.float64, -51),
        (fast_log_in_parts, np.float32, -33),
    ],
)
def test_logarithms_in_parts(function: Any, scalar: Any, bits: int) -> None:
    hi = positive(scalar)
    lo = np.zeros_like(hi) if function is narrow_log_in_parts else with_rests(hi)[1]
    eps = float(np.finfo(scalar).eps)
    assert errors(function, mp.log, hi, lo, absolute=eps * eps, scalar=scalar) < bits
