"""Watches the activations of a Keras model while it trains: the callback `Watch`. Needs keras 3, and nothing else imports this.

It knows layers and tensors; the queue, the drops and the monitor are `actserve_client.watching`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from actserve.stats import NeuronStats

from actserve_client import watching
from actserve_client.client import Client
from actserve_client.errors import InvalidRequest
from actserve_client.records import Alert

_LIBRARY = "keras"
_LINEAR = "linear"

_Known = tuple[str, Mapping[str, Any]]
"""An activation and its parameters."""


class Watch(keras.callbacks.Callback):  # type: ignore[misc, name-defined, unused-ignore]  # keras may not be there to be looked at
    """Watches the outputs of a model's activations while `fit` trains it.

    >>> watch = Watch(client, every=10, alerts={"dead_fraction": 0.5})
    >>> model.fit(x, y, callbacks=[watch])
    >>> watch.report()["dense"].dead_fraction, watch.dropped
    >>> watch.close()

    Without `layers` it is every layer that is an activation (keras.layers.ReLU, …) or has one that is not linear (Dense, Conv2D, …); with it
    those named, also in models within the model. Neurons are the channels. The output is copied, and a thread sends it: when
    `queue` batches wait, training waits for at most `wait_s` seconds (by default not at all), then drops the batch and counts it.
    `options` are those of `Client.monitor`. Only the batches of training are watched, not those of validation. `fit` may be called again
    before `close`.

    Outputs can be seen only where layers run eagerly: always with the backend torch, and with others when the model is compiled with
    `run_eagerly=True`; else training raises InvalidRequest that says so.
    """

    def __init__(
        self,
        client: Client,
        *,
        every: int = 1,
        queue: int = 64,
        wait_s: float = 0.0,
        layers: Iterable[str] | Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._client = client
        self._wanted = layers if layers is None or isinstance(layers, Mapping) else tuple(layers)
        self._watch = watching.Watch(client, every=every, queue=queue, wait_s=wait_s, **options)
        self._declared: set[str] = set()
        self._patched: list[Any] = []
        self._training = False

    # ---- what Keras calls ------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin to look."""
        self.on_train_end()  # a training that was interrupted has not ended
        for name, (layer, activation) in self._found().items():
            # Keras looks `call` up on the layer itself each time, and has no hooks of its own.
            object.__setattr__(layer, "call", self._looking(name, activation, layer.call))
            self._patched.append(layer)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Look at this batch."""
        self._training = True

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look no longer."""
        self._training = False

    def on_train_end(self, logs: Any = None) -> None:
        """Put the layers back as they were."""
        self._training = False
        for layer in self._patched:
            vars(layer).pop("call", None)
        self._patched.clear()

    # ---- what people call ------------------------------------------------------------------------------------------

    def report(self, *, timeout: float | None = None) -> dict[str, NeuronStats]:
        """The statistics of each layer that has run, over all its batches taken so far."""
        return self._watch.report(timeout=timeout)

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far."""
        return self._watch.alerts

    @property
    def dropped(self) -> int:
        """How many batches were dropped, because the queue was full or an error had come."""
        return self._watch.dropped

    def __str__(self) -> str:
        return str(self._watch)

    def close(self) -> None:
        """Wait until all batches taken are through, and end the monitor. Raises what has gone wrong; may be called again."""
        self.on_train_end()
        self._watch.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.on_train_end()
        self._watch.__exit__(kind, error, traceback)

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _found(self) -> dict[str, tuple[Any, _Known]]:
        """The layers to watch by their names, and their activations."""
        names = frozenset(
            name
            for record in self._client.activations()
            for library in record.libraries
            if library.library == _LIBRARY
            for name in library.names
        )
        layers = {layer.name: layer for layer in self.model._flatten_layers(include_self=False)}
        known = {name: _activation(layer, names) for name, layer in layers.items()}
        if self._wanted is None:
            found = {name: (layers[name], activation) for name, activation in known.items() if activation is not None}
        else:
            unknown = [name for name in self._wanted if name not in layers]
            if unknown:
                raise InvalidRequest(
                    f"the model has no layer {unknown[0]!r}; it has {', '.join(layers)}", field="layers"
                )
            given: dict[str, _Known] = {}
            if isinstance(self._wanted, Mapping):
                given = {name: (said, {}) for name, said in self._wanted.items()}
            found = {name: (layers[name], given.get(name) or known[name] or ("identity", {})) for name in self._wanted}
        if not found:
            raise InvalidRequest("the model has no layer with an activation; name layers", field="layers")
        return found

    def _looking(self, name: str, activation: _Known, call: Callable[..., Any]) -> Callable[..., Any]:
        def looking(*inputs: Any, **keywords: Any) -> Any:
            output = call(*inputs, **keywords)
            if self._training:
                self._look(name, activation, output)
            return output

        return looking

    def _look(self, name: str, activation: _Known, output: Any) -> None:
        if isinstance(output, (tuple, list)) and output:
            output = output[0]
        if isinstance(output, keras.KerasTensor):
            return  # the model is being built
        if name not in self._declared:
            try:
                _array(output)
            except Exception as error:
                raise InvalidRequest(
                    f"the outputs of the layer {name!r} can't be seen ({error}); where the model is compiled, use "
                    "model.compile(..., run_eagerly=True)",
                    field="model",
                ) from error
            first = keras.config.image_data_format() == "channels_first" and len(output.shape) >= 4
            known, parameters = activation
            self._watch.layer(name, known, neuron_axis=1 if first else -1, parameters=parameters)
            self._declared.add(name)
        self._watch.offer(name, lambda: _copy(output, self._watch.empty))


def _array(output: Any) -> npt.NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.stop_gradient(output)))


def _copy(output: Any, empty: Callable[[Any, Any], Any]) -> Any:
    found = _array(output)
    # It may be the tensor's own memory, which the next layer may write to.
    if found.flags.owndata:
        return found
    copied = empty(found.shape, found.dtype)
    copied[...] = found
    return copied


def _activation(layer: Any, names: frozenset[str]) -> _Known | None:
    """What a layer's output is an activation of; None when of nothing, and "identity" when of something that is not known."""
    if isinstance(layer, keras.layers.ReLU):
        plain = layer.max_value is None and not layer.negative_slope and not layer.threshold
        return ("relu" if plain else "identity"), {}
    if isinstance(layer, keras.layers.LeakyReLU):
        return "leaky_relu", {"negative_slope": float(layer.negative_slope)}
    if isinstance(layer, keras.layers.ELU):
        return "elu", {"alpha": float(layer.alpha)}
    if isinstance(layer, keras.layers.Softmax):
        return "softmax", {}
    if isinstance(layer, keras.layers.PReLU):
        return "identity", {}
    # A recurrent layer, and the cell in it, have activations inside, and their output is none of them.
    recurrent = isinstance(layer, keras.layers.RNN) or hasattr(layer, "state_size")
    if recurrent or not callable(getattr(layer, "activation", None)):
        return None
    name = getattr(layer.activation, "__name__", "")
    if name == _LINEAR:
        return None
    return (f"{_LIBRARY}:{name}" if name in names else "identity"), {}


__all__ = ["Watch"]
