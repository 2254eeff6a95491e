"""What kernels along an axis are made of: the winner of a slice, and sums over slices. Knows no activation.

A block of slices is x[n, inner]. A single column is read as it lies, by loops that the compiler splits into partial sums
in registers. Several columns are read row by row, one column beside another; few of them are folded: the flattened block
is read in rows of `width` = lanes * inner elements, and a column's lanes are its elements in such a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actserve_server.activations.spec import Exact, kernel
from actserve_server.elementary import compensated, larger

__all__ = [
    "all_masked",
    "coarse_for",
    "find_maxima",
    "find_maximum",
    "fold",
    "lanes_of",
    "magnitude_of",
    "place_of",
    "top_of",
]

RUN = 256
"""Elements among which a new maximum is looked for one by one."""
FOLDED_WIDTH = 256
WORTH_FOLDING = 128
SPLIT = 1.5 * 2.0**26
"""What `split` takes as coarse, for terms of at most 1."""
LARGEST_SPLIT = Exact(2.0**990)


@kernel
def top_of(values: Any, negated: bool) -> float:
    """The greatest element, of the negated ones if asked for; -inf if there is none, unspecified where there is a NaN."""
    if values.size == 0:
        return -np.inf
    top = -values[0] if negated else values[0]
    for p in range(values.size):
        top = larger(top, -values[p] if negated else values[p])
    return np.float64(top)


@kernel
def find_maximum(values: Any, negated: bool) -> tuple[float, int]:
    """The greatest element above -inf and its first place; of the negated elements if asked for. -inf, -1: there is none.

    NaNs are not looked for: where there is one the result is any element and place, or -1.
    """
    greatest = -np.inf
    run = 0
    for start in range(0, values.size, RUN):
        piece = values[start : start + RUN]
        top = top_of(piece, negated)
        if top > greatest:
            greatest, run = top, start
    if greatest > -np.inf:
        for p in range(run, min(run + RUN, values.size)):
            if (-values[p] if negated else values[p]) == greatest:
                return greatest, p
    return -np.inf, -1


@kernel
def all_masked(values: Any, masked: float) -> bool:
    """Whether all elements are the mask, one of the infinities."""
    for p in range(values.size):
        if values[p] != masked:
            return False
    return True


@kernel
def lanes_of(n: int, inner: int) -> int:
    """How many elements of a column lie in a row that is read at once."""
    return min(n, max(FOLDED_WIDTH // max(inner, 1), 1)) if n * inner >= WORTH_FOLDING else 1


@kernel
def find_maxima(flat: Any, inner: int, width: int, negated: bool, maxima: Any, places: Any) -> None:
    """In every lane the maximum of its column, and in one of them the row of the first element that has it, else -1.

    A column without an element above -inf has the maximum 0 and no such lane. NaNs are passed over; maxima and places are
    `width` long.
    """
    maxima[:] = -np.inf
    places[:] = -1.0
    for start in range(0, flat.size, width):
        row = flat[start : start + width]
        place = np.float64(start // width)
        for lane in range(row.size):
            value = np.float64(-row[lane] if negated else row[lane])
            greater = value > maxima[lane]
            maxima[lane] = value if greater else maxima[lane]
            places[lane] = place if greater else places[lane]
    for column in range(inner):
        winner = column
        for lane in range(column + inner, width, inner):
            if maxima[lane] > maxima[winner] or (maxima[lane] == maxima[winner] and places[lane] < places[winner]):
                winner = lane
        maximum, place = maxima[winner], places[winner]
        for lane in range(column, width, inner):
            maxima[lane] = maximum if place >= 0.0 else 0.0
            places[lane] = place if lane == winner else -1.0


@kernel
def place_of(places: Any, column: int, inner: int) -> int:
    """The place of a column's maximum in what `find_maxima` has found, or -1."""
    for lane in range(column, places.size, inner):
        if places[lane] >= 0.0:
            place: int = int(places[lane]) * (places.size // inner) + lane // inner
            return place
    return -1


@kernel
def magnitude_of(values: Any) -> float:
    """The greatest magnitude; unspecified where there is a NaN."""
    greatest = abs(values[0])
    for p in range(values.size):
        greatest = larger(greatest, abs(values[p]))
    return np.float64(greatest)


@kernel
def coarse_for(magnitude: float) -> float:
    """What `split` takes for terms of at most that magnitude; 0, which splits nothing, for terms near overflow."""
    return SPLIT * magnitude if magnitude < LARGEST_SPLIT else 0.0


@kernel
def fold(sums: Any, rests: Any, inner: int, width: int, totals: Any) -> None:
    """Add up the lanes of every column."""
    for column in range(inner):
        total, rest = sums[column], rests[column]
        for lane in range(column + inner, width, inner):
            total, rest = compensated(total, rest + rests[lane], sums[lane])
        totals[column] = total + rest if abs(total) < np.inf else total
