"""Where an elementwise activation's slope is small or zero, as bounds on its input, so that nobody need compute slopes to count.

The slope is looked at once for an activation, on every number that a bfloat16 can be, and the places where it changes are then found
to the last bit by bisection. An activation whose slope vanishes in too many places for that (a sine), or depends on
more than its input (random draws, a value for each channel), has its slopes computed after all.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from actserve_server.activations.spec import Activation
from actserve_server.kernels.forms import BFLOAT16, FLOAT16
from actserve_server.kernels.threads import SOLO
from actserve_server.modes.base import Array, Subject
from actserve_server.modes.evaluate import evaluate

_LEAST_TAIL = 256
"""How many of the numbers looked at a tail must hold: two powers of two. A sine's last number may be flat by chance."""

_GROWING = 1.5
"""A slope that still grows by so much where numbers are huge has no largest value."""

_MOST_CHANGES = 64
_NO_SIGN = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Slopes:
    """What is known of an activation's slope; a bound that is NaN bounds nothing."""

    known: str
    """In the words of `actserve.stats.SLOPES`."""
    computed: bool = False
    """Whether slopes must be computed to tell where they are zero."""
    low: float = math.nan
    """Saturated up to here."""
    high: float = math.nan
    """Saturated from here on."""
    flat_low: float = math.nan
    """The slope is exactly 0 up to here,"""
    flat_high: float = math.nan
    """from here on,"""
    flat_from: float = math.nan
    """and from here"""
    flat_to: float = math.nan
    """to here."""


def slopes(subject: Subject, epsilon: float, *, after: bool) -> Slopes:
    """What is known of the slope of an activation, as bounds on x, or `after` the fact on f(x).

    Saturated is a tail, to either infinity, in all of which abs(f') < epsilon * the largest abs(f'), or f' = 0; where the slope has no
    largest value, that of the identity, 1, is taken. After the fact nothing is known of an activation that falls somewhere.
    """
    record = subject.record
    if not isinstance(record, Activation):
        return Slopes("none")
    if subject.columns is not None or subject.draws:
        return Slopes("none") if after else Slopes("zeros", computed=True)
    return _known(record, subject.parameters, subject.dtype, subject.accuracy, epsilon, after)


@functools.lru_cache(256)
def _known(
    record: Activation, parameters: tuple[float, ...], dtype: np.dtype[Any], accuracy: str, epsilon: float, after: bool
) -> Slopes:
    def values_of(operation: str) -> Callable[[Array], Array]:
        def values(x: Array) -> Array:
            subject = Subject(record, parameters, dtype, x.shape, None, max(x.size, 1), accuracy=accuracy, team=SOLO)
            ((_, out),) = evaluate(subject, operation)(0, x)
            with np.errstate(invalid="ignore"):
                return out.astype(np.float64)

        return values

    slope = values_of("derivative")
    x = _grid(dtype)
    found = slope(x)
    magnitudes = np.abs(found)
    largest = _largest(x, magnitudes)
    limit = epsilon * largest
    small = (magnitudes < limit) | (found == 0)

    def is_small(number: float) -> bool:
        (value,) = slope(np.array([number], dtype))
        return bool(abs(value) < limit or value == 0)

    low = high = math.nan
    if small.all():
        # Both tails are everything: each has the half that its infinity lies in.
        low, high = 0.0, _step(0.0, 1, dtype)
    else:
        first, last = int(np.argmin(small)), len(small) - 1 - int(np.argmin(small[::-1]))
        if first >= _LEAST_TAIL:
            low = _last_where(is_small, float(x[first - 1]), float(x[first]), dtype)
        if len(small) - 1 - last >= _LEAST_TAIL:
            up_to = _last_where(lambda number: not is_small(number), float(x[last]), float(x[last + 1]), dtype)
            high = _step(up_to, 1, dtype)
    flats = _flats(slope, x, found)
    if flats is None:
        return Slopes("none") if after else Slopes("all", True, low, high)
    if after:
        forward = values_of("forward")
        if not _never_falls(forward(x)):
            return Slopes("none")

        def image(bound: float) -> float:
            return math.nan if math.isnan(bound) else float(forward(np.array([bound], dtype))[0])

        low, high = image(low), image(high)
        flats = image(flats[0]), image(flats[1]), image(flats[2]), image(flats[3])
    return Slopes("all", False, low, high, *flats)


def _grid(dtype: np.dtype[Any]) -> Array:
    """The finite numbers of a 16-bit type, ascending, as elements of a type."""
    sixteen = dtype if dtype == FLOAT16 else BFLOAT16
    with np.errstate(invalid="ignore"):
        numbers = np.arange(1 << 16, dtype=np.uint16).view(sixteen).astype(np.float64)
    # Sorted, and 0 but once.
    return np.unique(numbers[np.isfinite(numbers)] + 0.0).astype(dtype)


def _largest(x: Array, magnitudes: Array) -> float:
    """The largest slope, or 1 where there is none."""
    numbers = np.abs(x.astype(np.float64))
    inner = numbers <= math.sqrt(numbers.max())
    with np.errstate(invalid="ignore"):
        all_of, within = (np.nanmax(part, initial=0.0) for part in (magnitudes, magnitudes[inner]))
    return 1.0 if math.isinf(all_of) or all_of > _GROWING * within else float(all_of)


def _never_falls(values: Array) -> bool:
    numbers = values[~np.isnan(values)]
    return bool((numbers[1:] >= numbers[:-1]).all())


def _flats(slope: Callable[[Array], Array], x: Array, found: Array) -> tuple[float, float, float, float] | None:
    """Where the slope is exactly 0: up to, from, and from … to. None where that is more than can be said so."""

    def signs_of(values: Array) -> Array:
        return np.nan_to_num(np.sign(values), nan=_NO_SIGN)

    def sign(number: float) -> float:
        return float(signs_of(slope(np.array([number], x.dtype)))[0])

    signs = signs_of(found)
    changes = np.flatnonzero(signs[1:] != signs[:-1])
    if changes.size > _MOST_CHANGES:
        return None
    zones: list[tuple[float, float]] = []
    here, begin = float(signs[0]), -math.inf
    for change in changes:
        left, right, wanted = float(x[change]), float(x[change + 1]), float(signs[change + 1])
        # Between two numbers of the grid there may be a third sign: a single 0 between slopes that rise through it.
        while here != wanted:
            now = here
            end = _last_where(lambda number, now=now: sign(number) == now, left, right, x.dtype)  # type: ignore[misc]
            if here == 0:
                zones.append((begin, end))
            begin = left = _step(end, 1, x.dtype)
            here = wanted if left == right else sign(left)
    if here == 0:
        zones.append((begin, math.inf))
    return _zones(zones)


def _zones(zones: list[tuple[float, float]]) -> tuple[float, float, float, float] | None:
    low = next((end for begin, end in zones if begin == -math.inf), math.nan)
    high = next((begin for begin, end in zones if end == math.inf), math.nan)
    rest = [zone for zone in zones if zone[0] != -math.inf and zone[1] != math.inf]
    if len(rest) > 1:
        return None
    return low, high, *(rest[0] if rest else (math.nan, math.nan))


def _last_where(holds: Callable[[float], bool], left: float, right: float, dtype: np.dtype[Any]) -> float:
    """The last number of a type from left, where something holds, to right, where it does not."""
    low, high = _rank(left, dtype), _rank(right, dtype)
    while high - low > 1:
        middle = (low + high) // 2
        if holds(_ranked(middle, dtype)):
            low = middle
        else:
            high = middle
    return _ranked(low, dtype)


def _rank(number: float, dtype: np.dtype[Any]) -> int:
    """The place of a number among those of its type, 0 being that of 0."""
    bits = int(np.array([number], dtype).view(f"u{dtype.itemsize}")[0])
    top = 1 << 8 * dtype.itemsize - 1
    return bits if bits < top else top - bits


def _ranked(rank: int, dtype: np.dtype[Any]) -> float:
    top = 1 << 8 * dtype.itemsize - 1
    return float(np.array([rank if rank >= 0 else top - rank], f"u{dtype.itemsize}").view(dtype)[0])


def _step(number: float, steps: int, dtype: np.dtype[Any]) -> float:
    return _ranked(_rank(number, dtype) + steps, dtype)


__all__ = ["Slopes", "slopes"]
