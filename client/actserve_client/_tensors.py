"""Many tensors over one stream, without any I/O: each is a job of its own, and the small ones take one message each way.

Where they are computed element by element, small ones that are there at the same time go together as one job: a message costs as
much as thousands of elements.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from actserve import wire
from actserve.v1 import compute_pb2

from actserve_client import records
from actserve_client._pulling import Room
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

PACK_BYTES = 64 << 10
"""How many bytes of tensors go together at most; benchmarks/README.md shows where it comes from."""

COPIED_BYTES = 256 << 10
"""Below this many bytes a tensor of an iterable is copied, so that the next one can be pulled while it is on its way."""

AHEAD_BYTES = 8 << 20
"""How many bytes of small tensors are read ahead of the results at most: as much as gRPC takes of larger ones by itself."""

LEAST_PACKED = 2
"""How many go together at least."""

_LEAST_COST = 64
"""What a tensor counts at least, as what is kept of it is no smaller; so there is an end of empty ones too."""

Inputs = tuple[Array, ...] | InvalidRequest
"""A tensor, and perhaps its upstream gradient, or why it can't be sent."""


def may_go_together(question: Question, arrays: Any) -> bool:
    """Whether tensors may be read before their turn, and an elementwise activation computes each as it would alone."""
    template = question.template
    return (
        not (type(arrays) in (list, tuple) and len(arrays) < LEAST_PACKED)
        and "." not in template.activation
        and not template.nonfinite
        and not template.derivative.jacobian
        and not template.HasField("axis")
        and not any(value.HasField("tensor") for value in template.parameters.values())
    )


def all_there(arrays: Any, upstream: Any) -> bool:
    """Whether all tensors, and their gradients, are there already."""
    return type(arrays) in (list, tuple) and (
        upstream is None or (type(upstream) in (list, tuple) and len(upstream) == len(arrays))
    )


def goes_by_elements(known: records.Activation | None) -> bool:
    """Whether what an activation makes of an element depends neither on its neighbours nor on its place."""
    return known is not None and known.kind == "elementwise" and all(p.kind != "seed" for p in known.parameters)


def checked(given: tuple[Any, ...]) -> Inputs:
    """A tensor, and perhaps its upstream gradient, as arrays that can be sent."""
    try:
        return as_inputs(*given)
    except InvalidRequest as error:
        return error


def all_checked(arrays: Any, upstream: Any) -> Iterator[Inputs]:
    """The same of all tensors that are there, and their gradients."""
    return map(checked, zip(arrays) if upstream is None else zip(arrays, upstream, strict=True))


def kept(given: tuple[Any, ...]) -> Inputs:
    """A tensor that can be sent, whose memory the caller may use again; but a large one must be sent before."""
    inputs = checked(given)
    if isinstance(inputs, InvalidRequest) or cost(inputs) >= COPIED_BYTES:
        return inputs
    return tuple(array.copy() for array in inputs)


def cost(inputs: Inputs) -> int:
    """How much of a pack a tensor takes."""
    nbytes = 0 if isinstance(inputs, InvalidRequest) else sum(array.nbytes for array in inputs)
    return max(nbytes, _LEAST_COST)


def room() -> Room:
    """How much of an iterable is pulled at a time."""
    return Room(together=PACK_BYTES, alone=COPIED_BYTES, ahead=AHEAD_BYTES)


@dataclasses.dataclass(frozen=True, slots=True)
class _Owed:
    """A result that is owed: under which number, and what takes it."""

    job: int
    assembly: Assembly
    header: compute_pb2.JobHeader | None = None
    """Its header, where its bytes come in chunks: then it can be gone on with."""
    shapes: tuple[tuple[int, ...], ...] | None = None
    """Of the tensors that went together, where they did; of none, where only the answer's coming matters."""

    def results(self) -> Iterator[Array]:
        """The tensors of an answer that is complete."""
        result = self.assembly.arrays[0]
        if self.shapes is None:
            yield result
            return
        begin = 0
        for shape in self.shapes:
            end = begin + math.prod(shape)
            yield result[begin:end].reshape(shape).copy()
            begin = end


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
        self._answered = 0
        self._delivered = 0
        self._ended = False
        # Few layers have many shapes, and making a header takes longer than all else about a small tensor.
        self._like: tuple[Any, ...] | None = None
        self._message = compute_pb2.ComputeStreamRequest()

    def encode(self, *given: Any) -> Iterator[Frame]:
        """The messages that send a tensor, and perhaps its upstream gradient."""
        inputs = checked(given)
        if isinstance(inputs, InvalidRequest):
            yield from self._refuse(inputs)
        else:
            yield from self._frames(inputs)

    def encode_together(self, tensors: Iterable[Inputs]) -> Iterator[Frame]:
        """The messages that send tensors which are all there; small ones of one type that follow one another go together."""
        pack: list[tuple[Array, ...]] = []
        size = 0
        for inputs in tensors:
            if isinstance(inputs, InvalidRequest):
                yield from self._packed(pack)
                pack, size = [], 0
                yield from self._refuse(inputs)
                continue
            more = cost(inputs)
            alone = more > PACK_BYTES // LEAST_PACKED or any(array.shape != inputs[0].shape for array in inputs)
            if pack and (alone or size + more > PACK_BYTES or inputs[0].dtype != pack[0][0].dtype):
                yield from self._packed(pack)
                pack, size = [], 0
            if alone:
                yield from self._frames(inputs)
            else:
                pack.append(inputs)
                size += more
        yield from self._packed(pack)

    def _refuse(self, error: InvalidRequest) -> Iterator[Frame]:
        """Owe an error, which is given when an answer comes; where none is due, an empty tensor is sent so that one does."""
        self._owed.append(error)
        if self._answered == self._job:
            yield from self._frames((np.empty(0, np.float32),), ())

    def _packed(self, pack: list[tuple[Array, ...]]) -> Iterator[Frame]:
        if len(pack) < LEAST_PACKED:
            for inputs in pack:
                yield from self._frames(inputs)
            return
        shapes = tuple(inputs[0].shape for inputs in pack)
        together = tuple(np.concatenate([array.ravel() for array in arrays]) for arrays in zip(*pack, strict=True))
        yield from self._frames(together, shapes)

    def _frames(self, inputs: tuple[Array, ...], shapes: tuple[tuple[int, ...], ...] | None = None) -> Iterator[Frame]:
        like = tuple((array.dtype, array.shape) for array in inputs)
        if like != self._like:
            self._like = like
            self._message = compute_pb2.ComputeStreamRequest(header=self._question.header(like))
        self._job += 1
        job, self._message.job = self._job, self._job
        sources = [wire.ArraySource(array) for array in inputs]
        if sum(source.nbytes for source in sources) <= UNARY_BYTES:
            self._owed.append(_Owed(job, Assembly(), shapes=shapes))
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
        owed = self._first
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
            for _ in ((),) if owed.shapes is None else owed.shapes:
                yield error
        else:
            if complete:
                self._done(owed)
                assert owed.assembly.summary is not None
                self.summary += owed.assembly.place.total(owed.assembly.summary)
                yield from owed.results()
            elif owed.header is not None:
                self.window.drop(owed.job, owed.assembly.place)
        yield from self._refused()

    @property
    def _first(self) -> _Owed | None:
        # Of a copy, because more may be owed while it is looked at.
        return next((owed for owed in tuple(self._owed) if isinstance(owed, _Owed)), None)

    @property
    def landmark(self) -> int:
        """How much is there for good: grows, and no server has to do it again."""
        first = self._first
        return self._delivered + (first.assembly.place.landmark if first and first.header is not None else 0)

    def _done(self, owed: _Owed) -> None:
        self._owed.popleft()
        self._answered += 1
        self._delivered += owed.assembly.place.landmark + 1
        self.window.drop(owed.job + 1)

    def finish(self) -> Iterator[ActserveError]:
        """What is left when all responses have come. Raises ServerError when a result is missing."""
        for owed in tuple(self._owed):
            if isinstance(owed, InvalidRequest):
                yield owed
            elif owed.shapes != ():
                raise incomplete()

    def _refused(self) -> Iterator[InvalidRequest]:
        """The errors of tensors that can't be sent, when it is their turn."""
        while self._owed:
            first = self._owed[0]
            if isinstance(first, _Owed):
                return
            self._owed.popleft()
            yield first

    @property
    def nothing_owed(self) -> bool:
        """Whether all is sent and answered, or there was no tensor: an error of the call is none of the caller's then."""
        return self._ended and not any(isinstance(owed, _Owed) and owed.shapes != () for owed in tuple(self._owed))


def raised(result: Any, *, return_exceptions: bool) -> Any:
    """A result as the caller wants it: its error raised, or in its place."""
    if isinstance(result, ActserveError) and not return_exceptions:
        raise result
    return result


__all__ = [
    "PACK_BYTES",
    "Inputs",
    "Tensors",
    "all_checked",
    "all_there",
    "checked",
    "cost",
    "goes_by_elements",
    "kept",
    "may_go_together",
    "raised",
    "room",
]
