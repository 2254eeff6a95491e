"""What a supervisor and a worker say to each other: JSON objects, a line each, over a socket. Both ends are here.

    worker      {"ready": true}, or {"error": why it can't start}
    supervisor  {"ask": n}, as often as somebody wants the gauges
    worker      {"answer": n, "layers": [[stream, monitor, layer, {figure: value}], ...]}

The worker finds its end as its standard input; that input ends however the supervisor does, and then the worker drains. Knows neither
processes nor gRPC.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actserve_server.config import ConfigError
from actserve_server.watched import Watched

__all__ = ["Link", "asked", "attend"]


class Link:
    """One end.

    >>> ours, theirs = socket.socketpair()
    >>> Link(ours).send({"ready": True})
    >>> Link(theirs).receive(1.0)
    {'ready': True}
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()
        self._reading = threading.Lock()

    @classmethod
    def of_worker(cls) -> Link:
        """The worker's end, of which its own children get no copy. Raises ConfigError where there is none."""
        try:
            end = socket.socket(fileno=os.dup(0))
            end.getpeername()
        except OSError:
            raise ConfigError("--worker: is for the supervisor to give, which `--workers` starts") from None
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, 0)
        os.close(nowhere)
        return cls(end)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], timeout_s: float | None = None) -> None:
        """Send an object. Raises OSError when the other end is gone, or takes nothing."""
        self._socket.settimeout(timeout_s)
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float | None = None) -> dict[str, Any] | None:
        """The next object, or None when there will be no other. Raises TimeoutError, after which the next call goes on."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._reading:
            while (end := self._buffer.find(b"\n")) < 0:
                # Not 0, which would mean not to wait at all, and another error.
                left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
                try:
                    self._socket.settimeout(left)
                    data = self._socket.recv(1 << 16)
                except TimeoutError:
                    raise
                except OSError:
                    return None
                if not data:
                    return None
                self._buffer += data
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End it; the other end notices, and so does who waits at this one."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._reading:
            self._socket.close()


def asked(links: Mapping[int, Link], number: int, within_s: float) -> list[tuple[int, Watched]]:
    """The layers that workers watch, each beside its worker's index; those of one that does not answer in time are left out."""
    waiting = []
    for index, link in links.items():
        with contextlib.suppress(OSError):
            link.send({"ask": number}, within_s)
            waiting.append((index, link))
    deadline = time.monotonic() + within_s
    return [(index, layer) for index, link in waiting for layer in _answer(link, number, deadline)]


def _answer(link: Link, number: int, deadline: float) -> list[Watched]:
    try:
        # What an earlier question was answered too late comes first.
        while (message := link.receive(deadline - time.monotonic())) is not None:
            if message.get("answer") == number:
                return [
                    Watched(stream, monitor, layer, lambda figures=figures: figures)  # type: ignore[misc]
                    for stream, monitor, layer, figures in message["layers"]
                ]
    except TimeoutError:
        pass
    return []


def attend(link: Link, watched: Callable[[], Sequence[Watched]]) -> None:
    """Answer a supervisor for as long as it lives."""
    while (message := link.receive()) is not None:
        layers = [
            [seen.stream, seen.monitor, seen.layer, {name: float(value) for name, value in seen.figures().items()}]
            for seen in watched()
        ]
        with contextlib.suppress(OSError):
            link.send({"answer": message["ask"], "layers": layers})
