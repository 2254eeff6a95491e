"""Every elementwise record's kernels against its formulas at high precision, and the formulas against each other."""

from __future__ import annotations

import math
from typing import Any

import mpmath as mp
import numpy as np
import oracle
import pytest
from actserve_server.activations.catalogue import CATALOGUE
from actserve_server.activations.spec import Activation
from actserve_server.kernels.compiler import load

ELEMENTWISE = [record for record in CATALOGUE if isinstance(record, Activation)]
DTYPES = [np.float32, np.float64]

OTHER_PARAMETERS: dict[str, list[dict[str, float]]] = {
    "leaky_relu": [{"negative_slope": 0.3}, {"negative_slope": 0.0}, {"negative_slope": -2.0}],
    "elu": [{"alpha": 0.3}, {"alpha": 1e10}, {"alpha": 1e300}],
    "softplus": [{"beta": 0.5}, {"beta": -1.7}, {"beta": 1e-3}, {"beta": 3.1, "threshold": 20.0}],
    "silu": [{"beta": 1.7}, {"beta": -0.3}, {"beta": 1e-297}, {"beta": 0.0}],
}
CASES = [
    pytest.param(record, given, id="-".join([record.name, *(f"{k}={v:g}" for k, v in given.items())]))
    for record in ELEMENTWISE
    for given in [{}, *OTHER_PARAMETERS.get(record.name, [])]
]

FORWARD_ULP = {"sigmoid": 2.0, "softplus": 2.0, "tanh": 2.0, "elu": 2.0, "silu": 4.0, "gelu": 4.0}
"""What is promised of float64 results; straight lines are within one rounding."""
DERIVATIVE_ULP = 6.0


def budget(record: Activation, dtype: Any, operation: str) -> float:
    if dtype is np.float32:
        return 0.501
    return DERIVATIVE_ULP if operation == "derivative" else FORWARD_ULP.get(record.name, 0.501)


def points(record: Activation, params: tuple[float, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Where errors hide: both tails, kinks, zeros of f', subnormal results, the overflow edge, every binade."""
    generator = np.random.default_rng(20)
    information = np.finfo(dtype)
    edge = -math.log(float(information.smallest_subnormal))
    scale = 1.0
    for parameter, value in zip(record.parameters, params, strict=True):
        if parameter.name == "beta" and value != 0:
            scale = 1 / value
    bulk = [generator.uniform(-width, width, 30) for width in (1.0, 6.0, 40.0, edge + 10)]
    near = [
        root + generator.standard_normal(20) * 10 ** generator.uniform(-16, -1, 20)
        for root in (-1.27846454, -0.75179152)
    ]
    tails = [side * (edge - generator.uniform(0, 40, 20)) for side in (-1, 1)]
    normal_tail = -math.sqrt(2 * edge) + generator.uniform(-0.5, 2, 20)
    binades = 2.0 ** generator.uniform(information.minexp - information.nmant, information.maxexp - 1, 40)
    scaled = np.concatenate([*bulk, *near, *tails, normal_tail]) * scale
    smallest = information.smallest_subnormal
    with np.errstate(over="ignore"):
        x = np.concatenate(
            [scaled, binades, -binades, [0.0, smallest, -smallest, information.max, -information.max]]
        ).astype(dtype)
    beyond = np.array([-720.0, -760.0, -1300.0], dtype)
    return np.concatenate([x[np.isfinite(x)], beyond])


def run(record: Activation, operation: str, x: np.ndarray[Any, Any], params: tuple[float, ...]) -> np.ndarray[Any, Any]:
    out = np.empty_like(x)
    load(record, operation, x.dtype)(x, out, params)
    return out


@pytest.mark.parametrize("operation", ["forward", "derivative"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("record", "given"), CASES)
def test_kernel_is_the_formula(record: Activation, given: dict[str, float], dtype: Any, operation: str) -> None:
    params = oracle.parameters(record, given)
    x = points(record, params, dtype)
    results = run(record, operation, x, params)
    limit = budget(record, dtype, operation)
    for argument, result in zip(x, results, strict=True):
        exact = oracle.value(record, float(argument), params, derivative=operation == "derivative")
        subnormal = abs(exact) < float(np.finfo(dtype).tiny)
        error = oracle.error_in_ulp(float(result), exact, dtype)
        assert error <= (1.0 if subnormal else limit), f"at {argument!r}: {result!r}, exactly {mp.nstr(exact, 20)}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("record", "given"), CASES)
def test_vjp_is_the_derivative_times_upstream(record: Activation, given: dict[str, float], dtype: Any) -> None:
    params = oracle.parameters(record, given)
    x = points(record, params, dtype)
    upstream = np.random.default_rng(4).standard_normal(x.size).astype(dtype)
    out = np.empty_like(x)
    load(record, "vjp", dtype)(x, upstream, out, params)
    for argument, factor, result in zip(x, upstream, out, strict=True):
        exact = oracle.value(record, float(argument), params, derivative=True) * mp.mpf(float(factor))
        subnormal = abs(exact) < float(np.finfo(dtype).tiny)
        wide_limit = budget(record, dtype, "derivative") + 0.5
        slack = 2.0 + abs(float(factor)) if subnormal else wide_limit if dtype is np.float64 else 0.501
        assert oracle.error_in_ulp(float(result), exact, dtype) <= slack, f"at {argument!r} with {factor!r}"


@pytest.mark.parametrize(("record", "given"), CASES)
def test_derivative_formula_is_the_derivative(record: Activation, given: dict[str, float]) -> None:
    params = oracle.parameters(record, given)
    for x in (-17.3, -4.1, -1.1, -0.2, 0.3, 0.9, 2.7, 6.1, 30.5):
        with mp.workdps(oracle.DIGITS):
            step = mp.mpf(10) ** -60
            rise = oracle.value(record, mp.mpf(x) + step, params) - oracle.value(record, mp.mpf(x) - step, params)
            slope = oracle.value(record, x, params, derivative=True)
            assert abs(rise / (2 * step) - slope) <= mp.mpf(10) ** -80 * max(1, abs(slope)), x


LIMITS = {
    "identity": (-math.inf, math.inf, 1.0, 1.0),
    "relu": (0.0, math.inf, 0.0, 1.0),
    "leaky_relu": (-math.inf, math.inf, 0.01, 1.0),
    "elu": (-1.0, math.inf, 0.0, 1.0),
    "softplus": (0.0, math.inf, 0.0, 1.0),
    "sigmoid": (0.0, 1.0, 0.0, 0.0),
    "tanh": (-1.0, 1.0, 0.0, 0.0),
    "silu": (-0.0, math.inf, 0.0, 1.0),
    "gelu": (-0.0, math.inf, 0.0, 1.0),
}
"""f(-inf), f(inf), f'(-inf), f'(inf)."""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("record", ELEMENTWISE, ids=lambda record: record.name)
def test_infinities_give_the_limits(record: Activation, dtype: Any) -> None:
    x = np.array([-math.inf, math.inf], dtype)
    params = oracle.parameters(record)
    expected = np.array(LIMITS[record.name], dtype)
    forward = run(record, "forward", x, params)
    np.testing.assert_array_equal(forward, expected[:2])
    np.testing.assert_array_equal(np.signbit(forward), np.signbit(expected[:2]))
    np.testing.assert_array_equal(run(record, "derivative", x, params), expected[2:])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "given", "forward", "derivative"),
    [
        ("leaky_relu", {"negative_slope": 0.0}, (0.0, math.inf), (0.0, 1.0)),
        ("elu", {"alpha": 0.0}, (0.0, math.inf), (0.0, 1.0)),
        ("softplus", {"beta": -1.0}, (-math.inf, 0.0), (1.0, 0.0)),
        ("softplus", {"threshold": 20.0}, (0.0, math.inf), (0.0, 1.0)),
        ("silu", {"beta": -1.0}, (-math.inf, 0.0), (1.0, 0.0)),
        ("silu", {"beta": 0.0}, (-math.inf, math.inf), (0.5, 0.5)),
    ],
)
def test_infinities_with_parameters(
    name: str, given: dict[str, float], forward: Any, derivative: Any, dtype: Any
) -> None:
    (record,) = (record for record in ELEMENTWISE if record.name == name)
    x = np.array([-math.inf, math.inf], dtype)
    params = oracle.parameters(record, given)
    np.testing.assert_array_equal(run(record, "forward", x, params), np.array(forward, dtype))
    np.testing.assert_array_equal(run(record, "derivative", x, params), np.array(derivative, dtype))


@pytest.mark.parametrize("operation", ["forward", "derivative"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("record", ELEMENTWISE, ids=lambda record: record.name)
def test_nan_stays_nan_and_alone(record: Activation, dtype: Any, operation: str) -> None:
    x = np.full(37, 0.5, dtype)
    x[::5] = math.nan
    results = run(record, operation, x, oracle.parameters(record))
    np.testing.assert_array_equal(np.isnan(results), np.isnan(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("record", ELEMENTWISE, ids=lambda record: record.name)
def test_signed_zeros(record: Activation, dtype: Any) -> None:
    results = run(record, "forward", np.array([0.0, -0.0], dtype), oracle.parameters(record))
    if results[0] == 0:
        keeps_sign = record.name != "relu"
        np.testing.assert_array_equal(np.signbit(results), [False, keeps_sign])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("record", "given"), CASES)
def test_a_piece_has_the_bits_of_the_whole(record: Activation, given: dict[str, float], dtype: Any) -> None:
    params = oracle.parameters(record, given)
    x = points(record, params, dtype)
    whole = run(record, "derivative", x, params)
    pieces = [run(record, "derivative", piece, params) for piece in np.array_split(x, 41)]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
