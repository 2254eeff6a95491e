"""The cores that one computation may use.

A large piece of work is cut in as many parts as cores are free at that moment, one of which its own thread does; small ones,
and all that come when every core has work, are done by their own thread alone: so many small requests do not fight over
cores. What is computed of an element never depends on where the cut is. This module does not know what is computed.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["SOLO", "Team", "available"]


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


SOLO = Team(1)
"""A team of nobody but the thread that asks."""
