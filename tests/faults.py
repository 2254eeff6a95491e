"""A connection that breaks: between a client and a server, cut after as many bytes of answers as a test says."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

from actserve import shared


class Breaking:
    """Forwards connections to an address, HOST:PORT or unix:PATH; the n-th one is cut after the n-th number of bytes from the server.

    >>> with Breaking("127.0.0.1:50051", [1000]) as breaking:
    ...     Client(breaking.address)

    Connections after the last number are left alone. With a path `at` it listens there, beside the way to the target's shared memory,
    which is not cut.
    """

    def __init__(self, target: str, cuts: list[int], at: str = "") -> None:
        self._target = target
        self._cuts = list(cuts)
        self._at = at
        if at:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(at)
            self._listener.listen()
            os.symlink(target.removeprefix("unix:") + shared.SUFFIX, at + shared.SUFFIX)
            self.address = f"unix:{at}"
        else:
            self._listener = socket.create_server(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.broken = 0
        """How many connections were cut."""
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Breaking:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections, and take no other. May be called again."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            ends = list(self._open)
        for end in ends:
            _close(end)
        for thread in self._threads:
            thread.join(10)
        for path in (self._at, self._at + shared.SUFFIX) if self._at else ():
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            left = self._cuts.pop(0) if self._cuts else None
            with self._lock:
                self._open |= {client, server}
            for source, sink, limit in ((client, server, None), (server, client, left)):
                thread = threading.Thread(target=self._forward, args=(source, sink, limit), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _connect(self) -> socket.socket:
        if self._target.startswith("unix:"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target.removeprefix("unix:"))
            return server
        host, _, port = self._target.rpartition(":")
        return socket.create_connection((host, int(port)))

    def _forward(self, source: socket.socket, sink: socket.socket, left: int | None) -> None:
        with contextlib.suppress(OSError):
            for data in _received(source):
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                sink.sendall(data)
                if left == 0:
                    self.broken += 1
                    break
        for end in (source, sink):
            _close(end)


def _received(source: socket.socket) -> Iterator[bytes]:
    while data := source.recv(1 << 16):
        yield data


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
