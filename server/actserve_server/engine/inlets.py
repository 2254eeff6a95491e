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

    def __init__(self, begin: int) -> None:
        self._parts: deque[memoryview] = deque()
        self.waiting = 0
        self.received = begin

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
    """The blocks of a job, each with the place of its first element in x.

    Stops by itself when the inputs of a job of known size are complete, without asking for another chunk; an open-ended
    one is over when `chunks` is. Raises ChunkOutOfPlace, DataSizeMismatch and LimitExceeded.
    """
    dtype = plan.subject.dtype
    inlets = tuple(_Inlet(spec.begin_bytes) for spec in plan.inputs)
    # An input without elements has no units either, so the other has none to go with them.
    counted = [(inlet, spec) for inlet, spec in zip(inlets, plan.inputs, strict=True) if spec.unit_bytes]
    done = plan.first_unit
    if plan.open_ended or any(spec.sent_bytes for spec in plan.inputs):
        for chunk in chunks:
            if not chunk.data:
                continue
            _accept(plan, inlets, chunk)
            while units := min(min(inlet.waiting // spec.unit_bytes for inlet, spec in counted), plan.block_units):
                taken = [inlet.take(units * spec.unit_bytes) for inlet, spec in counted]
                yield done * plan.unit_elements, tuple(np.frombuffer(data, dtype) for data in taken)
                done += units
            if all(inlet.received == spec.end_bytes for inlet, spec in zip(inlets, plan.inputs, strict=True)):
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
    inlet, spec, itemsize = inlets[chunk.input], plan.inputs[chunk.input], plan.subject.dtype.itemsize
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
    if spec.end_bytes is not None and end > spec.end_bytes:
        raise ChunkOutOfPlace(
            f"a chunk of input {chunk.input} ends at byte {end}, beyond the tensor's {spec.end_bytes}",
            field="data",
            value=end,
            allowed=spec.end_bytes,
        )
    if spec.row_bytes == 0:
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
    for inlet, spec in zip(inlets, plan.inputs, strict=True):
        if spec.row_bytes and inlet.received % spec.row_bytes:
            raise DataSizeMismatch(
                f"{inlet.received} bytes are not a whole number of rows of {spec.row_bytes}",
                field="end",
                value=inlet.received,
                allowed=f"a multiple of {spec.row_bytes}",
            )
    rows = [inlet.received // spec.row_bytes for inlet, spec in zip(inlets, plan.inputs, strict=True) if spec.row_bytes]
    if len(set(rows)) > 1:
        raise DataSizeMismatch(
            f"x has {inlets[0].received} bytes, which are {rows[0]} rows, and the upstream gradient "
            f"{inlets[1].received}, which are {rows[1]}; they must have equally many",
            field="end",
            value=inlets[1].received,
            allowed=rows[0] * plan.inputs[1].row_bytes,
        )
