"""A call with everything it needs, ready to be timed, and how threads share one."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Bound(NamedTuple):
    """What is timed, and what came out of it."""

    run: Callable[[], Any]
    """Computes everything once; its value, if any, is the library's own array."""
    result: Callable[[], np.ndarray[Any, Any]]
    """Runs once and gives the values."""


def empty(shape: int | tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """An array at an address that every library can use without a copy."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + 128, np.uint8)
    start = -memory.ctypes.data % 128
    return memory[start : start + size].view(dtype).reshape(shape)


@functools.cache
def _pool(threads: int) -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(threads)


def shared(parts: list[Callable[[], Any]]) -> Callable[[], Any]:
    """One call that runs the parts, each in a thread of its own."""
    if len(parts) == 1:
        return parts[0]
    pool = _pool(len(parts) - 1)

    def run() -> None:
        others = [pool.submit(part) for part in parts[1:]]
        parts[0]()
        for other in others:
            other.result()

    return run


def pieces(n: int, threads: int) -> list[slice]:
    """A range in as many parts as there are threads, each but the last a multiple of 64 elements."""
    step = -(-n // (64 * threads)) * 64 if threads > 1 else n
    return [slice(at, min(at + step, n)) for at in range(0, n, max(step, 1))]
