"""Where a monitor's batches lie when client and server share memory: cut from regions, one after another.

A region is cut from its begin to its end, and is used again when no array lies in it any more. So a small batch costs no region of its
own, and the pages were nearly always used before. It knows memory, and neither calls nor layers.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from actserve import wire

from actserve_client import _shared
from actserve_client._regions import Regions, Spot, aligned
from actserve_client._session import Array, as_array

__all__ = ["LEAST_BYTES", "Placed", "Slabs"]

LEAST_BYTES = 1 << 12
"""From how many bytes on a batch is worth it."""

_SLAB_BYTES = 4 << 20
_LARGEST_PART_BYTES = _SLAB_BYTES // 4
"""What is larger gets a region of its own, so that little of a slab is left over."""

_ALIGNMENT = 64


class Placed(NamedTuple):
    """An array in shared memory, and where that is."""

    array: Array
    spot: Spot


class Slabs:
    """Memory of one monitor. An array keeps its slab; threads may share one.

    >>> slabs = Slabs(lambda: Regions("/run/actserve.sock"))
    >>> slabs.lasting(np.ones((128, 1024)), copy=True).spot.offset
    0
    """

    def __init__(self, regions: Callable[[], Regions]) -> None:
        self._regions = regions
        self._lock = threading.Lock()
        self._slab: Array | None = None
        self._used = 0

    @property
    def regions(self) -> Regions:
        """What the memory is of."""
        return self._regions()

    def empty(self, shape: int | Sequence[int], dtype: Any) -> Array:
        """An array with whatever is in it, in shared memory where some is at hand: nothing is waited for."""
        try:
            whole, kind, nbytes = _wanted(shape, dtype)
        except TypeError:  # a list, for one, can't be looked up
            whole, kind, nbytes = _shared.wanted(shape, dtype)
        cut = self._cut(nbytes, wait=False) if nbytes >= LEAST_BYTES else None
        if cut is None:
            made: Array = aligned(nbytes).view(kind).reshape(whole)
            return made
        return np.ndarray(whole, kind, *cut)

    def lasting(self, x: Any, *, copy: bool, wait: bool = True) -> Placed | None:
        """x as it is now; None where its bytes had better be sent. Without `copy` it may be x itself."""
        array = as_array(x, "x")
        regions = self._regions()
        if not self.is_worth(array.nbytes):
            return None
        if not copy and (spot := regions.find(array, wait=wait)) is not None:
            return Placed(array, spot)
        cut = self._cut(array.nbytes, wait=wait)
        if cut is None:
            return None
        memory = np.ndarray(array.nbytes, np.uint8, *cut)
        source = wire.ArraySource(array)
        for begin in range(0, array.nbytes, _shared.PIECE_BYTES):
            end = min(begin + _shared.PIECE_BYTES, array.nbytes)
            memory[begin:end] = np.frombuffer(source.read(begin, end), np.uint8)
        copied = memory.view(array.dtype.newbyteorder("=")).reshape(array.shape)
        spot = regions.find(copied, wait=wait)
        return None if spot is None else Placed(copied, spot)

    def is_worth(self, nbytes: int) -> bool:
        """Whether so many bytes had better lie in shared memory, and may."""
        return LEAST_BYTES <= nbytes <= _shared.MOST_COPIED_BYTES and self._regions().possible

    def _cut(self, nbytes: int, *, wait: bool) -> tuple[Array, int] | None:
        """Memory in which so many bytes are free, and where."""
        if wait:
            self._look()
        # What follows the lock may take long, and somebody else may not wait.
        with self._lock:
            part = self._part(nbytes)
        if part is not None:
            return part
        regions = self._regions()
        if nbytes > _LARGEST_PART_BYTES:
            loan = regions.lend(nbytes, wait=wait)
            return None if loan is None else (loan.bytes(), 0)
        loan = regions.lend(_SLAB_BYTES, wait=wait)
        if loan is None:
            return None
        with self._lock:
            self._slab, self._used = loan.bytes(), 0
            return self._part(nbytes)

    def _look(self) -> None:
        """Give up a slab whose server has gone."""
        slab = self._slab
        if slab is not None and self._regions().find(slab) is None:
            with self._lock:
                self._slab = None if self._slab is slab else self._slab

    def _part(self, nbytes: int) -> tuple[Array, int] | None:
        begin = self._used
        if self._slab is None or nbytes > _LARGEST_PART_BYTES or begin + nbytes > _SLAB_BYTES:
            return None
        self._used += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        return self._slab, begin


_wanted = functools.lru_cache(maxsize=256)(_shared.wanted)
"""The same for shapes that come again and again, in the middle of somebody's training."""
