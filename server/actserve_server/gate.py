"""Who may compute: a bounded number of calls at once, and none at all once the server drains. Knows no messages.

An own gate, because gRPC's maximum_concurrent_rpcs would turn away health checks too, and because a stream that waits for its
caller computes nothing: between two jobs it gives its place away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Protocol

from actserve_server.errors import Busy, Draining

__all__ = ["MOST_IDLE", "Gate", "Stay"]

MOST_IDLE = 64
"""How many streams may wait for their callers at the same time: each keeps a thread. For another, the one that has waited longest is ended."""

_RETRY_AFTER_S = 0.1
_PATIENCE_S = 1.0
"""How long a stream waits for a place for its next job, before it is told to try again."""


class Gate:
    """Lets a bounded number of computations in, each a context: Busy where there are as many, Draining where there will be none any more.

    >>> gate = Gate(1)
    >>> with gate:
    ...     ...
    """

    def __init__(self, limit: int, most_idle: int = MOST_IDLE) -> None:
        self._limit = limit
        self._free = threading.Semaphore(limit)
        self._idle = _Idle(most_idle)
        self.draining = False

    def __enter__(self) -> None:
        if self.draining:
            raise Draining
        self._enter(None)

    def __exit__(self, *_: object) -> None:
        self._free.release()

    def _enter(self, patience_s: float | None) -> None:
        if not self._free.acquire(blocking=patience_s is not None, timeout=patience_s):
            raise Busy(self._limit, _RETRY_AFTER_S)

    def stay(self, call: Call) -> Stay:
        """The same of a call that computes again and again."""
        return Stay(self, call)

    def wait(self, call: Call) -> None:
        """A call that has given its place away waits for its caller."""
        self._idle.add(call)

    def come_back(self, call: Call, *, to_compute: bool) -> None:
        """The end of its wait. Raises Busy where there is no place within a second."""
        self._idle.remove(call)
        if to_compute:
            self._enter(_PATIENCE_S)

    def end_idle(self, after_s: float) -> None:
        """End the calls that have waited so long for their callers."""
        self._idle.end(after_s)


class Call(Protocol):
    """What a gate knows of a call."""

    def cancel(self) -> object:
        """End it."""


class Stay:
    """A call's stay in the gate: it is inside while it computes, and outside while it waits for its caller."""

    def __init__(self, gate: Gate, call: Call) -> None:
        self._gate = gate
        self._call = call
        self._inside = False

    def __enter__(self) -> Stay:
        self._gate.__enter__()
        self._inside = True
        return self

    def __exit__(self, *_: object) -> None:
        self.done()

    def done(self) -> None:
        """Give the place away, if it has one: before the last message of an answer, for whoever reads that may ask for the next thing."""
        if self._inside:
            self._inside = False
            self._gate.__exit__()

    def next(self, messages: Iterator[bytes]) -> bytes | None:
        """What the caller sends next, once it does; None when it sends nothing more. Raises Busy where there is no place for it then."""
        message = None
        self.done()
        self._gate.wait(self._call)
        try:
            message = next(messages, None)
        finally:
            self._gate.come_back(self._call, to_compute=message is not None)
        self._inside = message is not None
        return message


class _Idle:
    """The calls that wait for their callers, in the order in which they began to."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._since: dict[Call, float] = {}

    def add(self, call: Call) -> None:
        with self._lock:
            longest = next(iter(self._since)) if len(self._since) >= self._most else None
            if longest is not None:
                del self._since[longest]
            self._since[call] = time.monotonic()
        if longest is not None:
            longest.cancel()

    def remove(self, call: Call) -> None:
        with self._lock:
            self._since.pop(call, None)

    def end(self, after_s: float) -> None:
        before = time.monotonic() - after_s
        with self._lock:
            over = [call for call, since in self._since.items() if since <= before]
            for call in over:
                del self._since[call]
        for call in over:
            call.cancel()
