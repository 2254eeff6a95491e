"""NumPy's accuracy sets for its transcendental functions, and its test of them, with ours in their place."""

from __future__ import annotations

import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actserve_client import Client

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from numpy._core.tests import test_umath_accuracy

DATA = Path(test_umath_accuracy.__file__).parent / "data"

ACTIVATIONS = {"exp": "exponential", "tanh": "tanh", "sin": "sin", "cos": "cos", "arctan": "arctan"}
"""NumPy's functions that are activations; `expm1` is elu below zero."""

SETS = {path.stem.split("-")[-1]: path.name for path in sorted(DATA.glob("*.csv"))}


class _Through:
    """NumPy, but for one function."""

    def __init__(self, name: str, function: Any) -> None:
        self._name, self._function = name, function

    def __getattr__(self, name: str) -> Any:
        return self._function if name == self._name else getattr(np, name)


def _run_set(function: str, replacement: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_umath_accuracy, "np", _Through(function, replacement))
    only = types.SimpleNamespace(listdir=lambda _: [SETS[function]])
    monkeypatch.setattr(test_umath_accuracy, "os", only)
    test_umath_accuracy.TestAccuracy().test_validate_transcendentals()


@pytest.mark.parametrize("function", [name for name in SETS if name in ACTIVATIONS])
def test_accuracy_set(function: str, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    _run_set(function, lambda x: client.forward(ACTIVATIONS[function], x), monkeypatch)


def test_accuracy_set_of_expm1_below_zero(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def expm1(x: Any) -> Any:
        return np.where(x <= 0, client.forward("elu", x), np.expm1(x))

    _run_set("expm1", expm1, monkeypatch)


@pytest.mark.parametrize("activation", [*ACTIVATIONS.values(), "sigmoid", "erf", "abs", "square", "sign"])
def test_float16_is_float32_rounded(activation: str, client: Client) -> None:
    test_umath_accuracy.TestAccuracy().test_validate_fp16_transcendentals(lambda x: client.forward(activation, x))
