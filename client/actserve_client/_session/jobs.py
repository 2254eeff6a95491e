"""A computation over arrays that lie in memory: its requests, and what its answer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from actserve import wire
from actserve.stats import NeuronStats
from actserve.v1 import compute_pb2

from actserve_client._resume import chunk_message
from actserve_client._session.answers import Array, Gradients, Regularization
from actserve_client._session.arguments import check_callbacks
from actserve_client._session.assembly import Assembly, MakeOut, OnSummary, Progress, address_of
from actserve_client._session.questions import Question
from actserve_client._session.sizes import CHUNK_BYTES, UNARY_BYTES
from actserve_client.errors import InvalidRequest, ServerError, ServerUnavailable

__all__ = ["Job", "gradients_job", "map_job", "penalty_answer", "pieces_of", "stats_answer"]

T = TypeVar("T")


class Job(Generic[T]):
    """One computation over arrays that lie in memory."""

    def __init__(
        self,
        question: Question,
        inputs: tuple[Array, ...],
        answer: Callable[[Assembly], T],
        *,
        out: Array | MakeOut | None = None,
        progress: Progress | None = None,
        on_summary: OnSummary | None = None,
        span: tuple[int, int] | None = None,
        unit_bytes: int = 0,
    ) -> None:
        if not (out is None or callable(out) or (isinstance(out, np.ndarray) and out.flags.writeable)):
            raise InvalidRequest("out must be a writable NumPy array", field="out")
        check_callbacks(progress, on_summary)
        self._header = question.header((array.dtype, array.shape) for array in inputs)
        self.inputs = inputs
        self.sources = tuple(wire.ArraySource(array) for array in inputs)
        self._answer = answer
        self._out = out
        self._progress = progress
        self._on_summary = on_summary
        self._span = span
        self.unit_bytes = unit_bytes
        """How many bytes of each input make as many of the result by themselves; 0 where that is not known, or none do."""
        target = out if isinstance(out, np.ndarray) else None
        shared = [array for array in inputs if target is not None and np.may_share_memory(array, target)]
        # What is computed from a chunk is only written after the chunk was sent, so computing in place is safe; an
        # overlap in any other way is not.
        self._aside = any(target is not None and not _same_place(array, target) for array in shared)
        self.in_place = bool(shared) and not self._aside
        """Whether the result overwrites an input."""

    @property
    def unary(self) -> bool:
        """Whether the inputs are small enough for a Compute call."""
        return sum(source.nbytes for source in self.sources) <= UNARY_BYTES

    def request(self, assembly: Assembly) -> bytes:
        """The message of a Compute call for what the assembly lacks."""
        data = b"".join(source.read(a, b) for source, (a, b) in zip(self.sources, self.owed(assembly), strict=True))
        header = self.asking(assembly)
        header.whole_result = True
        return wire.frame(compute_pb2.ComputeRequest(header=header), data)

    @property
    def activation(self) -> str:
        """What is computed, as it was asked for."""
        return self._header.activation

    def message(self, number: int) -> bytes:
        """The one message of a ComputeStream call that is all of a small job, under a number."""
        data = b"".join(source.read(0, source.nbytes) for source in self.sources)
        return wire.frame(compute_pb2.ComputeStreamRequest(job=number, header=self._header), data)

    def requests(self, assembly: Assembly) -> Iterator[bytes]:
        """The messages of a ComputeStream call for what the assembly lacks."""
        yield compute_pb2.ComputeStreamRequest(job=1, header=self.asking(assembly)).SerializeToString()
        for pieces in pieces_of(self.sources, self.owed(assembly)):
            for index, start, data in pieces:
                yield chunk_message(1, index, start, data)
                if index == 0:
                    assembly.sent = start + len(data)

    @property
    def is_part(self) -> bool:
        """Whether this is a part of a larger job."""
        return self._span is not None

    @property
    def out_array(self) -> Array | None:
        """The array that the first tensor of the result is written to as it comes, if it is known."""
        return self._out if isinstance(self._out, np.ndarray) and not self._aside else None

    @property
    def result_bytes(self) -> int:
        """The size of the first tensor of the result, where that is x's or less; 0 where it is not, or there is none."""
        header = self._header
        if header.mode == compute_pb2.MODE_REGULARIZATION:
            made = header.regularization.gradient
        else:
            whole = header.derivative.jacobian == compute_pb2.JACOBIAN_FULL
            made = header.mode in (compute_pb2.MODE_FORWARD, compute_pb2.MODE_DERIVATIVE) and not whole
        return self.inputs[0].nbytes if made else 0

    def asking(self, assembly: Assembly) -> compute_pb2.JobHeader:
        """The header that asks for what the assembly lacks."""
        part = None
        if assembly.place.resumable():
            part = assembly.place.part()
        elif self._span:
            part = compute_pb2.Part(first_element=self._span[0] // self.sources[0].itemsize)
        if part is None:
            return self._header
        header = compute_pb2.JobHeader()
        header.CopyFrom(self._header)
        header.part.CopyFrom(part)
        if self._span:
            header.part.elements = self._span[1] // self.sources[0].itemsize - part.first_element
        return header

    def owed(self, assembly: Assembly) -> list[tuple[int, int]]:
        """Which bytes of each input are to be sent."""
        begin, end = self._span or (0, None)
        return [
            (max(assembly.place.needed(index), begin), source.nbytes if end is None else end)
            for index, source in enumerate(self.sources)
        ]

    def assembly(self) -> Assembly:
        """A fresh taker of responses."""
        return Assembly(None if self._aside else self._out, self._progress, self._on_summary, self._span)

    def again(self, assembly: Assembly, error: ServerUnavailable) -> Assembly:
        """What takes the responses of another call after one was lost: the same, to go on, or one that begins anew.

        Raises the error when the input is gone, as it was overwritten by the result.
        """
        if assembly.overwritten:
            raise error
        goes_on = assembly.place.resumable(in_place=self.in_place) and error.reason != _OTHER_BITS
        if goes_on:
            assembly.resume()
            return assembly
        if self.in_place and assembly.place.filled > (self._span or (0,))[0]:
            raise error
        return self.assembly()

    def answer(self, assembly: Assembly) -> T:
        """What the caller gets, once the assembly is complete."""
        if self._aside and isinstance(self._out, np.ndarray):
            received = assembly.arrays[0]
            if received.shape != self._out.shape or received.dtype != self._out.dtype.newbyteorder("="):
                raise InvalidRequest(
                    f"out is {self._out.dtype} of shape {list(self._out.shape)}, and must be {received.dtype} of shape "
                    f"{list(received.shape)}",
                    field="out",
                )
            self._out[...] = received
        return self._answer(assembly)


def _same_place(one: Array, other: Array) -> bool:
    return (
        address_of(one) == address_of(other)
        and one.strides == other.strides
        and one.shape == other.shape
        and one.dtype == other.dtype
    )


_OTHER_BITS = "OTHER_BITS"


def pieces_of(
    sources: Sequence[wire.ArraySource], spans: Sequence[tuple[int, int]] | None = None, step: int = CHUNK_BYTES
) -> Iterator[list[tuple[int, int, memoryview]]]:
    """What of each input is sent next: its index, the place of the first byte, and the bytes; of all, or of spans of bytes."""
    spans = spans or [(0, source.nbytes) for source in sources]
    for edges in wire.in_step([end - begin for begin, end in spans], step, sources[0].itemsize):
        yield [
            (index, spans[index][0] + a, sources[index].read(spans[index][0] + a, spans[index][0] + b))
            for index, (a, b) in enumerate(edges)
            if a < b
        ]


def map_job(
    question: Question, inputs: tuple[Array, ...], *, out: Array | MakeOut | None = None, **more: Any
) -> Job[Array]:
    """Forward or derivative of arrays."""
    return Job(question, inputs, lambda assembly: _first(assembly, out), out=out, **more)


def gradients_job(
    question: Question, inputs: tuple[Array, ...], *, out: Array | MakeOut | None = None, **more: Any
) -> Job[Gradients]:
    """The derivative with respect to x and to the parameters."""

    def answer(assembly: Assembly) -> Gradients:
        assert assembly.summary is not None
        others = zip(assembly.summary.tensors[1:], assembly.arrays[1:], strict=True)
        return Gradients(_first(assembly, out), {spec.name.removeprefix(_GRADIENT_OF): array for spec, array in others})

    return Job(question, inputs, answer, out=out, **more)


_GRADIENT_OF = "gradient of "


def _first(assembly: Assembly, out: Array | MakeOut | None) -> Array:
    """The first tensor of a result, which may have been gathered beside `out`."""
    return out if isinstance(out, np.ndarray) else assembly.arrays[0]


def penalty_answer(assembly: Assembly) -> Regularization:
    """The answer of the regularization mode."""
    assert assembly.summary is not None
    arrays = assembly.arrays
    found = assembly.summary.regularization
    return Regularization(found.penalty, arrays[0] if arrays else None, found.state)


def stats_answer(assembly: Assembly) -> NeuronStats:
    """The answer of the neuron statistics mode."""
    assert assembly.summary is not None
    names = [tensor.name for tensor in assembly.summary.tensors]
    if "state" not in names:
        raise ServerError("the server's neuron statistics hold no state")
    return NeuronStats.from_bytes(assembly.arrays[names.index("state")].tobytes())
