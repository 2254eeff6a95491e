"""The process in which added formulas are compiled and looked into, so that none can hold up or bring down the one that serves.

It takes an entry a line and answers a line: a report, or what went wrong. One that takes too long is killed, and the next entry
finds another. Knows neither who asks nor what is done with the answer.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from actserve_server.custom.entry import Entry, report_from, report_to
from actserve_server.formulas import Definition, Report, examine
from actserve_server.kernels import build
from actserve_server.kernels.cache import Cache

__all__ = ["TooLong", "Workshop", "WorkshopFailed", "main"]

_START = "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from actserve_server.custom import workshop; workshop.main()"
_READY = b"ready\n"
_BEGUN = b"begun\n"
_LONGEST_START_S = 120.0
"""How long the process may take to start and make ready, on a busy machine: that is no formula's fault, and not in its time."""
_IDLE_S = 600.0
_MOST_MEMORY = 4 << 30
"""Of address space beyond what it starts with."""
_LATER = ("vjp",)
_TYPES = ("float64", "float32")


class TooLong(Exception):
    """Expected error: a formula took more time, or memory, than it may."""


class WorkshopFailed(Exception):
    """Unexpected error: the process could not do what it can do. A bug."""


class Workshop:
    """Looks into entries, one after another; threads may share it.

    >>> Workshop(Path("/var/cache/actserve")).examine(Entry("team.double", "2 * x"), longest=1000, within_s=20).monotonic
    'increasing'
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._used = 0.0
        self._owed = 0
        """How many answers will come that are none to an entry."""
        self._closed = False

    def examine(self, entry: Entry, *, longest: int, within_s: float) -> Report:
        """Compile an entry into the cache, and look into it. Raises TooLong and WorkshopFailed."""
        line = json.dumps({"entry": entry.to_json(), "cache": str(self._cache), "longest": longest}).encode() + b"\n"
        if not self._lock.acquire(timeout=within_s):
            raise TooLong("the formulas before it have taken all the time")
        try:
            answer = self._ask(line, within_s)
        finally:
            self._lock.release()
        if "report" not in answer:
            raise WorkshopFailed(str(answer.get("error", "no answer")))
        return report_from(answer["report"])

    def _ask(self, line: bytes, within_s: float) -> dict[str, Any]:
        try:
            process = self._running()
            self._wait_until_ready(process)
            deadline = time.monotonic() + within_s
            self._tell(process, line)
            answer = self._answer(process, deadline)
        except OSError as error:
            self._end()
            raise WorkshopFailed(str(error)) from error
        self._used = time.monotonic()
        if not answer.endswith(b"\n"):
            ended = process.poll() is not None or bool(answer)
            self._end()
            raise TooLong(
                "its process ran out of memory" if ended and time.monotonic() < deadline else "it was given up"
            )
        found: dict[str, Any] = json.loads(answer)
        return found

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Take the answers that are none to an entry. Raises OSError where they do not come."""
        deadline = time.monotonic() + _LONGEST_START_S
        while self._owed > 0:
            answered = self._answer(process, deadline).count(b"\n")
            if not answered:
                raise OSError(f"the process did not start, within {_LONGEST_START_S:g} s")
            self._owed -= answered

    @staticmethod
    def _tell(process: subprocess.Popen[bytes], line: bytes) -> None:
        assert process.stdin is not None
        process.stdin.write(line)
        process.stdin.flush()

    @staticmethod
    def _answer(process: subprocess.Popen[bytes], deadline: float) -> bytes:
        """A line, or what there is of it when the time is over or the process ends."""
        assert process.stdout is not None
        gathered = b""
        while not gathered.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0.0))
            part = os.read(process.stdout.fileno(), 1 << 16) if ready else b""
            if not part:
                break
            gathered += part
        return gathered

    def _running(self) -> subprocess.Popen[bytes]:
        # Well before it ends by itself, so that no entry is ever written to one that is leaving.
        if self._process is not None and (
            time.monotonic() - self._used > _IDLE_S / 2 or self._process.poll() is not None
        ):
            self._end()
        if self._closed:
            raise OSError("the server is shutting down")
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _START, json.dumps(sys.path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # An interrupt typed at a terminal is the parent's to handle: it may be draining.
                start_new_session=True,
            )
            self._owed = 1
            self._tell(self._process, _BEGUN)
        return self._process

    def prepare(self) -> None:
        """Start the process, and let it make ready; returns at once. Without, the first entry waits for that."""
        with contextlib.suppress(OSError), self._lock:
            self._tell(self._running(), _READY)
            self._owed += 1
            self._used = time.monotonic()

    def close(self) -> None:
        """End the process; an entry that it is at fails."""
        self._closed = True
        process = self._process
        if process is not None:
            process.kill()
        with self._lock:
            self._end()

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
    """What the process runs: entries in, reports out, until the input closes or nothing comes for long."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints must not pass for an answer
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (_size() + _MOST_MEMORY, resource.RLIM_INFINITY))
    # Without a buffer: a line in one would not be seen by `select`, when two have come at once.
    entries = os.fdopen(os.dup(0), "rb", buffering=0)
    pending: list[tuple[Definition, Cache, str, str]] = []
    while select.select([entries], [], [], 0.0 if pending else _IDLE_S)[0] or pending:
        if pending and not select.select([entries], [], [], 0.0)[0]:
            # What may be wanted next is made while nothing else is asked for.
            with contextlib.suppress(Exception):
                _compiled(*pending.pop(0))
            continue
        line = entries.readline()
        if not line:
            return
        if line in (_READY, _BEGUN):
            if line == _READY:
                _make_ready()
            answers.write(b"{}\n")
            continue
        answer, definition, cache = _done(line)
        answers.write(json.dumps(answer).encode() + b"\n")
        if definition is not None and cache is not None:
            names = ("forward", "derivative", *_LATER)
            pending = [(definition, cache, name, dtype) for dtype in _TYPES for name in names]


_USUAL = "x * sigmoid(x) + tanh(x) * exp(x) + log1p(abs(x)) * erf(x)"


def _make_ready() -> None:
    """Translate what most formulas use: the first one compiled in a process takes three times as long as the next."""
    with contextlib.suppress(Exception):
        definition = Entry("ready.ready", _USUAL).definition(len(_USUAL))
        for operation in ("forward", "derivative"):
            build.translate(build.unit_of(definition.record, operation, np.dtype(np.float64)))
        build.translate(build.unit_of(definition.record, "forward", np.dtype(np.float32)))


def _size() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _done(line: bytes) -> tuple[dict[str, Any], Definition | None, Cache | None]:
    try:
        asked = json.loads(line)
        definition = Entry.from_json(asked["entry"]).definition(asked["longest"])
        cache = Cache(Path(asked["cache"]), build.fingerprint())
        # What is asked for first, more often than not.
        _compiled(definition, cache, "forward", "float32")
        report = examine(
            definition, functools.cache(lambda operation: _compiled(definition, cache, operation, "float64"))
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}, None, None
    return {"report": report_to(report)}, definition, cache


def _compiled(definition: Definition, cache: Cache, operation: str, dtype: str) -> Any:
    """A loop of a definition, from the cache or into it."""
    unit = build.unit_of(definition.record, operation, np.dtype(dtype))
    code = cache.get(unit.digest())
    if code is not None:
        return build.revive(unit, code)
    result = build.translate(unit)
    cache.put(unit.digest(), build.dump(result))
    return build.callable_of(unit, result)
