"""The dense layer against finite differences, and the initialization against its variance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from actserve_client import Client, InvalidRequest
from actserve_client.network import Dense, he_normal, he_uniform


@pytest.mark.parametrize("initialize", [he_normal, he_uniform])
def test_he_initialization_keeps_the_variance(initialize: Any) -> None:
    weights = initialize(400, 300, seed=1, dtype=np.float64)
    assert weights.shape == (300, 400)
    assert abs(weights.var() * 400 / 2 - 1) < 0.02
    leaky = initialize(400, 300, seed=1, negative_slope=1.0, dtype=np.float64)
    np.testing.assert_allclose(leaky * np.sqrt(2), weights)
    np.testing.assert_array_equal(weights, initialize(400, 300, seed=1, dtype=np.float64))
    with pytest.raises(InvalidRequest, match="inputs"):
        initialize(0, 3)


@pytest.mark.parametrize("name", ["tanh", "gelu", "softmax", "leaky_relu"])
def test_gradients_are_finite_differences(client: Client, name: str) -> None:
    random = np.random.default_rng(2)
    layer = Dense.he(client, 4, 3, name, seed=random, dtype=np.float64)
    layer.bias += random.standard_normal(3)
    x, g = random.standard_normal((5, 4)), random.standard_normal((5, 3))
    found = layer.backward(layer.forward(x), g)
    for array, gradient in ((layer.weights, found.weights), (layer.bias, found.bias), (x, found.x)):
        assert gradient.shape == array.shape
        for index in np.ndindex(array.shape):
            old = array[index]
            ends = []
            for step in (1e-6, -1e-6):
                array[index] = old + step
                ends.append((layer.forward(x).a * g).sum())
            array[index] = old
            assert abs((ends[0] - ends[1]) / 2e-6 - gradient[index]) < 1e-7


def test_wrong_shapes(client: Client) -> None:
    layer = Dense.he(client, 4, 3, "relu", seed=0)
    with pytest.raises(InvalidRequest, match=r"\(batch, 4\)"):
        layer.forward(np.ones((2, 3), np.float32))
    step = layer.forward(np.ones((2, 4), np.float32))
    with pytest.raises(InvalidRequest, match="upstream"):
        layer.backward(step, np.ones((2, 4), np.float32))
