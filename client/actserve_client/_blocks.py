"""A computation over an iterable of blocks, in constant memory and without any I/O: maps block by block, or one reduction."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

import numpy as np
from actserve import wire
from actserve.v1 import compute_pb2

from actserve_client._resume import Course, Frame, Place, Window, chunk_message, course
from actserve_client._session import (
    CHUNK_BYTES,
    KEPT_BYTES,
    Array,
    Assembly,
    MakeOut,
    OnSummary,
    Progress,
    Question,
    as_inputs,
    check_callbacks,
    incomplete,
    merge,
    pieces_of,
    spec_of,
)
from actserve_client._summaries import Summary
from actserve_client.errors import InvalidRequest, ServerError, ServerUnavailable, from_status

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Expected:
    """An output block that is owed: of which job, and how many rows it has (None: the whole of a scalar's job)."""

    job: int
    rows: int | None


class Blocks:
    """A computation over an iterable of blocks: each is sent as it comes, and its result is given back as soon as it is there.

    Consecutive blocks of one type and one shape behind the first dimension are rows of one open-ended job, so that a
    result never waits for more input than it needs; any other begins a job of its own on the same stream.

    `encode` runs where requests are made, `decode` where responses arrive; the two may be different threads. What is not answered
    yet is kept in `window`, for `resume`.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self.window = Window(KEPT_BYTES)
        self._headers: dict[int, compute_pb2.JobHeader] = {}
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
        self._answered = 0
        self._place = Place()
        self._delivered = 0
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] = np.dtype("f4")
        self._block: Array | None = None
        self._filled = 0

    def encode(self, *given: Any) -> Iterator[Frame]:
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
            self._headers[self._job] = header
            yield _header_of(self._job, header)
        with self._lock:
            self._expected.append(_Expected(self._job, len(x) if x.ndim else None))
        for pieces in pieces_of([wire.ArraySource(array) for array in inputs]):
            for index, start, data in pieces:
                start += self._sent[index]
                message = chunk_message(self._job, index, start, data)
                yield Frame(message, self._job, "chunk", index, start, start + len(data))
        self._sent = [sent + array.nbytes for sent, array in zip(self._sent, inputs, strict=True)]

    def end(self) -> Iterator[Frame]:
        """The messages after the last block."""
        self._ended = True
        yield from self._end_job()

    def _end_job(self) -> Iterator[Frame]:
        if self._key is not None:
            self._key = None
            yield _end_of(self._job)

    def resume(self, error: ServerUnavailable) -> Course:
        """How to go on on another call after an error; raises it where that can't be."""
        job = self._current
        if not job:
            return course(self.window, self._answered + 1, None, None, error)
        planned = course(self.window, job, self._headers[job], self._place, error)
        if planned.place is not None:
            self._filled -= self._place.resume()
        elif self._place.filled:
            # A server of another version, which says nothing of units; blocks that were given away can't be taken back.
            raise error
        else:
            self._current = 0
        return planned

    def decode(self, raw: bytes) -> Iterator[Array]:
        """Take a response, and give the output blocks that it completes."""
        try:
            message, data = wire.unframe(compute_pb2.ComputeResponse, raw)
        except wire.DecodeError:
            raise ServerError("the server sent bytes that are no ComputeResponse") from None
        match message.WhichOneof("frame"):
            case "header" if len(message.header.tensors) == 1:
                if message.job != self._current:
                    self._delivered += self._place.landmark + 1
                    self._current, self._place = message.job, Place()
                self._dtype, self._shape = spec_of(message.header.tensors[0])
                self._place.header(message.header, self._dtype.itemsize)
            case "chunk" if message.job == self._current:
                self._place.chunk(message.chunk, len(data))
                self.window.drop(self._current, self._place)
                yield from self._fill(data)
                return
            case "summary" if message.job == self._current:
                yield from self._empties()
                self.window.drop(self._current + 1)
                del self._headers[self._current]
                self._answered, self._current = self._current, 0
                self.summary += self._place.total(message.summary)
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
    def landmark(self) -> int:
        """How much is there for good: grows, and no server has to do it again."""
        return self._delivered + self._place.landmark

    @property
    def nothing_owed(self) -> bool:
        """Whether all is sent and answered, or there was no block: an error of the call is none of the caller's then."""
        return self._ended and self._answered == self._job and not self._expected and self._block is None


def _header_of(job: int, header: compute_pb2.JobHeader) -> Frame:
    return Frame(compute_pb2.ComputeStreamRequest(job=job, header=header).SerializeToString(), job, "header")


def _end_of(job: int) -> Frame:
    message = compute_pb2.ComputeStreamRequest(job=job, end=compute_pb2.InputEnd())
    return Frame(message.SerializeToString(), job, "end")


class Reduction(Generic[T]):
    """A reduction over an iterable of blocks: the rows of one open-ended job, or of several whose answers merge to the same bits.

    Where answers merge, the input is kept only until the next of them has come.
    """

    def __init__(
        self,
        question: Question,
        answer: Callable[[Assembly], T],
        *,
        out: Array | MakeOut | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
    ) -> None:
        check_callbacks(progress, on_summary)
        self._question = question
        self._answer = answer
        self._out = out
        self._progress = progress
        self._on_summary = on_summary
        self.window = Window(KEPT_BYTES)
        self._like: tuple[np.dtype[Any], tuple[int, ...]] | None = None
        # encoding
        self._job = 0
        self._sent = 0
        self._rows = 0
        self._most_bytes: int | None = None
        self._ended = False
        # decoding
        self._assembly = Assembly(self._out, self._progress)
        self._answered = 0
        self._total: T | None = None
        self._summary = Summary()

    def encode(self, *given: Any) -> Iterator[Frame]:
        """The messages that send a block."""
        (block,) = as_inputs(*given)
        like = (block.dtype.newbyteorder("="), block.shape[1:])
        if not block.ndim:
            raise InvalidRequest("a block is a scalar, and must have at least one dimension", field="x")
        if self._like is None:
            self._like = like
            self._most_bytes = _part_bytes(self._question, block)
            self.window.most_bytes = max(KEPT_BYTES, 2 * (self._most_bytes or 0))
        elif like != self._like:
            raise InvalidRequest(
                f"a block is {like[0]} with rows of shape {list(like[1])}, and the ones before it were {self._like[0]} with "
                f"rows of shape {list(self._like[1])}",
                field="x",
            )
        for rows in self._parts(block):
            if self._job == 0 or (
                self._most_bytes is not None and self._sent + rows.nbytes > self._most_bytes and self._sent
            ):
                yield from self._begin(block)
            source = wire.ArraySource(rows)
            for start in range(0, rows.nbytes, CHUNK_BYTES):
                stop = min(start + CHUNK_BYTES, rows.nbytes)
                message = chunk_message(self._job, 0, self._sent + start, source.read(start, stop))
                yield Frame(message, self._job, "chunk", 0, self._sent + start, self._sent + stop)
            self._sent += rows.nbytes
            self._rows += len(rows)

    def _parts(self, block: Array) -> Iterator[Array]:
        """A block in pieces that are no larger than a job may be."""
        row_bytes = block[:1].nbytes
        step = len(block) if self._most_bytes is None or not row_bytes else max(self._most_bytes // row_bytes, 1)
        for start in range(0, max(len(block), 1), max(step, 1)):
            yield block[start : start + step]

    def _begin(self, block: Array) -> Iterator[Frame]:
        if self._job:
            yield _end_of(self._job)
        self._job += 1
        self._sent = 0
        header = self._question.header([(block.dtype, block.shape)], open_ended=True)
        if header.mode == compute_pb2.MODE_NEURON_STATS:
            header.neuron_stats.first_sample += self._rows * _samples_in_row(header.neuron_stats, block)
        yield _header_of(self._job, header)

    def end(self) -> Iterator[Frame]:
        """The message that ends the blocks. Raises InvalidRequest when there were none, as then not even a type is known."""
        if self._like is None:
            raise InvalidRequest("there are no blocks, so their shape and type are not known", field="x")
        self._ended = True
        yield _end_of(self._job)

    @property
    def nothing_owed(self) -> bool:
        """Whether all is sent and answered: an error of the call is none of the caller's then."""
        return self._ended and self._answered == self._job

    def resume(self, error: ServerUnavailable) -> Course:
        """How to go on on another call after an error; raises it where that can't be."""
        planned = course(self.window, self._answered + 1, None, None, error)
        self._assembly = Assembly(self._out, self._progress)
        return planned

    @property
    def landmark(self) -> int:
        """How much is there for good."""
        return self._answered

    def decode(self, raw: bytes) -> Iterator[Any]:
        """Take a response. There are no results before `finish`."""
        if self._assembly.feed(raw, self._answered + 1):
            assert self._assembly.summary is not None
            answer = self._answer(self._assembly)
            parts: list[Any] = [part for part in (self._total, answer) if part is not None]
            self._total = merge(parts) if len(parts) > 1 else answer
            self._summary += self._assembly.place.total(self._assembly.summary)
            self._answered += 1
            self.window.drop(self._answered + 1)
            self._assembly = Assembly(self._out, self._progress)
        yield from ()

    def finish(self) -> T:
        """The answer over all blocks, when all responses have come. Raises ServerError when one is missing."""
        if not self._ended or self._answered != self._job or self._total is None:
            raise incomplete()
        if self._on_summary:
            self._on_summary(self._summary)
        return self._total


_PART_BYTES = 16 << 20
_LARGEST_PART_BYTES = 256 << 20
_PART_BYTES_A_NEURON = 8 << 10
"""So that statistics, some hundreds of bytes a neuron, stay small beside what they are about."""
_SUMMED = tuple(
    compute_pb2.Regularizer.Value(f"REGULARIZER_{name}")
    for name in ("L1", "L2", "L1L2", "LP", "LOG_STUDENT", "CONTRACTIVE")
)
"""The penalties that are sums over elements, and so have a value for any part of the data."""


def in_parts(question: Question, x: Array, out: Array | MakeOut | None, progress: Progress | None) -> bool:
    """Whether a reduction of an array is made of parts of it, so that a lost server costs no more than one of them."""
    header = question.template
    if out is not None or progress is not None or x.ndim < 2 or (header.axis % x.ndim == 0 and header.HasField("axis")):
        return False
    if any(value.HasField("tensor") for value in header.parameters.values()):
        return False  # it may differ along the first dimension, and parts have one of their own
    if header.mode == compute_pb2.MODE_NEURON_STATS and 0 in _neuron_axes(header.neuron_stats, x):
        return False
    size = _part_bytes(question, x)
    return size is not None and x.nbytes > 2 * size


def _part_bytes(question: Question, block: Array) -> int | None:
    """How many bytes a job takes before another begins; None where the answers of several do not merge."""
    header = question.template
    if header.nonfinite:
        return None  # the error names a place in the whole
    if header.mode == compute_pb2.MODE_NEURON_STATS:
        neurons = math.prod(block.shape[axis] for axis in _neuron_axes(header.neuron_stats, block))
        size = max(_PART_BYTES, _PART_BYTES_A_NEURON * neurons)
        return size if size <= _LARGEST_PART_BYTES else None
    options = header.regularization
    return _PART_BYTES if options.regularizer in _SUMMED and not options.gradient else None


def _samples_in_row(options: compute_pb2.NeuronStatsOptions, block: Array) -> int:
    """How many samples of each neuron an entry of the first dimension holds."""
    neurons = _neuron_axes(options, block)
    return math.prod(length for axis, length in enumerate(block.shape) if axis and axis not in neurons)


def _neuron_axes(options: compute_pb2.NeuronStatsOptions, block: Array) -> set[int]:
    axes = list(options.neuron_axes) or [options.neuron_axis if options.HasField("neuron_axis") else -1]
    return {axis % block.ndim for axis in axes if -block.ndim <= axis < block.ndim}


__all__ = ["Blocks", "Reduction", "in_parts"]
