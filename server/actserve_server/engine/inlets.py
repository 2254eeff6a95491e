"""Turns the chunks of a job's inputs, as they arrive, into blocks that can be computed.

Chunks may be of any size; blocks are whole units (an element, or the slices that lie interleaved), equally long in all
inputs. A block that lies within one chunk is a view of the received bytes; only one that crosses chunks is copied.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from actserve_server.engine.plan import Plan
from actserve_server.errors import ChunkOutOfPlace, DataSizeMismatch, LimitExceeded
from actserve_server.modes.base import Array


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of an input, and where they belong."""

    input: int
    offset: int
    data: memoryview


class _Inlet:
    """The bytes of one input that wait to be computed."""

    def __init__(self) -> None:
        self._parts: deque[memoryview] = deque()
        self.waiting = 0
        self.received = 0

    def push(self, data: memoryview) -> None:
        self._parts.append(data)
        self.waiting += len(data)
        self.received += len(data)

    def take(self, size: int) -> memoryview:
        """The next `size` bytes, which must be waiting."""
        self.waiting -= size
        head = self._parts[0]
        if len(head) > size:
            self._parts[0] = head[size:]
            return head[:size]
        if len(head) == size:
            return self._parts.popleft()
        block = np.empty(size, np.uint8).data
        filled = 0
        while filled < size:
            part = self._parts.popleft()
            if len(part) > size - filled:
                self._parts.appendleft(part[size - filled :])
                part = part[: size - filled]
            block[filled : filled + len(part)] = part
            filled += len(part)
        return block


def blocks(plan: Plan, chunks: Iterable[Chunk]) -> Iterator[tuple[int, tuple[Array, ...]]]:
    """The blocks of a job, each with the place of its first element.

    Stops by itself when the inputs of a job of known size are complete, without asking for another chunk; an open-ended
    one is over when `chunks` is. Raises ChunkOutOfPlace, DataSizeMismatch and LimitExceeded.
    """
    dtype, total = plan.subject.dtype, plan.total_bytes
    unit_bytes = plan.subject.unit_elements * dtype.itemsize
    block_bytes = plan.block_elements * dtype.itemsize
    inlets = tuple(_Inlet() for _ in range(plan.inputs))
    done = 0
    if total != 0:
        for chunk in chunks:
            if not chunk.data:
                continue
            _accept(plan, inlets, chunk)
            while ready := min(min(inlet.waiting for inlet in inlets), block_bytes) // unit_bytes * unit_bytes:
                arrays = tuple(np.frombuffer(inlet.take(ready), dtype) for inlet in inlets)
                yield done // dtype.itemsize, arrays
                done += ready
            if total is not None and done == total:
                break
            for index, inlet in enumerate(inlets):
                if inlet.waiting > plan.max_lead_bytes:
                    raise LimitExceeded(
                        f"input {index} is ahead of the other",
                        field=f"chunk.input[{index}]",
                        value=inlet.waiting,
                        limit=plan.max_lead_bytes,
                        setting="max_lead_bytes",
                    )
    if plan.open_ended:
        _check_end(plan, inlets)


def _accept(plan: Plan, inlets: tuple[_Inlet, ...], chunk: Chunk) -> None:
    if not 0 <= chunk.input < len(inlets):
        raise ChunkOutOfPlace(
            f"a chunk names input {chunk.input}, and the job has {len(inlets)}", field="chunk.input", value=chunk.input
        )
    inlet, itemsize = inlets[chunk.input], plan.subject.dtype.itemsize
    if chunk.offset != inlet.received:
        raise ChunkOutOfPlace(
            f"a chunk of input {chunk.input} begins at byte {chunk.offset}, and the one before it ended at {inlet.received}",
            field="chunk.offset_bytes",
            value=chunk.offset,
            allowed=inlet.received,
        )
    if len(chunk.data) % itemsize:
        raise ChunkOutOfPlace(
            f"a chunk of {len(chunk.data)} bytes cuts an element of {itemsize} bytes in two",
            field="data",
            value=len(chunk.data),
            allowed=f"a multiple of {itemsize}",
        )
    end = inlet.received + len(chunk.data)
    if plan.total_bytes is not None and end > plan.total_bytes:
        raise ChunkOutOfPlace(
            f"a chunk of input {chunk.input} ends at byte {end}, beyond the tensor's {plan.total_bytes}",
            field="data",
            value=end,
            allowed=plan.total_bytes,
        )
    if plan.row_elements == 0:
        raise ChunkOutOfPlace(
            "a chunk has bytes, and the rows of this tensor have no elements",
            field="data",
            value=len(chunk.data),
            allowed=0,
        )
    if end > plan.max_tensor_bytes:
        raise LimitExceeded(
            f"input {chunk.input}", field="data", value=end, limit=plan.max_tensor_bytes, setting="max_tensor_bytes"
        )
    inlet.push(chunk.data)


def _check_end(plan: Plan, inlets: tuple[_Inlet, ...]) -> None:
    row_bytes = plan.row_elements * plan.subject.dtype.itemsize
    lengths = [inlet.received for inlet in inlets]
    if len(set(lengths)) > 1:
        raise DataSizeMismatch(
            f"x has {lengths[0]} bytes and the upstream gradient {lengths[1]}; they must be as long as each other",
            field="end",
            value=lengths[1],
            allowed=lengths[0],
        )
    if row_bytes and lengths[0] % row_bytes:
        raise DataSizeMismatch(
            f"{lengths[0]} bytes are not a whole number of rows of {row_bytes}",
            field="end",
            value=lengths[0],
            allowed=f"a multiple of {row_bytes}",
        )
