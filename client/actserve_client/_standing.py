"""Streams that stand open between small calls: a call that is made again and again costs one message each way, and no call.

A stream is opened when small calls follow one another, has one job in progress at a time, and ends when it was idle for a second.
Whatever happens to it, the job is then asked for by a call of its own, so that nothing is lost and nothing need be said: what a
stream may be used for, what a failure means and when there is another try are the clients'.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import grpc

from actserve_client._session import Assembly, Job
from actserve_client.errors import DeadlineExceeded, ServerUnavailable

__all__ = ["MOST_BYTES", "AsyncStanding", "Standing"]

MOST_BYTES = 64 << 10
"""Up to how many bytes of input a job goes over a standing stream; benchmarks/README.md shows where it comes from."""

_OFTEN = 3
"""Which small call in a row opens a stream."""

_IDLE_S = 1.0
"""How long a stream stays open without a job, and how far apart calls in a row are at most."""

_NEVER = float("inf")


def fits(job: Job[Any]) -> bool:
    """Whether a job may go over a standing stream.

    What callers added may change its meaning under the same name, which a stream would not notice; their names have dots.
    """
    return 0 < sum(source.nbytes for source in job.sources) <= MOST_BYTES and "." not in job.activation


class _Lost(Exception):
    """A stream ended, and no part of the answer has come: a call of its own may do."""


class _Stream(Protocol):
    def end(self) -> None:
        """Let it end; it is idle."""

    def cancel(self) -> None:
        """End it at once."""


S = TypeVar("S", bound=_Stream)


@dataclasses.dataclass(slots=True)
class _Kept(Generic[S]):
    """What is known of a connection."""

    idle: list[S] = dataclasses.field(default_factory=list)
    calls: int = 0
    """How many small calls there have been in a row."""
    last: float = -_NEVER
    """When the last one was."""


class _Streams(Generic[S]):
    """The streams of a client that are idle, by connection: the one that was used last is used next, so that the others may end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[object, _Kept[S]] = {}
        self._closed = False

    def take(self, line: object, make: Callable[[], S]) -> S | None:
        """A stream over a connection; None where it is not worth one yet."""
        now = time.monotonic()
        with self._lock:
            kept = self._kept.setdefault(line, _Kept())
            kept.calls = kept.calls + 1 if now - kept.last < _IDLE_S else 1
            kept.last = now
            if kept.idle:
                return kept.idle.pop()
            if kept.calls < _OFTEN or self._closed:
                return None
        return make()

    @contextlib.contextmanager
    def using(self, line: object, stream: S, assembly: Assembly) -> Iterator[None]:
        """A block in which a stream that was taken answers a job; after it the stream is idle, or of no use any more."""
        try:
            yield
        except BaseException:
            if assembly.refused:  # the job, which is no failure of the stream
                self._give(line, stream)
            else:
                stream.cancel()
                with self._lock:
                    # Others wait until calls follow one another again.
                    self._kept[line].calls = 0
            raise
        self._give(line, stream)

    def _give(self, line: object, stream: S) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                self._kept[line].idle.append(stream)
        if closed:
            stream.end()

    def drop(self, line: object, stream: S) -> bool:
        """Forget a stream if it is idle; says whether it was."""
        with self._lock:
            idle = self._kept[line].idle
            if stream not in idle:
                return False
            idle.remove(stream)
            return True

    def close(self) -> None:
        """End all that are idle, and the others when they are."""
        with self._lock:
            self._closed = True
            streams = [stream for kept in self._kept.values() for stream in kept.idle]
            self._kept = {line: _Kept() for line in self._kept}
        for stream in streams:
            stream.end()


def _outcome(assembly: Assembly, error: Exception) -> Exception:
    """What a stream's end means for a job: nothing has come of it yet, or the answer broke off."""
    return ServerUnavailable("the connection was lost in mid-answer") if assembly.begun else _Lost(str(error))


# ---- blocking --------------------------------------------------------------------------------------------------------


class _BlockingStream:
    """A ComputeStream call. gRPC's thread that asks for its next message also sees to it that it ends when its time has come."""

    def __init__(
        self, start: Callable[[Iterator[bytes]], Any], idle_is_over: Callable[[_BlockingStream], bool]
    ) -> None:
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._idle_is_over = idle_is_over
        self._job = 0
        self._due = _NEVER
        self._idle_since = _NEVER
        self._call = start(self._messages())

    def _messages(self) -> Iterator[bytes]:
        while True:
            now = time.monotonic()
            if now >= self._due:
                self._call.cancel()
                return
            if now >= self._idle_since + _IDLE_S and self._idle_is_over(self):
                return
            until = min(self._due, self._idle_since + _IDLE_S)
            with contextlib.suppress(queue.Empty):
                message = self._outbox.get(timeout=min(max(until - now, 0), _IDLE_S))
                if message is None:
                    return
                yield message

    def ask(self, job: Job[Any], assembly: Assembly, seconds: float | None) -> None:
        """Compute a job. Raises what the server says of it, _Lost, or ServerUnavailable; after the last two it is of no use any more."""
        self._job += 1
        self._idle_since = _NEVER
        self._due = due = _NEVER if seconds is None else time.monotonic() + seconds
        self._outbox.put(job.message(self._job))
        try:
            for raw in self._call:
                if assembly.feed(raw, self._job):
                    break
            else:
                raise _outcome(assembly, EOFError())
        except grpc.RpcError as error:
            if time.monotonic() >= due:
                raise DeadlineExceeded("Deadline Exceeded") from None
            raise _outcome(assembly, error) from None
        finally:
            self._due, self._idle_since = _NEVER, time.monotonic()

    def end(self) -> None:
        """Let it end by itself."""
        self._outbox.put(None)

    def cancel(self) -> None:
        """End it at once."""
        self._call.cancel()
        self._outbox.put(None)


class Standing:
    """The standing streams of a blocking client; threads may share it."""

    def __init__(self) -> None:
        self._streams: _Streams[_BlockingStream] = _Streams()

    def computed(
        self,
        line: object,
        start: Callable[[Iterator[bytes]], Any],
        job: Job[Any],
        assembly: Assembly,
        seconds: float | None,
    ) -> bool:
        """Compute a job over a stream; False where it is to be asked for by a call of its own. `start` makes a call of messages.

        Raises what the server says of the job, ServerUnavailable or DeadlineExceeded.
        """
        if not fits(job):
            return False
        stream = self._streams.take(
            line, lambda: _BlockingStream(start, lambda stream: self._streams.drop(line, stream))
        )
        if stream is None:
            return False
        try:
            with self._streams.using(line, stream, assembly):
                stream.ask(job, assembly, seconds)
        except _Lost:
            return False
        return True

    def close(self) -> None:
        """End the streams."""
        self._streams.close()


# ---- async -----------------------------------------------------------------------------------------------------------


class _AsyncStream:
    """The same in an event loop, whose timers see to its end."""

    def __init__(self, call: Any, idle_is_over: Callable[[_AsyncStream], bool]) -> None:
        self._call = call
        self._idle_is_over = idle_is_over
        self._job = 0
        self._idle_since = _NEVER
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_IDLE_S, self._look)
        self._ending: asyncio.Task[Any] | None = None

    def _look(self) -> None:
        left = min(self._idle_since + _IDLE_S - time.monotonic(), _IDLE_S)
        if left <= 0 and self._idle_is_over(self):
            self.end()
        else:
            self._timer = self._loop.call_later(max(left, 0.01), self._look)

    async def ask(self, job: Job[Any], assembly: Assembly, seconds: float | None) -> None:
        """Compute a job. Raises what the server says of it, _Lost, or ServerUnavailable; after the last two it is of no use any more."""
        self._job += 1
        self._idle_since = _NEVER
        try:
            async with asyncio.timeout(seconds) as limit:
                await self._call.write(job.message(self._job))
                while (raw := await self._call.read()) is not grpc.aio.EOF:
                    if assembly.feed(raw, self._job):
                        return
            raise _outcome(assembly, EOFError())
        except TimeoutError:
            if not limit.expired():
                raise
            raise DeadlineExceeded("Deadline Exceeded") from None
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise _outcome(assembly, error) from None
        finally:
            self._idle_since = time.monotonic()

    def end(self) -> None:
        """Let it end by itself."""
        self._timer.cancel()
        # Kept, because a loop keeps no task alive.
        self._ending = self._loop.create_task(_silently(self._call.done_writing()))

    def cancel(self) -> None:
        """End it at once."""
        self._timer.cancel()
        self._call.cancel()


async def _silently(end: Any) -> None:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError):
        await end


class AsyncStanding:
    """The standing streams of an async client."""

    def __init__(self) -> None:
        self._streams: _Streams[_AsyncStream] = _Streams()

    async def computed(
        self, line: object, start: Callable[[], Any], job: Job[Any], assembly: Assembly, seconds: float | None
    ) -> bool:
        """As `Standing.computed`; `start` makes a call to be written to."""
        if not fits(job):
            return False
        stream = self._streams.take(
            line, lambda: _AsyncStream(start(), lambda stream: self._streams.drop(line, stream))
        )
        if stream is None:
            return False
        try:
            with self._streams.using(line, stream, assembly):
                await stream.ask(job, assembly, seconds)
        except _Lost:
            return False
        return True

    def close(self) -> None:
        """End the streams."""
        self._streams.close()
