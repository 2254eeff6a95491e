"""The Monitor call: its frames to layers and their batches, and states, alerts and refusals to messages.

A layer or a batch that is refused says so under its number, and the stream goes on. What makes what follows unintelligible ends the
call, and so does what spoils a layer in the middle of a batch, or a batch that lies in a region that is not this server's: the caller has
the last snapshot, and all that came after it.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator

import grpc
import numpy as np
import numpy.typing as npt
from actserve import wire
from actserve.v1 import compute_pb2, monitor_pb2, tensor_pb2

from actserve_server import messages
from actserve_server.engine.inlets import Chunk
from actserve_server.engine.layers import Batch, Layer, Thresholds
from actserve_server.engine.names import BUILT_IN, Names
from actserve_server.engine.plan import Limits
from actserve_server.errors import (
    ChunkOutOfPlace,
    Draining,
    InvalidOption,
    LimitExceeded,
    MalformedMessage,
    RequestError,
    StreamEndedEarly,
    UnexpectedFrame,
    UnknownRegion,
)
from actserve_server.kernels.threads import Team
from actserve_server.placement import part_of
from actserve_server.regions import Regions
from actserve_server.status import status_of
from actserve_server.watched import Watched

_LONGEST_NAME_BYTES = 256
_FIGURES = {
    "dead_fraction": monitor_pb2.MONITOR_FIGURE_DEAD_FRACTION,
    "dormant_fraction": monitor_pb2.MONITOR_FIGURE_DORMANT_FRACTION,
    "saturated_fraction": monitor_pb2.MONITOR_FIGURE_SATURATED_FRACTION,
    "nan_count": monitor_pb2.MONITOR_FIGURE_NAN_COUNT,
}

Message = monitor_pb2.MonitorRequest


class Monitors:
    """The streams that are open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[MonitorStream, grpc.ServicerContext]] = {}
        self._draining = False

    @contextlib.contextmanager
    def opened(self, stream: MonitorStream, context: grpc.ServicerContext) -> Iterator[None]:
        """Know a stream while it is open. Raises Draining."""
        with self._lock:
            if self._draining:
                raise Draining
            number = next(self._numbers)
            self._open[number] = stream, context
        try:
            yield
        finally:
            with self._lock:
                del self._open[number]

    def drain(self) -> None:
        """End all streams: they would last as long as their callers like, and each can go on at another server."""
        with self._lock:
            self._draining = True
            contexts = [context for _, context in self._open.values()]
        for context in contexts:
            context.cancel()

    def watched(self) -> list[Watched]:
        """All layers there are."""
        with self._lock:
            streams = [(number, stream) for number, (stream, _) in self._open.items()]
        return [
            Watched(number, monitor, name, layer.figures)
            for number, stream in streams
            for name, (monitor, layer) in list(stream.layers.items())
        ]


class MonitorStream:
    """One call of Monitor."""

    def __init__(self, limits: Limits, team: Team, regions: Regions, names: Names = BUILT_IN) -> None:
        self._limits = limits
        self._team = team
        self._regions = regions
        self._names = names
        self._latest = 0
        self._refused = -1
        self.layers: dict[str, tuple[str, Layer]] = {}
        """By their names; each beside the name of the monitor."""

    def responses(self, raws: Iterator[bytes]) -> Iterator[bytes]:
        """Answer the requests."""
        frames = map(_parse, raws)
        for message, _ in frames:
            frame = message.WhichOneof("frame")
            if frame == "chunk" and message.number == self._refused:
                continue
            if frame in (None, "chunk"):
                raise UnexpectedFrame(
                    f"a frame {message.number} with {frame or 'nothing'}, and no bytes are lacking; begin a layer or a batch",
                    field=frame or "frame",
                    value=message.number,
                )
            if message.number < self._latest or (frame != "layer" and message.number == self._latest):
                raise UnexpectedFrame(
                    f"a {frame} with number {message.number} after number {self._latest}; numbers must grow",
                    field="number",
                    value=message.number,
                )
            self._latest = message.number
            match frame:
                case "layer":
                    yield from self._layer(message, frames)
                case "batch":
                    with _Held(self._regions) as held:
                        yield from self._take(message.number, message.batch, held, frames)
                case "batches":
                    yield from self._batches(message.number, message.batches)
                case _:
                    yield from self._snapshot(message.number)

    # ---- layers ----------------------------------------------------------------------------------------------------

    def _layer(self, message: Message, frames: Iterator[tuple[Message, memoryview]]) -> Iterator[bytes]:
        asked = message.layer
        try:
            self._check_names(asked)
            _check_places(asked.header)
            limit = self._limits.max_slice_bytes
            if asked.state_bytes > limit:
                raise LimitExceeded(
                    "a layer's state, in bytes",
                    field="state_bytes",
                    value=asked.state_bytes,
                    limit=limit,
                    setting="max_slice_bytes",
                )
        except RequestError as error:
            self._refused = message.number
            yield _failure(message.number, asked.layer, error, of_layer=True)
            return
        state = bytearray()
        if asked.state_bytes:
            for chunk in self._chunks(message.number, asked.state_bytes, frames):
                _check_place(chunk, len(state), asked.state_bytes)
                state += chunk.data
        try:
            layer = Layer(
                messages.job(asked.header),
                self._limits,
                self._team,
                thresholds=_thresholds(asked.thresholds),
                snapshot_every_samples=asked.snapshot_every_samples,
                state=bytes(state) if asked.state_bytes else None,
                names=self._names,
            )
        except RequestError as error:
            yield _failure(message.number, asked.layer, error, of_layer=True)
            return
        self.layers[asked.layer] = (asked.monitor, layer)

    def _check_names(self, asked: monitor_pb2.MonitorLayer) -> None:
        for field, name, least in (("layer", asked.layer, 1), ("monitor", asked.monitor, 0)):
            if not least <= len(name.encode()) <= _LONGEST_NAME_BYTES:
                raise InvalidOption(
                    f"{field} has a name of {len(name.encode())} bytes, and must have {least} to {_LONGEST_NAME_BYTES}",
                    field=field,
                    value=name,
                    allowed=f"{least} to {_LONGEST_NAME_BYTES} bytes",
                )
        if asked.layer in self.layers:
            raise InvalidOption(f"there is a layer {asked.layer!r} already", field="layer", value=asked.layer)
        if asked.state_bytes < 0:
            raise InvalidOption("state_bytes must not be negative", field="state_bytes", value=asked.state_bytes)

    # ---- batches ---------------------------------------------------------------------------------------------------

    def _batches(self, first: int, asked: monitor_pb2.MonitorBatches) -> Iterator[bytes]:
        if not asked.batches or not all(batch.HasField("shared") for batch in asked.batches):
            raise UnexpectedFrame(
                f"the batches from number {first} on must be at least one, and all lie in shared memory",
                field="batches",
                value=len(asked.batches),
            )
        with _Held(self._regions) as held:
            for number, batch in enumerate(asked.batches, first):
                self._latest = number
                yield from self._take(number, batch, held, iter(()))

    def _take(
        self, number: int, asked: monitor_pb2.MonitorBatch, held: _Held, frames: Iterator[tuple[Message, memoryview]]
    ) -> Iterator[bytes]:
        name = asked.layer
        try:
            layer = self._known(name)
            batch = layer.check(tuple(asked.shape))
            memory = held.bytes_of(asked.shared, batch) if asked.HasField("shared") else None
        except UnknownRegion:
            raise
        except RequestError as error:
            self._refused = number
            yield _failure(number, name, error, of_layer=False)
            return
        if memory is None:
            layer.take(batch, self._chunks(number, batch.nbytes, frames))
        else:
            layer.take(batch, [Chunk(0, 0, memory)], steady=True)
        for alert in layer.alerts():
            yield monitor_pb2.MonitorResponse(
                number=number,
                alert=monitor_pb2.MonitorAlert(
                    layer=name,
                    figure=_FIGURES[alert.figure],
                    value=alert.value,
                    threshold=alert.threshold,
                    sample_count=alert.samples,
                ),
            ).SerializeToString()
        if layer.snapshot_due:
            yield from self._snapshot(number)

    def _known(self, name: str) -> Layer:
        if name not in self.layers:
            raise InvalidOption(
                f"there is no layer {name!r} on this stream; send its header first",
                field="layer",
                value=name,
                allowed=", ".join(self.layers),
            )
        return self.layers[name][1]

    def _chunks(self, number: int, size: int, frames: Iterator[tuple[Message, memoryview]]) -> Iterator[Chunk]:
        """The chunks of a batch, or of a state, until so many bytes have come."""
        received = 0
        while received < size:
            found = next(frames, None)
            if found is None:
                raise StreamEndedEarly(f"the stream ended in the middle of number {number}", field="data", value=number)
            message, data = found
            frame = message.WhichOneof("frame")
            if frame == "chunk" and message.number == self._refused != number:
                continue
            if frame != "chunk" or message.number != number:
                raise UnexpectedFrame(
                    f"a frame {message.number} with {frame or 'nothing'} while number {number} lacks {size - received} bytes",
                    field=frame or "frame",
                    value=message.number,
                )
            received += len(data)
            yield Chunk(0, message.chunk.offset_bytes, data)

    # ---- snapshots -------------------------------------------------------------------------------------------------

    def _snapshot(self, number: int) -> Iterator[bytes]:
        for name, (_, layer) in self.layers.items():
            stats = layer.snapshot()
            if stats is None:
                continue
            state = memoryview(stats.to_bytes())
            for begin in range(0, len(state), self._limits.chunk_bytes):
                part = monitor_pb2.MonitorState(layer=name, state_bytes=len(state), offset_bytes=begin)
                yield wire.frame(
                    monitor_pb2.MonitorResponse(number=number, state=part),
                    state[begin : begin + self._limits.chunk_bytes],
                )
        end = monitor_pb2.MonitorSnapshot(through=number)
        yield monitor_pb2.MonitorResponse(number=number, snapshot=end).SerializeToString()


class _Held:
    """The regions that batches lie in, which stay until all of them were looked at: until the end of the block."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._stack = contextlib.ExitStack()
        self._memories: dict[bytes, npt.NDArray[np.uint8]] = {}

    def bytes_of(self, place: tensor_pb2.SharedMemory, batch: Batch) -> memoryview:
        """Where a batch lies. Raises UnknownRegion and InvalidOption."""
        region = self._memories.get(place.region)
        if region is None:
            region = self._stack.enter_context(self._regions.using(place.region, "batch.shared"))
            self._memories[place.region] = region
        return part_of(region, place, batch.nbytes, batch.plan.subject.dtype.itemsize, "shared").data

    def __enter__(self) -> _Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._memories.clear()
        self._stack.close()


def _check_place(chunk: Chunk, expected: int, size: int) -> None:
    if chunk.offset != expected or expected + len(chunk.data) > size:
        raise ChunkOutOfPlace(
            f"a chunk of a state of {size} bytes begins at byte {chunk.offset} and has {len(chunk.data)}; it must begin at "
            f"{expected}, and not reach beyond the end",
            field="chunk.offset_bytes",
            value=chunk.offset,
            allowed=expected,
        )


def _check_places(header: compute_pb2.JobHeader) -> None:
    if header.HasField("result") or any(spec.HasField("shared") for spec in header.inputs):
        raise InvalidOption(
            "a layer has no place in shared memory; its batches may have one each", field="header.inputs[0].shared"
        )


def _thresholds(asked: monitor_pb2.MonitorThresholds) -> Thresholds:
    given = {name: float(getattr(asked, name)) for name in _FIGURES if asked.HasField(name)}
    return Thresholds(given, asked.every_samples)


def _parse(raw: bytes) -> tuple[Message, memoryview]:
    try:
        return wire.unframe(Message, raw)
    except wire.DecodeError:
        raise MalformedMessage(f"these bytes are no {Message.DESCRIPTOR.full_name}", field="") from None


def _failure(number: int, layer: str, error: RequestError, *, of_layer: bool) -> bytes:
    shape = "header.inputs[0].shape"
    if error.field == shape and not of_layer:
        error.field = "batch.shape"
    elif of_layer or error.field.startswith(("header.", "state_bytes")):
        error.field = f"layer.{error.field}"
    else:
        error.field = f"batch.{error.field}"
    error.facts.pop("field", None)
    failure = monitor_pb2.MonitorFailure(layer=layer, of_layer=of_layer, error=status_of(error))
    return monitor_pb2.MonitorResponse(number=number, failure=failure).SerializeToString()


__all__ = ["MonitorStream", "Monitors", "Watched"]
