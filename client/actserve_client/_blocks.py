"""A computation over an iterable of blocks, in constant memory and without any I/O: maps block by block, or one reduction."""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from actserve import wire
from actserve.v1 import compute_pb2

from actserve_client._session import (
    CHUNK_BYTES,
    Array,
    Question,
    Summary,
    as_inputs,
    chunk_message,
    incomplete,
    pieces_of,
    spec_of,
    summary_of,
)
from actserve_client.errors import InvalidRequest, ServerError, from_status


@dataclasses.dataclass(frozen=True, slots=True)
class _Expected:
    """An output block that is owed: of which job, and how many rows it has (None: the whole of a scalar's job)."""

    job: int
    rows: int | None


class Blocks:
    """A computation over an iterable of blocks: each is sent as it comes, and its result is given back as soon as it is there.

    Consecutive blocks of one type and one shape behind the first dimension are rows of one open-ended job, so that a
    result never waits for more input than it needs; any other begins a job of its own on the same stream.

    `encode` runs where requests are made, `decode` where responses arrive; the two may be different threads.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self.summary = Summary()
        """What the server has said of the jobs that are complete."""
        self._expected: deque[_Expected] = deque()
        self._lock = threading.Lock()
        # encoding
        self._job = 0
        self._key: tuple[Any, ...] | None = None
        self._sent: list[int] = []
        self._ended = False
        # decoding
        self._current = 0
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] = np.dtype("f4")
        self._block: Array | None = None
        self._filled = 0

    def encode(self, *given: Any) -> Iterator[bytes]:
        """The messages that send a block: x, and perhaps the upstream gradient, which has as many rows."""
        inputs = as_inputs(*given)
        x = inputs[0]
        if any(other.shape[:1] != x.shape[:1] for other in inputs[1:]):
            raise InvalidRequest(
                f"a block of upstream has shape {list(inputs[1].shape)}, and its x {list(x.shape)}", field="upstream"
            )
        key = (x.dtype.newbyteorder("="), *(array.shape[1:] for array in inputs)) if x.ndim else None
        if key is None or key != self._key:
            yield from self._end_job()
            self._job += 1
            self._sent = [0] * len(inputs)
            self._key = key
            header = self._question.header(((a.dtype, a.shape) for a in inputs), open_ended=key is not None)
            yield compute_pb2.ComputeStreamRequest(job=self._job, header=header).SerializeToString()
        with self._lock:
            self._expected.append(_Expected(self._job, len(x) if x.ndim else None))
        for pieces in pieces_of([wire.ArraySource(array) for array in inputs]):
            for index, start, data in pieces:
                yield chunk_message(self._job, index, self._sent[index] + start, data)
        self._sent = [sent + array.nbytes for sent, array in zip(self._sent, inputs, strict=True)]

    def end(self) -> Iterator[bytes]:
        """The messages after the last block."""
        self._ended = True
        yield from self._end_job()

    def _end_job(self) -> Iterator[bytes]:
        if self._key is not None:
            self._key = None
            yield compute_pb2.ComputeStreamRequest(job=self._job, end=compute_pb2.InputEnd()).SerializeToString()

    def decode(self, raw: bytes) -> Iterator[Array]:
        """Take a response, and give the output blocks that it completes."""
        try:
            message, data = wire.unframe(compute_pb2.ComputeResponse, raw)
        except wire.DecodeError:
            raise ServerError("the server sent bytes that are no ComputeResponse") from None
        match message.WhichOneof("frame"):
            case "header" if len(message.header.tensors) == 1:
                self._current = message.job
                self._dtype, self._shape = spec_of(message.header.tensors[0])
            case "chunk" if message.job == self._current:
                yield from self._fill(data)
                return
            case "summary" if message.job == self._current:
                yield from self._empties()
                self._current = 0
                self.summary += summary_of(message.summary)
            case "error":
                raise from_status(message.error)
            case frame:
                raise ServerError(f"the server sent {frame or 'an unknown frame'} where none may be")
        yield from self._empties()

    def _begin(self) -> bool:
        """Allocate the next output block, if one of the current job is owed."""
        with self._lock:
            if not self._expected or self._expected[0].job != self._current:
                return False
            expected = self._expected.popleft()
        shape = self._shape if expected.rows is None else (expected.rows, *self._shape[1:])
        self._block = np.empty(shape, self._dtype.newbyteorder("="))
        self._filled = 0
        return True

    def _empties(self) -> Iterator[Array]:
        """Blocks without elements get no chunk: they are complete when their turn comes."""
        while self._block is not None or self._begin():
            assert self._block is not None
            if self._block.nbytes:
                return
            yield self._block
            self._block = None

    def _fill(self, data: memoryview) -> Iterator[Array]:
        while len(data):
            yield from self._empties()
            if self._block is None:
                raise ServerError("the server sent more than was asked for")
            part = data[: self._block.nbytes - self._filled]
            wire.ArraySink(self._block).write(self._filled, part)
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == self._block.nbytes:
                yield self._block
                self._block = None
        yield from self._empties()

    def finish(self) -> Iterator[Array]:
        """What is left when all responses have come: nothing. Raises ServerError when a block is missing."""
        if self._current or self._expected or self._block is not None:
            raise incomplete()
        yield from ()

    @property
    def nothing_sent(self) -> bool:
        """Whether all is sent and there was no block: an error for the server, and no results for the caller."""
        return self._ended and self._job == 0


class Reduction:
    """A reduction over an iterable of blocks, which are the rows of one open-ended job."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._like: tuple[np.dtype[Any], tuple[int, ...]] | None = None
        self._sent = 0

    def encode(self, block: Array) -> Iterator[bytes]:
        """The messages that send a block."""
        like = (block.dtype.newbyteorder("="), block.shape[1:])
        if not block.ndim:
            raise InvalidRequest("a block is a scalar, and must have at least one dimension", field="x")
        if self._like is None:
            self._like = like
            header = self._question.header([(block.dtype, block.shape)], open_ended=True)
            yield compute_pb2.ComputeStreamRequest(job=1, header=header).SerializeToString()
        elif like != self._like:
            raise InvalidRequest(
                f"a block is {like[0]} with rows of shape {list(like[1])}, and the ones before it were {self._like[0]} with "
                f"rows of shape {list(self._like[1])}",
                field="x",
            )
        source = wire.ArraySource(block)
        for start in range(0, block.nbytes, CHUNK_BYTES):
            yield chunk_message(1, 0, self._sent + start, source.read(start, min(start + CHUNK_BYTES, block.nbytes)))
        self._sent += block.nbytes

    def end(self) -> Iterator[bytes]:
        """The message that ends the blocks. Raises InvalidRequest when there were none, as then not even a type is known."""
        if self._like is None:
            raise InvalidRequest("there are no blocks, so their shape and type are not known", field="x")
        yield compute_pb2.ComputeStreamRequest(job=1, end=compute_pb2.InputEnd()).SerializeToString()


__all__ = ["Blocks", "Reduction"]
