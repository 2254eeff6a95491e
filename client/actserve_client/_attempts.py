"""When a call is made again: how often, how soon, and for how long a computation that has begun looks for a server."""

from __future__ import annotations

import threading
import time

from actserve_client.errors import DeadlineExceeded, ServerUnavailable
from actserve_client.options import Retry

_AGAIN_S = 0.5
"""How long a probe waits for another connection, where one broke: above the pause between two tries to connect."""


class Budget:
    """How many calls that found no server a client makes again, all together: a hundred, and then one for ten that were answered.

    A server in trouble is not asked more than that above what it is asked anyway.
    """

    _FULL = 100.0
    _EARNED = 0.1

    def __init__(self) -> None:
        self._left = self._FULL
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A call was answered."""
        if self._left < self._FULL:
            with self._lock:
                self._left = min(self._left + self._EARNED, self._FULL)

    def spend(self) -> bool:
        """Whether another call may be made again."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


class Attempts:
    """Decides whether a call that lost its server, or found none, is made again, and after how long; one timeout covers all attempts.

    A call that found no server is made again as often as `Retry.attempts` says. One that had begun goes on, or begins anew, on
    whatever server there is within `Retry.reconnect_s`.
    """

    def __init__(self, retry: Retry, timeout_s: float | None, budget: Budget) -> None:
        self._retry = retry
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._budget = budget
        self._failed = 0
        self._lost: float | None = None

    def seconds_left(self) -> float | None:
        """What is left of the timeout."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def probe_s(self, addresses: int, *, again: bool) -> float | None:
        """How long to wait for an answer where so many addresses are left to be asked: one that hangs leaves time for the others."""
        left_s = self.seconds_left()
        share_s = None if left_s is None else left_s / addresses
        if not again:
            return share_s
        return _AGAIN_S if share_s is None else min(share_s, _AGAIN_S)

    def succeeded(self) -> None:
        """A call was answered: what is lost from here on is another matter."""
        self._failed, self._lost = 0, None
        self._budget.earn()

    def pause_s(self, error: ServerUnavailable, *, begun: bool = False, gained: bool = False) -> float:
        """How long to wait before the next attempt; raises when there is none, or no time for one.

        `begun` says whether a server had been at work, `gained` whether there is less to do than before: of that only as much counts as
        no server has to do again, or one that dies of the very call would be asked for ever.
        """
        if gained:
            self._failed, self._lost = 0, None
        self._failed += 1
        if not self._another(begun=begun):
            raise error
        pause_s = self._retry.pause_s(self._failed, error.retry_after_s)
        left_s = self.seconds_left()
        if left_s is not None and pause_s >= left_s:
            raise DeadlineExceeded(f"no time is left for another attempt: {error}") from error
        return pause_s

    def _another(self, *, begun: bool) -> bool:
        if self._lost is None and begun and self._retry.attempts > 1:
            self._lost = time.monotonic()
        if self._lost is not None:
            return time.monotonic() - self._lost <= self._retry.reconnect_s
        return self._failed < self._retry.attempts and self._budget.spend()


__all__ = ["Attempts", "Budget"]
