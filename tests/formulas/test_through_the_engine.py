"""Formulas with all that their language has, through the front door: 16-bit results rounded right, and penalties that need f''."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import mpmath as mp
import numpy as np
import pytest
from actserve_client import Client
from actserve_server.activations.spec import Parameter
from actserve_server.formulas import Definition, define
from actserve_server.formulas.differentiate import derivative
from actserve_server.formulas.exact import evaluate
from actserve_server.formulas.tree import Node

Array = np.ndarray[Any, Any]
FORMULAS = {
    "team.everything": "where(x < -2 or x > 3, arctan(x) * a, clip(gelu(x) + erf(a * x), -0.4, 2)) - log1p(abs(x))**1.5",
    "team.ratio": "sinh(x) / (1 + cosh(a * x)) + max(sin(x), tanh(x)) - exp(-x**2) / 3",
    "team.composed": "softplus(x * sigmoid(a * x)) - log(1 + exp(-x)) + x**3 / (1 + x**4)",
}
A = 0.75


@pytest.fixture(scope="module", params=FORMULAS)
def own(request: pytest.FixtureRequest, client: Client) -> Iterator[Definition]:
    name, formula = request.param, FORMULAS[request.param]
    client.create_activation(name, formula, a=A, replace=True)
    yield define(name, formula, [Parameter("a", "", A)])
    client.delete_activation(name)


def truth(node: Node, x: float) -> Any:
    with mp.workdps(60):
        return evaluate(node, x, {"a": A})


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_sixteen_bits_are_rounded_once(client: Client, own: Definition, dtype: Any) -> None:
    """No other number of the type is nearer to the truth."""
    bits = np.random.default_rng(0).integers(0, 1 << 16, 400, dtype=np.uint16)
    x = np.concatenate([bits.view(dtype), np.linspace(-6, 6, 200).astype(dtype)])
    with np.errstate(invalid="ignore"):  # some of them are signalling NaN
        x = x[np.isfinite(x)]
    x = x[
        np.abs(x.astype(float)) > 1e-4
    ]  # nearer to 0 there are sums that cancel more digits than a table's doubt allows for
    largest = float(ml_dtypes.finfo(dtype).max)
    for got, node in ((client.forward(own.name, x), own.forward), (client.derivative(own.name, x), own.derivative)):
        assert got.dtype == x.dtype
        for place, value in zip(x, got, strict=True):
            right = truth(node, float(place))
            if not np.isfinite(float(value)):
                # Of what 16 bits do not hold; or, where float64 has inf / inf on the way, not a number.
                assert abs(right) > largest or (np.isnan(float(value)) and abs(float(place)) > 300)
                continue
            error = abs(right - float(value))
            for neighbour in (np.nextafter(value, dtype(side)) for side in ("inf", "-inf")):
                if np.isfinite(float(neighbour)):
                    assert error <= abs(right - float(neighbour)), (float(place), float(value))
    assert np.isnan(client.forward(own.name, np.array([np.nan], dtype)).astype(float)).all()


def test_a_penalty_on_slopes_knows_the_curvature(client: Client, own: Definition) -> None:
    x = np.random.default_rng(1).normal(0, 2, (12, 3))
    found = client.regularization(own.name, x, "contractive", gradient=True, gradient_wrt="input", strength=1.0)
    plain = client.regularization("tanh", x, "contractive", gradient=True, gradient_wrt="input", strength=1.0)
    # The penalty is a sum of f'^2, whatever it is divided by: the same as of tanh.
    slopes = np.array([float(truth(own.derivative, v)) for v in x.ravel()]).reshape(x.shape)
    curvature = derivative(own.derivative)
    curves = np.array([float(truth(curvature, v)) for v in x.ravel()]).reshape(x.shape)
    known, bent = 1 - np.tanh(x) ** 2, -2 * np.tanh(x) * (1 - np.tanh(x) ** 2)
    np.testing.assert_allclose(found.penalty / plain.penalty, (slopes**2).sum() / (known**2).sum(), rtol=1e-9)
    np.testing.assert_allclose(found.gradient / plain.gradient, slopes * curves / (known * bent), rtol=1e-6, atol=1e-9)


def test_blocks_give_the_same_bits(client: Client, own: Definition) -> None:
    x = np.random.default_rng(2).normal(0, 3, 4096).astype(np.float32)
    blocks = (x[low:high] for low, high in itertools.pairwise([0, 1, 8, 1000, 4096]))
    np.testing.assert_array_equal(np.concatenate(list(client.stream(own.name, blocks))), client.forward(own.name, x))
