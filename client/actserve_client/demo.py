"""A real network on real data: every activation, derivative, penalty and dead-neuron figure is computed by the service.

scikit-learn's digits (1,797 images of 8 x 8 pixels, carried by its wheel), two hidden layers with He-initialized weights, a
log-softmax output, trained by mini-batch gradient descent. Deterministic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from actserve_client.client import Client
from actserve_client.network import Activated, Array, Dense

_HIDDEN = (64, 32)
_CLASSES = 10
_BATCH = 64
_TEST = 360
_LEARNING_RATE = 0.3
_STRENGTH = 1e-5
_SEED = 7


@dataclasses.dataclass(frozen=True, slots=True)
class Epoch:
    """The figures of an epoch, on the images held out but for the loss, which is the training's mean."""

    number: int
    loss: float
    accuracy: float
    penalty: float
    """The L2 penalty on the hidden activations."""
    dead: tuple[int, ...]
    """How many neurons of each hidden layer are inactive on every image held out."""
    sluggish: tuple[int, ...]
    """How many are inactive on a tenth of the images or more: the article's threshold."""


def train(client: Client, epochs: int, activation: str = "relu") -> Iterator[Epoch]:
    """Train, and give the figures of each epoch as it ends."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    random = np.random.default_rng(_SEED)
    order = random.permutation(len(digits.data))
    images = (digits.data[order] / 16).astype(np.float32)
    labels = digits.target[order]
    widths = (images.shape[1], *_HIDDEN, _CLASSES)
    names = (*[activation] * len(_HIDDEN), "log_softmax")
    layers = [
        Dense.he(client, inputs, outputs, name, seed=random)
        for inputs, outputs, name in zip(widths, widths[1:], names, strict=False)
    ]
    for number in range(1, epochs + 1):
        losses = []
        for batch in np.array_split(random.permutation(np.arange(_TEST, len(images))), (len(images) - _TEST) // _BATCH):
            steps = _forward(layers, images[batch])
            losses.append(_learn(client, layers, steps, labels[batch], activation))
        yield _examine(client, layers, images[:_TEST], labels[:_TEST], activation, number, float(np.mean(losses)))


def _forward(layers: list[Dense], x: Array) -> list[Activated]:
    steps = []
    for layer in layers:
        steps.append(layer.forward(x))
        x = steps[-1].a
    return steps


def _learn(client: Client, layers: list[Dense], steps: list[Activated], labels: Array, activation: str) -> float:
    """One step of gradient descent on the mean negative log-likelihood and the penalty; gives the former."""
    rows = np.arange(len(labels))
    upstream = np.zeros_like(steps[-1].a)
    upstream[rows, labels] = -1 / len(labels)
    for index in reversed(range(len(layers))):
        layer = layers[index]
        if index < len(layers) - 1:
            penalty = client.regularization(activation, steps[index].z, "l2", strength=_STRENGTH, gradient=True)
            upstream = upstream + penalty.gradient
        gradients = layer.backward(steps[index], upstream)
        upstream = gradients.x
        layer.weights -= np.float32(_LEARNING_RATE) * gradients.weights
        layer.bias -= np.float32(_LEARNING_RATE) * gradients.bias
    return -float(steps[-1].a[rows, labels].mean())


def _examine(
    client: Client, layers: list[Dense], images: Array, labels: Array, activation: str, number: int, loss: float
) -> Epoch:
    steps = _forward(layers, images)
    hidden = [step.z for step in steps[:-1]]
    always = [client.neuron_stats(activation, z, threshold=1.0) for z in hidden]
    often = [client.neuron_stats(activation, z) for z in hidden]
    return Epoch(
        number=number,
        loss=loss,
        accuracy=float(np.mean(steps[-1].a.argmax(axis=1) == labels)),
        penalty=sum(client.regularization(activation, z, "l2", strength=_STRENGTH).penalty for z in hidden),
        dead=tuple(int(stats.dead.sum()) for stats in always),
        sluggish=tuple(int(stats.dead.sum()) for stats in often),
    )


__all__ = ["Epoch", "train"]
