""".npy files of any size in constant memory: mapped, released behind the reader and the writer, replaced when complete."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from actserve import wire

Array = npt.NDArray[Any]

_RAW_BFLOAT16 = np.dtype("V2")

_STEP_BYTES = 16 << 20
"""How much may be resident of a file before its pages are released."""


def read(name: str, *, bfloat16: bool = False) -> np.memmap[Any, Any] | Array:
    """The array of a .npy file, mapped; `-` is the standard input, which is spooled to an unnamed file first.

    The format has no bfloat16, so NumPy writes its elements as two raw bytes each: `bfloat16` says that this is what they
    are. Raises ValueError for a file that is no .npy or holds something else, OSError when it can't be read, and
    ImportError for bfloat16 without ml_dtypes.
    """
    array = _read(name)
    name = _shown(name)
    if bfloat16:
        if array.dtype != _RAW_BFLOAT16:
            raise ValueError(f"{name} holds {array.dtype}, and a file of bfloat16 holds two raw bytes an element")
        return array.view(wire.bfloat16())
    if array.dtype.kind == "V":
        hint = "; if they are bfloat16, say so with --dtype bfloat16" if array.dtype == _RAW_BFLOAT16 else ""
        raise ValueError(f"{name} holds raw bytes ({array.dtype}) and not numbers{hint}")
    return array


def _read(name: str) -> np.memmap[Any, Any] | Array:
    if name != "-":
        return _mapped(name, name)
    with tempfile.NamedTemporaryFile(suffix=".npy") as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.flush()
        return _mapped(spool.name, _shown(name))


def _shown(name: str) -> str:
    return "the standard input" if name == "-" else name


def _mapped(path: str, name: str) -> np.memmap[Any, Any] | Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{name} is no .npy file that can be read: {error}") from None
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} is no .npy file but an archive of several")
    return array


class Output:
    """A .npy file that is written once the shape and the type of what it will hold are known."""

    def __init__(self, name: str, temporary: str) -> None:
        self._name = name
        self._temporary = temporary
        self.array: Array | None = None

    def make(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The file's array, mapped. May be called again, which begins the file anew."""
        stored = _RAW_BFLOAT16 if dtype.name == "bfloat16" else dtype
        with _named(self._name):
            array = np.lib.format.open_memmap(self._temporary, mode="w+", dtype=stored, shape=shape)
            _reserve(self._temporary)
        self.array = array.view(dtype) if stored != dtype else array
        return self.array


@contextlib.contextmanager
def written(name: str) -> Iterator[Output]:
    """A .npy file that appears when the block ends well; otherwise what was there before stays.

    `-` is the standard output. A device or a named pipe is written to, and a link keeps pointing to what it points to. bfloat16 is
    written as NumPy writes it, two raw bytes an element. Raises OSError that names the file when there can be none, before the block
    begins where that can be told.
    """
    with _named(name):
        there = _status(name)
        if there is not None and stat.S_ISDIR(there.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        is_file = name != "-" and (there is None or stat.S_ISREG(there.st_mode))
        target = Path(name).resolve()
        handle, temporary = tempfile.mkstemp(prefix=".actserve-", suffix=".npy", dir=target.parent if is_file else None)
    os.close(handle)
    try:
        output = Output(name, temporary)
        yield output
        if isinstance(output.array, np.memmap):
            output.array.flush()
        output.array = None
        with _named(name):
            if is_file:
                os.chmod(temporary, 0o666 & ~_umask() if there is None else stat.S_IMODE(there.st_mode))
                os.replace(temporary, target)
            else:
                _copy(temporary, name)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _status(name: str) -> os.stat_result | None:
    """What lies at a path; None when there is nothing, and of the standard output."""
    if name == "-":
        return None
    try:
        return os.stat(name)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Let what the system refuses name the file that the caller named, and not one that lies there for a while."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        shown = "the standard output" if name == "-" else name
        raise OSError(error.errno, error.strerror, shown) from None


def _copy(temporary: str, name: str) -> None:
    """Write a finished file to where no file can take its place."""
    with open(temporary, "rb") as file:
        if name == "-":
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            with open(name, "wb") as out:
                shutil.copyfileobj(file, out)


def _reserve(path: str) -> None:
    """Take the room that a file will need: a page of a mapped file for which none is left ends the process (SIGBUS)."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            if size := os.fstat(file.fileno()).st_size:
                os.posix_fallocate(file.fileno(), 0, size)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def releaser(*arrays: Array | Output | None) -> Callable[[], None]:
    """A function that gives the pages of mapped arrays back to the system; nothing that was written is lost.

    Mapped pages count as a process' memory, although they only mirror the file. They are released every few megabytes.
    """
    calls = 0

    def release() -> None:
        nonlocal calls
        calls += 1
        if calls % (_STEP_BYTES >> 20) == 0:
            for array in arrays:
                if (mapped := _map_of(array.array if isinstance(array, Output) else array)) is not None:
                    mapped.madvise(mmap.MADV_DONTNEED)

    return release


def _map_of(array: Any) -> mmap.mmap | None:
    found = getattr(array, "_mmap", None)
    return found if isinstance(found, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED") else None


def save(name: str, array: Array) -> None:
    """Write an array that lies in memory."""
    with written(name) as output:
        output.make(array.shape, array.dtype)[...] = array


__all__ = ["Output", "read", "releaser", "save", "written"]
