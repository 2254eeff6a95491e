"""Compiles in a child process, so that a cold kernel holds up only those who asked for it.

Compiling in this process would hold Numba's lock and, most of the time, the interpreter's. The child is started on
first need, takes one unit a line on its standard input, writes the code to the cache on disk, and answers a line. It
ends by itself when idle, or when its input closes because the parent is gone. Both ends are here; neither knows what a
kernel computes.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pickle
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

from numba import cloudpickle

from actserve_server.kernels import build
from actserve_server.kernels.cache import Cache

__all__ = ["Child", "ChildFailed", "ChildTooSlow", "main"]

_IDLE_S = 60.0
_LONGEST_BUILD_S = 120.0
_DONE = b"done\n"

# The child must find the same modules as the parent, however the parent was told of them.
_START = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from actserve_server.kernels import cold; cold.main()"
)


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
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._used_s = 0.0

    def build(self, unit: build.Unit, directory: Path) -> None:
        """Compile a unit into the cache in a directory.

        Raises ChildFailed, after which this process may try itself, and ChildTooSlow beyond the limit.
        """
        try:
            line = base64.b64encode(cloudpickle.dumps((unit, directory))) + b"\n"
        except Exception as error:  # whatever an object raises that cannot be pickled
            raise ChildFailed(f"{unit.label} cannot be sent: {error}") from error
        with self._lock:
            try:
                process = self._running()
                assert process.stdin is not None and process.stdout is not None
                process.stdin.write(line)
                process.stdin.flush()
                ready, _, _ = select.select([process.stdout], [], [], self._limit_s)
                answer = process.stdout.readline() if ready else b""
            except (OSError, ValueError) as error:
                self._end()
                raise ChildFailed(str(error)) from error
            self._used_s = time.monotonic()
            if not answer:
                self._end()
                raise ChildFailed("it ended") if ready else ChildTooSlow(f"no answer in {self._limit_s:g} s")
        if answer != _DONE:
            raise ChildFailed(answer.decode(errors="replace").strip())

    def close(self) -> None:
        """End the child; a unit it is compiling fails."""
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        # Well before the child ends itself, so that no unit is ever written to one that is leaving.
        if self._process is not None and time.monotonic() - self._used_s > _IDLE_S / 2:
            self._end()
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # An interrupt typed at a terminal is the parent's to handle: it may be draining.
                start_new_session=True,
            )
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


def main() -> None:
    """What the child runs: units in, code to disk, until the input closes or nothing comes for a minute."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer
    while select.select([sys.stdin], [], [], _IDLE_S)[0]:
        line = sys.stdin.buffer.readline()
        if not line:
            return
        answers.write(_answer(line))


def _answer(line: bytes) -> bytes:
    try:
        unit, directory = pickle.loads(base64.b64decode(line))
        cache = Cache(directory, build.fingerprint())
        cache.put(unit.digest(), build.dump(build.translate(unit)))
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace("\n", " ").encode() + b"\n"
    return _DONE
