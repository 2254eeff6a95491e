"""How a job goes through shared memory: which of its bytes lie there already, and which are copied in and out. No I/O.

Where all inputs lie in regions, one small message each way does, and the result lies in a region too. Else the inputs are copied in
piece by piece while the server computes what is there already, and the result is copied out in the same way.
"""

from __future__ import annotations

import contextlib
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

__all__ = ["LEAST_BYTES", "UNKNOWN_REGION", "SharedCall", "Way", "empty", "place", "wanted", "way"]

LEAST_BYTES = 1 << 18
"""From how many bytes of input on shared memory is worth it; benchmarks/README.md shows where it comes from."""

LEAST_COPIED_BYTES = UNARY_BYTES + 1
"""The same where something must be copied in, which takes a stream: where the bytes would take one as well."""

MOST_COPIED_BYTES = 1 << 28
"""Up to how many: what is copied is there twice, and a larger tensor is better sent, in constant memory."""

PIECE_BYTES = 2 << 20
"""How much is copied at a time, while the server computes what was copied before."""

UNKNOWN_REGION = "UNKNOWN_REGION"
"""Why a server refuses a job whose regions went with an earlier server, or are another one's."""


class SharedCall:
    """A call of a job through shared memory; stands for the job where the call is made. A failure spoils what the server may still use."""

    def __init__(
        self, job: Job[Any], regions: Regions, spots: list[Spot | None], copies: list[Loan | None], room: Room | None
    ) -> None:
        self._job = job
        self._regions = regions
        self._spots = [spot or (copy.spot if copy else None) for spot, copy in zip(spots, copies, strict=True)]
        self._copies = copies
        self._room = room
        self._assembly: Assembly | None = None
        self.unary = not any(copies)
        """Whether there is nothing to copy."""

    def __enter__(self) -> SharedCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self._regions.known()
            return
        if isinstance(error, ServerUnavailable) and error.reason:
            # The server itself refuses the job, and so has not begun.
            if self._assembly is not None:
                self._assembly.overwritten = False
            if error.reason == UNKNOWN_REGION:
                self._regions.lost()
        for loan in (*self._copies, None if self._room is None else self._room.loan):
            if loan is not None:
                loan.spoil()

    def request(self, assembly: Assembly) -> bytes:
        """The message of a Compute call for what the assembly lacks."""
        header = self._header(assembly)
        header.whole_result = True
        assembly.sent = self._job.sources[0].nbytes
        return compute_pb2.ComputeRequest(header=header).SerializeToString()

    def requests(self, assembly: Assembly) -> Iterator[bytes]:
        """The messages of a ComputeStream call for what the assembly lacks; between them the inputs are copied."""
        header = self._header(assembly)
        header.chunk_bytes = PIECE_BYTES
        yield compute_pb2.ComputeStreamRequest(job=1, header=header).SerializeToString()
        rooms = [None if copy is None else copy.bytes() for copy in self._copies]
        for pieces in pieces_of(self._job.sources, self._job.owed(assembly), PIECE_BYTES):
            for index, start, data in pieces:
                if (room := rooms[index]) is not None:
                    room[start : start + len(data)] = np.frombuffer(data, np.uint8)
                if index == 0:
                    assembly.sent = start + len(data)
                chunk = compute_pb2.InputChunk(input=index, offset_bytes=start, shared_bytes=len(data))
                yield compute_pb2.ComputeStreamRequest(job=1, chunk=chunk).SerializeToString()

    def _header(self, assembly: Assembly) -> compute_pb2.JobHeader:
        header = compute_pb2.JobHeader()
        header.CopyFrom(self._job.asking(assembly))
        for spec, spot in zip(header.inputs, self._spots, strict=True):
            assert spot is not None
            spec.shared.region, spec.shared.offset_bytes = spot.region, spot.offset
        self._assembly = assembly
        assembly.room = self._room
        # The server overwrites the input without a word to anybody, so nothing can be told of how far it came.
        assembly.overwritten = self._job.in_place and self._room is not None and self._room.loan is None
        if self._room is not None:
            header.result.CopyFrom(self._room.place)
        return header


Way = AbstractContextManager["Job[Any] | SharedCall"]
"""How a call of a job is made: what the block is given has `unary`, `request` and `requests`, and the call is made within the block."""


def way(job: Job[Any], regions: Regions) -> Way:
    """How a job is best called: through shared memory where that is to be had and worth it, or by sending the bytes."""
    total = sum(source.nbytes for source in job.sources)
    if not regions.possible or job.is_part or total < LEAST_BYTES:
        return contextlib.nullcontext(job)
    spots = [regions.find(array) for array in job.inputs]
    if None in spots and not _worth_copying(job, spots, total):
        return contextlib.nullcontext(job)
    copies: list[Loan | None] = []
    for array, spot in zip(job.inputs, spots, strict=True):
        copy = regions.lend(array.nbytes) if spot is None else None
        if spot is None and copy is None:
            return contextlib.nullcontext(job)
        copies.append(copy)
    return SharedCall(job, regions, spots, copies, _room(job, regions, copied=any(copies)))


def _worth_copying(job: Job[Any], spots: list[Spot | None], total: int) -> bool:
    if not LEAST_COPIED_BYTES <= total <= MOST_COPIED_BYTES:
        return False
    return not any(_is_of_a_file(array) for array, spot in zip(job.inputs, spots, strict=True) if spot is None)


def _is_of_a_file(array: Array) -> bool:
    """Whether an array is a mapped file, which is read in constant memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def _room(job: Job[Any], regions: Regions, *, copied: bool) -> Room | None:
    """Where the result is written; None where it travels, as its size is not that of an input, or there is no memory."""
    nbytes = job.result_bytes
    if not nbytes:
        return None
    out = job.out_array
    if out is not None and (spot := regions.find(out)) is not None:
        return Room(_bytes(out), None, _place(spot, out.nbytes), given=False)
    loan = regions.lend(nbytes)
    if loan is None:
        return None
    return Room(loan.bytes(), loan, _place(loan.spot, nbytes), given=not copied)


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


def place(spot: Spot) -> tensor_pb2.SharedMemory:
    """A place as messages name it."""
    return tensor_pb2.SharedMemory(region=spot.region, offset_bytes=spot.offset)


def _bytes(array: Array) -> Array:
    """The bytes of an array in one piece."""
    flat = array.reshape(-1)
    found: Array = (flat.view(np.uint16) if array.dtype.name == "bfloat16" else flat).view(np.uint8)
    return found


def _place(spot: Spot, nbytes: int) -> tensor_pb2.SharedMemory:
    return tensor_pb2.SharedMemory(region=spot.region, offset_bytes=spot.offset, size_bytes=nbytes)
