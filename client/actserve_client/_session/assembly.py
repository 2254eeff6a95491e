"""Responses to arrays: what a server sends of a result is written where it belongs, or refused where it makes no sense."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from actserve import wire
from actserve.v1 import compute_pb2, tensor_pb2

from actserve_client._resume import Place
from actserve_client._session.answers import Array
from actserve_client._session.sizes import CHUNK_BYTES
from actserve_client._summaries import Summary
from actserve_client.errors import InvalidRequest, ServerError, from_status

__all__ = ["Assembly", "MakeOut", "OnSummary", "Progress", "Room", "address_of", "incomplete", "spec_of"]

Progress = Callable[[int, int], None]
"""Called with the bytes of x sent so far and the bytes of the first result received so far."""

OnSummary = Callable[[Summary], object]
"""Called once, when a call's result is complete, from where the result is taken."""

MakeOut = Callable[[tuple[int, ...], np.dtype[Any]], Array]
"""Makes the array that a result is written to, once its shape and its type are known."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Memory that is shared with the server, for the first tensor of a result."""

    memory: Array
    """Its bytes."""
    loan: Any
    """What lends it, if it is not the caller's own."""
    place: tensor_pb2.SharedMemory
    """What the server is told of it."""
    given: bool
    """Whether an array in it may be what the caller gets."""
    first: int = 0
    """The byte of the tensor that it begins with."""

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
        """An array in it. Raises ServerError where it does not fit."""
        nbytes = wire.byte_count(shape, dtype.itemsize)
        if not 0 <= nbytes <= self.memory.nbytes:
            raise ServerError(f"the server wrote {nbytes} bytes to a room of {self.memory.nbytes}")
        return self.memory[:nbytes].view(dtype).reshape(shape)


class Assembly:
    """Takes the responses of one job, and writes their chunks into arrays.

    `out`, or the array that it makes, takes the first tensor of the result; the others, and it too when there is none, are
    allocated. In an open-ended job the first dimension may be unknown until the summary: such a tensor is gathered and
    becomes an array at the end. `span` says which bytes of the first tensor come, when they are not all.
    """

    def __init__(
        self,
        out: Array | MakeOut | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        span: tuple[int, int] | None = None,
    ) -> None:
        self._out = out
        self._progress = progress
        self._on_summary = on_summary
        self._span = span
        self._tensors: list[_Incoming] = []
        self.place = Place(span[0] if span else 0)
        self.sent = 0
        self.room: Room | None = None
        """Where the server writes the first tensor, if it does not send it."""
        self.until: int | None = None
        """Up to which byte of the first tensor the call in progress goes, if another goes on from there."""
        self.overwritten = False
        """Whether the result may lie where the input was, without a word of the server yet."""
        self.summary: compute_pb2.ResultSummary | None = None
        self.refused = False
        """Whether the server has said that this job failed, which is no failure of the stream."""

    def feed(self, raw: bytes, job: int | None = None) -> bool:
        """Take a response; True when it was the call's last. Raises what the server says, or ServerError when it makes no sense.

        `job` is the number that it must have, where a stream has several.
        """
        try:
            message, data = wire.unframe(compute_pb2.ComputeResponse, raw)
        except wire.DecodeError:
            raise ServerError("the server sent bytes that are no ComputeResponse") from None
        if job is not None and message.job != job:
            raise ServerError(f"the server answered job {message.job} where job {job} is due")
        match message.WhichOneof("frame"):
            case "chunk":
                self._chunk(message.chunk, data)
            case "header" if not (self._tensors and self.place.announced):
                self._header(message.header)
            case "summary":
                self._finish(message.summary)
                return True
            case "whole" if not self._tensors:
                self._whole(message.whole.summary, data)
                return True
            case "error":
                self.refused = True
                raise from_status(message.error)
            case frame:
                raise ServerError(f"the server sent {frame or 'an unknown frame'} where none may be")
        return False

    def _header(self, header: compute_pb2.ResultHeader) -> None:
        if not self._tensors:
            for index, spec in enumerate(header.tensors):
                self._tensors.append(self._first(spec) if index == 0 else _incoming(spec))
        self.place.header(header, self._tensors[0].itemsize if self._tensors else 1)

    def _first(self, spec: tensor_pb2.TensorSpec) -> _Incoming:
        out = self._out
        if out is None and spec.HasField("shared") and self.room is not None and self.room.given:
            dtype, shape = spec_of(spec)
            out = self.room.array(dtype.newbyteorder("="), shape)
        return _incoming(spec, out, self._span)

    @property
    def begun(self) -> bool:
        """Whether a server has been at work: it answered, or took more than a connection holds."""
        return self.place.announced or self.place.landmark > 0 or self.sent > 4 * CHUNK_BYTES

    def resume(self) -> None:
        """Go on with what another call sends of the same result; only where `place` is resumable."""
        self._tensors[0].rewind(self.place.resume())

    def _whole(self, summary: compute_pb2.ResultSummary, data: memoryview) -> None:
        for index, spec in enumerate(summary.tensors):
            tensor = self._first(spec) if index == 0 else _incoming(spec)
            self._tensors.append(tensor)
            if index == 0 and spec.HasField("shared"):
                continue
            size = wire.byte_count(spec.shape, tensor.itemsize)
            tensor.write(data[:size])
            data = data[size:]
            if self._progress and index == 0:
                self._progress(self.sent, tensor.filled)
        if len(data):
            raise ServerError("the server sent more bytes than its summary announced")
        self._finish(summary)

    def _chunk(self, chunk: compute_pb2.ResultChunk, data: memoryview) -> None:
        if not 0 <= chunk.tensor < len(self._tensors) or chunk.offset_bytes != self._tensors[chunk.tensor].filled:
            raise ServerError(f"the server sent a chunk out of place: tensor {chunk.tensor}, byte {chunk.offset_bytes}")
        if chunk.shared_bytes and chunk.tensor == 0:
            self._tensors[0].take(self.room, chunk.shared_bytes)
        else:
            self._tensors[chunk.tensor].write(data)
        if chunk.tensor == 0:
            self.place.chunk(chunk, chunk.shared_bytes or len(data))
            if self._progress:
                self._progress(self.sent, self._tensors[0].filled)

    def _finish(self, summary: compute_pb2.ResultSummary) -> None:
        if len(summary.tensors) != len(self._tensors):
            raise ServerError("the server's summary does not fit its header")
        if (
            summary.tensors
            and summary.tensors[0].HasField("shared")
            and (lacking := self._tensors[0].lacking(self.until))
        ):
            self._tensors[0].take(self.room, lacking)
            if self._progress:
                self._progress(self.sent, self._tensors[0].filled)
        if self.until is not None:
            self._pause(summary, self.until)
            return
        for tensor, spec in zip(self._tensors, summary.tensors, strict=True):
            tensor.finish(tuple(spec.shape))
        self.summary = summary
        if self._on_summary:
            self._on_summary(self.place.total(summary))

    def _pause(self, summary: compute_pb2.ResultSummary, until: int) -> None:
        if len(self._tensors) != 1 or self._tensors[0].filled != until or not self.place.resumable(in_place=True):
            raise ServerError(f"the server did not send the part of a result up to byte {until}, or not by its units")
        self.place.pause(summary)

    @property
    def complete(self) -> bool:
        """Whether all of the result has come."""
        return self.summary is not None

    @property
    def arrays(self) -> list[Array]:
        """The tensors of the result, complete once the summary has come."""
        return [tensor.array for tensor in self._tensors]


def incomplete() -> ServerError:
    """The error to raise when the responses end before the last summary."""
    return ServerError("the server's answer ended before it was complete")


class _Incoming:
    """A tensor that is being received."""

    def __init__(self, dtype: np.dtype[Any], array: Array | None, span: tuple[int, int] | None = None) -> None:
        self._dtype = dtype
        self.itemsize = dtype.itemsize
        self._array = array
        self._sink = None if array is None else wire.ArraySink(array)
        self._gathered = bytearray()
        self.filled, self._end = span or (0, None if array is None else array.nbytes)

    def write(self, data: memoryview) -> None:
        if self._sink is None or self._end is None:
            self._gathered += data
        elif self.filled + len(data) > self._end or len(data) % self.itemsize:
            raise ServerError("the server sent more bytes than its header announced, or a part of an element")
        else:
            self._sink.write(self.filled, data)
        self.filled += len(data)

    def lacking(self, until: int | None = None) -> int:
        """How many bytes of a tensor of known size have not come, or of those up to one."""
        return 0 if self._end is None else (self._end if until is None else until) - self.filled

    def take(self, room: Room | None, size: int) -> None:
        """So many bytes more lie in the room."""
        array, stop = self._array, self.filled + size
        if (
            room is None
            or array is None
            or not 0 < size <= self.lacking()
            or not room.first <= self.filled <= stop <= room.first + room.memory.nbytes
        ):
            raise ServerError(
                "the server wrote to a place that it was not given, or more bytes than its header announced"
            )
        if address_of(array) == address_of(room.memory):
            self.filled = stop
        else:
            self.write(room.memory[self.filled - room.first : stop - room.first].data)

    def rewind(self, size: int) -> None:
        """Forget the last bytes."""
        self.filled -= size
        if self._sink is None:
            del self._gathered[self.filled :]

    def finish(self, shape: tuple[int, ...]) -> None:
        end = wire.byte_count(shape, self.itemsize) if self._end is None else self._end
        known = shape if self._array is None else self._array.shape
        if any(length < 0 for length in shape) or shape != known or self.filled != end:
            raise ServerError(f"the server sent {self.filled} bytes of a tensor of shape {list(shape)}")
        if self._array is None:
            self._array = np.frombuffer(self._gathered, self._dtype).reshape(shape)

    @property
    def array(self) -> Array:
        assert self._array is not None
        return self._array


def spec_of(spec: tensor_pb2.TensorSpec) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The type and the shape of a tensor that the server announces."""
    try:
        return wire.dtype_of(spec.data_type), tuple(spec.shape)
    except KeyError:
        raise ServerError(
            f"the server announced a tensor of {wire.data_type_name(spec.data_type)}, which this client does not know"
        ) from None
    except ImportError:
        raise InvalidRequest("a result of bfloat16 needs ml_dtypes: pip install ml_dtypes", field="x") from None


def _incoming(
    spec: tensor_pb2.TensorSpec, out: Array | MakeOut | None = None, span: tuple[int, int] | None = None
) -> _Incoming:
    dtype, shape = spec_of(spec)
    if callable(out):
        out = out(shape, dtype.newbyteorder("="))
    if out is not None:
        if out.shape != shape or out.dtype.newbyteorder("<") != dtype:
            raise InvalidRequest(
                f"out is {out.dtype} of shape {list(out.shape)}, and must be {dtype} of shape {list(shape)}",
                field="out",
            )
        return _Incoming(dtype, out, span)
    return _Incoming(dtype, None if -1 in shape else np.empty(shape, dtype.newbyteorder("=")), span)


def address_of(array: Array) -> int:
    return int(array.__array_interface__["data"][0])
