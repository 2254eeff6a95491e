"""What a supervisor and a worker say to each other: JSON objects, a line each, over a socket. Both ends are here.

    worker      {"ready": true}, or {"error": why it can't start}
    worker      {"draining": true}, when it begins to, whoever told it
    supervisor  {"ask": n}, as often as somebody wants the gauges
    worker      {"answer": n, "layers": [[stream, monitor, layer, {figure: value}], ...]}

The worker finds its end as its standard input; that input ends however the supervisor does, and then the worker drains. The supervisor's end
is read by one thread, which passes answers on to whoever asked. Knows neither processes nor gRPC.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from actserve_server.config import ConfigError
from actserve_server.watched import Watched

__all__ = ["Link", "asked", "attend"]

Message = dict[str, Any]


class Link:
    """One end.

    >>> ours, theirs = socket.socketpair()
    >>> Link(ours).send({"ready": True})
    >>> Link(theirs).receive()
    {'ready': True}
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._buffer = bytearray()
        self._sending = threading.Lock()
        self._answers: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

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

    def send(self, message: Message, timeout_s: float | None = None) -> None:
        """Send an object. Raises OSError when the other end is gone, or takes nothing."""
        with self._sending:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> Message | None:
        """The next object, once it is there, or None when there will be no other."""
        while (line := self._line()) is None:
            if not self._read():
                return None
        return line

    @property
    def speaks(self) -> bool:
        """Whether something has come, or the end."""
        watch = select.poll()
        watch.register(self._socket, select.POLLIN)
        return bool(watch.poll(0))

    def arrived(self) -> list[Message] | None:
        """The objects that have come, where it `speaks`, but for answers; None when there will be no other."""
        if not self._read():
            return None
        found = []
        while (line := self._line()) is not None:
            if "answer" in line:
                self._answers.put(line)
            else:
                found.append(line)
        return found

    def answer(self, number: int, deadline: float) -> Message | None:
        """The answer to a question, which `arrived` must find before a moment of time.monotonic; else None."""
        with contextlib.suppress(queue.Empty):
            # What an earlier question was answered too late comes first.
            while (message := self._answers.get(timeout=max(deadline - time.monotonic(), 0))) is not None:
                if message["answer"] == number:
                    return message
        return None

    def _read(self) -> bool:
        """Take what has come, or wait for it; False when there will be nothing more."""
        try:
            data = self._socket.recv(1 << 16)
        except OSError:
            data = b""
        self._buffer += data
        return bool(data)

    def _line(self) -> Message | None:
        end = self._buffer.find(b"\n")
        if end < 0:
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        found: Message = json.loads(line)
        return found

    def close(self) -> None:
        """End it; the other end notices, and so does who waits for an answer."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._answers.put(None)


def asked(links: Mapping[int, Link], number: int, within_s: float) -> list[tuple[int, Watched]]:
    """The layers that workers watch, each beside its worker's index; those of one that does not answer in time are left out."""
    waiting = []
    for index, link in links.items():
        with contextlib.suppress(OSError):
            link.send({"ask": number}, within_s)
            waiting.append((index, link))
    deadline = time.monotonic() + within_s
    return [
        (index, Watched(stream, monitor, layer, lambda figures=figures: figures))  # type: ignore[misc]
        for index, link in waiting
        if (message := link.answer(number, deadline)) is not None
        for stream, monitor, layer, figures in message["layers"]
    ]


def attend(link: Link, watched: Callable[[], Sequence[Watched]]) -> None:
    """Answer a supervisor for as long as it lives."""
    while (message := link.receive()) is not None:
        layers = [
            [seen.stream, seen.monitor, seen.layer, {name: float(value) for name, value in seen.figures().items()}]
            for seen in watched()
        ]
        with contextlib.suppress(OSError):
            link.send({"answer": message["ask"], "layers": layers})
