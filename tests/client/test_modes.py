"""Every mode through the front door: the client against a real server, compared with the mathematics."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from actserve_client import Client, merge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

ELEMENTWISE = ["sigmoid", "relu", "leaky_relu", "tanh", "identity", "elu", "silu", "gelu", "softplus"]
ALONG_AXIS = ["softmax", "log_softmax"]
DTYPES = [np.float32, np.float64]
SHARED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Array = np.ndarray[Any, Any]


def arrays(shape: Any, dtype: Any) -> Array:
    return (np.random.default_rng(7).standard_normal(shape) * 4).astype(dtype)


def softmax(x: Array, axis: int = -1) -> Array:
    e = np.exp(x.astype(np.float64) - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ELEMENTWISE + ALONG_AXIS)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (2, 0, 3), (2, 3, 2), (2, 1, 3, 2), (1, 2, 2, 2, 3)])
def test_results_are_new_writable_and_like_the_input(
    client: Client, name: str, dtype: Any, shape: tuple[int, ...]
) -> None:
    x = arrays(shape, dtype)
    before = x.copy()
    y = client.forward(name, x)
    assert (y.shape, y.dtype) == (x.shape, x.dtype)
    assert y.flags.writeable
    assert not np.shares_memory(x, y)
    np.testing.assert_array_equal(x, before)
    if x.size and name in ELEMENTWISE:
        assert client.derivative(name, x).shape == x.shape


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_upstream_gives_the_vector_jacobian_product(client: Client, name: str) -> None:
    x, g = arrays((3, 4), np.float64), arrays((3, 4), np.float64)[::-1]
    np.testing.assert_allclose(client.derivative(name, x, upstream=g), g * client.derivative(name, x), rtol=1e-15)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2])
def test_softmax_takes_any_axis(client: Client, axis: int) -> None:
    x = arrays((3, 4, 5), np.float64)
    y = client.forward("softmax", x, axis=axis)
    np.testing.assert_allclose(y, softmax(x, axis), rtol=1e-13)
    np.testing.assert_allclose(client.forward("log_softmax", x, axis=axis), np.log(softmax(x, axis)), rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("name", ALONG_AXIS)
def test_jacobians_and_products_agree(client: Client, name: str, axis: int) -> None:
    x, g = arrays((3, 4, 5), np.float64), arrays((3, 4, 5), np.float64)[::-1]
    full = client.derivative(name, x, jacobian="full", axis=axis)
    n = x.shape[axis]
    assert full.shape == (*x.shape, n)
    last = np.moveaxis(full, axis % x.ndim, -2)
    diagonal = client.derivative(name, x, jacobian="diag", axis=axis)
    np.testing.assert_array_equal(np.moveaxis(diagonal, axis, -1), np.diagonal(last, axis1=-2, axis2=-1))
    y = np.moveaxis(softmax(x, axis), axis, -1)
    expected = np.eye(n) - y[..., None, :]
    if name == "softmax":
        expected = y[..., :, None] * expected
    np.testing.assert_allclose(last, expected, atol=1e-14)
    product = client.derivative(name, x, upstream=g, axis=axis)
    by_hand = np.einsum("...i,...ik->...k", np.moveaxis(g, axis, -1), last)
    np.testing.assert_allclose(np.moveaxis(product, axis, -1), by_hand, atol=1e-13)


def test_parameters_by_keyword_by_mapping_and_by_alias(client: Client) -> None:
    x = np.array([-1.0, 2.0])
    for keywords in ({"negative_slope": 0.1}, {"alpha": 0.1}, {"parameters": {"negative_slope": 0.1}}):
        np.testing.assert_array_equal(client.forward("leaky_relu", x, **keywords), [-0.1, 2.0])  # type: ignore[arg-type]


def test_nan_and_infinities_are_no_errors(client: Client) -> None:
    x = np.array([math.nan, math.inf, -math.inf, -0.0], np.float32)
    np.testing.assert_array_equal(client.forward("relu", x), [math.nan, math.inf, 0, 0])
    np.testing.assert_array_equal(client.forward("silu", x), [math.nan, math.inf, 0, 0])
    np.testing.assert_array_equal(client.derivative("sigmoid", x), [math.nan, 0, 0, 0.25])
    rows = np.array([[math.nan, 1], [1, 1]])
    np.testing.assert_array_equal(client.forward("softmax", rows), [[math.nan] * 2, [0.5] * 2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("batch_mean", 30), ("mean", 1200)])
def test_the_penalty_is_the_exact_sum(client: Client, dtype: Any, reduction: str, divisor: int) -> None:
    x = arrays((30, 40), dtype)
    a = client.forward("elu", x).astype(np.float64)
    exact = sum((Fraction(float(v)) ** 2 for v in a.flat), Fraction()) * Fraction(0.3) / divisor
    answer = client.regularization("elu", x, "l2", strength=0.3, reduction=reduction, gradient=True)
    assert answer.penalty == float(exact)
    assert answer.gradient is not None
    np.testing.assert_allclose(answer.gradient, 0.6 * a / divisor, rtol=1e-6 if dtype == np.float32 else 1e-15)
    chained = client.regularization("elu", x, strength=0.3, reduction=reduction, gradient=True, gradient_wrt="input")
    slope = client.derivative("elu", x).astype(np.float64)
    np.testing.assert_allclose(chained.gradient, 0.6 * a * slope / divisor, rtol=1e-6 if dtype == np.float32 else 1e-14)


def test_the_penalty_of_softmax_is_chained_through_its_jacobian(client: Client) -> None:
    x = arrays((4, 5), np.float64)
    y = softmax(x)
    answer = client.regularization("softmax", x, strength=2.0, gradient=True, gradient_wrt="input")
    np.testing.assert_allclose(answer.penalty, 2 * (y**2).sum(), rtol=1e-14)
    np.testing.assert_allclose(answer.gradient, client.derivative("softmax", x, upstream=4 * y), atol=1e-14)


@pytest.mark.parametrize(("value", "penalty"), [(math.nan, math.nan), (math.inf, math.inf), (1e300, math.inf)])
def test_penalties_that_are_no_finite_number(client: Client, value: float, penalty: float) -> None:
    np.testing.assert_equal(client.regularization("identity", np.array([1.0, value])).penalty, penalty)


def test_an_empty_batch_has_no_penalty(client: Client) -> None:
    for reduction in ("sum", "batch_mean", "mean"):
        assert client.regularization("relu", np.zeros((0, 3)), reduction=reduction).penalty == 0


@pytest.mark.parametrize("neuron_axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", DTYPES)
def test_neuron_stats_are_the_articles_monitor(client: Client, dtype: Any, neuron_axis: int) -> None:
    x = arrays((6, 7, 8), dtype)
    x[:, 2, :] = -1
    x[3, :, 5] = math.nan
    a = np.moveaxis(client.forward("relu", x), neuron_axis, -1).reshape(-1, x.shape[neuron_axis])
    stats = client.neuron_stats("relu", x, threshold=0.5, neuron_axis=neuron_axis)
    np.testing.assert_array_equal(stats.inactive_fraction, (a <= 0).mean(axis=0))
    np.testing.assert_array_equal(stats.zero_fraction, (a == 0).mean(axis=0))
    np.testing.assert_array_equal(stats.dead, (a <= 0).mean(axis=0) >= 0.5)
    assert stats.dead_fraction == np.mean((a <= 0).mean(axis=0) >= 0.5)


def test_neuron_stats_default_to_the_articles_threshold(client: Client) -> None:
    x = np.ones((10, 3))
    x[0, 1] = x[:2, 2] = -1
    assert client.neuron_stats("relu", x).dead.tolist() == [False, True, True]


def test_stats_of_nothing(client: Client) -> None:
    stats = client.neuron_stats("relu", np.zeros((0, 3)))
    assert np.isnan(stats.inactive_fraction).all()
    assert stats.dead_fraction == 0
    assert client.neuron_stats("relu", np.zeros((3, 0))).dead.size == 0
    assert client.neuron_stats("relu", 1.0).dead.tolist() == [False]


@SHARED
@given(hnp.arrays(np.float32, (12, 3), elements=st.floats(-2, 2, width=32)), st.lists(st.integers(0, 12), max_size=3))
def test_reductions_do_not_depend_on_the_split(client: Client, x: Array, cuts: list[int]) -> None:
    blocks = np.split(x, sorted(cuts))
    whole = client.neuron_stats("relu", x)
    assert client.neuron_stats("relu", iter(blocks)).state == whole.state
    starts = np.cumsum([0, *map(len, blocks)]).tolist()
    parts = [
        client.neuron_stats("relu", block, first_sample=start) for start, block in zip(starts, blocks, strict=False)
    ]
    assert merge(part.state for part in reversed(parts)).state == whole.state
    assert client.regularization("tanh", blocks).penalty == client.regularization("tanh", x).penalty


def test_the_gradient_of_blocks(client: Client) -> None:
    x = arrays((7, 3), np.float64)
    whole = client.regularization("tanh", x, gradient=True)
    parts = client.regularization("tanh", np.split(x, [2, 5]), gradient=True)
    np.testing.assert_array_equal(whole.gradient, parts.gradient)
    assert parts.gradient is not None
    assert parts.gradient.flags.writeable
