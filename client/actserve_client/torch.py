"""Watches the activations of a PyTorch model while it runs: `watch(model, client)`. Needs torch, and nothing else imports this.

It knows modules and tensors; the queue, the drops and the monitor are `actserve_client.watching`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from actserve.stats import NeuronStats

from actserve_client.client import Client
from actserve_client.errors import InvalidRequest
from actserve_client.records import Activation, Alert
from actserve_client.watching import Watch

_LIBRARY = "torch"
_NOT_WATCHED = ("identity",)

_MOST_SEEN = 1 << 10
"""How many shapes are remembered, of which a model that is given sequences of any length has many."""


class ModelWatch:
    """Forward hooks on a model's activations; made by `watch`."""

    def __init__(
        self,
        model: torch.nn.Module,
        watch: Watch,
        found: Mapping[str, tuple[str, Mapping[str, Any]]],
        neuron_axis: int | Sequence[int] | None,
    ) -> None:
        self.layers = tuple(found)
        """The names of the modules that are watched."""
        self._watch = watch
        self._found = found
        self._neuron_axis = neuron_axis
        self._root = type(model).__name__
        self._layers: dict[str, dict[str, str]] = {}
        self._seen: dict[tuple[str, torch.Size, torch.dtype], str] = {}
        modules = dict(model.named_modules())
        self._handles = [modules[name].register_forward_hook(self._hook(name)) for name in found]

    def _hook(self, name: str) -> Callable[[torch.nn.Module, Any, Any], None]:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, (tuple, list)) and output:
                output = output[0]
            if isinstance(output, torch.Tensor) and output.is_floating_point():
                tensor = output.detach()
                # Looked up, for the words of a layer's name would take longer than the copy.
                kind = name, tensor.shape, tensor.dtype
                layer = self._seen.get(kind)
                if layer is None:
                    if len(self._seen) >= _MOST_SEEN:
                        self._seen.clear()
                    layer = self._seen[kind] = self._layer(name, tensor)
                self._watch.offer(layer, lambda: _copy(tensor, self._watch.empty))

        return hook

    def _layer(self, name: str, tensor: torch.Tensor) -> str:
        """The layer of a module's output: one module may serve several widths and types, and has a layer for each."""
        axis = _neuron_axis(tensor.ndim) if self._neuron_axis is None else self._neuron_axis
        kind = f"{_width(tensor, axis)} {str(_sent(tensor.dtype)).removeprefix('torch.')}"
        known = self._layers.setdefault(name, {})
        if kind not in known:
            activation, parameters = self._found[name]
            # The model itself, when it is an activation, has no name within itself.
            base = name or self._root
            layer = base if not known else f"{base}[{kind}]"
            self._watch.layer(layer, activation, neuron_axis=axis, parameters=parameters)
            known[kind] = layer
        return known[kind]

    def report(self, *, timeout: float | None = None) -> dict[str, NeuronStats]:
        """The statistics of each module that has run, over all its batches taken so far."""
        return self._watch.report(timeout=timeout)

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far."""
        return self._watch.alerts

    @property
    def dropped(self) -> int:
        """How many batches were dropped, because the queue was full or an error had come."""
        return self._watch.dropped

    @property
    def dropped_by_layer(self) -> Mapping[str, int]:
        """The same of each layer that has any."""
        return self._watch.dropped_by_layer

    def __str__(self) -> str:
        return str(self._watch)

    def close(self) -> None:
        """Remove the hooks, and wait until all batches taken are through. Raises what has gone wrong; may be called again."""
        self._remove()
        self._watch.close()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()

    def __enter__(self) -> ModelWatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()
        self._watch.__exit__(kind, error, traceback)


def watch(
    model: torch.nn.Module,
    client: Client,
    *,
    every: int = 1,
    queue: int = 64,
    wait_s: float = 0.0,
    layers: Iterable[str] | Mapping[str, str] | None = None,
    **options: Any,
) -> ModelWatch:
    """Watch the outputs of a model's activations in every forward pass.

    >>> with watch(model, client, every=10, alerts={"dead_fraction": 0.5}) as watched:
    ...     train(model)
    ...     watched.report()["1"].dead, watched.dropped

    Without `layers` it is every module whose type is an activation's in the catalogue (torch.nn.ReLU, GELU, …); with it, the modules
    named, as `model.named_modules()` names them, of any type: a module that calls torch.relu itself is watched by its own
    output, and a mapping says which activation that is: `layers={"block.0": "relu"}`. Neurons are the channels, axis 1, of outputs of
    four dimensions and more, and the last axis of others, unless `neuron_axis` is given; a module used at several widths or
    types has a layer for each, "act" and "act[256 float32]".

    The hook copies the output, and no more: a thread sends it. When `queue` batches wait, a forward pass waits for at most `wait_s`
    seconds (by default not at all), then drops the batch and counts it (`.dropped`). `options` are those of `Client.monitor`.
    Outputs on another device are copied there, and fetched by the thread. Raises InvalidRequest for a name that no module has, and
    when there is nothing to watch.
    """
    records = {name: record for record in client.activations() for name in _names(record)}
    modules = dict(model.named_modules())
    if layers is None:
        layers = [name for name, module in modules.items() if _record(module, records) is not None]
    wanted: Mapping[str, str | None] = layers if isinstance(layers, Mapping) else dict.fromkeys(layers)
    unknown = [name for name in wanted if name not in modules]
    if unknown or not wanted:
        what = f"has no module {unknown[0]!r}" if unknown else "has no activation that is a module"
        raise InvalidRequest(
            f"the model {what}; name modules of it: {', '.join(filter(None, list(modules)[:20]))}", field="layers"
        )
    found = {name: _activation(modules[name], records, given) for name, given in wanted.items()}
    watching = Watch(client, every=every, queue=queue, wait_s=wait_s, **options)
    return ModelWatch(model, watching, found, options.get("neuron_axis"))


def _names(record: Activation) -> tuple[str, ...]:
    if record.name in _NOT_WATCHED:
        return ()
    return next((library.names for library in record.libraries if library.library == _LIBRARY), ())


def _record(module: torch.nn.Module, records: Mapping[str, Activation]) -> Activation | None:
    """What PyTorch's own module of that type computes; of somebody's own with the same name nothing is known."""
    name = type(module).__name__
    return records.get(name) if getattr(torch.nn, name, None) is type(module) else None


def _activation(
    module: torch.nn.Module, records: Mapping[str, Activation], given: str | None
) -> tuple[str, Mapping[str, Any]]:
    """The activation that a module computes, and the parameters that it has as plain attributes."""
    record = _record(module, records)
    if given is not None:
        return given, {}
    # Parameters that are trained change from batch to batch, and so do random draws: nothing is known of such slopes.
    if record is None or next(module.parameters(recurse=False), None) is not None or _draws(record):
        return "identity", {}
    library = next(library for library in record.libraries if library.library == _LIBRARY)
    theirs = {ours: name for name, ours in library.renamed.items()}
    values = {p.name: getattr(module, theirs.get(p.name, p.name), None) for p in record.parameters}
    found = {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}
    return f"{_LIBRARY}:{library.names[0]}", {theirs.get(name, name): value for name, value in found.items()}


def _draws(record: Activation) -> bool:
    return any(parameter.kind == "seed" for parameter in record.parameters)


def _neuron_axis(dimensions: int) -> int:
    return 1 if dimensions >= 4 else -1


def _sent(dtype: torch.dtype) -> torch.dtype:
    """As which type a tensor is sent: NumPy has no bfloat16, and in float32 nothing of it is lost."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def _width(tensor: torch.Tensor, axis: Any) -> str:
    axes = axis if isinstance(axis, (list, tuple)) else (axis,)
    inside = [one for one in axes if isinstance(one, int) and -tensor.ndim <= one < tensor.ndim]
    return "x".join(str(tensor.shape[one]) for one in inside)


_DTYPES = {torch.float16: "float16", torch.float32: "float32", torch.float64: "float64"}


def _filled(tensor: torch.Tensor, empty: Callable[[Any, Any], Any]) -> Any:
    """An array with what a tensor holds."""
    dtype = _DTYPES.get(_sent(tensor.dtype))
    if dtype is None:
        return tensor.cpu().numpy()  # which says what is wrong with it
    array = empty(tuple(tensor.shape), dtype)
    torch.from_numpy(array).copy_(tensor)
    return array


def _copy(tensor: torch.Tensor, empty: Callable[[Any, Any], Any]) -> Any:
    """A copy of a tensor as it is now: an array, or a function that fetches it from its device."""
    if tensor.device.type == "cpu":
        return _filled(tensor, empty)
    copied = tensor.clone()
    done = None
    if tensor.device.type == "cuda":
        # The thread that fetches it has another idea of the current stream.
        done = torch.cuda.Event()
        done.record(torch.cuda.current_stream(tensor.device))

    def fetch() -> Any:
        if done is not None:
            done.synchronize()
        return _filled(copied, empty)

    return fetch


__all__ = ["ModelWatch", "watch"]
