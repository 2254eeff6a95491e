"""A client's regions of shared memory: asked for at the server's socket, lent as arrays, and used again.

It knows sockets and memory, and neither calls nor what is computed; `actserve.shared` has the protocol. Where there is no shared
memory (another host, another system, an older server, a limit that is reached) there is simply none: nothing here raises for it.

An array keeps its region; when the last array is gone the region waits to be lent again, because new pages cost more than what is
computed on them. A region that a server may still write to is not used again.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import os
import select
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from actserve import shared

__all__ = ["Loan", "Regions", "Spot", "aligned"]

Array = npt.NDArray[Any]

_ANSWER_S = 20.0
"""For how long a broker is waited for: the kernel makes the pages meanwhile, a gigabyte in seconds on a slow machine."""

_KEPT_S = 60.0
"""How long a region that nobody uses is kept for later."""

_LOST_MOST = 3
"""After how many regions that its server did not know a client does without: it talks to other servers than the broker's."""

_ALIGNMENT = 64


@dataclasses.dataclass(slots=True, eq=False)
class _Region:
    name: bytes
    mapping: shared.Mapping
    age: int
    """Which connection it belongs to."""
    idle_since: float = 0.0
    spoiled: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """A place in a region."""

    region: bytes
    offset: int


class Loan:
    """Memory of a region, lent until nothing refers to it: arrays made from it do. Or until it is given back before."""

    __slots__ = ("__weakref__", "give_back", "nbytes", "region")

    def __init__(self, region: _Region, nbytes: int, taken_back: Callable[[_Region], object]) -> None:
        self.region = region
        self.nbytes = nbytes
        self.give_back = weakref.finalize(self, taken_back, region)
        """Ends the loan, for who knows that nobody looks at its memory any more."""
        self.give_back.atexit = False

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"version": 3, "shape": (self.nbytes,), "typestr": "|u1", "data": (self.region.mapping.address, False)}

    @property
    def spot(self) -> Spot:
        """Where it begins."""
        return Spot(self.region.name, 0)

    def bytes(self) -> npt.NDArray[np.uint8]:
        """All of it."""
        return np.asarray(self)

    def spoil(self) -> None:
        """A server may still be writing to it: never lend it again."""
        self.region.spoiled = True


class Regions:
    """The regions of one client at one Unix socket; None for a path means that there never are any.

    >>> regions = Regions("/run/actserve.sock")
    >>> loan = regions.lend(1 << 20)
    >>> regions.find(loan.bytes()[4096:]).offset
    4096

    Threads may share one. In a child after a fork it has no regions and gets none.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None or not shared.SUPPORTED else path + shared.SUFFIX
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._ends: select.poll | None = None
        self._age = 0
        self._regions: dict[int, _Region] = {}
        self._addresses: list[int] = []
        self._idle: list[_Region] = []
        self._unwanted: list[_Region] = []
        # What finalizers give back, which may run in any thread and at any point, also where the lock is held.
        self._returned: deque[_Region] = deque()
        self._lost = 0
        _forget_after_fork.add(self)

    @property
    def possible(self) -> bool:
        """Whether there may be shared memory."""
        return self._path is not None

    def lend(self, nbytes: int, *, wait: bool = True) -> Loan | None:
        """Memory for so many bytes, with whatever is in it; None where there is none to be had.

        Without `wait` it is a region that was used before: nobody is asked, and nothing waited for.
        """
        if self._path is None or nbytes <= 0:
            return None
        # Whoever has the lock may be waiting for the server.
        if not self._lock.acquire(blocking=wait):
            return None
        try:
            self._collect(release=wait)
            region = self._taken(nbytes) or (self._created(nbytes) if wait else None)
        finally:
            self._lock.release()
        if region is None:
            return None
        return Loan(region, nbytes, self._returned.append)

    def find(self, array: Array, *, wait: bool = True) -> Spot | None:
        """Where an array lies in a region, if it does, and is one piece of little-endian elements.

        Without `wait` also None where another thread waits for the server.
        """
        if not self._regions or not array.nbytes or not array.flags.c_contiguous:
            return None
        if array.dtype.newbyteorder("<") != array.dtype:
            return None
        address = array.__array_interface__["data"][0]
        if not self._lock.acquire(blocking=wait):
            return None
        try:
            self._collect(release=wait)
            place = bisect.bisect_right(self._addresses, address) - 1
            if place < 0:
                return None
            begin = self._addresses[place]
            region = self._regions[begin]
        finally:
            self._lock.release()
        if address + array.nbytes > begin + region.mapping.nbytes or region.spoiled:
            return None
        return Spot(region.name, address - begin)

    def lost(self) -> None:
        """A server did not know a region: begin anew."""
        with self._lock:
            self._lost += 1
            if self._lost >= _LOST_MOST:
                self._path = None
            self._forget()

    def known(self) -> None:
        """A server knew its regions."""
        self._lost = 0

    def close(self) -> None:
        """Let go of all regions; arrays that lie in them stay what they are."""
        with self._lock:
            self._path = None
            self._forget()

    # ---- all of these with the lock ------------------------------------------------------------------------------------

    def _collect(self, *, release: bool) -> None:
        """Take back what is no longer used, notice a server that has gone, and tell it what was idle for long where that may take a while."""
        # The server never speaks unless it is asked. Not by a `recv` that does not wait: on a socket with a timeout, Python makes it wait.
        if self._socket is not None and self._ends is not None and self._ends.poll(0):
            self._forget()
        now = time.monotonic()
        while self._returned:
            region = self._returned.popleft()
            if region.age != self._age:
                continue
            if region.spoiled:
                self._unwanted.append(region)
            else:
                region.idle_since = now
                self._idle.append(region)
        if not release:
            return
        for region in [region for region in self._idle if now - region.idle_since > _KEPT_S]:
            self._idle.remove(region)
            self._unwanted.append(region)
        while self._unwanted:
            self._release(self._unwanted.pop())

    def _taken(self, nbytes: int) -> _Region | None:
        """The smallest idle region that is large enough, and not far too large."""
        fitting = [region for region in self._idle if nbytes <= region.mapping.nbytes <= 2 * nbytes + (1 << 20)]
        if not fitting:
            return None
        region = min(fitting, key=lambda region: region.mapping.nbytes)
        self._idle.remove(region)
        return region

    def _created(self, nbytes: int) -> _Region | None:
        try:
            region = self._asked(nbytes)
            if region is None and self._idle:
                # What others wait for at the limit may be what is kept here.
                for idle in self._idle:
                    self._release(idle)
                self._idle.clear()
                region = self._asked(nbytes)
        except OSError as error:
            if isinstance(error, (shared.ProtocolError, TimeoutError)):
                # Something else listens there, or something that does not work.
                self._path = None
            self._forget()
            return None
        if region is not None:
            address = region.mapping.address
            self._regions[address] = region
            bisect.insort(self._addresses, address)
        return region

    def _asked(self, nbytes: int) -> _Region | None:
        """A new region; None when the server has no room for it."""
        connection = self._connected()
        size = shared.rounded(nbytes)
        connection.sendall(shared.Request(shared.CREATE, size).pack())
        raw, descriptors, _, _ = socket.recv_fds(connection, shared.LARGEST_MESSAGE, 1)
        try:
            if not raw:
                raise ConnectionResetError("the server closed the connection")
            answer = shared.Answer.unpack(raw)
            if answer.outcome != shared.GRANTED:
                return None
            if len(descriptors) != 1 or answer.nbytes != size:
                raise shared.ProtocolError("the server granted a region, and sent none of that size")
            shared.check(descriptors[0], size)
            return _Region(answer.region, shared.Mapping(descriptors[0], size), self._age)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            assert self._path is not None
            connection = shared.endpoint()
            try:
                connection.settimeout(_ANSWER_S)
                connection.connect(self._path)
                shared.Hello.unpack(connection.recv(shared.LARGEST_MESSAGE))
            except BaseException:
                connection.close()
                raise
            self._socket = connection
            self._ends = select.poll()
            self._ends.register(connection, select.POLLIN)
        return self._socket

    def _release(self, region: _Region) -> None:
        address = region.mapping.address
        del self._regions[address]
        self._addresses.remove(address)
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendall(shared.Request(shared.RELEASE, region=region.name).pack())

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._age += 1
        self._regions.clear()
        self._addresses.clear()
        self._idle.clear()
        self._unwanted.clear()

    def after_fork(self) -> None:
        """In the child: the regions are the parent's, and so is the lock, which another thread of it may have held."""
        self._lock = threading.Lock()
        self._path = None
        self._forget()


_forget_after_fork: weakref.WeakSet[Regions] = weakref.WeakSet()


def _in_child() -> None:
    for regions in list(_forget_after_fork):
        regions.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def aligned(nbytes: int) -> npt.NDArray[np.uint8]:
    """Memory of this process alone, that begins where vectors do."""
    room = np.empty(nbytes + _ALIGNMENT, np.uint8)
    begin = -int(room.__array_interface__["data"][0]) % _ALIGNMENT
    return room[begin : begin + nbytes]
