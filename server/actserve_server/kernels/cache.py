"""Compiled code on disk: read from a cache baked into an image, then from one that can be written to.

Numba's own cache does not serve here: it refuses functions without a source file, it is keyed by a file's time and by
the host's name, and it needs a directory it can write to. This one is keyed by content alone (see `build.fingerprint`),
so a directory may be copied, shared between processes and mounted read-only. What it holds is executed: it must be as
trusted as the program itself. This module does not know what the bytes are.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Cache"]

_log = logging.getLogger(__name__)

_PREFIX = "kernels-"
_KEPT_S = 30 * 24 * 3600.0
_DIGEST_BYTES = hashlib.sha256().digest_size


class Cache:
    """A table from names to bytes that outlives the process, where the disk allows it.

    >>> cache = Cache(None, fingerprint="0" * 64)
    >>> cache.put("gelu", b"code")
    >>> cache.get("gelu")
    b'code'

    `directory` is made if it is missing; if it is None or cannot be written to, a private one that goes with the process
    takes its place, and what could not be written to is still read. `baked` directories come first and are only read. A file that was cut short or changed is a miss.
    """

    def __init__(self, directory: Path | None, fingerprint: str, baked: Sequence[Path] = ()) -> None:
        self._name = _PREFIX + fingerprint[:16]
        if directory is not None and not _writable(directory):
            _log.warning(
                "%s cannot be written to: what is compiled from here on is kept by this process alone", directory
            )
            baked, directory = (*baked, directory), None
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="actserve-kernels-")
            directory = Path(self._temporary.name)
        self.directory: Path = directory
        self._layers = [folder / self._name for folder in (*baked, directory)]
        self._pruned = False

    def get(self, name: str) -> bytes | None:
        """The bytes put under a name, or None."""
        for layer in self._layers:
            with contextlib.suppress(OSError):
                content = (layer / name).read_bytes()
                digest, data = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
                if hashlib.sha256(data).digest() == digest:
                    return data
        return None

    def put(self, name: str, data: bytes) -> None:
        """Keep bytes under a name; processes may do so at once, and none ever sees a half-written file.

        Raises OSError when the disk does, as when it is full.
        """
        layer = self._layers[-1]
        layer.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=layer, prefix=".")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(data).digest() + data)
            os.replace(temporary, layer / name)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if not self._pruned:
            self._pruned = True
            self._prune()

    def _prune(self) -> None:
        """Remove what other versions of the program left behind and have not added to for a month."""
        with contextlib.suppress(OSError):
            for folder in self._layers[-1].parent.glob(_PREFIX + "*"):
                if folder.name != self._name and folder.stat().st_mtime < time.time() - _KEPT_S:
                    shutil.rmtree(folder, ignore_errors=True)


def _writable(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK | os.X_OK)
