""".npy files of any size in constant memory: mapped, released behind the reader and the writer, replaced when complete."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_STEP_BYTES = 16 << 20
"""How much may be resident of a file before its pages are released."""


def read(name: str) -> np.memmap[Any, Any] | Array:
    """The array of a .npy file, mapped; `-` is the standard input, which is spooled to an unnamed file first.

    Raises ValueError for a file that is no .npy, and OSError when it can't be read.
    """
    if name != "-":
        return _mapped(name)
    with tempfile.NamedTemporaryFile(suffix=".npy") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        return _mapped(spool.name)


def _mapped(name: str) -> np.memmap[Any, Any] | Array:
    try:
        array = np.load(name, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{name} is no .npy file that can be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is no .npy file but an archive of several")
    if array.dtype.kind == "V":
        raise ValueError(f"{name} holds raw bytes ({array.dtype}) and not float32 or float64; convert it first")
    return array


@contextlib.contextmanager
def written(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Iterator[Array]:
    """A mapped array that becomes a .npy file when the block ends well; otherwise what was there before stays.

    `-` is the standard output.
    """
    folder = None if name == "-" else Path(name).resolve().parent
    handle, temporary = tempfile.mkstemp(prefix=".actserve-", suffix=".npy", dir=folder)
    os.close(handle)
    try:
        array = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        yield array
        if isinstance(array, np.memmap):
            array.flush()
        del array
        if name == "-":
            with open(temporary, "rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def releaser(*arrays: Array) -> Callable[[], None]:
    """A function that gives the pages of mapped arrays back to the system; nothing that was written is lost.

    Mapped pages count as a process' memory, although they only mirror the file. They are released every few megabytes.
    """
    maps = [found for array in arrays if (found := _map_of(array)) is not None]
    calls = 0

    def release() -> None:
        nonlocal calls
        calls += 1
        if calls % (_STEP_BYTES >> 20) == 0:
            for mapped in maps:
                mapped.madvise(mmap.MADV_DONTNEED)

    return release


def _map_of(array: Any) -> mmap.mmap | None:
    found = getattr(array, "_mmap", None)
    return found if isinstance(found, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None


def save(name: str, array: Array) -> None:
    """Write an array that lies in memory."""
    with written(name, array.dtype, array.shape) as target:
        target[...] = array


__all__ = ["read", "releaser", "save", "written"]
