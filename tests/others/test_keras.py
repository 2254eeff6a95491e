"""Keras' own tests of its activations, with the client in place of `keras.activations`."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest
from actserve_client import Client

with warnings.catch_warnings(), mock.patch.dict(os.environ, KERAS_BACKEND="numpy"):
    warnings.simplefilter("ignore")
    from keras.src.activations import activations_test

THEIRS = activations_test.activations


class _Through:
    """Keras' functions by their names, with their arguments."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        signature = inspect.signature(getattr(THEIRS, name))

        def function(*positional: Any, **named: Any) -> Any:
            arguments = signature.bind(*positional, **named).arguments
            x = np.asarray(arguments.pop("x"))
            x = x if x.dtype.kind == "f" else x.astype(np.float32)
            if isinstance(axes := arguments.get("axis"), tuple):
                return self._over(name, x, axes)
            ours, arguments = _renamed(name, arguments)
            return self._client.forward(ours, x, preset="keras", **arguments)

        return function

    def _over(self, name: str, x: Any, axes: tuple[int, ...]) -> Any:
        """Along several axes as if they were one."""
        last = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
        flat = last.reshape(*last.shape[: x.ndim - len(axes)], -1)
        result = self._client.forward(name, flat, axis=-1, preset="keras").reshape(last.shape)
        return np.moveaxis(result, range(x.ndim - len(axes), x.ndim), axes)


def _renamed(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where a Keras function is one of several activations by its arguments."""
    if name == "relu" and arguments:
        (argument,) = arguments
        name = {"negative_slope": "leaky_relu", "max_value": "relu_n", "threshold": "thresholded_relu"}[argument]
        arguments = {"alpha" if argument == "threshold" else argument: arguments[argument]}
    if name == "gelu" and arguments.pop("approximate", False):
        name = "gelu_tanh"
    return name, arguments


# Keras' tests compute what they expect with NumPy, whose exponential overflows there.
@pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
class TestActivations(activations_test.ActivationsTest):
    @pytest.fixture(autouse=True)
    def ours(self, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(activations_test, "activations", _Through(client))

    # A ReLU with a threshold and a ceiling or a slope at once, which no activation of the catalogue is.
    test_relu_combined_threshold_and_max_value = None
    test_relu_combined_all_parameters = None
    # Of how Keras finds activations by name.
    test_get_method = None
