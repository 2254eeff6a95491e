"""Going on in mid-stream on another server, without any I/O: how far a result has come, and what was sent and may be needed again.

The server says in a result's header whether it is made unit by unit (an element, or the slices that lie interleaved). Then another
one, of the same bits, can be given the input from the first unit on that is still owed. Results of other kinds begin anew.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import deque
from typing import Literal

from actserve import wire
from actserve.allocator import keep_freed_chunks
from actserve.v1 import compute_pb2

from actserve_client._summaries import Nonfinite, Summary, nonfinite_of, summary_of
from actserve_client.errors import ServerUnavailable


def chunk_message(job: int, index: int, offset: int, data: memoryview) -> bytes:
    """The message that carries a piece of an input."""
    keep_freed_chunks()
    chunk = compute_pb2.InputChunk(input=index, offset_bytes=offset)
    return wire.frame(compute_pb2.ComputeStreamRequest(job=job, chunk=chunk), data)


class Place:
    """How far the first tensor of a result has come: where it can be gone on with, and what was counted up to there."""

    def __init__(self, first_unit_bytes: int = 0) -> None:
        self.filled = first_unit_bytes
        """The bytes of the result that have come, with those before the part that was asked for."""
        self.announced = False
        """Whether the result's header has come."""
        self._unit_bytes: tuple[int, ...] = ()
        self._itemsize = 1
        self._bits = ""
        self._units: int | None = None
        self._before = self._counted = self._here = (Nonfinite(), Nonfinite())
        self._computed_s = 0.0

    def header(self, header: compute_pb2.ResultHeader, itemsize: int) -> None:
        """The result's header has come; of a result that is gone on with, once more."""
        self.announced = True
        self._unit_bytes = tuple(header.unit_bytes)
        self._bits = header.bits
        self._itemsize = itemsize
        self._here = (Nonfinite(), Nonfinite())
        if self._unit_bytes and self._units is None:
            self._units = self.filled // self._unit_bytes[-1]

    def chunk(self, chunk: compute_pb2.ResultChunk, size: int) -> None:
        """A chunk of the first tensor has come."""
        self.filled += size
        if not self._unit_bytes:
            return
        if chunk.HasField("input"):
            self._here = nonfinite_of(chunk.input), self._here[1]
        if chunk.HasField("output"):
            self._here = self._here[0], nonfinite_of(chunk.output)
        if self.filled % self._unit_bytes[-1] == 0:
            self._units = self.filled // self._unit_bytes[-1]
            self._counted = self._before[0] + self._here[0], self._before[1] + self._here[1]

    @property
    def landmark(self) -> int:
        """How much of the result is there for good: grows, and no server has to do it again."""
        return self._units or 0

    def resumable(self, *, in_place: bool = False) -> bool:
        """Whether the result can be gone on with; `in_place` when it lies where the input was."""
        if self._units is None or not self._unit_bytes:
            return False
        return not in_place or self._units * self._unit_bytes[-1] == self.filled

    def resume(self) -> int:
        """Go on from the last unit that is complete: how many bytes of the result that is less than have come."""
        assert self._units is not None
        again = self.filled - self._units * self._unit_bytes[-1]
        self.filled -= again
        self.announced = False
        self._before = self._counted
        return again

    def pause(self, summary: compute_pb2.ResultSummary) -> None:
        """All has come that one call was asked for, and another goes on; only where the place is resumable."""
        so_far = self.total(summary)
        self._before = self._counted = so_far.nonfinite_in, so_far.nonfinite_out
        self._computed_s = so_far.compute_time_s
        self.announced = False

    def part(self) -> compute_pb2.Part:
        """What to ask the next server for."""
        assert self._units is not None
        return compute_pb2.Part(first_element=self.needed(0) // self._itemsize, bits=self._bits)

    def needed(self, index: int) -> int:
        """From which byte on an input is needed."""
        return self._units * self._unit_bytes[index] if self._units is not None else 0

    def total(self, summary: compute_pb2.ResultSummary) -> Summary:
        """What the servers have counted, each its part."""
        return Summary(self._computed_s, *self._before) + summary_of(summary)


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """A message of a ComputeStream call, and where it belongs."""

    message: bytes
    job: int
    kind: Literal["header", "chunk", "end"]
    input: int = 0
    """Of a chunk, the input's index."""
    start: int = 0
    stop: int = 0
    """Of a chunk, its place among the input's bytes."""


class Window:
    """The messages that were made and are not answered for good, in order and under their places since the first.

    Threads may share one: messages are added where they are made, and dropped where answers come.
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        """How much is kept at most."""
        self._frames: deque[Frame] = deque()
        self._begin = 0
        self._bytes = 0
        self._let_go = 0
        self._lock = threading.Lock()

    @property
    def begin(self) -> int:
        """The place of the first message that is kept."""
        return self._begin

    def add(self, frame: Frame) -> None:
        """Keep a message, and if that is more than may be kept, let go of the oldest."""
        with self._lock:
            self._frames.append(frame)
            self._bytes += len(frame.message)
            while self._bytes > self.most_bytes:
                self._let_go = self._frames[0].job
                self._pop()

    def at(self, place: int) -> Frame | None:
        """The message at a place; None when it is not made yet, or no longer kept."""
        with self._lock:
            index = place - self._begin
            return self._frames[index] if 0 <= index < len(self._frames) else None

    def has(self, job: int) -> bool:
        """Whether all is kept that was not dropped of a job, and of those after it."""
        return self._let_go < job

    def drop(self, job: int, place: Place | None = None) -> None:
        """Let go of the messages before a job, and of what of that job is not needed again."""
        with self._lock:
            while self._frames and _is_done(self._frames[0], job, place):
                self._pop()

    def _pop(self) -> None:
        self._bytes -= len(self._frames.popleft().message)
        self._begin += 1


def _is_done(frame: Frame, job: int, place: Place | None) -> bool:
    if frame.job != job or place is None or not place.resumable():
        return frame.job < job
    # The header of a job that is gone on with is made anew.
    return frame.kind == "header" or (frame.kind == "chunk" and frame.stop <= place.needed(frame.input))


@dataclasses.dataclass(frozen=True, slots=True)
class Course:
    """What a call sends: a beginning of its own, and then the window's messages, without what of a job no server needs any more."""

    first: tuple[bytes, ...] = ()
    job: int = 0
    """The job that is gone on with; 0 for none."""
    place: Place | None = None

    def message(self, frame: Frame) -> bytes | None:
        """What to send of a message; None for nothing."""
        if self.place is None or frame.job != self.job or frame.kind == "end":
            return frame.message
        if frame.kind == "header":
            return None
        needed = self.place.needed(frame.input)
        if frame.stop <= needed:
            return None
        if frame.start >= needed:
            return frame.message
        _, data = wire.unframe(compute_pb2.ComputeStreamRequest, frame.message)
        return chunk_message(frame.job, frame.input, needed, data[needed - frame.start :])


def course(
    window: Window, job: int, header: compute_pb2.JobHeader | None, place: Place | None, error: ServerUnavailable
) -> Course:
    """How the next call goes on with the job in progress, whose header it is, or the next; raises the error where that can't be."""
    if not window.has(job):
        raise error
    if header is None or place is None or not place.resumable():
        return Course()
    again = compute_pb2.JobHeader()
    again.CopyFrom(header)
    again.part.CopyFrom(place.part())
    first = compute_pb2.ComputeStreamRequest(job=job, header=again).SerializeToString()
    return Course((first,), job, place)


__all__ = ["Course", "Frame", "Place", "Window", "chunk_message", "course"]
