"""Added activations on disk: a readable file each, put there whole or not at all, and seen by every server that shares the folder.

Who writes holds a lock on the folder, so that of two who put one name there at once exactly one does, and there are never more files
than there may be. Knows files and nothing of what an activation is.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Generic, TypeVar

__all__ = ["Alike", "Full", "Store"]

log = logging.getLogger("actserve.custom")

T = TypeVar("T")

_SUFFIX = ".json"
_UNFINISHED = ".new-"
"""How the name of a file begins that is not yet whole."""
_LOOK_EVERY_S = 0.2
"""How often the folder is looked at, at most: others see what is new within a second."""
_LOOK_AGAIN_S = 1.0
"""After so long the files are looked at even where the folder's time is as it was: an editor may have written into one of them."""
_UNSURE_NS = 2_000_000_000
"""For how long after a folder has changed another change may have the same time."""
_LARGEST_BYTES = 1 << 20


class Full(Exception):
    """Expected error: another file would be one too many."""

    def __init__(self, count: int) -> None:
        super().__init__(f"there are {count} files")
        self.count = count


class Alike(Exception):
    """Expected error: another name is the same but for case, and on some disks they would be one file."""

    def __init__(self, other: str) -> None:
        super().__init__(f"there is {other}")
        self.other = other


class Store(Generic[T]):
    """A folder of files, each read into a value; or, without a folder, a table in memory.

    >>> store = Store(None, lambda name, text: text)
    >>> store.put("team.swish", "…", replace=False)
    True
    >>> store.all()
    {'team.swish': '…'}

    `read` makes a value of a file's text, and raises ValueError for a file that is none: that is logged, and the file is left out.
    `dropped` is told of values that are no longer there.
    """

    def __init__(
        self, folder: Path | None, read: Callable[[str, str], T], dropped: Callable[[T], None] = lambda _: None
    ) -> None:
        self._folder = folder
        self._read = read
        self._dropped = dropped
        self._lock = threading.Lock()
        self._values: Mapping[str, T] = {}
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._changed_ns = -1
        self._looked = self._scanned = -math.inf
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            os.scandir(folder).close()
            # What a writer that was killed left behind. Who can only read need not tidy.
            with contextlib.suppress(OSError), self._writing():
                for path in folder.glob(f"{_UNFINISHED}*"):
                    path.unlink()

    def all(self, *, fresh: bool = False) -> Mapping[str, T]:
        """What there is, by name: as it was a moment ago, or, `fresh`, as it is. The table is never changed."""
        if self._folder is not None and (fresh or time.monotonic() - self._looked > _LOOK_EVERY_S):
            with self._lock:
                self._look()
        return self._values

    def put(self, name: str, text: str, *, replace: bool, most: int | None = None) -> bool:
        """Keep a file under a name, whatever happens to this machine from then on; False where there is one, and it is not to be replaced.

        Raises Full where there are `most` already, and none of that name; Alike where a name differs only by case; OSError.
        """
        if self._folder is None:
            with self._lock:
                if not _may_put(name, self._values, replace, most):
                    return False
                self._set({**self._values, name: self._read(name, text)})
            return True
        path = self._folder / (name + _SUFFIX)
        with self._writing():
            if not _may_put(name, self._scan(), replace, most):
                return False
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=_UNFINISHED)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    os.fchmod(file.fileno(), 0o644)
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        self._settle()
        return True

    def remove(self, name: str) -> bool:
        """Remove a file; False where there is none. Raises OSError."""
        if self._folder is None:
            with self._lock:
                rest = dict(self._values)
                found = rest.pop(name, None) is not None
                self._set(rest)
            return found
        with self._writing():
            # Looked for in the list, as a disk may take a name that differs by case for this one.
            if name not in self._scan():
                return False
            os.unlink(self._folder / (name + _SUFFIX))
        self._settle()
        return True

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Be the only one who writes, of all servers; the lock goes with its process, however that ends."""
        assert self._folder is not None
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except OSError:
                # NFS locks nothing but what was opened to be written.
                os.close(descriptor)
                descriptor = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _settle(self) -> None:
        """Make a change of the folder last, and see it."""
        assert self._folder is not None
        with contextlib.suppress(OSError):
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        with self._lock:
            self._changed_ns = -1
            self._look()

    def _look(self) -> None:
        """Read what is new. The lock is held."""
        assert self._folder is not None
        self._looked = time.monotonic()
        try:
            changed_ns = os.stat(self._folder).st_mtime_ns
            if changed_ns == self._changed_ns and self._looked - self._scanned < _LOOK_AGAIN_S:
                return
            found = self._scan()
            self._scanned = self._looked
        except OSError as error:
            log.warning("activations cannot be read from %s: %s", self._folder, error)
            return
        self._changed_ns = changed_ns if time.time_ns() - changed_ns > _UNSURE_NS else -1
        values = {name: value for name, value in self._values.items() if found.get(name) == self._seen.get(name)}
        for name in found.keys() - values.keys():
            if found[name] == self._seen.get(name):
                continue  # looked at before, and no activation
            try:
                values[name] = self._read_file(name)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                log.warning("%s%s in %s is left out: %s", name, _SUFFIX, self._folder, " ".join(str(error).split()))
        self._seen = found
        self._set(values)

    def _set(self, values: Mapping[str, T]) -> None:
        before, self._values = self._values, values
        for name, value in before.items():
            if values.get(name) is not value:
                self._dropped(value)

    def _scan(self) -> dict[str, tuple[int, int, int]]:
        found: dict[str, tuple[int, int, int]] = {}
        assert self._folder is not None
        with os.scandir(self._folder) as files:
            for file in files:
                if file.name.endswith(_SUFFIX) and not file.name.startswith("."):
                    with contextlib.suppress(FileNotFoundError):
                        about = file.stat()
                        found[file.name.removesuffix(_SUFFIX)] = about.st_ino, about.st_mtime_ns, about.st_size
        return found

    def _read_file(self, name: str) -> T:
        assert self._folder is not None
        with open(self._folder / (name + _SUFFIX), encoding="utf-8") as file:
            text = file.read(_LARGEST_BYTES + 1)
        if len(text) > _LARGEST_BYTES:
            raise ValueError(f"it has more than {_LARGEST_BYTES} characters")
        return self._read(name, text)


def _may_put(name: str, present: Collection[str], replace: bool, most: int | None) -> bool:
    """Whether a file may be put. Raises Full and Alike."""
    if name in present:
        return replace
    for other in present:
        if other.lower() == name.lower():
            raise Alike(other)
    if most is not None and len(present) >= most:
        raise Full(len(present))
    return True
