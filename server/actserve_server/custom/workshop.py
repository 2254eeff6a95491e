"""The process in which added formulas are compiled and looked into, so that none can hold up or bring down the one that serves.

It takes an entry a line and answers a line: a report, or what went wrong. One that takes too long is ended, and the next entry
finds another. Knows neither who asks, nor what is done with the answer, nor how processes are kept.
"""

from __future__ import annotations

import contextlib
import functools
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from actserve_server.companion import (
    Companion,
    CompanionBusy,
    CompanionEnded,
    CompanionFailed,
    CompanionTooSlow,
    answer_lines,
)
from actserve_server.custom.entry import Entry, report_from, report_to
from actserve_server.formulas import Definition, Report, examine
from actserve_server.kernels import build
from actserve_server.kernels.cache import Cache

__all__ = ["NotKept", "TooLong", "Workshop", "WorkshopFailed", "main"]

_STAYS = "stays"
_IDLE_S = 600.0
_MOST_MEMORY = 4 << 30
"""Of address space beyond what it starts with."""
_LARGE = 1 << 30
"""From so much more than at its start on it begins again: Numba keeps some megabytes of every loop that it has compiled."""
_LATER = ("vjp",)
_TYPES = ("float64", "float32")


class TooLong(Exception):
    """Expected error: a formula took more time, or memory, than it may."""


class NotKept(Exception):
    """Expected error: the compiled code could not be written to the disk."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


class WorkshopFailed(Exception):
    """Unexpected error: the process could not do what it can do. A bug."""


class Workshop:
    """Looks into entries, one after another; threads may share it.

    >>> Workshop(Path("/var/cache/actserve")).examine(Entry("team.double", "2 * x"), longest=1000, within_s=20).monotonic
    'increasing'
    """

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self.companion = Companion(__name__)

    def prepare(self) -> None:
        """Start the process, let it make ready, and keep one for as long as this lives; returns at once.

        Without, the first entry waits for the start, and one that comes long after the last.
        """
        self.companion.start(_STAYS)

    def examine(self, entry: Entry, *, longest: int, within_s: float) -> Report:
        """Compile an entry into the cache, and look into it. Raises TooLong, NotKept and WorkshopFailed."""
        line = json.dumps({"entry": entry.to_json(), "cache": str(self._cache), "longest": longest}).encode()
        try:
            answer = json.loads(self.companion.ask(line, within_s, wait_s=within_s))
        except CompanionBusy:
            raise TooLong("the formulas before it have taken all the time") from None
        except CompanionTooSlow:
            raise TooLong("it was given up") from None
        except CompanionEnded:
            raise TooLong("its process ended, as one does that has no memory left") from None
        except CompanionFailed as error:
            raise WorkshopFailed(str(error)) from error
        if "not_kept" in answer:
            raise NotKept(OSError(*answer["not_kept"]))
        if "report" not in answer:
            raise WorkshopFailed(str(answer.get("error", "no answer")))
        return report_from(answer["report"])

    def close(self) -> None:
        """End the process for good; an entry that it is at fails."""
        self.companion.close(for_good=True)


def main(*arguments: str) -> None:
    """What the process runs: entries in, reports out, until the input closes or, unless it stays, nothing comes for long."""
    stays = _STAYS in arguments
    started = _size()
    if started:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_AS, (started + _MOST_MEMORY, resource.RLIM_INFINITY))
    shop = _Shop(_STEPS if stays else ())
    answer_lines(
        shop.answer,
        idle_s=None if stays else _IDLE_S,
        meanwhile=shop.meanwhile,
        is_worn=lambda: _size() > started + _LARGE,
    )


class _Shop:
    """What the process knows: what is still to be compiled while nobody asks for anything, the likeliest first."""

    def __init__(self, steps: tuple[Callable[[], object], ...]) -> None:
        self._later: list[Callable[[], object]] = []
        self._steps = list(steps)

    def answer(self, line: bytes) -> bytes:
        """The report of an entry, or what went wrong."""
        answer, self._later = _examined(line)
        return json.dumps(answer).encode()

    def meanwhile(self) -> bool:
        """Do one step of what is left to do."""
        steps = self._later or self._steps
        if steps:
            with contextlib.suppress(Exception):
                steps.pop(0)()
        return bool(steps)


# Sums, whose float32 is computed by the float64 functions as they may cancel, and a product, whose is not.
_USUAL = (
    "x * sigmoid(x) + tanh(x) * exp(x) + log1p(abs(x)) * erf(x)",
    "x * sigmoid(x)",
    "log(1 + exp(x)) + max(x, 0)**2",
    "tanh(x) * log(1 + exp(x)) * abs(x)**1.5",
    "sin(x) + sqrt(abs(x)) + log(x)",
    "erfc(x) + exp(-x**2) + atan(x)",
    "gelu(x) + expm1(x)",
)


def _translate(formula: str, operation: str, dtype: str) -> None:
    record = Entry("ready.ready", formula).definition(len(formula)).record
    build.translate(build.unit_of(record, operation, np.dtype(dtype)))


_STEPS = tuple(
    functools.partial(_translate, formula, operation, dtype)
    for formula in _USUAL
    for operation, dtype in (("forward", "float64"), ("derivative", "float64"), ("forward", "float32"))
)
"""Translates the pieces that formulas are made of: a function met for the first time takes up to two seconds, and then none."""


def _size() -> int:
    """The address space of this process, in bytes; 0 where the system does not say."""
    with contextlib.suppress(OSError), open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
    return 0


def _examined(line: bytes) -> tuple[dict[str, Any], list[Callable[[], object]]]:
    """The answer, and what may be wanted next."""
    try:
        asked = json.loads(line)
        definition = Entry.from_json(asked["entry"]).definition(asked["longest"])
        cache = Cache(Path(asked["cache"]), build.fingerprint())
        # What is asked for first, more often than not.
        _compiled(definition, cache, "forward", "float32")
        report = examine(
            definition, functools.cache(lambda operation: _compiled(definition, cache, operation, "float64"))
        )
    except OSError as error:
        return {"not_kept": [error.errno, error.strerror]}, []
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}, []
    later: list[Callable[[], object]] = [
        functools.partial(_compiled, definition, cache, operation, dtype)
        for dtype in _TYPES
        for operation in ("forward", "derivative", *_LATER)
    ]
    return {"report": report_to(report)}, later


def _compiled(definition: Definition, cache: Cache, operation: str, dtype: str) -> Any:
    """A loop of a definition, from the cache or into it."""
    unit = build.unit_of(definition.record, operation, np.dtype(dtype))
    code = cache.get(unit.digest())
    if code is not None:
        return build.revive(unit, code)
    result = build.translate(unit)
    cache.put(unit.digest(), build.dump(result))
    return build.callable_of(unit, result)
