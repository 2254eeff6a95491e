"""Many tensors over one stream, without any I/O: each is a job of its own, and the small ones take one message each way."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from typing import Any

from actserve import wire
from actserve.v1 import compute_pb2

from actserve_client._resume import Course, Frame, Window, chunk_message, course
from actserve_client._session import (
    KEPT_BYTES,
    UNARY_BYTES,
    Array,
    Assembly,
    Question,
    as_inputs,
    incomplete,
    pieces_of,
)
from actserve_client._summaries import Summary
from actserve_client.errors import ActserveError, InvalidRequest, ServerError, ServerUnavailable


@dataclasses.dataclass(frozen=True, slots=True)
class _Owed:
    """A result that is owed: under which number, and what takes it."""

    job: int
    assembly: Assembly
    header: compute_pb2.JobHeader | None = None
    """Its header, where its bytes come in chunks: then it can be gone on with."""


class Tensors:
    """Tensors of any types and shapes, sent as they come; a result for each, in order, and where one fails its error.

    `encode` runs where requests are made, `decode` where responses arrive; the two may be different threads. What is not answered
    yet is kept in `window`, for `resume`.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self.window = Window(KEPT_BYTES)
        self.summary = Summary()
        """What the server has said of the jobs that are complete."""
        self._owed: deque[_Owed | InvalidRequest] = deque()
        self._job = 0
        self._delivered = 0
        self._ended = False
        # Few layers have many shapes, and making a header takes longer than all else about a small tensor.
        self._like: tuple[Any, ...] | None = None
        self._message = compute_pb2.ComputeStreamRequest()

    def encode(self, *given: Any) -> Iterator[Frame]:
        """The messages that send a tensor, and perhaps its upstream gradient; none for one that can't be sent."""
        try:
            inputs = as_inputs(*given)
        except InvalidRequest as error:
            self._owed.append(error)
            return
        like = tuple((array.dtype, array.shape) for array in inputs)
        if like != self._like:
            self._like = like
            self._message = compute_pb2.ComputeStreamRequest(header=self._question.header(like))
        self._job += 1
        job, self._message.job = self._job, self._job
        sources = [wire.ArraySource(array) for array in inputs]
        if sum(source.nbytes for source in sources) <= UNARY_BYTES:
            self._owed.append(_Owed(job, Assembly()))
            whole = b"".join(source.read(0, source.nbytes) for source in sources)
            yield Frame(wire.frame(self._message, whole), job, "header")
            return
        self._owed.append(_Owed(job, Assembly(), self._message.header))
        yield Frame(self._message.SerializeToString(), job, "header")
        for pieces in pieces_of(sources):
            for index, start, data in pieces:
                yield Frame(chunk_message(job, index, start, data), job, "chunk", index, start, start + len(data))

    def end(self) -> Iterator[Frame]:
        """The messages after the last tensor: none."""
        self._ended = True
        yield from ()

    def resume(self, error: ServerUnavailable) -> Course:
        """How to go on on another call after an error; raises it where that can't be."""
        owed = next((owed for owed in self._owed if isinstance(owed, _Owed)), None)
        if owed is None:
            return Course()
        place = owed.assembly.place
        planned = course(self.window, owed.job, owed.header, place, error)
        if planned.place is None:
            self._owed[self._owed.index(owed)] = dataclasses.replace(owed, assembly=Assembly())
        else:
            owed.assembly.resume()
        return planned

    def decode(self, raw: bytes) -> Iterator[Array | ActserveError]:
        """Take a response, and give the results that it completes."""
        yield from self._refused()
        if not self._owed:
            raise ServerError("the server sent more than was asked for")
        owed = self._owed[0]
        assert isinstance(owed, _Owed)
        try:
            complete = owed.assembly.feed(raw, owed.job)
        except ActserveError as error:
            if not owed.assembly.refused:
                raise
            self._done(owed)
            yield error
        else:
            if complete:
                self._done(owed)
                assert owed.assembly.summary is not None
                self.summary += owed.assembly.place.total(owed.assembly.summary)
                yield owed.assembly.arrays[0]
            elif owed.header is not None:
                self.window.drop(owed.job, owed.assembly.place)
        yield from self._refused()

    @property
    def landmark(self) -> int:
        """How much is there for good: grows, and no server has to do it again."""
        first = next((owed for owed in self._owed if isinstance(owed, _Owed)), None)
        return self._delivered + (first.assembly.place.landmark if first and first.header is not None else 0)

    def _done(self, owed: _Owed) -> None:
        self._owed.popleft()
        self._delivered += owed.assembly.place.landmark + 1
        self.window.drop(owed.job + 1)

    def finish(self) -> Iterator[ActserveError]:
        """What is left when all responses have come. Raises ServerError when a result is missing."""
        yield from self._refused()
        if self._owed:
            raise incomplete()

    def _refused(self) -> Iterator[InvalidRequest]:
        """The errors of tensors that were not sent, when it is their turn."""
        while self._owed:
            first = self._owed[0]
            if isinstance(first, _Owed):
                return
            self._owed.popleft()
            yield first

    @property
    def nothing_owed(self) -> bool:
        """Whether all is sent and answered, or there was no tensor: an error of the call is none of the caller's then."""
        return self._ended and not any(isinstance(owed, _Owed) for owed in self._owed)


def raised(result: Any, *, return_exceptions: bool) -> Any:
    """A result as the caller wants it: its error raised, or in its place."""
    if isinstance(result, ActserveError) and not return_exceptions:
        raise result
    return result


__all__ = ["Tensors", "raised"]
