"""The connections of a client: which one the next call takes. Knows neither calls nor messages."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from actserve_client import _channel
from actserve_client.errors import InvalidRequest, ServerUnavailable

C = TypeVar("C")

_COOLING_S = 1.0
"""For how long a connection that lost its server is only taken when there is no other."""


class Line(Generic[C]):
    """A connection, opened when it is first used."""

    def __init__(self, address: str, open_channel: Callable[[str], C]) -> None:
        self.address = address
        self._open = open_channel
        self._channel: C | None = None
        self._methods: dict[str, Any] = {}
        self.calls = 0
        """How many calls are in progress."""
        self.used = 0
        """How many there have been."""
        self.cool = 0.0
        """The time before which it is to be left alone."""

    @property
    def channel(self) -> C:
        """The channel."""
        if self._channel is None:
            self._channel = self._open(self.address)
        return self._channel

    def method(self, kind: str, name: str) -> Any:
        """A method of the service, of a kind such as "unary_stream"."""
        found = self._methods.get(name)
        if found is None:
            found = self._methods[name] = getattr(self.channel, kind)(name)
        return found

    @property
    def compute(self) -> Any:
        """Compute."""
        return self.method("unary_stream", _channel.COMPUTE)

    @property
    def compute_stream(self) -> Any:
        """ComputeStream."""
        return self.method("stream_stream", _channel.COMPUTE_STREAM)

    def opened(self) -> C | None:
        """The channel, if it is open."""
        return self._channel


class Pool(Generic[C]):
    """Connections to one or several addresses, up to `most` to each; another is opened when all there are have calls in progress.

    Behind one address there may be several workers: which of them has a connection is decided when it is opened.
    """

    def __init__(self, addresses: str, most: int, open_channel: Callable[[str], C]) -> None:
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InvalidRequest(f"channels is {most!r}, and must be a whole number of at least 1", field="channels")
        self.addresses = tuple(part.strip() for part in addresses.split(","))
        if not all(self.addresses):
            raise InvalidRequest(f"address is {addresses!r}, which names no server, or an empty one", field="address")
        self._most = most
        self._open = open_channel
        self._lock = threading.Lock()
        self._lines = [Line(address, open_channel) for address in self.addresses]
        self._closed = False

    def pick(self) -> Line[C]:
        """The connection for the next call."""
        with self._lock:
            return self._pick()

    def each(self) -> list[Line[C]]:
        """A connection to each address."""
        with self._lock:
            self._check_open()
            return self._lines[: len(self.addresses)]

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequest("the client is closed", field="client")

    def _pick(self) -> Line[C]:
        self._check_open()
        now = time.monotonic()
        best = min(self._lines, key=lambda line: (line.cool > now, line.calls, line.used))
        if best.calls:
            counts = dict.fromkeys(self.addresses, 0)
            for line in self._lines:
                counts[line.address] += 1
            hot = {line.address for line in self._lines if line.cool > now}
            room = [address for address in self.addresses if counts[address] < self._most and address not in hot]
            if room:
                best = Line(min(room, key=counts.__getitem__), self._open)
                self._lines.append(best)
        return best

    @contextlib.contextmanager
    def using(self) -> Iterator[Line[C]]:
        """A connection for a call, which is in progress until the end of the block."""
        with self._lock:
            line = self._pick()
            line.calls += 1
            line.used += 1
        try:
            yield line
        except ServerUnavailable:
            line.cool = time.monotonic() + _COOLING_S
            raise
        finally:
            with self._lock:
                line.calls -= 1

    def close(self) -> list[C]:
        """Give no connection any more; returns the channels that are open, to be closed."""
        with self._lock:
            self._closed = True
            return [channel for line in self._lines if (channel := line.opened()) is not None]


__all__ = ["Line", "Pool"]
