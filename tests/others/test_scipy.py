"""SciPy's own tests of expit, log_expit, softmax, log_softmax and erf, with ours in their place."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from actserve_client import Client

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from scipy import special
    from scipy._lib._array_api import np_compat
    from scipy.special.tests import test_basic, test_data, test_logit, test_logsumexp

Function = Callable[..., Any]


def _float(x: Any) -> Any:
    """SciPy takes numbers and integers as float64, and so does a client that is given them here."""
    x = np.asarray(x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64)


@pytest.fixture
def elementwise(client: Client) -> Callable[[str], Function]:
    """Extended precision, which the engine has not, goes through as float64."""

    def through(name: str) -> Function:
        def function(x: Any) -> Any:
            given = np.asarray(x)
            wanted = given.dtype if given.dtype.kind == "f" else np.float64
            return client.forward(name, _float(given)).astype(wanted)[()]

        return function

    return through


@pytest.fixture
def along_axis(client: Client) -> Callable[[str], Function]:
    """With SciPy's axis: one, several, or all of them."""

    def through(name: str) -> Function:
        def function(x: Any, axis: Any = None) -> Any:
            x = _float(x)
            axes = tuple(range(x.ndim)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
            last = np.moveaxis(x, axes, range(x.ndim - len(axes), x.ndim))
            flat = last.reshape(*last.shape[: x.ndim - len(axes)], -1)
            result = client.forward(name, flat, axis=-1).reshape(last.shape)
            return np.moveaxis(result, range(x.ndim - len(axes), x.ndim), axes)[()]

        return function

    return through


@pytest.fixture
def xp() -> Any:
    """The array library that SciPy's tests are to run with."""
    return np_compat


class TestExpit(test_logit.TestExpit):
    @pytest.fixture(autouse=True)
    def ours(self, elementwise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(test_logit, "expit", elementwise("sigmoid"))


class TestLogExpit(test_logit.TestLogExpit):
    @pytest.fixture(autouse=True)
    def ours(self, elementwise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(test_logit, "log_expit", elementwise("log_sigmoid"))


class TestSoftmax(test_logsumexp.TestSoftmax):
    @pytest.fixture(autouse=True)
    def ours(self, along_axis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(test_logsumexp, "softmax", along_axis("softmax"))


class TestLogSoftmax(test_logsumexp.TestLogSoftmax):
    @pytest.fixture(autouse=True)
    def ours(self, along_axis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(test_logsumexp, "log_softmax", along_axis("log_softmax"))


def test_erf_at_infinities(elementwise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_basic, "special", _Through("erf", elementwise("erf")))
    test_basic.TestErf().test_erf()
    test_basic.TestErf().test_erf_nan_inf()


class _Through:
    """scipy.special, but for one function."""

    def __init__(self, name: str, function: Function) -> None:
        self._name, self._function = name, function

    def __getattr__(self, name: str) -> Any:
        return self._function if name == self._name else getattr(special, name)


BOOST = [
    data
    for data in test_data.BOOST_TESTS
    if data.func is special.erf and not any(map(np.iscomplexobj, data.param_columns))
]


@pytest.mark.parametrize("data", BOOST, ids=lambda data: data.dataname)
def test_erf_of_boost(data: Any, elementwise: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "func", elementwise("erf"))
    data.check()
