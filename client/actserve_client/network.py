"""A dense layer whose activation is computed by the service, and the initialization that suits rectifiers.

The article's formulas, for a batch of rows: z = W x + b and a = f(z), that is `z = x @ W.T + b` and
`a = client.forward(f, z)`; backwards, with g = dL/da, dL/dz = J_f(z)^T g, dL/dW = (dL/dz)^T x, dL/db the sum of dL/dz over the
batch, and dL/dx = dL/dz W. The matrix products are NumPy's; every activation and derivative goes through the client.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from actserve_client.client import Client
from actserve_client.errors import InvalidRequest

Array = npt.NDArray[Any]
Seed = int | np.random.Generator | None


def he_normal(
    inputs: int, outputs: int, *, seed: Seed = None, negative_slope: float = 0.0, dtype: npt.DTypeLike = np.float32
) -> Array:
    """Weights of shape (outputs, inputs) from a normal distribution of variance 2/inputs.

    >>> f"{he_normal(256, 128, seed=0).std():.3f}"  # about sqrt(2/256)
    '0.088'

    With `negative_slope` s, for leaky rectifiers, the variance is 2/((1 + s^2) inputs). The forward signal keeps its
    variance from layer to layer. He, Zhang, Ren and Sun, 2015, arXiv:1502.01852, equations 10 and 15.
    """
    deviation = _deviation(inputs, outputs, negative_slope)
    return (np.random.default_rng(seed).standard_normal((outputs, inputs)) * deviation).astype(dtype)


def he_uniform(
    inputs: int, outputs: int, *, seed: Seed = None, negative_slope: float = 0.0, dtype: npt.DTypeLike = np.float32
) -> Array:
    """Weights of shape (outputs, inputs), uniform in +-sqrt(6/((1 + s^2) inputs)): the same variance as `he_normal`."""
    bound = math.sqrt(3) * _deviation(inputs, outputs, negative_slope)
    return np.random.default_rng(seed).uniform(-bound, bound, (outputs, inputs)).astype(dtype)


def _deviation(inputs: int, outputs: int, negative_slope: float) -> float:
    for name, value in (("inputs", inputs), ("outputs", outputs)):
        if value < 1:
            raise InvalidRequest(f"{name} is {value}, and must be at least 1", field=name)
    return math.sqrt(2 / ((1 + negative_slope**2) * inputs))


@dataclasses.dataclass(frozen=True, slots=True)
class Gradients:
    """The gradients of a loss: by the layer's weights, bias and input, each of that array's shape."""

    weights: Array
    bias: Array
    x: Array


@dataclasses.dataclass(frozen=True, slots=True)
class Activated:
    """What a layer's forward pass leaves for the backward pass: its input, pre-activation z and activation a."""

    x: Array
    z: Array
    a: Array


@dataclasses.dataclass(slots=True)
class Dense:
    """A dense layer z = W x + b, a = f(z).

    >>> layer = Dense.he(client, 64, 32, "relu", seed=0)
    >>> step = layer.forward(np.ones((8, 64), np.float32))
    >>> step.a.shape  # (batch, outputs)
    (8, 32)
    >>> layer.backward(step, np.ones((8, 32), np.float32)).weights.shape  # of dL/da, (batch, outputs)
    (32, 64)

    weights has shape (outputs, inputs), bias (outputs,); x is (batch, inputs) of the weights' type. Wrong shapes raise
    InvalidRequest.
    """

    client: Client
    weights: Array
    bias: Array
    activation: str
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def he(
        cls,
        client: Client,
        inputs: int,
        outputs: int,
        activation: str,
        *,
        seed: Seed = None,
        dtype: npt.DTypeLike = np.float32,
        **parameters: Any,
    ) -> Dense:
        """A layer with He-normal weights and no bias yet."""
        weights = he_normal(inputs, outputs, seed=seed, dtype=dtype)
        return cls(client, weights, np.zeros(outputs, dtype), activation, parameters)

    def forward(self, x: Array) -> Activated:
        """z = x W^T + b and a = f(z), for a batch of rows."""
        if x.ndim != 2 or x.shape[1] != self.weights.shape[1]:
            raise InvalidRequest(
                f"x has shape {list(x.shape)}, and must be (batch, {self.weights.shape[1]})", field="x"
            )
        z = x @ self.weights.T + self.bias
        return Activated(x, z, self.client.forward(self.activation, z, parameters=self.parameters))

    def backward(self, step: Activated, upstream: Array) -> Gradients:
        """The gradients, given the step that `forward` made and dL/da."""
        if upstream.shape != step.z.shape:
            raise InvalidRequest(
                f"upstream has shape {list(upstream.shape)}, and must have the activation's, {list(step.z.shape)}",
                field="upstream",
            )
        by_z = self.client.derivative(self.activation, step.z, upstream=upstream, parameters=self.parameters)
        return Gradients(weights=by_z.T @ step.x, bias=by_z.sum(axis=0), x=by_z @ self.weights)


__all__ = ["Activated", "Dense", "Gradients", "he_normal", "he_uniform"]
