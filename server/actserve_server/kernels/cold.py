"""Compiles in a child process, so that a cold kernel holds up only those who asked for it.

Compiling in this process would hold Numba's lock and, most of the time, the interpreter's. The child takes one unit at a time, and
writes the code to the cache on disk. Both ends are here; neither knows what a kernel computes, nor how processes are kept.
"""

from __future__ import annotations

import base64
import pickle
from pathlib import Path

from numba import cloudpickle

from actserve_server.companion import Companion, CompanionFailed, CompanionTooSlow, answer_lines
from actserve_server.kernels import build
from actserve_server.kernels.cache import Cache

__all__ = ["Child", "ChildFailed", "ChildTooSlow", "main"]

_IDLE_S = 60.0
_LONGEST_BUILD_S = 120.0
_DONE = b"done"


class ChildFailed(Exception):
    """The child could not compile a unit, or is gone."""


class ChildTooSlow(ChildFailed):
    """The child took longer than it may, and was ended."""


class Child:
    """A process that compiles, started when it is needed and again after it went idle.

    >>> child = Child()
    >>> child.build(unit, Path("/var/cache/actserve"))  # doctest: +SKIP
    >>> child.close()

    Threads may share one; their units are compiled one after another.
    """

    def __init__(self, limit_s: float = _LONGEST_BUILD_S) -> None:
        self._limit_s = limit_s
        self.companion = Companion(__name__)

    def build(self, unit: build.Unit, directory: Path) -> None:
        """Compile a unit into the cache in a directory.

        Raises ChildFailed, after which this process may try itself, and ChildTooSlow beyond the limit.
        """
        try:
            line = base64.b64encode(cloudpickle.dumps((unit, directory)))
        except Exception as error:  # whatever an object raises that cannot be pickled
            raise ChildFailed(f"{unit.label} cannot be sent: {error}") from error
        try:
            answer = self.companion.ask(line, self._limit_s)
        except CompanionTooSlow as error:
            raise ChildTooSlow(str(error)) from error
        except CompanionFailed as error:
            raise ChildFailed(str(error)) from error
        if answer != _DONE:
            raise ChildFailed(answer.decode(errors="replace"))

    def close(self) -> None:
        """End the child; a unit it is compiling fails."""
        self.companion.close()


def main() -> None:
    """What the child runs: units in, code to disk, until the input closes or nothing comes for a minute."""
    answer_lines(_answer, idle_s=_IDLE_S)


def _answer(line: bytes) -> bytes:
    try:
        unit, directory = pickle.loads(base64.b64decode(line))
        cache = Cache(directory, build.fingerprint())
        cache.put(unit.digest(), build.dump(build.translate(unit)))
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ").encode()
    return _DONE
