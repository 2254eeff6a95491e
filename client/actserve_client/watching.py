"""A monitor behind a bounded queue, for code that must not wait: training loops. The hooks of frameworks are built on it.

It knows no framework; for NumPy it is what one uses.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from actserve.stats import NeuronStats

from actserve_client._session import integer, number
from actserve_client.client import Client
from actserve_client.errors import DeadlineExceeded, InvalidRequest
from actserve_client.records import Alert

log = logging.getLogger("actserve.watch")

_GATHERING_S = 0.1
"""For how long batches are gathered before they are sent. To wake threads up here and in the server, and a message, cost more than
to count a small batch; that a report or an alert comes so much later nobody notices."""


class Watch:
    """Gives batches to a monitor from a thread of its own.

    >>> with Watch(client, "relu", every=10, queue=64) as watch:
    ...     for batch in batches:
    ...         watch.observe("hidden", np.maximum(batch @ weights, 0))
    ...     watch.report()["hidden"].dead_fraction, watch.dropped
    (0.25, 0)

    `every` takes one batch of so many of each layer. `queue` is how many batches may wait; when it is full, `observe` waits for at most
    `wait_s` seconds (by default not at all), and then drops the batch and counts it. What waits is sent when half of the queue is
    full, or a tenth of a second after the first of it came. All other options are those of `Client.monitor`. Nothing that goes wrong
    reaches the code that observes: the first error is raised by `report` and `close`, and batches that come after it are dropped.
    Arrays are copied; what `observe` costs is the copy. May be shared by threads.
    """

    def __init__(
        self,
        client: Client,
        activation: str = "identity",
        *,
        every: int = 1,
        queue: int = 64,
        wait_s: float = 0.0,
        **options: Any,
    ) -> None:
        self._every, self._bound, self._wait_s = (
            integer(every, "every", 64),
            integer(queue, "queue"),
            number(wait_s, "wait_s"),
        )
        for name, value in (("every", self._every), ("queue", self._bound)):
            if value < 1:
                raise InvalidRequest(f"{name} is {value}, and must be at least 1", field=name)
        if not 0 <= self._wait_s <= threading.TIMEOUT_MAX:
            raise InvalidRequest(f"wait_s is {wait_s}, and must be at least 0", field="wait_s")
        self._monitor = client.monitor(activation, **options)
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._arrived = threading.Condition(self._lock)
        """What the watch's own thread waits for."""
        self._waiting: deque[tuple[str, Callable[[], Any]]] = deque()
        self._reserved = 0
        self._busy = self._resting = False
        self._pressing = 0
        """How many callers wait for what is to be sent."""
        self._closing = False
        self._error: Exception | None = None
        self._offered: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._work, name="actserve-watch", daemon=True)
        self._thread.start()

    # ---- what callers do -------------------------------------------------------------------------------------------

    def layer(self, layer: str, activation: str | None = None, **options: Any) -> None:
        """Declare a layer before its first batch; see `Monitor.layer`."""
        self._monitor.layer(layer, activation, **options)

    def observe(self, layer: str, x: Any) -> bool:
        """Take in a batch of a layer; whether it was its turn and there was room."""
        return self.offer(layer, lambda: self._copy(x))

    def empty(self, shape: int | Sequence[int], dtype: Any = np.float32) -> npt.NDArray[Any]:
        """An array for a copy, with whatever is in it; see `Monitor.empty`. It never waits."""
        return self._monitor.empty(shape, dtype)

    def _copy(self, x: Any) -> Any:
        given = np.asarray(x)
        try:
            copied = self.empty(given.shape, given.dtype)
        except InvalidRequest:  # of another type; the watch's own thread says so
            return given.copy()
        copied[...] = given
        return copied

    def offer(self, layer: str, copy: Callable[[], Any]) -> bool:
        """The same with a function that makes the copy, which is called only when the batch is taken.

        What it gives is an array, or a function that the watch's own thread calls for one; nobody may write to that array any more. One
        from `empty` is not copied again.
        """
        with self._lock:
            before = self._offered[layer]
            self._offered[layer] = before + 1
            if before % self._every:
                return False
            if self._wait_s and self._full:
                self._wait(lambda: not self._full or self._over, self._wait_s)
            if self._full or self._over:
                self._dropped[layer] += 1
                return False
            self._reserved += 1
        made = None
        try:
            made = copy()
        except Exception as error:  # noqa: BLE001  # it must not reach the training; report and close raise it
            with self._lock:
                self._error = self._error or error
        with self._lock:
            self._reserved -= 1
            if made is None:
                self._changed.notify_all()
                self._arrived.notify()
                return False
            array = made
            self._waiting.append((layer, array if callable(array) else lambda: array))
            self._taken[layer] += 1
            if self._resting or self._pressed:
                self._arrived.notify()
        return True

    def report(self, *, timeout: float | None = None) -> dict[str, NeuronStats]:
        """The statistics of each layer over all batches taken so far. Waits until they are through, for `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._lock:
            if not self._wait(lambda: self._idle or self._error is not None, timeout):
                raise DeadlineExceeded("the timeout passed before all batches were through")
            if self._error is not None:
                raise self._error
        return self._monitor.report(timeout=None if deadline is None else max(deadline - time.monotonic(), 0.0))

    @property
    def alerts(self) -> list[Alert]:
        """All alerts so far."""
        return self._monitor.alerts

    @property
    def dropped(self) -> int:
        """How many batches were dropped, because the queue was full or an error had come."""
        return sum(self.dropped_by_layer.values())

    @property
    def dropped_by_layer(self) -> Mapping[str, int]:
        """The same of each layer that has any."""
        with self._changed:
            return dict(self._dropped)

    @property
    def taken(self) -> int:
        """How many batches were taken."""
        with self._changed:
            return sum(self._taken.values())

    def __str__(self) -> str:
        layers = len(self._offered)
        return f"{self.taken:,} batches of {layers} layers taken, {self.dropped:,} dropped"

    def close(self) -> None:
        """Wait until all batches taken are through, and end the monitor. Logs drops as a warning. May be called again."""
        with self._changed:
            first = not self._closing
            self._closing = True
            self._changed.notify_all()
            self._arrived.notify()
        self._thread.join()
        if not first:
            return
        if self.dropped:
            log.warning("%s; the queue holds %d", self, self._bound)
        if self._error is None:
            self._monitor.close()
            return
        self._monitor.__exit__(type(self._error), self._error, None)
        raise self._error

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        with self._changed:
            self._waiting.clear()
            self._error = self._error or InvalidRequest("the watch is closed", field="watch")
        try:
            self.close()
        except Exception:  # the caller's own error is under way already
            log.debug("closing a watch after an error", exc_info=True)

    # ---- under the lock --------------------------------------------------------------------------------------------

    def _wait(self, until: Callable[[], bool], timeout: float | None) -> bool:
        self._pressing += 1
        self._arrived.notify()
        try:
            return self._changed.wait_for(until, timeout)
        finally:
            self._pressing -= 1

    @property
    def _pressed(self) -> bool:
        """Whether what waits is to be sent at once."""
        return bool(self._pressing) or self._closing or 2 * len(self._waiting) >= self._bound

    @property
    def _full(self) -> bool:
        return len(self._waiting) + self._reserved >= self._bound

    @property
    def _over(self) -> bool:
        return self._closing or self._error is not None

    @property
    def _idle(self) -> bool:
        return not (self._waiting or self._busy or self._reserved)

    # ---- the watch's own thread ------------------------------------------------------------------------------------

    def _work(self) -> None:
        while count := self._gathered():
            try:
                self._monitor.observe_all(self._next(count), copy=False)
            except Exception as error:  # noqa: BLE001  # report and close raise it
                with self._lock:
                    self._error = self._error or error
                    for dropped, _ in self._waiting:
                        self._dropped[dropped] += 1
                        self._taken[dropped] -= 1
                    self._waiting.clear()

    def _gathered(self) -> int:
        """How many batches are to be sent, once it is time; 0 at the end."""
        with self._lock:
            self._busy = False
            self._changed.notify_all()
            while not self._waiting:
                if self._closing and not self._reserved:
                    return 0
                self._resting = True
                self._arrived.wait()
                self._resting = False
            self._arrived.wait_for(lambda: self._pressed, _GATHERING_S)
            self._busy = True
            return max(len(self._waiting), 1)

    def _next(self, count: int) -> Iterator[tuple[str, Any]]:
        for _ in range(count):
            with self._lock:
                if not self._waiting:
                    return
                layer, array = self._waiting.popleft()
                # A place is free as soon as its batch is out of the queue.
                if self._pressing:
                    self._changed.notify_all()
            yield layer, array()


__all__ = ["Watch"]
