"""The cores that one computation may use.

A large piece of work is cut in as many parts as cores are free at that moment, one of which its own thread does; small ones,
and all that come when every core has work, are done by their own thread alone: so many small requests do not fight over
cores. What is computed of an element never depends on where the cut is. This module does not know what is computed.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["SOLO", "Pace", "Team", "available", "pace_of"]

_WORTH_S = 120e-6
"""What is shorter is not worth handing to another core: to wake one and to be told of its end takes 40 to 50 microseconds at best, and by
median twice as long where cores are shared with others."""
_TELLING = 1 << 15
"""Elements from which on a part says how long one takes, and not how long a call does."""


def available() -> int:
    """How many cores this process may run on.

    >>> available() >= 1
    True
    """
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1


class Team:
    """A number of threads that share work.

    >>> team = Team(2)
    >>> team.share(1_000_000, 1, lambda begin, end: print(begin, end), grain=1 << 30)
    0 1000000
    >>> team.close()
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._free = threading.Semaphore(max(threads - 1, 0))
        self._pool = ThreadPoolExecutor(threads - 1, thread_name_prefix="kernel") if threads > 1 else None

    def share(self, size: int, unit: int, work: Callable[[int, int], object], *, grain: int) -> None:
        """Call work(begin, end) so that all of range(size) is done, in parts of whole units of at least `grain`."""
        helpers = 0
        most = min(self.threads, size // max(grain, 1)) - 1
        while helpers < most and self._free.acquire(blocking=False):
            helpers += 1
        if not helpers or self._pool is None:
            work(0, size)
            return
        units = -(-size // unit)
        bounds = [min(part * units // (helpers + 1) * unit, size) for part in range(helpers + 1)] + [size]
        try:
            others = [self._pool.submit(work, begin, end) for begin, end in itertools.pairwise(bounds[1:])]
            try:
                work(0, bounds[1])
            finally:
                # Whoever asked may reuse the memory once this returns, so nothing may still be running.
                failures = [other.exception() for other in others]
        finally:
            self._free.release(helpers)
        for failure in failures:
            if failure is not None:
                raise failure

    def close(self) -> None:
        """End the threads."""
        if self._pool is not None:
            self._pool.shutdown()


class Pace:
    """How long one kind of work takes an element, as far as this process has seen; it may change with the data and with the load.

    >>> pace = Pace()
    >>> pace.timed(lambda begin, end: None)(0, 1_000_000)
    >>> pace.grain() > 1_000_000
    True
    """

    def __init__(self) -> None:
        self._seconds: float | None = None

    def grain(self, elements: int = 1) -> int:
        """How many units of so many elements are worth another core: none, as long as nothing is known."""
        if self._seconds is None:
            return sys.maxsize
        return max(int(_WORTH_S / max(self._seconds * elements, 1e-15)), 1)

    def timed(self, work: Callable[[int, int], object], elements: int = 1) -> Callable[[int, int], None]:
        """The same work, which tells the pace how long it took for units of so many elements."""

        def run(begin: int, end: int) -> None:
            started = time.perf_counter()
            work(begin, end)
            took, done = time.perf_counter() - started, (end - begin) * elements
            if not done:
                return
            found, known = took / done, self._seconds
            # A short part takes less than a call: of an element it says no more than that it is not slower.
            if done >= _TELLING or took >= _WORTH_S or (known is not None and found < known):
                self._seconds = found if known is None else 0.75 * known + 0.25 * found

        return run


_paces: weakref.WeakKeyDictionary[Callable[..., object], Pace] = weakref.WeakKeyDictionary()


def pace_of(loop: Callable[..., object]) -> Pace:
    """The pace of a loop, for as long as the loop is there."""
    return _paces.get(loop) or _paces.setdefault(loop, Pace())


SOLO = Team(1)
"""A team of nobody but the thread that asks."""
