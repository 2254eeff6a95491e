"""Shared memory for clients on the same host: the regions that there are, whose they are, and the socket where they are asked for.

It knows sockets and memory, and neither gRPC nor what is computed. `actserve.shared` has the protocol and says what a region is. A
region belongs to the connection that it was made for, and goes with it; a computation that uses it at that moment has it until
it is over. What a client writes into its region, and when, is not known: nothing here reads it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
import socket
import stat
import struct
import threading
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from actserve import shared

from actserve_server.errors import UnknownRegion

__all__ = ["Broker", "LimitReached", "Regions", "memory_bytes", "identity"]

log = logging.getLogger("actserve.regions")

Memory = npt.NDArray[np.uint8]

_LEAST_BYTES = 1 << 20
"""What a region counts as at least, so that nobody gets mappings without end for little memory."""

_MOST_CONNECTIONS = 256
"""Of clients to a broker: each has a thread, which nearly always sleeps."""

_PAUSE_S = 0.1
"""How long to wait where a connection can't be accepted, as when no more files may be open."""

_PEER = struct.Struct("3i")


class LimitReached(Exception):
    """Expected error: there is no room for another region."""


@dataclasses.dataclass(slots=True, eq=False)
class _Region:
    owner: Hashable
    nbytes: int
    memory: Memory | None
    uses: int = 0
    """How many computations use it."""
    dropped: bool = False


class Regions:
    """All regions of a server, each under an identifier that can't be guessed.

    >>> regions = Regions(1 << 30, 1 << 20)
    >>> name, descriptor = regions.create("a client", 4096)
    >>> with regions.using(name) as memory:
    ...     memory.nbytes
    4096

    Memory counts until it is unmapped, which it is when it was dropped and nothing uses it. Threads may share one.
    """

    def __init__(self, most_bytes: int, most_bytes_per_client: int) -> None:
        self.most_bytes = most_bytes
        self.most_bytes_per_client = min(most_bytes_per_client, most_bytes)
        self._regions: dict[bytes, _Region] = {}
        self._bytes: dict[Hashable, int] = {}
        self._total = 0
        self._lock = threading.Lock()

    @property
    def total_bytes(self) -> int:
        """How much memory regions take now."""
        return self._total

    def create(self, owner: Hashable, nbytes: int) -> tuple[bytes, int]:
        """Make a region: its identifier, and its descriptor, which is the caller's to close. Raises LimitReached."""
        counted = max(nbytes, _LEAST_BYTES)
        with self._lock:
            if self._total + counted > self.most_bytes:
                raise LimitReached(f"{self._total:,} of {self.most_bytes:,} bytes are in use")
            if self._bytes.get(owner, 0) + counted > self.most_bytes_per_client:
                raise LimitReached(
                    f"the client has {self._bytes.get(owner, 0):,} of {self.most_bytes_per_client:,} bytes"
                )
            self._count(owner, counted)
        try:
            # Without the lock, because it takes a while: the kernel makes all pages now.
            descriptor = shared.create(nbytes)
            try:
                memory = np.asarray(shared.Mapping(descriptor, nbytes))
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            with self._lock:
                self._count(owner, -counted)
            raise LimitReached(f"the system has no room: {error}") from None
        name = secrets.token_bytes(shared.ID_BYTES)
        with self._lock:
            self._regions[name] = _Region(owner, counted, memory)
        return name, descriptor

    def drop(self, name: bytes, owner: Hashable) -> None:
        """Let go of a region of this owner; nothing happens where there is none."""
        with self._lock:
            region = self._regions.get(name)
            if region is not None and region.owner == owner:
                del self._regions[name]
                region.dropped = True
                self._settle(region)

    @contextlib.contextmanager
    def using(self, name: bytes, field: str = "region") -> Iterator[Memory]:
        """A region's memory, which stays until the end of the block whatever its client does. Raises UnknownRegion."""
        with self._lock:
            region = self._regions.get(name)
            if region is None or region.memory is None:
                raise UnknownRegion(field)
            region.uses += 1
            memory = region.memory
        try:
            yield memory
        finally:
            del memory
            with self._lock:
                region.uses -= 1
                self._settle(region)

    def _settle(self, region: _Region) -> None:
        if region.dropped and not region.uses and region.memory is not None:
            region.memory = None
            self._count(region.owner, -region.nbytes)

    def _count(self, owner: Hashable, nbytes: int) -> None:
        self._total += nbytes
        self._bytes[owner] = self._bytes.get(owner, 0) + nbytes
        if not self._bytes[owner]:
            del self._bytes[owner]


class Broker:
    """Gives regions to who connects to a Unix socket.

    Whoever may connect to gRPC's socket, beside which it lies, may connect to this one: both files are made alike. Raises OSError
    when it can't listen.
    """

    def __init__(self, path: str, regions: Regions) -> None:
        self.path = path
        self._regions = regions
        self._connections: dict[int, socket.socket] = {}
        self._threads: set[threading.Thread] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._listener = shared.endpoint()
        try:
            # As gRPC does: what an earlier server left behind is in the way.
            with contextlib.suppress(FileNotFoundError):
                if stat.S_ISSOCK(os.lstat(path).st_mode):
                    os.unlink(path)
            self._listener.bind(path)
            self._file = identity(path)
            self._listener.listen(_MOST_CONNECTIONS)
        except BaseException:
            self._listener.close()
            raise
        self._accepting = threading.Thread(target=self._accept, name="regions", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._accepting.start()

    def _accept(self) -> None:
        for number in range(1 << 62):
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._closed:
                    return
                log.warning("the broker of shared memory can't accept a client: %s", error)
                time.sleep(_PAUSE_S)
                continue
            with self._lock:
                if self._closed or len(self._connections) >= _MOST_CONNECTIONS:
                    connection.close()
                    continue
                thread = threading.Thread(
                    target=self._serve, args=(number, connection), name=f"regions-{number}", daemon=True
                )
                self._connections[number] = connection
                self._threads.add(thread)
                thread.start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        owner = _owner(number, connection)
        mine: list[bytes] = []
        try:
            connection.sendall(shared.Hello(self._regions.most_bytes_per_client).pack())
            while raw := connection.recv(shared.LARGEST_MESSAGE):
                self._answer(connection, owner, shared.Request.unpack(raw), mine)
        except OSError:
            pass  # the client is gone, or makes no sense: either way its connection is over
        finally:
            for name in mine:
                self._regions.drop(name, owner)
            with self._lock:
                del self._connections[number]
                self._threads.discard(threading.current_thread())
            connection.close()

    def _answer(self, connection: socket.socket, owner: Hashable, request: shared.Request, mine: list[bytes]) -> None:
        if request.what == shared.RELEASE:
            # Only regions of this connection, though the owner may have others.
            if request.region in mine:
                mine.remove(request.region)
                self._regions.drop(request.region, owner)
            return
        if request.what != shared.CREATE or not 0 < request.nbytes < 1 << 62:
            connection.sendall(shared.Answer(shared.REFUSED).pack())
            return
        try:
            name, descriptor = self._regions.create(owner, request.nbytes)
        except LimitReached as error:
            log.debug("no region of %d bytes: %s", request.nbytes, error)
            connection.sendall(shared.Answer(shared.LIMIT_REACHED).pack())
            return
        mine.append(name)
        try:
            answer = shared.Answer(shared.GRANTED, request.nbytes, name).pack()
            socket.send_fds(connection, [answer], [descriptor])
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End all connections, and with them their regions; returns when all is over."""
        with self._lock:
            self._closed = True
            threads = list(self._threads)
            for connection in self._connections.values():
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # which wakes `accept`
        if self._accepting.is_alive():
            self._accepting.join()
        self._listener.close()
        for thread in threads:
            thread.join()
        # Another server may have taken the place meanwhile.
        with contextlib.suppress(OSError):
            if identity(self.path) == self._file:
                os.unlink(self.path)


def _owner(number: int, connection: socket.socket) -> Hashable:
    """Whose regions are counted together: those of a process, or of a connection where the process lies in another namespace."""
    pid, uid, _ = _PEER.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return (uid, pid) if pid else (number,)


def identity(path: str) -> tuple[int, int]:
    """Which file lies at a path, of all that have ever lain there. Raises OSError where there is none."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def memory_bytes() -> int:
    """How much memory this process may use: that of its container, or of the machine.

    >>> memory_bytes() > 0
    True
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [machine]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(path).read_text()))
    return min(limits)
