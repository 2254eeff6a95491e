"""How a job goes through shared memory: which of its bytes lie there already, and which are copied in and out. No I/O.

Where all inputs lie in regions, one small message each way does, and the result lies in a region too. Else the inputs are copied in
piece by piece while the server computes what is there already, and the result is copied out in the same way. What is copied is there
twice, so of a large array a call computes no more than a slice, and the next call the next one, in the same memory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import numpy as np
from actserve import wire
from actserve.v1 import compute_pb2, tensor_pb2

from actserve_client._regions import Loan, Regions, Spot, aligned
from actserve_client._session import UNARY_BYTES, Array, Assembly, Job, Room, integer, pieces_of
from actserve_client.errors import InvalidRequest, ServerUnavailable

__all__ = ["LEAST_BYTES", "UNKNOWN_REGION", "SharedCall", "Way", "empty", "goes_in_slices", "place", "wanted", "way"]

LEAST_BYTES = 1 << 18
"""From how many bytes of input on shared memory is worth it; benchmarks/README.md shows where it comes from."""

LEAST_COPIED_BYTES = UNARY_BYTES + 1
"""The same where something must be copied in, which takes a stream: where the bytes would take one as well."""

MOST_COPIED_BYTES = 1 << 28
"""Up to how many, where all must be there at once: a larger tensor is better sent, in constant memory."""

SLICE_BYTES = 64 << 20
"""Up to how many otherwise: of what is computed unit by unit, a call takes so much; benchmarks/README.md shows where it comes from."""

PIECE_BYTES = 2 << 20
"""How much is copied at a time, while the server computes what was copied before."""

UNKNOWN_REGION = "UNKNOWN_REGION"
"""Why a server refuses a job whose regions went with an earlier server, or are another one's."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """Where an input lies, as the server is told."""

    place: tensor_pb2.SharedMemory
    copy: Loan | None
    """Where what a call needs of it is copied to; None for an array that lies in a region itself."""


class SharedCall:
    """A call of a job through shared memory; stands for the job where the call is made. A failure spoils what the server may still use.

    `spans` are the bytes of each input that it needs, `until` is where it ends when another one goes on from there.
    """

    def __init__(
        self,
        job: Job[Any],
        regions: Regions,
        spans: list[tuple[int, int]],
        until: int | None,
        sources: list[_Source],
        room: Room | None,
    ) -> None:
        self._job = job
        self._regions = regions
        self._spans = spans
        self._until = until
        self._sources = sources
        self._room = room
        self._assembly: Assembly | None = None
        self._uncopied = [
            end - begin if source.copy else 0 for (begin, end), source in zip(spans, sources, strict=True)
        ]
        """How many bytes of each input are yet to be copied."""
        self.unary = not any(source.copy for source in sources)
        """Whether there is nothing to copy."""

    def __enter__(self) -> SharedCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._assembly is not None:
            # The next call has places of its own.
            self._assembly.room = self._assembly.until = None
        loans = [source.copy for source in self._sources if source.copy is not None]
        if self._room is not None and self._room.loan is not None:
            loans.append(self._room.loan)
        if error is None:
            self._regions.known()
            # Now, because gRPC's thread may keep what messages are made of for a moment, and the next call wants the memory.
            if not any(self._uncopied) and not (self._room is not None and self._room.given):
                for loan in loans:
                    loan.give_back()
            return
        if isinstance(error, ServerUnavailable) and error.reason:
            # The server itself refuses the job, and so has not begun.
            if self._assembly is not None:
                self._assembly.overwritten = False
            if error.reason == UNKNOWN_REGION:
                self._regions.lost()
        for loan in loans:
            loan.spoil()

    def request(self, assembly: Assembly) -> bytes:
        """The message of a Compute call for what the assembly lacks."""
        header = self._header(assembly)
        header.whole_result = True
        assembly.sent = self._spans[0][1]
        return compute_pb2.ComputeRequest(header=header).SerializeToString()

    def requests(self, assembly: Assembly) -> Iterator[bytes]:
        """The messages of a ComputeStream call for what the assembly lacks, or for its next slice; between them the inputs are copied."""
        # The header here and now: gRPC asks for messages in a thread of its own, which may be late for a call that is over.
        header = self._header(assembly)
        header.chunk_bytes = PIECE_BYTES
        return self._messages(compute_pb2.ComputeStreamRequest(job=1, header=header).SerializeToString(), assembly)

    def _messages(self, first: bytes, assembly: Assembly) -> Iterator[bytes]:
        yield first
        rooms = [None if source.copy is None else source.copy.bytes() for source in self._sources]
        for pieces in pieces_of(self._job.sources, self._spans, PIECE_BYTES):
            for index, start, data in pieces:
                if (room := rooms[index]) is not None:
                    at = start - self._spans[index][0]
                    room[at : at + len(data)] = np.frombuffer(data, np.uint8)
                    self._uncopied[index] -= len(data)
                if index == 0:
                    assembly.sent = start + len(data)
                chunk = compute_pb2.InputChunk(input=index, offset_bytes=start, shared_bytes=len(data))
                yield compute_pb2.ComputeStreamRequest(job=1, chunk=chunk).SerializeToString()

    def _header(self, assembly: Assembly) -> compute_pb2.JobHeader:
        header = compute_pb2.JobHeader()
        header.CopyFrom(self._job.asking(assembly))
        if self._until is not None:
            header.part.elements = (self._until - self._spans[0][0]) // self._job.sources[0].itemsize
        for spec, source in zip(header.inputs, self._sources, strict=True):
            spec.shared.CopyFrom(source.place)
        self._assembly = assembly
        assembly.room = self._room
        assembly.until = self._until
        # The server overwrites the input without a word to anybody, so nothing can be told of how far it came.
        assembly.overwritten = self._job.in_place and self._room is not None and self._room.loan is None
        if self._room is not None:
            header.result.CopyFrom(self._room.place)
        return header


Way = AbstractContextManager["Job[Any] | SharedCall"]
"""How a call of a job is made: what the block is given has `unary`, `request` and `requests`, and the call is made within the block."""


def goes_in_slices(inputs: Sequence[Array]) -> bool:
    """Whether arrays are so large that it matters whether a job over them can be computed in slices."""
    return sum(array.nbytes for array in inputs) > SLICE_BYTES


def way(job: Job[Any], assembly: Assembly, regions: Regions) -> Way:
    """How what a job's assembly lacks is best called for: through shared memory where that is to be had and worth it, or by
    sending the bytes."""
    spans = job.owed(assembly)
    total = sum(end - begin for begin, end in spans)
    if not regions.possible or total < LEAST_BYTES:
        return contextlib.nullcontext(job)
    spots = [regions.find(array) for array in job.inputs]
    end = spans[0][1]
    if None in spots:
        until = _until(job, spans, total) if _worth_copying(job, spots, total) else None
        if until is None:
            return contextlib.nullcontext(job)
        if until < end:
            spans = [(begin, until) for begin, _ in spans]
    sources: list[_Source] = []
    for (begin, stop), spot in zip(spans, spots, strict=True):
        copy = regions.lend(stop - begin) if spot is None else None
        if spot is not None:
            sources.append(_Source(place(spot), None))
        elif copy is not None:
            sources.append(_Source(place(copy.spot, first=begin), copy))
        else:
            return contextlib.nullcontext(job)
    until = spans[0][1] if spans[0][1] < end else None
    return SharedCall(job, regions, spans, until, sources, _room(job, regions, spans[0], copied=None in spots))


def _worth_copying(job: Job[Any], spots: list[Spot | None], total: int) -> bool:
    if total < LEAST_COPIED_BYTES:
        return False
    return not any(_is_of_a_file(array) for array, spot in zip(job.inputs, spots, strict=True) if spot is None)


def _until(job: Job[Any], spans: list[tuple[int, int]], total: int) -> int | None:
    """Up to which byte of x the next call goes; None where no call may hold as much as it would have to."""
    begin, end = spans[0]
    unit = job.unit_bytes
    if not unit:
        return end if total <= MOST_COPIED_BYTES else None
    each = unit * len(spans)
    if each > MOST_COPIED_BYTES:
        return None
    # Calls of one size, so that the memory of one does for the next.
    units = (end - begin) // unit
    calls = -(-units // max(SLICE_BYTES // each, 1))
    return begin + -(-units // calls) * unit


def _is_of_a_file(array: Array) -> bool:
    """Whether an array is a mapped file, which is read in constant memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def _room(job: Job[Any], regions: Regions, span: tuple[int, int], *, copied: bool) -> Room | None:
    """Where the result is written; None where it travels, as its size is not that of an input, or there is no memory."""
    nbytes = job.result_bytes
    if not nbytes:
        return None
    out = job.out_array
    if out is not None and (spot := regions.find(out)) is not None:
        return Room(_bytes(out), None, place(spot, size=out.nbytes), given=False)
    begin, stop = span if job.unit_bytes else (0, nbytes)
    loan = regions.lend(stop - begin)
    if loan is None:
        return None
    # A caller keeps what he is given for as long as he likes; a part, or what lies beside copies, is room for the next call instead.
    given = not copied and stop - begin == nbytes
    return Room(loan.bytes(), loan, place(loan.spot, begin, stop - begin), given, begin)


def wanted(shape: int | Sequence[int], dtype: Any) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """What somebody wants an array of: its shape, its type, and its bytes. Raises InvalidRequest."""
    kind = np.dtype(dtype)
    try:
        known = wire.data_type_of(kind) in wire.COMPUTABLE
    except KeyError:
        known = False
    if not known:
        raise InvalidRequest(f"dtype is {kind}, and must be float16, bfloat16, float32 or float64", field="dtype")
    lengths = [shape] if isinstance(shape, (int, np.integer)) else list(shape)
    whole = tuple(integer(length, "shape", 64) for length in lengths)
    if any(length < 0 for length in whole):
        raise InvalidRequest(f"shape is {list(whole)}, and must have no negative dimension", field="shape")
    return whole, kind.newbyteorder("="), wire.byte_count(whole, kind.itemsize)


def empty(regions: Regions, shape: int | Sequence[int], dtype: Any) -> Array:
    """An array with whatever is in it: in shared memory where there is some and the array is large enough to gain."""
    whole, kind, nbytes = wanted(shape, dtype)
    loan = regions.lend(nbytes) if nbytes >= LEAST_BYTES else None
    memory: Array = aligned(nbytes) if loan is None else loan.bytes()
    made: Array = memory.view(kind).reshape(whole)
    return made


def _bytes(array: Array) -> Array:
    """The bytes of an array in one piece."""
    flat = array.reshape(-1)
    found: Array = (flat.view(np.uint16) if array.dtype.name == "bfloat16" else flat).view(np.uint8)
    return found


def place(spot: Spot, first: int = 0, size: int = 0) -> tensor_pb2.SharedMemory:
    """What a server is told of a spot, of which byte of a tensor lies there, and for a result of how many there is room for."""
    return tensor_pb2.SharedMemory(region=spot.region, offset_bytes=spot.offset, first_byte=first, size_bytes=size)
