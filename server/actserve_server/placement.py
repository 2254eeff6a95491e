"""Where the bytes of a job lie that do not travel: a header's places in shared memory, looked up and checked.

A client may write into its regions at any time, whatever it has promised. What it spoils is its own result; that nothing else can
happen is decided here. An elementwise map looks at each element once, so it may compute from a region. Everything else looks
more than once (a maximum and then the exponentials, a count and then the places), and gets a copy of each block.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from actserve.v1 import compute_pb2, tensor_pb2

from actserve_server.engine.plan import Plan
from actserve_server.errors import InvalidOption
from actserve_server.modes.base import Array
from actserve_server.modes.maps import Derivative, Forward
from actserve_server.regions import Regions

__all__ = ["NOWHERE", "Placement", "part_of", "placed"]

Memory = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Placement:
    """What of a job lies in shared memory."""

    inputs: tuple[Memory | None, ...] = ()
    """The bytes of each input that the job needs; None where they travel."""
    result: Array | None = None
    """Memory for what is computed of the first tensor of the result, flat."""
    place: tensor_pb2.SharedMemory | None = None
    """The same as the caller named it."""
    steady: bool = False
    """Whether a block must be copied before it is looked at."""

    def input(self, index: int) -> Memory | None:
        """The bytes of an input; None where they travel."""
        return self.inputs[index] if index < len(self.inputs) else None


NOWHERE = Placement()
"""Everything travels."""


@contextlib.contextmanager
def placed(header: compute_pb2.JobHeader, planned: Plan, regions: Regions) -> Iterator[Placement]:
    """A job's places, which stay until the end of the block. Raises UnknownRegion and InvalidOption."""
    wanted = [spec.HasField("shared") for spec in header.inputs]
    if not any(wanted) and not header.HasField("result"):
        yield NOWHERE
        return
    if planned.open_ended:
        raise InvalidOption(
            "an open-ended job has no place in shared memory, as its length is not known",
            field="header.open_ended",
            value=True,
        )
    itemsize = planned.subject.dtype.itemsize
    with contextlib.ExitStack() as held:

        def memory(place: tensor_pb2.SharedMemory, nbytes: int, field: str) -> Memory:
            """So many bytes from a place on."""
            region = held.enter_context(regions.using(place.region, field))
            return part_of(region, place, nbytes, itemsize, field)

        def needed(index: int, place: tensor_pb2.SharedMemory) -> Memory:
            """What the job needs of an input."""
            begin, end = planned.inputs[index].begin_bytes, planned.inputs[index].end_bytes or 0
            field = f"header.inputs[{index}].shared"
            skipped = _skipped(place, begin, itemsize, field)
            return memory(place, skipped + end - begin, field)[skipped:]

        inputs = tuple(
            needed(index, spec.shared) if wanted[index] else None for index, spec in enumerate(header.inputs)
        )
        result = None
        if header.HasField("result"):
            result = _result(planned, memory(header.result, _room(header.result), "header.result"), header.result)
        overlaps = result is not None and any(
            given is not None and np.may_share_memory(given, result) for given in inputs
        )
        if overlaps:
            assert result is not None
            _check_overlap(inputs, result)
        reads_shared = any(given is not None for given in inputs)
        yield Placement(
            inputs=inputs,
            result=result,
            place=header.result if result is not None else None,
            steady=overlaps or (reads_shared and not _looks_once(planned)),
        )


def _skipped(place: tensor_pb2.SharedMemory, begin: int, itemsize: int, field: str) -> int:
    """How many bytes lie at a place before the first that is needed of a tensor."""
    first = place.first_byte
    if not 0 <= first <= begin or first % itemsize:
        raise InvalidOption(
            f"byte {first:,} of the tensor is the first one there, where byte {begin:,} is needed, or is not at a multiple of {itemsize}",
            field=f"{field}.first_byte",
            value=first,
            allowed=f"multiples of {itemsize} up to {begin}",
        )
    return begin - first


def part_of(region: Memory, place: tensor_pb2.SharedMemory, nbytes: int, itemsize: int, field: str) -> Memory:
    """So many bytes at a place in a region. Raises InvalidOption when they do not all lie there, or askew."""
    offset = place.offset_bytes
    if offset < 0 or offset % itemsize or offset + nbytes > region.nbytes:
        raise InvalidOption(
            f"{nbytes:,} bytes at byte {offset:,} do not lie within the region of {region.nbytes:,} bytes, or not at a multiple "
            f"of {itemsize}",
            field=f"{field}.offset_bytes",
            value=offset,
            allowed=f"multiples of {itemsize} up to {max(region.nbytes - nbytes, 0)}",
        )
    return region[offset : offset + nbytes]


def _room(place: tensor_pb2.SharedMemory) -> int:
    if place.size_bytes < 0:
        raise InvalidOption(
            f"size_bytes is {place.size_bytes}, and must not be negative",
            field="header.result.size_bytes",
            value=place.size_bytes,
            allowed=">= 0",
        )
    return place.size_bytes


def _result(planned: Plan, room: Memory, place: tensor_pb2.SharedMemory) -> Array | None:
    """The memory of the first tensor; None when there is none, when it takes more, or when its length is not known."""
    if not planned.results:
        return None
    dtype = planned.results[0].dtype
    begin, end = planned.result_span
    skipped = _skipped(place, begin, dtype.itemsize, "header.result")
    size = skipped + end - begin
    if not skipped <= size <= room.nbytes or _address(room) % dtype.itemsize:
        return None
    return room[skipped:size].view(dtype)


def _check_overlap(inputs: tuple[Memory | None, ...], result: Array) -> None:
    """That the result lies nowhere in an input but exactly in its place: there a block is written after it was read."""
    for index, given in enumerate(inputs):
        if given is None or not np.may_share_memory(given, result):
            continue
        if _address(given) != _address(result) or given.nbytes != result.nbytes:
            raise InvalidOption(
                f"the result overlaps input {index} in shared memory, and may only be at the very place of it",
                field="header.result.offset_bytes",
            )


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _looks_once(planned: Plan) -> bool:
    """Whether no element is looked at twice in a way that matters."""
    return (
        isinstance(planned.mode, (Forward, Derivative))
        and planned.subject.axis is None
        and not planned.reject_nonfinite
    )
