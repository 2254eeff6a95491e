"""What a monitor thinks, without any calls: batches to messages, snapshots and alerts from messages, and how to go on elsewhere.

The owner sends what it is given, in order, hands in what comes back, and holds a lock around every call but those
about shared memory. What has not been acknowledged by a snapshot is kept, as the messages that carry it or as an array in shared memory: on a new stream
`resume` gives it again.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from actserve import wire
from actserve.stats import NeuronStats, StateError
from actserve.v1 import compute_pb2, monitor_pb2, tensor_pb2

from actserve_client import _session, _shared
from actserve_client._regions import Regions, Spot
from actserve_client._session import CHUNK_BYTES, Array
from actserve_client._slabs import Placed, Slabs
from actserve_client.errors import ActserveError, InvalidRequest, ServerError, from_status
from actserve_client.records import Alert

_FIGURES = {
    monitor_pb2.MONITOR_FIGURE_DEAD_FRACTION: "dead_fraction",
    monitor_pb2.MONITOR_FIGURE_DORMANT_FRACTION: "dormant_fraction",
    monitor_pb2.MONITOR_FIGURE_SATURATED_FRACTION: "saturated_fraction",
    monitor_pb2.MONITOR_FIGURE_NAN_COUNT: "nan_count",
}

MAX_UNACKNOWLEDGED_BYTES = 64 << 20
"""How much is kept by default until a snapshot holds it."""

_MOST_GATHERED = 256
"""How many batches go in one message at most, which then has some kilobytes."""

_KEPT_BESIDE_BYTES = 512
"""About what a batch costs beside its bytes."""

_HOW = {"axis": None, "accuracy": "exact", "preset": None, "nonfinite": "propagate", "parameters": None}
_STATS: dict[str, Any] = {
    "threshold": 0.1,
    "neuron_axis": -1,
    "first_sample": 0,
    "fired": "positive",
    "eps": None,
    "zero_tolerance": 0.0,
    "tau": 0.0,
    "saturation_eps": 1e-3,
    "dead_after_samples": None,
    # What a layer gives is what is at hand where layers are watched.
    "input": "post",
    "histogram": None,
    "sums": True,
}
_ALERTS = {"alerts": None, "alert_every_samples": 0, "snapshot_every_samples": 0}


@dataclasses.dataclass(slots=True)
class _Layer:
    """A layer as it was declared, and what its batches have in common."""

    message: monitor_pb2.MonitorLayer
    neuron_axes: tuple[int, ...]
    dtype: np.dtype[Any] | None = None
    widths: tuple[int, ...] | None = None
    refused: ActserveError | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class _Sent:
    """A batch, or a request for a snapshot, that no snapshot holds yet."""

    number: int
    layer: str
    frames: list[bytes]
    kept_bytes: int
    array: Array | None = None
    """What lies in shared memory, where it stays, instead of frames: they are made when it is sent."""


class Monitoring:
    """The state of a monitor at the caller's end.

    `options` are those of layers that are not declared by themselves; `states` are those of an earlier monitor's snapshot.
    """

    def __init__(
        self,
        activation: str,
        options: Mapping[str, Any],
        *,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        states: Mapping[str, bytes] | None = None,
        name: str = "",
        max_unacknowledged_bytes: int = MAX_UNACKNOWLEDGED_BYTES,
        regions: Callable[[], Regions] = lambda: Regions(None),
    ) -> None:
        self.slabs = Slabs(regions)
        """Memory for batches; not for who holds the lock, as it may ask the server for some."""
        self._name = _session.text(name, "name")
        self._max_bytes = _session.integer(max_unacknowledged_bytes, "max_unacknowledged_bytes", 64)
        if self._max_bytes < 1:
            raise InvalidRequest(
                f"max_unacknowledged_bytes is {self._max_bytes}, and must be at least 1",
                field="max_unacknowledged_bytes",
            )
        self._activation = activation
        self._options = dict(options)
        self._declared("", activation, self._options)  # so that a mistake shows at once
        self._layers: dict[str, _Layer] = {}
        self._states = {_session.text(layer, "resume"): bytes(state) for layer, state in (states or {}).items()}
        self._arriving: dict[str, bytearray] = {}
        self._open: set[str] = set()
        self._sent: deque[_Sent] = deque()
        self._gathered = _Gathered()
        self._kept_bytes = 0
        self._number = 0
        self._asked = 0
        self._through = 0
        self._errors: deque[Exception] = deque()
        self._alerted: dict[tuple[str, str], int] = {}
        self.alerts: list[Alert] = []
        """All alerts so far."""
        self.failure: ActserveError | None = None
        """What ended the monitor for good; set by the owner."""
        for layer, own in (layers or {}).items():
            self.declare(layer, None, own)

    # ---- layers ----------------------------------------------------------------------------------------------------

    def declare(self, layer: str, activation: str | None, options: Mapping[str, Any]) -> None:
        """Say what a layer is, before its first batch."""
        known = self._layers.get(_session.text(layer, "layer"))
        if known is not None and known.dtype is not None and known.refused is None:
            raise InvalidRequest(f"the layer {layer!r} has batches already, and can't be declared anew", field="layer")
        given = {**self._options, **options}
        own = given.pop("activation", self._activation)
        self._layers[layer] = self._declared(layer, own if activation is None else activation, given)

    def _declared(self, layer: str, activation: str, options: Mapping[str, Any]) -> _Layer:
        given = dict(options)
        known = {
            names: {name: given.pop(name, default) for name, default in table.items()}
            for names, table in (("how", _HOW), ("stats", _STATS), ("alerts", _ALERTS))
        }
        how = _session.How(**known["how"], keywords=given)
        header = compute_pb2.JobHeader()
        header.CopyFrom(_session.neuron_stats(activation, how, **known["stats"]).template)
        header.chunk_bytes = 0
        axes = known["stats"]["neuron_axis"]
        message = monitor_pb2.MonitorLayer(
            layer=layer,
            header=header,
            thresholds=_thresholds(known["alerts"]),
            snapshot_every_samples=_count(known["alerts"], "snapshot_every_samples"),
            monitor=self._name,
        )
        return _Layer(message, tuple(axes) if isinstance(axes, (list, tuple)) else (axes,))

    def _begin(self, layer: str, number: int) -> Iterator[bytes]:
        """The messages that begin a layer on the present stream, with the state that it goes on from."""
        self._open.add(layer)
        found, state = self._layers[layer], self._states.get(layer, b"")
        message = monitor_pb2.MonitorLayer()
        message.CopyFrom(found.message)
        assert found.dtype is not None
        message.header.inputs.append(tensor_pb2.TensorSpec(data_type=wire.data_type_of(found.dtype)))
        message.state_bytes = len(state)
        yield monitor_pb2.MonitorRequest(number=number, layer=message).SerializeToString()
        yield from _chunks(number, wire.ArraySource(np.frombuffer(state, np.uint8)))

    # ---- batches ---------------------------------------------------------------------------------------------------

    def observe(self, layer: str, x: Any, placed: Placed | None = None) -> list[bytes]:
        """The messages that send a batch, apart from what `flush` gives; it is kept until a snapshot holds it.

        `placed` is what `slabs` made of it.
        """
        array = _session.as_array(x, "x") if placed is None else placed.array
        if _session.text(layer, "layer") not in self._layers:
            self.declare(layer, None, {})
        found = self._layers[layer]
        if found.refused is not None:
            raise found.refused
        widths = _widths(array.shape, found.neuron_axes)
        dtype = array.dtype.newbyteorder("=")
        if found.dtype is None:
            found.dtype, found.widths = dtype, widths
        if dtype != found.dtype:
            raise InvalidRequest(
                f"a batch of the layer {layer!r} is {dtype}, and the ones before it were {found.dtype}", field="x"
            )
        if widths is not None and found.widths is not None and widths != found.widths:
            raise InvalidRequest(
                f"a batch of the layer {layer!r} has the width {_words(widths)}, and the ones before it {_words(found.widths)}",
                field="x",
            )
        frames: list[bytes] = []
        if layer not in self._open:
            frames.extend(self.flush())
            frames.extend(self._begin(layer, self._number))
        self._number += 1
        if placed is None:
            own = list(_batch(self._number, layer, array))
            self._keep(_Sent(self._number, layer, own, sum(map(len, own)) + _KEPT_BESIDE_BYTES))
            frames.extend([*self.flush(), *own])
        else:
            self._keep(_Sent(self._number, layer, [], array.nbytes + _KEPT_BESIDE_BYTES, array))
            frames.extend(self._gathered.add(self._number, layer, array, placed.spot))
        if self._kept_bytes > self._max_bytes // 2 and self._asked <= self._through:
            # In good time, so that nobody has to wait when the bound is reached.
            frames.extend(self.ask()[1])
        return frames

    def flush(self) -> list[bytes]:
        """The message that sends the batches which lie in shared memory and were observed since the last message."""
        return self._gathered.flush()

    def _keep(self, sent: _Sent) -> None:
        self._sent.append(sent)
        self._kept_bytes += sent.kept_bytes

    def has_room(self, size: int) -> bool:
        """Whether a batch of so many bytes may be sent now, or only once a snapshot has come."""
        return not self._sent or self._kept_bytes + size <= self._max_bytes

    def make_room(self) -> tuple[int, list[bytes]]:
        """The snapshot to wait for when there is no room, by its number as for `ask`, and the messages to send before that."""
        return (self._asked, self.flush()) if self._asked > self._through else self.ask()

    def ask(self) -> tuple[int, list[bytes]]:
        """The message that asks for a snapshot, and its number, by which `has` tells that it came."""
        self._number += 1
        self._asked = self._number
        request = monitor_pb2.MonitorRequest(number=self._number, snapshot=monitor_pb2.MonitorSnapshotRequest())
        frames = [request.SerializeToString()]
        self._keep(_Sent(self._number, "", frames, _KEPT_BESIDE_BYTES))
        return self._number, [*self.flush(), *frames]

    def has(self, number: int) -> bool:
        """Whether a snapshot holds all up to a number."""
        return self._through >= number

    @property
    def acknowledged(self) -> bool:
        """Whether a snapshot holds all that was sent."""
        return not self._sent

    # ---- what comes back -------------------------------------------------------------------------------------------

    def receive(self, raw: bytes) -> list[Alert]:
        """Take a response; gives the alerts that are new. Raises ServerError when it makes no sense."""
        try:
            message, data = wire.unframe(monitor_pb2.MonitorResponse, raw)
        except wire.DecodeError:
            raise ServerError("the server sent bytes that are no MonitorResponse") from None
        match message.WhichOneof("frame"):
            case "state":
                self._take_state(message.state, data)
            case "snapshot":
                self._states.update({layer: bytes(state) for layer, state in self._arriving.items()})
                self._arriving.clear()
                self._through = max(self._through, message.snapshot.through)
                while self._sent and self._sent[0].number <= self._through:
                    sent = self._sent.popleft()
                    self._kept_bytes -= sent.kept_bytes
                    if sent.array is not None:
                        self.slabs.regions.known()
            case "alert":
                return self._take_alert(message.number, message.alert)
            case "failure":
                self._take_failure(message.number, message.failure)
            case frame:
                raise ServerError(f"the server sent {frame or 'an unknown frame'} where none may be")
        return []

    def _take_state(self, part: monitor_pb2.MonitorState, data: memoryview) -> None:
        arriving = self._arriving.setdefault(part.layer, bytearray())
        if part.offset_bytes == 0:
            arriving.clear()
        if part.offset_bytes != len(arriving):
            raise ServerError(f"the server sent a part of a state out of place: byte {part.offset_bytes}")
        arriving += data

    def _take_alert(self, number: int, alert: monitor_pb2.MonitorAlert) -> list[Alert]:
        figure = _FIGURES.get(alert.figure, "unknown")
        # A batch that was sent again to another server is nothing new.
        if self._alerted.get((alert.layer, figure), 0) >= number:
            return []
        self._alerted[alert.layer, figure] = number
        found = Alert(alert.layer, figure, alert.value, alert.threshold, alert.sample_count)
        self.alerts.append(found)
        return [found]

    def _take_failure(self, number: int, failure: monitor_pb2.MonitorFailure) -> None:
        error = from_status(failure.error)
        layer = self._layers.get(failure.layer)
        if failure.of_layer and layer is not None:
            layer.refused = error
            self._open.discard(failure.layer)
            self._errors.append(error)
            self._drop(lambda sent: sent.layer == failure.layer)
        elif self._drop(lambda sent: sent.number == number):
            self._errors.append(error)
            others = failure.layer in self._states or any(sent.layer == failure.layer for sent in self._sent)
            if layer is not None and not others:
                layer.widths = None  # it was the first one, and has decided nothing

    def _drop(self, which: Any) -> bool:
        dropped = [sent for sent in self._sent if which(sent)]
        self._sent = deque(sent for sent in self._sent if not which(sent))
        self._kept_bytes -= sum(sent.kept_bytes for sent in dropped)
        return bool(dropped)

    def broke(self, error: ActserveError) -> None:
        """Hear why a stream has ended, before `resume` is asked; not for who holds the lock."""
        if error.reason == _shared.UNKNOWN_REGION:
            self.slabs.regions.lost()

    def add_error(self, error: Exception) -> None:
        """Keep an error for whoever calls next."""
        self._errors.append(error)

    def check(self) -> None:
        """Raise what has gone wrong since the last call: once for a batch, always when the monitor is over."""
        if self._errors:
            raise self._errors.popleft()
        if self.failure is not None:
            raise self.failure

    def resume(self) -> list[bytes]:
        """The messages that begin a new stream: the layers with their last states, and all that no snapshot holds."""
        self._arriving.clear()
        self._open.clear()
        self.flush()  # they are among those that were sent
        frames: list[bytes] = []
        for name, layer in self._layers.items():
            if layer.dtype is not None and layer.refused is None:
                frames.extend(self._begin(name, self._through))
        for sent in self._sent:
            spot = None if sent.array is None else self.slabs.regions.find(sent.array, wait=False)
            if sent.array is not None and spot is not None:
                frames.extend(self._gathered.add(sent.number, sent.layer, sent.array, spot))
            else:
                frames.extend(self.flush())
                # The bytes, where the region was another server's.
                frames.extend(sent.frames if sent.array is None else _batch(sent.number, sent.layer, sent.array))
        frames.extend(self.flush())
        if self._sent and self._sent[-1].layer:
            # What was sent twice need not be sent a third time.
            frames.extend(self.ask()[1])
        return frames

    # ---- answers ---------------------------------------------------------------------------------------------------

    def states(self) -> Mapping[str, bytes]:
        """The states of the last snapshot."""
        return MappingProxyType(dict(self._states))

    def report(self) -> dict[str, NeuronStats]:
        """The statistics of the last snapshot."""
        try:
            return {layer: NeuronStats.from_bytes(state) for layer, state in self._states.items()}
        except StateError as error:
            raise ServerError(f"the server sent a state that is none: {error}") from None


def _thresholds(given: Mapping[str, Any]) -> monitor_pb2.MonitorThresholds:
    message = monitor_pb2.MonitorThresholds(every_samples=_count(given, "alert_every_samples"))
    wanted = given["alerts"] or {}
    if not isinstance(wanted, Mapping) or not set(wanted) <= set(_FIGURES.values()):
        raise InvalidRequest(
            f"alerts is {wanted!r}, and must be a mapping of {', '.join(_FIGURES.values())} to thresholds",
            field="alerts",
        )
    for name, value in wanted.items():
        if name == "nan_count":
            message.nan_count = _session.integer(value, name, 64)
        else:
            setattr(message, name, _session.number(value, name))
    return message


def _count(given: Mapping[str, Any], name: str) -> int:
    return _session.integer(given[name], name, 64)


def _widths(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...] | None:
    """The lengths of the neuron axes; None for axes outside the shape, which the server refuses in better words."""
    lengths = shape or (1,)
    if any(not -len(lengths) <= axis < len(lengths) for axis in axes):
        return None
    return tuple(lengths[axis] for axis in sorted(axis % len(lengths) for axis in axes))


def _words(widths: tuple[int, ...]) -> str:
    return "x".join(map(str, widths))


class _Gathered:
    """Batches that lie in shared memory and go in one message: their numbers follow one another."""

    def __init__(self) -> None:
        self._message = monitor_pb2.MonitorRequest()

    def add(self, number: int, layer: str, array: Array, spot: Spot) -> list[bytes]:
        """Gather a batch; gives the message of those before that it can't go with."""
        count = len(self._message.batches.batches)
        frames: list[bytes] = []
        if count and (number != self._message.number + count or count == _MOST_GATHERED):
            frames, count = self.flush(), 0
        if not count:
            self._message.number = number
        # Asked for anew: a list that was had before `flush` is no longer the message's.
        self._message.batches.batches.add(layer=layer, shape=array.shape, shared=_shared.place(spot))
        return frames

    def flush(self) -> list[bytes]:
        """The message of all that is gathered, if anything is."""
        if not self._message.batches.batches:
            return []
        frame = self._message.SerializeToString()
        self._message.Clear()
        return [frame]


def _batch(number: int, layer: str, array: Array) -> Iterator[bytes]:
    """The messages of a batch whose bytes are sent."""
    batch = monitor_pb2.MonitorBatch(layer=layer, shape=array.shape)
    yield monitor_pb2.MonitorRequest(number=number, batch=batch).SerializeToString()
    yield from _chunks(number, wire.ArraySource(array))


def _chunks(number: int, source: wire.ArraySource) -> Iterator[bytes]:
    for begin in range(0, source.nbytes, CHUNK_BYTES):
        request = monitor_pb2.MonitorRequest(number=number, chunk=monitor_pb2.MonitorChunk(offset_bytes=begin))
        yield wire.frame(request, source.read(begin, min(begin + CHUNK_BYTES, source.nbytes)))


def size_of(x: Any) -> int:
    """How many bytes a batch has."""
    return int(getattr(x, "nbytes", 0)) or int(np.asarray(x).nbytes)


__all__ = ["MAX_UNACKNOWLEDGED_BYTES", "Monitoring", "size_of"]
