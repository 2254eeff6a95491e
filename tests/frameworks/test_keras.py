"""`actserve_client.keras.Watch` on real models, against what their layers give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest
from actserve_client import Client, InvalidRequest
from actserve_client.keras import Watch

# Keras itself makes arrays of tensors in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def network() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, activation="relu", name="hidden"),
            keras.layers.Dense(12, name="plain"),
            keras.layers.LeakyReLU(0.1, name="leaky"),
            keras.layers.Dense(3, name="out"),
        ]
    )
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    return model


X, Y = np.random.default_rng(0).standard_normal((96, 8)).astype("f4"), np.zeros((96, 3), "f4")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    keras.backend.clear_session()


def test_every_activation_is_watched_while_it_trains(client: Client) -> None:
    model = network()
    with Watch(client, queue=1000) as watch:
        history = model.fit(X, Y, batch_size=32, epochs=2, verbose=0, callbacks=[watch], validation_data=(X, Y))
        report = watch.report()
        assert watch.dropped == 0
        assert {name: stats.activation for name, stats in report.items()} == {"hidden": "relu", "leaky": "leaky_relu"}
        assert {int(stats.samples[0]) for stats in report.values()} == {2 * 96}
        model.predict(X, verbose=0)
        assert watch.report()["hidden"].samples[0] == 2 * 96
        assert "call" not in vars(model.get_layer("hidden"))
    plain = network().fit(X, Y, batch_size=32, epochs=2, verbose=0, validation_data=(X, Y))
    assert history.history == plain.history


def test_figures_are_those_of_the_outputs(client: Client) -> None:
    model = network()
    model.optimizer.learning_rate = 0.0
    with Watch(client, queue=1000, layers=["hidden", "plain"]) as watch:
        model.fit(X, Y, batch_size=96, epochs=1, shuffle=False, verbose=0, callbacks=[watch])
        report = watch.report()
    outputs = keras.ops.convert_to_numpy(model.get_layer("hidden")(X))
    expected = client.neuron_stats("relu", outputs, input="post")
    np.testing.assert_array_equal(report["hidden"].columns["positive"], expected.columns["positive"])
    np.testing.assert_allclose(report["hidden"].mean, expected.mean, rtol=1e-5)
    assert report["plain"].activation == "identity"


def test_channels_models_within_and_alerts(client: Client) -> None:
    inner = keras.Sequential([keras.layers.Conv2D(5, 3, activation="tanh", name="conv")], name="inner")
    model = keras.Sequential([keras.layers.Input((8, 8, 2)), inner, keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    x, y = np.ones((6, 8, 8, 2), "f4"), np.zeros((6, 1), "f4")
    with Watch(client, every=2, alerts={"dead_fraction": 0.0}) as watch:
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[watch])
        stats = watch.report()["conv"]
        assert [alert.layer for alert in watch.alerts] == ["conv"]
    assert stats.shape == (5,)
    assert stats.samples[0] == 2 * 2 * 6 * 6


def test_mistakes(client: Client) -> None:
    model = network()
    with Watch(client, layers=["nosuch"]) as watch, pytest.raises(InvalidRequest, match="no layer 'nosuch'"):
        model.fit(X, Y, verbose=0, callbacks=[watch])
    plain = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3)])
    plain.compile(optimizer="sgd", loss="mse")
    with Watch(client) as watch, pytest.raises(InvalidRequest, match="no layer with an activation"):
        plain.fit(X, Y, verbose=0, callbacks=[watch])


def test_a_training_that_was_interrupted_goes_on(client: Client) -> None:
    model = network()

    class Interrupting(keras.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]  # keras may not be there
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 1:
                raise KeyboardInterrupt

    with Watch(client, queue=1000) as watch:
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y, batch_size=32, verbose=0, callbacks=[watch, Interrupting()])
        model.predict(X, verbose=0)
        model.fit(X, Y, batch_size=32, verbose=0, callbacks=[watch])
        assert watch.report()["hidden"].samples[0] == 2 * 32 + 96
    assert "call" not in vars(model.get_layer("hidden"))


def test_recurrent_layers_are_left_alone(client: Client) -> None:
    layers = [
        keras.layers.SimpleRNN(3, return_sequences=True),
        keras.layers.LSTM(2),
        keras.layers.Dense(2, "relu", name="out"),
    ]
    model = keras.Sequential([keras.layers.Input((4, 5)), *layers, keras.layers.Softmax(name="softmax")])
    model.compile(optimizer="sgd", loss="mse", run_eagerly=True)
    with Watch(client) as watch:
        model.fit(np.ones((6, 4, 5), "f4"), np.zeros((6, 2), "f4"), batch_size=3, verbose=0, callbacks=[watch])
        report = watch.report()
    assert {name: stats.activation for name, stats in report.items()} == {"out": "relu", "softmax": "softmax"}
    assert np.isnan(report["softmax"].layer.saturated_fraction)
