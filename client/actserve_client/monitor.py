"""The monitors of neuron health: `Monitor` blocks, `AsyncMonitor` awaits.

Both carry bytes between `_monitoring.Monitoring` and a stream, and open another stream when one breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
import numpy as np
import numpy.typing as npt
from actserve.stats import NeuronStats

from actserve_client import _channel
from actserve_client._monitoring import Monitoring, size_of
from actserve_client.errors import ActserveError, DeadlineExceeded, InvalidRequest, ServerUnavailable
from actserve_client.options import Retry
from actserve_client.records import Alert

OnAlert = Callable[[Alert], object]
"""Called with each alert, from the thread that listens to the server."""

_CLOSING_S = 5.0
"""How long the end of a stream is waited for, once nothing more is to come of it."""


class _Reconnecting:
    """Decides whether another stream is opened, and after how long."""

    def __init__(self, retry: Retry, reconnect_s: float) -> None:
        if not reconnect_s >= 0:
            raise InvalidRequest(f"reconnect_s is {reconnect_s}, and must be at least 0", field="reconnect_s")
        self._retry = retry
        self._limit_s = reconnect_s
        self._failed = 0
        self._since = 0.0

    def succeeded(self) -> None:
        """The server has answered."""
        self._failed = 0

    def pause_s(self, error: ActserveError) -> float:
        """How long to wait before the next stream; raises the error when there is to be none."""
        if not isinstance(error, ServerUnavailable):
            raise error
        if not self._failed:
            self._since = time.monotonic()
        elif time.monotonic() - self._since > self._limit_s:
            raise error
        self._failed += 1
        return self._retry.pause_s(self._failed, error.retry_after_s)


def _ended() -> ServerUnavailable:
    return ServerUnavailable("the server ended the stream")


def _reason(error: grpc.RpcError | grpc.aio.AioRpcError) -> ActserveError:
    """Why a stream ended. A server that fails gives an id; without one it is gRPC that says so, of a connection that broke."""
    found = _channel.error_of(error)
    if error.code() is grpc.StatusCode.INTERNAL and not found.error_id:
        return ServerUnavailable(str(found))
    return found


def _too_late(what: str) -> DeadlineExceeded:
    return DeadlineExceeded(f"the timeout passed before {what}")


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


class Monitor:
    """Watches the neurons of layers, over as many batches as come.

    >>> with client.monitor(alerts={"dead_fraction": 0.5}) as monitor:
    ...     monitor.observe("encoder.0", np.array([[0.0, 2.0], [0.0, 4.0]]))
    ...     monitor.report()["encoder.0"].dead, monitor.alerts[0].figure
    (array([ True, False]), 'dead_fraction')

    Made by `Client.monitor`, which tells its options. The state is the server's; when the server is lost, another stream goes on
    from the last snapshot, and the result is the same to the byte. May be shared by threads. An error of a batch is
    raised by the next call after it is known; the monitor goes on.
    """

    def __init__(
        self,
        start: Callable[[Iterator[bytes]], Any],
        core: Monitoring,
        *,
        retry: Retry,
        reconnect_s: float,
        timeout: float | None,
        on_alert: OnAlert | None,
    ) -> None:
        self._start = start
        self._core = core
        self._timeout = timeout
        self._on_alert = on_alert
        self._reconnecting = _Reconnecting(retry, reconnect_s)
        self._changed = threading.Condition()
        self._out: queue.SimpleQueue[bytes | None] | None = None
        self._call: Any = None
        self._closing = False
        self._thread = threading.Thread(target=self._listen, name="actserve-monitor", daemon=True)
        self._thread.start()

    # ---- what callers do -------------------------------------------------------------------------------------------

    def layer(self, layer: str, activation: str | None = None, **options: Any) -> None:
        """Declare a layer before its first batch, where it differs from the others in its activation or options.

        >>> monitor.layer("head", "gelu", input="pre", histogram="layer")

        Raises InvalidRequest for a layer that has batches already.
        """
        with self._changed:
            self._core.declare(layer, activation, options)

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> npt.NDArray[Any]:
        """A new array for a batch, with whatever is in it: in memory shared with the server where some is at hand.

        >>> x = monitor.empty((128, 1024)); x[:] = 0
        >>> monitor.observe("encoder.0", x, copy=False)

        Never waits, so at first it is an array like any other; docs/shared-memory.md has more.
        """
        return self._core.slabs.empty(shape, dtype)

    def observe(self, layer: str, x: Any, *, copy: bool = True, timeout: float | None = None) -> None:
        """Take in a batch of a layer; x is copied, and the call returns before it is computed.

        >>> monitor.observe("encoder.0", activations)  # (batch, neurons), or as neuron_axis says

        With `copy=False` x may be read until `report`, `snapshot` or `close` has returned, and must not be written to before: an array of
        `empty` is then not copied at all. All batches of a layer have one type, and one length of the neuron axes: InvalidRequest
        otherwise. Waits only while more is unacknowledged than `max_unacknowledged_bytes`.
        """
        self.observe_all([(layer, x)], copy=copy, timeout=timeout)

    def observe_all(
        self, batches: Iterable[tuple[str, Any]], *, copy: bool = True, timeout: float | None = None
    ) -> None:
        """Take in several batches, as `observe` does one after another: pairs of a layer and x.

        >>> monitor.observe_all([("encoder.0", first), ("encoder.1", second)])

        Those that lie in shared memory share a message. An error is that of the batch which was asked for last; those before it are in.
        """
        try:
            for layer, x in batches:
                size = size_of(x)
                # Without the lock, as the server may be asked for memory.
                placed = self._core.slabs.lasting(x, copy=copy)
                with self._changed:
                    self._check()
                    self._make_room(size, timeout)
                    self._send(self._core.observe(layer, x, placed))
        finally:
            with self._changed:
                self._send(self._core.flush())

    def report(self, *, timeout: float | None = None) -> dict[str, NeuronStats]:
        """The statistics of each layer over all its batches so far, as `Client.neuron_stats` gives them.

        >>> monitor.report()["encoder.0"].dead_fraction

        A layer without batches is not among them.
        """
        with self._changed:
            self._snapshot(timeout)
            return self._core.report()

    def snapshot(self, *, timeout: float | None = None) -> Mapping[str, bytes]:
        """The state of each layer: what `merge` takes, and another monitor as `resume`.

        >>> states = monitor.snapshot()
        >>> client.monitor(resume=states)
        """
        with self._changed:
            self._snapshot(timeout)
            return self._core.states()

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far, in order; those of a batch are here when `report` or `snapshot` has returned."""
        with self._changed:
            return list(self._core.alerts)

    def close(self) -> None:
        """Wait until the server has all batches, and end the stream. Raises what has gone wrong. May be called again."""
        try:
            with self._changed:
                if not self._closing and self._core.failure is None and not self._core.acknowledged:
                    self._snapshot(None)
                elif not self._closing:
                    self._core.check()
        finally:
            self._end()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._end()

    # ---- under the lock --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._closing:
            raise InvalidRequest("the monitor is closed", field="monitor")
        self._core.check()

    def _send(self, frames: list[bytes]) -> None:
        if self._out is not None:
            for frame in frames:
                self._out.put(frame)

    def _make_room(self, size: int, timeout: float | None) -> None:
        seconds = self._timeout if timeout is None else timeout
        deadline = None if seconds is None else time.monotonic() + seconds
        # A snapshot that was asked for earlier may not make room enough.
        while not self._core.has_room(size):
            number, frames = self._core.make_room()
            self._send(frames)
            self._wait(partial(self._core.has, number), _left(deadline), "there was room for another batch")

    def _snapshot(self, timeout: float | None) -> None:
        self._check()
        number, frames = self._core.ask()
        self._send(frames)
        self._wait(lambda: self._core.has(number), timeout, "the snapshot came")
        self._core.check()

    def _wait(self, until: Callable[[], bool], timeout: float | None, what: str) -> None:
        seconds = self._timeout if timeout is None else timeout
        if not self._changed.wait_for(lambda: until() or self._core.failure is not None or self._closing, seconds):
            raise _too_late(what)
        if not until():
            self._check()

    def _end(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            if self._out is not None:
                self._out.put(None)
            call = self._call
        if threading.current_thread() is self._thread:
            return
        acknowledged = self._core.acknowledged
        self._thread.join(_CLOSING_S if acknowledged else 0)
        if self._thread.is_alive() and call is not None:
            call.cancel()
            self._thread.join(_CLOSING_S)

    # ---- the thread that listens -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            error = self._stream()
            self._core.broke(error)
            with self._changed:
                if self._closing:
                    return
                try:
                    pause_s = self._reconnecting.pause_s(error)
                except ActserveError as final:
                    self._core.failure = final
                    self._changed.notify_all()
                    return
                self._changed.wait_for(lambda: self._closing, pause_s)

    def _stream(self) -> ActserveError:
        """One stream, from its beginning to its end; gives the reason of the end."""
        out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        with self._changed:
            if self._closing:
                return _ended()
            for frame in self._core.resume():
                out.put(frame)
            try:
                self._call = call = self._start(iter(out.get, None))
            except (ValueError, InvalidRequest):
                return InvalidRequest("the client is closed", field="client")
            self._out = out
        try:
            for raw in call:
                self._receive(raw)
        except grpc.RpcError as error:
            return _reason(error)
        except ActserveError as error:
            return error
        finally:
            with self._changed:
                self._out = None
            out.put(None)
            call.cancel()
        return _ended()

    def _receive(self, raw: bytes) -> None:
        with self._changed:
            found = self._core.receive(raw)
            self._reconnecting.succeeded()
            self._changed.notify_all()
        for alert in found if self._on_alert else ():
            assert self._on_alert is not None
            try:
                self._on_alert(alert)
            except Exception as error:  # noqa: BLE001  # the caller's own; it is raised where the caller is
                with self._changed:
                    self._core.add_error(error)


class AsyncMonitor:
    """The same from asyncio code; see `Monitor`.

    >>> async with client.monitor() as monitor:
    ...     await monitor.observe("encoder.0", activations)
    ...     report = await monitor.report()

    Made by `AsyncClient.monitor`. `on_alert` is called on the event loop.
    """

    def __init__(
        self,
        start: Callable[[AsyncIterator[bytes]], Awaitable[Any]],
        core: Monitoring,
        *,
        retry: Retry,
        reconnect_s: float,
        timeout: float | None,
        on_alert: OnAlert | None,
    ) -> None:
        self._start = start
        self._core = core
        self._timeout = timeout
        self._on_alert = on_alert
        self._reconnecting = _Reconnecting(retry, reconnect_s)
        self._changed = asyncio.Condition()
        self._out: asyncio.Queue[bytes | None] | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    # ---- what callers do -------------------------------------------------------------------------------------------

    def layer(self, layer: str, activation: str | None = None, **options: Any) -> None:
        """Declare a layer before its first batch; see `Monitor.layer`."""
        self._core.declare(layer, activation, options)

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> npt.NDArray[Any]:
        """A new array for a batch, with whatever is in it; see `Monitor.empty`."""
        return self._core.slabs.empty(shape, dtype)

    async def observe(self, layer: str, x: Any, *, copy: bool = True, timeout: float | None = None) -> None:
        """Take in a batch of a layer; see `Monitor.observe`."""
        await self.observe_all([(layer, x)], copy=copy, timeout=timeout)

    async def observe_all(
        self, batches: Iterable[tuple[str, Any]], *, copy: bool = True, timeout: float | None = None
    ) -> None:
        """Take in several batches; see `Monitor.observe_all`."""
        slabs = self._core.slabs
        try:
            for layer, x in batches:
                size = size_of(x)
                placed = slabs.lasting(x, copy=copy, wait=False)
                if placed is None and slabs.is_worth(size):
                    placed = await asyncio.to_thread(slabs.lasting, x, copy=copy)
                self._check()
                await self._make_room(size, timeout)
                self._send(self._core.observe(layer, x, placed))
        finally:
            self._send(self._core.flush())

    async def report(self, *, timeout: float | None = None) -> dict[str, NeuronStats]:
        """The statistics of each layer over all its batches so far; see `Monitor.report`."""
        await self._snapshot(timeout)
        return self._core.report()

    async def snapshot(self, *, timeout: float | None = None) -> Mapping[str, bytes]:
        """The state of each layer; see `Monitor.snapshot`."""
        await self._snapshot(timeout)
        return self._core.states()

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far, in order; see `Monitor.alerts`."""
        return list(self._core.alerts)

    async def close(self) -> None:
        """Wait until the server has all batches, and end the stream; see `Monitor.close`."""
        try:
            if not self._closing and self._core.failure is None and not self._core.acknowledged:
                await self._snapshot(None)
            elif not self._closing:
                self._core.check()
        finally:
            await self._end()

    async def __aenter__(self) -> AsyncMonitor:
        self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
        else:
            await self._end()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="actserve-monitor")

    def _check(self) -> None:
        if self._closing:
            raise InvalidRequest("the monitor is closed", field="monitor")
        self._begin()
        self._core.check()

    def _send(self, frames: list[bytes]) -> None:
        if self._out is not None:
            for frame in frames:
                self._out.put_nowait(frame)

    async def _make_room(self, size: int, timeout: float | None) -> None:
        seconds = self._timeout if timeout is None else timeout
        deadline = None if seconds is None else time.monotonic() + seconds
        # A snapshot that was asked for earlier may not make room enough.
        while not self._core.has_room(size):
            number, frames = self._core.make_room()
            self._send(frames)
            await self._wait(partial(self._core.has, number), _left(deadline), "there was room for another batch")

    async def _snapshot(self, timeout: float | None) -> None:
        self._check()
        number, frames = self._core.ask()
        self._send(frames)
        await self._wait(lambda: self._core.has(number), timeout, "the snapshot came")
        self._core.check()

    async def _wait(self, until: Callable[[], bool], timeout: float | None, what: str) -> None:
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout), self._changed:
                await self._changed.wait_for(lambda: until() or self._core.failure is not None or self._closing)
        except TimeoutError:
            raise _too_late(what) from None
        if not until():
            self._check()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _end(self) -> None:
        self._closing = True
        if self._task is None:
            return
        if self._core.acknowledged and self._out is not None:
            self._out.put_nowait(None)
            await asyncio.wait([self._task], timeout=_CLOSING_S)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._notify()

    async def _listen(self) -> None:
        while not self._closing:
            error = await self._stream()
            await asyncio.to_thread(self._core.broke, error)
            if self._closing:
                return
            try:
                pause_s = self._reconnecting.pause_s(error)
            except ActserveError as final:
                self._core.failure = final
                await self._notify()
                return
            await asyncio.sleep(pause_s)

    async def _stream(self) -> ActserveError:
        """One stream, from its beginning to its end; gives the reason of the end."""
        out: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def requests() -> AsyncIterator[bytes]:
            while (frame := await out.get()) is not None:
                yield frame

        call: Any = None
        try:
            for frame in self._core.resume():
                out.put_nowait(frame)
            self._out = out
            call = await self._start(requests())
            async for raw in call:
                await self._receive(raw)
        except grpc.aio.AioRpcError as error:
            return _reason(error)
        except grpc.aio.UsageError:
            return InvalidRequest("the client is closed", field="client")
        except ActserveError as error:
            return error
        finally:
            self._out = None
            out.put_nowait(None)
            if call is not None:
                call.cancel()
        return _ended()

    async def _receive(self, raw: bytes) -> None:
        found = self._core.receive(raw)
        self._reconnecting.succeeded()
        await self._notify()
        for alert in found if self._on_alert else ():
            assert self._on_alert is not None
            try:
                self._on_alert(alert)
            except Exception as error:  # noqa: BLE001  # the caller's own; it is raised where the caller is
                self._core.add_error(error)


__all__ = ["AsyncMonitor", "Monitor", "OnAlert"]
