"""Penalties against Keras' activity regularizers, through a layer, which divides by the batch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from actserve_client import Client

with warnings.catch_warnings(), mock.patch.dict(os.environ, KERAS_BACKEND=os.environ.get("KERAS_BACKEND", "numpy")):
    warnings.simplefilter("ignore")
    import keras


@pytest.mark.parametrize(
    ("theirs", "name", "options"),
    [
        (lambda: keras.regularizers.L1(0.02), "l1", {"strength": 0.02}),
        (lambda: keras.regularizers.L2(0.03), "l2", {"strength": 0.03}),
        (lambda: keras.regularizers.L1L2(0.02, 0.03), "l1l2", {"l1": 0.02, "l2": 0.03}),
        (lambda: keras.regularizers.L1L2(l2=0.03), "l1l2", {"l2": 0.03}),
    ],
)
def test_through_a_layer(client: Client, theirs: Callable[[], Any], name: str, options: dict[str, float]) -> None:
    x = np.random.default_rng(2).standard_normal((8, 3, 5)).astype(np.float32)
    layer = keras.layers.Activation("tanh", activity_regularizer=theirs())
    layer(x)
    (loss,) = layer.losses
    answer = client.regularization("tanh", x, name, reduction="batch_mean", **options)
    assert answer.penalty == pytest.approx(float(loss), rel=2e-6)


@pytest.mark.parametrize("mode", ["rows", "columns"])
def test_orthogonal(client: Client, mode: str) -> None:
    x = np.random.default_rng(2).standard_normal((8, 5)).astype(np.float32)
    # Keras' own mode "columns" fails on NumPy arrays, for it takes axis 0 for none: so rows of the transpose.
    theirs = keras.regularizers.OrthogonalRegularizer(factor=0.02, mode="rows")(x if mode == "rows" else x.T.copy())
    answer = client.regularization("identity", x, "orthogonal", strength=0.02, mode=mode)
    assert answer.penalty == pytest.approx(float(theirs), rel=2e-6)
