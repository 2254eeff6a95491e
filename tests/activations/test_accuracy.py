"""Every elementwise record's kernels against its formulas at high precision, and the formulas against each other."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from typing import Any

import bounds
import hypothesis
import hypothesis.extra.numpy as npst
import hypothesis.strategies as st
import mpmath as mp
import numpy as np
import oracle
import pytest
from actserve_client import Client
from actserve_server.activations.catalogue import CATALOGUE, find
from actserve_server.activations.spec import Activation, Value
from actserve_server.kernels.compiler import load
from actserve_server.kernels.forms import SIXTEEN_BITS
from actserve_server.modes.evaluate import fits_single

ELEMENTWISE = [record for record in CATALOGUE if isinstance(record, Activation) and not record.indexed]
TABLED = [record for record in CATALOGUE if isinstance(record, Activation) and (not record.indexed or record.drawn_if)]
DTYPES = [np.float32, np.float64]
COUNT = int(os.environ.get("ACCURACY_POINTS", "8"))
"""How many points are taken of each kind; `make accuracy` takes more."""


def _id(record: Activation, given: Mapping[str, Value]) -> str:
    return "-".join([record.name, *(f"{name}={value}" for name, value in given.items())])


CASES = [pytest.param(record, given, id=_id(record, given)) for record in ELEMENTWISE for given in ({}, *record.tried)]
EVERY = pytest.mark.parametrize("record", ELEMENTWISE, ids=lambda record: record.name)


def run(record: Activation, operation: str, x: np.ndarray[Any, Any], params: tuple[float, ...]) -> np.ndarray[Any, Any]:
    out = np.empty_like(x)
    load(record, operation, x.dtype)(x, out, params)
    return out


@pytest.mark.parametrize("operation", ["forward", "derivative"])
@pytest.mark.parametrize(("record", "given"), CASES)
def test_kernel_is_the_formula(record: Activation, given: dict[str, Value], operation: str) -> None:
    params = oracle.parameters(record, given)
    single, double = bounds.points(record, operation, params, COUNT)
    roots = bounds.zeros(record, operation, params)
    failures: list[str] = []
    for form in bounds.FORMS:
        if form.name == "fast" and not all(map(fits_single, params)):
            continue  # then the exact kernel answers
        x = np.concatenate([single, double]) if form.name == "float64" else single
        failures += bounds.worst(record, operation, form, x, params, roots).failures
    assert not failures, f"{len(failures)} of them: " + "\n".join(failures[:8])


SINGLE = [case for case in CASES if case.values[0].single]


@pytest.mark.parametrize(("record", "given"), SINGLE)
@hypothesis.given(st.data())
@hypothesis.settings(max_examples=25, deadline=None)
def test_single_precision_gives_the_bits_of_float64(record: Activation, given: dict[str, Value], data: Any) -> None:
    """Kernels declared to round once: what float64 gives, rounded to float32, for any element and upstream gradient."""
    bits = npst.arrays(np.uint32, (2, 40))
    x, g = data.draw(bits).view(np.float32)
    params = tuple(
        data.draw(st.sampled_from([p, p * 1e-30, p * 1e-300, p * 1e300])) for p in oracle.parameters(record, given)
    )
    for operation in record.single:
        inputs = [x, g] if operation == "vjp" else [x]
        found, wide = np.empty_like(x), np.empty(x.size)
        load(record, operation, np.float32)(*inputs, found, params)
        with np.errstate(all="ignore"):
            load(record, operation, np.float64)(*(array.astype(np.float64) for array in inputs), wide, params)
            expected = wide.astype(np.float32)
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32), f"{operation} at {x}, {params}")


@pytest.mark.parametrize("dtype", DTYPES)
@EVERY
def test_vjp_is_the_derivative_times_upstream_rounded_once(record: Activation, dtype: Any) -> None:
    params = oracle.parameters(record)
    x = bounds.points(record, "derivative", params, COUNT)[0].astype(dtype)
    upstream = np.random.default_rng(4).standard_normal(x.size).astype(dtype)
    out = np.empty_like(x)
    load(record, "vjp", dtype)(x, upstream, out, params)
    with np.errstate(over="ignore"):
        wide = run(record, "derivative", x.astype(np.float64), params) * upstream
    slack = bounds.FLOAT32_NEAR_ZERO if dtype is np.float32 else bounds.FLOAT64_NEAR_ZERO
    for result, expected, factor in zip(out.tolist(), wide.tolist(), upstream.tolist(), strict=True):
        if math.isinf(result) or math.isinf(expected):
            with np.errstate(over="ignore"):
                assert result == np.dtype(dtype).type(expected)
            continue
        error = oracle.error_in_ulp(result, mp.mpf(expected), dtype)
        assert error <= (0.502 if dtype is np.float32 else 8.0) or abs(result - expected) <= slack * abs(
            factor
        ) + float(oracle.ulp(mp.mpf(expected), dtype))


@pytest.mark.parametrize("operation", ["forward", "derivative"])
@pytest.mark.parametrize("dtype", SIXTEEN_BITS, ids=str)
@pytest.mark.parametrize("record", TABLED, ids=lambda record: record.name)
def test_sixteen_bits_are_rounded_correctly(
    record: Activation, dtype: np.dtype[Any], operation: str, client: Client
) -> None:
    """A sample of the 65,536, and the smallest, at which ties lurk; `make accuracy` takes all."""
    sample = np.random.default_rng(7).integers(0, 1 << 16, 8 * COUNT)
    bits = np.concatenate([sample, np.arange(8), 0x8000 + np.arange(8)]).astype(np.uint16)
    x = bits.view(dtype)
    x = x[np.isfinite(x.astype(np.float32))]
    results = client.forward(record.name, x) if operation == "forward" else client.derivative(record.name, x)
    params = oracle.parameters(record)
    for argument, result in zip(x.astype(np.float64).tolist(), results.astype(np.float64).tolist(), strict=True):
        exact = oracle.value(record, argument, params, derivative=operation == "derivative")
        assert oracle.error_in_ulp(result, exact, dtype) <= 0.5, f"at {argument!r}: {result!r}"


@pytest.mark.parametrize(("record", "given"), CASES)
def test_derivative_formula_is_the_derivative(record: Activation, given: dict[str, Value]) -> None:
    if given.get("ste", "zero") != "zero":
        pytest.skip("a straight-through derivative is none")
    params = oracle.parameters(record, given)
    for x in (-17.31, -4.11, -1.11, -0.21, 0.31, 0.91, 2.71, 6.11, 30.51):
        with mp.workdps(oracle.DIGITS):
            step = mp.mpf(10) ** -60
            rise = oracle.value(record, mp.mpf(x) + step, params) - oracle.value(record, mp.mpf(x) - step, params)
            slope = oracle.value(record, mp.mpf(x), params, derivative=True)
            assert abs(rise / (2 * step) - slope) <= mp.mpf(10) ** -80 * max(1, abs(slope)), x


@pytest.mark.parametrize("record", [r for r in ELEMENTWISE if r.gradients], ids=lambda record: record.name)
def test_parameter_gradients_are_the_derivatives(record: Activation) -> None:
    """The formula against a difference quotient, and the kernel, through a sum over one element, against the formula."""
    params = oracle.parameters(record)
    names = [parameter.name for parameter in record.parameters if parameter.kind != "axis"]
    for gradient in record.gradients:
        place = names.index(gradient.parameter)
        for x in (-4.1, -1.1, -0.2, 0.3, 0.9, 2.7):
            exact = oracle.gradient(record, gradient, mp.mpf(x), params)
            argument, g = np.array([x]), np.ones(1)
            out = np.empty(1)
            load(record, f"gradient_{gradient.parameter}", np.float64)(argument, g, out, params)
            assert abs(out[0] - exact) <= 2.0**-49 * max(1, abs(exact))
            if "threshold" in gradient.parameter:
                continue  # JumpReLU's is a pseudo-derivative: its threshold has none
            with mp.workdps(oracle.DIGITS):
                step = mp.mpf(10) ** -60
                high = (*params[:place], mp.mpf(params[place]) + step, *params[place + 1 :])
                low = (*params[:place], mp.mpf(params[place]) - step, *params[place + 1 :])
                rise = oracle.value(record, mp.mpf(x), high) - oracle.value(record, mp.mpf(x), low)
                assert abs(rise / (2 * step) - exact) <= mp.mpf(10) ** -50 * max(1, abs(exact))


@pytest.mark.parametrize("form", bounds.FORMS, ids=lambda form: form.name)
@EVERY
def test_infinities_give_the_limits(record: Activation, form: bounds.Form) -> None:
    x = np.array([-math.inf, math.inf], form.dtype)
    params = oracle.parameters(record)
    expected = np.array(record.limits, form.dtype)
    forward = bounds.run(record, "forward", form, x, params)
    derivative = bounds.run(record, "derivative", form, x, params)
    if form.name == "fast":
        np.testing.assert_allclose(forward, expected[:2], rtol=5e-7)
        np.testing.assert_allclose(derivative, expected[2:], rtol=5e-7)
        return
    np.testing.assert_array_equal(forward, expected[:2])
    defined = ~np.isnan(forward)
    np.testing.assert_array_equal(np.signbit(forward[defined]), np.signbit(expected[:2][defined]))
    np.testing.assert_array_equal(derivative, expected[2:])


@pytest.mark.parametrize("form", bounds.FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("operation", ["forward", "derivative"])
@EVERY
def test_nan_stays_nan_and_alone(record: Activation, operation: str, form: bounds.Form) -> None:
    x = np.full(37, 0.5, form.dtype)
    x[::5] = math.nan
    results = bounds.run(record, operation, form, x, oracle.parameters(record))
    np.testing.assert_array_equal(np.isnan(results), np.isnan(x))


@pytest.mark.parametrize("form", bounds.FORMS, ids=lambda form: form.name)
@EVERY
def test_signed_zeros(record: Activation, form: bounds.Form) -> None:
    """f(-0.0) is -0.0 where f is odd around 0, and +0.0 where it is 0 on the left or touches it."""
    results = bounds.run(record, "forward", form, np.array([0.0, -0.0], form.dtype), oracle.parameters(record))
    if results[0] == 0:
        left, right = (oracle.value(record, x, oracle.parameters(record)) for x in (-(2.0**-60), 2.0**-60))
        assert not np.signbit(results[0])
        if left == right == 0:
            return  # flat on both sides: either zero is one of its values
        if left == -right or left >= 0:
            assert np.signbit(results[1]) == (left == -right)


@pytest.mark.parametrize("form", bounds.FORMS, ids=lambda form: form.name)
@EVERY
def test_a_piece_has_the_bits_of_the_whole(record: Activation, form: bounds.Form) -> None:
    params = oracle.parameters(record)
    x = bounds.points(record, "derivative", params, COUNT)[form.name == "float64"]
    whole = bounds.run(record, "derivative", form, x, params)
    pieces = [bounds.run(record, "derivative", form, piece, params) for piece in np.array_split(x, 41)]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


@pytest.mark.parametrize(("name", "parameter"), [("sin", "omega"), ("cos", "omega"), ("snake", "alpha")])
@pytest.mark.parametrize("x", [2.718281828459045, -1.7976931348623157e308, 1e-12, -3e-30])
@pytest.mark.parametrize("factor", [1e308, 30.0, 0.3])
def test_angles_of_every_size(name: str, parameter: str, factor: float, x: float) -> None:
    """Beyond the largest number, and so small that a table of digits has nothing for them."""
    record = find(name)
    assert isinstance(record, Activation)
    params = oracle.parameters(record, {parameter: factor})
    for operation in ("forward", "derivative"):
        (result,) = bounds.run(record, operation, bounds.FORMS[2], np.array([x]), params).tolist()
        with mp.workdps(1000):
            scale = abs(mp.mpf(factor)) if name != "snake" and operation == "derivative" else mp.mpf(1)
            exact = oracle.value(record, x, params, derivative=operation == "derivative")
            assert abs(mp.mpf(result) - exact) <= 4 * oracle.ulp(exact, np.float64) + scale * mp.mpf(2) ** -50
