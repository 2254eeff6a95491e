"""Loops that take activations into the state of each neuron: counts, extremes, exact sums, and histograms.

The activations are a piece of an array of shape (outer, n, inner), whose middle axis counts the neurons; sample s of a
neuron is element (s // inner, neuron, s % inner). A piece is cut into tiles of some neurons by some samples, each copied into
memory of its own, [samples, neurons], so that one set of loops serves every layout and stays in the cache. When there are few neurons, several samples lie in a line of the tile beside each other.

Every number of a state is an integer, or the largest or smallest of some, so a state depends neither on how the input was cut
nor on the order of the pieces. The loops are plain functions, compiled by `compiler.load_reduction`; what is derived from a
state, and its form on the wire, are not known here.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from actserve_server.elementary.bits import bits_of, float_of, fma, larger, nearest_float32, smaller
from actserve_server.elementary.source import apart, kernel
from actserve_server.kernels.reductions import Reduction

__all__ = ["BOUNDS", "COUNT_ROWS", "HISTOGRAM_BINS", "NEURON_REDUCTIONS", "WINDOW_ROWS", "Geometry", "geometry"]

COUNT_ROWS = (
    "samples",
    "positive",
    "negative",
    "nan",
    "positive_infinity",
    "negative_infinity",
    "fired",
    "nonzero",
    "saturated_low",
    "saturated_high",
    "zero_gradient",
    "last_fired",
)
"""What the rows of the counts hold. last_fired is the sample in which the neuron fired last, and -1 at first."""

BOUNDS = (
    *("fired_below", "fired_above", "zero_below", "zero_above", "low", "high"),
    *("flat_low", "flat_high", "flat_from", "flat_to", "slope_low", "slope_high", "slope_from", "slope_to"),
)
"""What the bounds say, each of the type of the elements. A neuron fires where a < fired_below or a > fired_above, and is not
zero where a < zero_below or a > zero_above. Of whatever the slope depends on, x or a: saturated low where it is <= low, high where it
is >= high; the slope is exactly 0 where it is <= flat_low, >= flat_high, or within [flat_from, flat_to]. Where slopes are given,
they are 0 where they are so of the last four. A NaN bounds nothing, and is within no bounds."""

_SAMPLES, _POSITIVE, _NEGATIVE, _NAN, _POSITIVE_INFINITY, _NEGATIVE_INFINITY = 0, 1, 2, 3, 4, 5
_FIRED, _NONZERO, _LOW, _HIGH, _FLAT, _LAST = 6, 7, 8, 9, 10, 11

# What is wanted, as bits of an integer.
SUMS, WINDOWS, TOLERANCE, SATURATION, FLATNESS, SLOPES, FIRED, SAME, HISTOGRAM = 1, 2, 4, 8, 16, 32, 64, 128, 256
"""SUMS: exact sums. WINDOWS: the elements are float32, so sums may go the quick way. TOLERANCE: zero is not just 0 itself.
SATURATION, FLATNESS: the bounds on x are to be looked at. SLOPES: the slopes themselves are given, and looked at for zeros.
FIRED: what fires is neither what is positive nor what is not 0, so it is to be counted.
SAME: the bounds are on a itself. HISTOGRAM: bins are to be counted."""

HISTOGRAM_BINS = 1 << 16
"""A bin for each value of the upper 16 bits of a float32."""

_SPARE_BINS = 0x7FC0
"""The first of 64 bins that only NaN have."""

# Tiles of 512 neurons by 64 samples: what is kept of each neuron then lies in the second-level cache while many samples are added
# to it. Smaller ones were slower, 128 by 32 by a fifth.
_NEURONS = 512
_LINE = 512
_ROWS = 64
# Three counts travel in one int32, 10 bits each: a tile has fewer lines than that.
_FIELD = 1023

_DIGIT = 0xFFFFFFFF
_FRACTION = (1 << 52) - 1
_EXPONENT_MASK = 0x7FF
_INFINITY = np.inf

# The quick way of summing float32, for magnitudes below 2**E and not below 2**(E - 20), of at most 1024 samples: a sum of
# them, in units of 2**(E - 43), stays below 2**53, so float64 additions are exact in any order. A square is split into a
# multiple of 2**(2 * E - 42), by adding it to an accumulator that starts at 2**(2 * E + 10), and the rest, a multiple of
# 2**(2 * E - 86): again neither sum reaches 2**53 units. All other elements go the slow way, one by one. Below 2**-106
# there is no lower bound, as no float32 has bits below 2**-149.
_MOST_SAMPLES = 1024
_SPAN = 2.0**-20
_LEAST_EXPONENT = -106
_LOWER_WHEN = 2.0**-6
"""A window moves down when all of a tile is smaller than this part of it."""
_LIMIT, _PENDING, _SUM, _MAGNITUDE, _HIGH_SQUARES, _LOW_SQUARES, _BOTTOM, _DUE = 0, 1, 2, 3, 4, 5, 6, 7
WINDOW_ROWS = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Geometry:
    """How the limbs of a neuron's three sums lie in a row: of the positive values, of the magnitudes of the negative ones, and
    of the squares. Limb k of a sum of values is in units of 2**(32 * k - offset), of squares likewise."""

    offset: int
    limbs: int
    square_offset: int
    square_limbs: int


def geometry(itemsize: int) -> Geometry:
    """The geometry for float32 (4) or float64 (8): from the least significant bit there is to 2**63 of the largest number."""
    return Geometry(192, 13, 352, 22) if itemsize == 4 else Geometry(1088, 69, 2176, 136)


@kernel
def _power_of_two(exponent):  # type: ignore[no-untyped-def]
    return float_of((exponent + 1023) << 52)


# No function that is called for a neuron or an element takes arrays, and none slices them: counting the owners of an array,
# which Numba does at each such place, costs more than what is done there.


@kernel
def _digits(number, position):  # type: ignore[no-untyped-def]
    """number * 2**position as a limb's index and what is to be added to it and the two after it; |number| < 2**63."""
    shift = position & 31
    low = (number & _DIGIT) << shift
    high = ((number >> 32) << shift) + (low >> 32)
    return position >> 5, low & _DIGIT, high & _DIGIT, high >> 32


@apart
def _add_each(tile, rows, line, width, j0, limbs, shape, bottoms, below):  # type: ignore[no-untyped-def]
    """The slow way, for all that is not 0, or only what is below its column's window: a number and its square, an integer of 106
    bits, in three products of its halves."""
    offset, size, square_offset, single = shape[0], shape[1], shape[2], shape[4]
    squares = 2 * size
    for r in range(rows):
        if below:
            found = False
            for c in range(line):
                v = tile[r * line + c]
                found |= (abs(v) < bottoms[c]) & (v != 0)
            if not found:
                continue
        for c in range(line):
            v = tile[r * line + c]
            if v == 0 or (below and abs(v) >= bottoms[c]):
                continue
            j = j0 + c % width
            bits = bits_of(np.float64(v))
            exponent = (bits >> 52) & _EXPONENT_MASK
            significand = bits & _FRACTION
            if exponent > 0:
                significand |= _FRACTION + 1
            else:
                exponent = 1
            if single:
                # A float32: its 24 bits, so that no position lies below the first limb.
                significand >>= 29
                exponent += 29
            position = exponent - 1075
            upper = significand >> 27
            lower = significand & 0x7FFFFFF
            for part in range(4 if upper else 2):
                if part == 0:
                    number, at, base = significand, position + offset, 0 if bits >= 0 else size
                else:
                    number = lower * lower if part == 1 else upper * (lower if part == 2 else upper)
                    at, base = 2 * position + square_offset + (part - 1) * 28 - (part == 3) * 2, squares
                limb, low, middle, high = _digits(number, at)
                limbs[j, base + limb] += low
                limbs[j, base + limb + 1] += middle
                limbs[j, base + limb + 2] += high


@apart
def _flush(windows, limbs, begin, end, shape):  # type: ignore[no-untyped-def]
    """Move into their limbs what the windows hold of those neurons from begin to end that are due."""
    offset, size, square_offset = shape[0], shape[1], shape[2]
    squares = 2 * size
    for j in range(begin, end):
        if windows[_DUE, j] == 0.0:
            continue
        # Before the first number that is not 0 a window has no limit, and holds nothing.
        if windows[_LIMIT, j] > 0.0:
            exponent = (bits_of(windows[_LIMIT, j]) >> 52) - 1023
            unit = _power_of_two(43 - exponent)
            total = np.int64(windows[_SUM, j] * unit)
            magnitude = np.int64(windows[_MAGNITUDE, j] * unit)
            above = np.int64(windows[_HIGH_SQUARES, j] * _power_of_two(42 - 2 * exponent))
            rest = np.int64(windows[_LOW_SQUARES, j] * _power_of_two(86 - 2 * exponent))
            for part in range(4):
                if part < 2:
                    number, base = (magnitude + (-total if part else total)) >> 1, part * size
                    at = exponent - 43 + offset
                else:
                    number, base = above if part == 2 else rest, squares
                    at = 2 * exponent - (42 if part == 2 else 86) + square_offset
                limb, low, middle, high = _digits(number, at)
                limbs[j, base + limb] += low
                limbs[j, base + limb + 1] += middle
                limbs[j, base + limb + 2] += high
        windows[_DUE, j] = 0.0
        windows[_PENDING, j] = 0.0
        windows[_SUM, j] = 0.0
        windows[_MAGNITUDE, j] = 0.0
        windows[_HIGH_SQUARES, j] = 0.0
        windows[_LOW_SQUARES, j] = 0.0


@apart
def _gather(tile, x, begin, j0, width, s0, samples, n, inner):  # type: ignore[no-untyped-def]
    """Copy the elements of some neurons and samples: tile[s, j]."""
    if inner == 1 and width == n:
        source = x[s0 * n - begin : (s0 + samples) * n - begin]
        for p in range(source.size):
            tile[p] = source[p]
    elif inner == 1:
        for k in range(samples):
            at = (s0 + k) * n + j0 - begin
            source = x[at : at + width]
            target = tile[k * width : (k + 1) * width]
            for j in range(width):
                target[j] = source[j]
    else:
        for j in range(width):
            i = s0 % inner
            at = (s0 // inner * n + j0 + j) * inner + i - begin
            for k in range(samples):
                tile[k * width + j] = x[at]
                at += 1
                i += 1
                if i == inner:
                    i = 0
                    at += (n - 1) * inner


# ---- the loops over a tile, line by line -----------------------------------------------------------------------------


# What is compared or added up is always read first and then written, and lies in few arrays, at distances that the compiler
# knows: with a load in one branch only LLVM writes through masks, and with many arrays it gives up vectorizing.


@apart
def _signs(tile, rows, line, packed, ends):  # type: ignore[no-untyped-def]
    """Count what is positive, negative and NaN, and find the least and the largest; not so in columns with a NaN."""
    for c in range(line):
        packed[c] = 0
        ends[c] = _INFINITY
        ends[_LINE + c] = -_INFINITY
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            packed[c] += np.int32(v > 0) + (np.int32(v < 0) << 10) + (np.int32(v != v) << 20)
            ends[c] = smaller(v, ends[c])
            ends[_LINE + c] = larger(v, ends[_LINE + c])


@apart
def _extremes(tile, rows, line, ends):  # type: ignore[no-untyped-def]
    """The least and the largest, where there are NaN."""
    for c in range(line):
        low, high = np.float64(_INFINITY), np.float64(-_INFINITY)
        for r in range(rows):
            v = np.float64(tile[r * line + c])
            low = v if v < low else low
            high = v if v > high else high
        ends[c] = low
        ends[_LINE + c] = high


@apart
def _last_outside(tile, rows, line, below, above, numbers, last):  # type: ignore[no-untyped-def]
    """Find the last line in which each column is outside two bounds; `numbers` are -1, 0, 1, … in the elements' type."""
    nowhere = numbers[0]
    for c in range(line):
        last[c] = nowhere
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        at = numbers[r + 1]
        for c in range(line):
            v = row[c]
            last[c] = larger(at if (v > above) | (v < below) else nowhere, last[c])


@apart
def _outside(tile, rows, line, below, above, packed):  # type: ignore[no-untyped-def]
    """Count what is outside two bounds."""
    for c in range(line):
        packed[c] = 0
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            packed[c] += np.int32((v > above) | (v < below))


@apart
def _tails(tile, rows, line, low, high, packed):  # type: ignore[no-untyped-def]
    """Count what is at or below one bound, and at or above another."""
    for c in range(line):
        packed[c] = 0
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            packed[c] += np.int32(v <= low) + (np.int32(v >= high) << 10)


@apart
def _flats(tile, rows, line, low, high, begin, end, packed):  # type: ignore[no-untyped-def]
    """Count what is in either tail or in the interval between."""
    for c in range(line):
        packed[c] = 0
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            packed[c] += np.int32((v <= low) | (v >= high) | ((v >= begin) & (v <= end)))


@apart
def _sum_window(tile, rows, line, bottoms, work):  # type: ignore[no-untyped-def]
    """Add up what lies in each column's window, four lines at a time; whether anything does not.

    work holds four numbers of a column, _LINE apart: the squares' multiples (above where they start), the values, their
    magnitudes, and the squares' rests. All are finite, and the lines beyond the last up to a multiple of four are 0.
    """
    left = False
    for r in range(0, rows, 4):
        one = tile[r * line : (r + 1) * line]
        two = tile[(r + 1) * line : (r + 2) * line]
        three = tile[(r + 2) * line : (r + 3) * line]
        four = tile[(r + 3) * line : (r + 4) * line]
        for c in range(line):
            bottom = bottoms[c]
            v1, v2, v3, v4 = one[c], two[c], three[c], four[c]
            w1 = v1 if abs(v1) >= bottom else np.float32(0.0)
            w2 = v2 if abs(v2) >= bottom else np.float32(0.0)
            w3 = v3 if abs(v3) >= bottom else np.float32(0.0)
            w4 = v4 if abs(v4) >= bottom else np.float32(0.0)
            left |= (w1 != v1) | (w2 != v2) | (w3 != v3) | (w4 != v4)
            a1, a2, a3, a4 = np.float64(w1), np.float64(w2), np.float64(w3), np.float64(w4)
            start = work[c]
            h1 = fma(a1, a1, start)
            h2 = fma(a2, a2, h1)
            h3 = fma(a3, a3, h2)
            h4 = fma(a4, a4, h3)
            work[c] = h4
            work[_LINE + c] += (a1 + a2) + (a3 + a4)
            work[2 * _LINE + c] += (abs(a1) + abs(a2)) + (abs(a3) + abs(a4))
            low = (fma(a1, a1, start - h1) + fma(a2, a2, h1 - h2)) + (fma(a3, a3, h2 - h3) + fma(a4, a4, h3 - h4))
            work[3 * _LINE + c] += low
    return left


@kernel
def _bin(v):  # type: ignore[no-untyped-def]
    """The upper half of the nearest float32; what is finite keeps out of the bins of infinity."""
    bits = np.int64(bits_of(nearest_float32(v)))
    if bits & 0x7FFFFFFF == 0x7F800000 and abs(v) < _INFINITY:
        bits -= 1
    return (bits >> 16) & 0xFFFF


@apart
def _count_bins(tile, size, places, bins, single):  # type: ignore[no-untyped-def]
    """Count the bins of a tile, and zeros in any bins of NaN.

    An element that waits until the count of the one before it is written waits for long where they are equal, as zeros
    are; how many of those there are is known anyway. To find the bins and to count in them are two loops, for only the first vectorizes.
    """
    if single:
        for p in range(size):
            v = tile[p]
            place = np.uint32(bits_of(nearest_float32(v))) >> np.uint32(16)
            places[p] = np.uint32(_SPARE_BINS) | np.uint32(p & 63) if v == 0 else place
    else:
        for p in range(size):
            v = tile[p]
            places[p] = _SPARE_BINS | (p & 63) if v == 0 else _bin(v)
    for p in range(size):
        bins[places[p]] += 1


# ---- a tile ----------------------------------------------------------------------------------------------------------


@apart
def _place_windows(windows, limbs, j0, width, ends, samples, shape):  # type: ignore[no-untyped-def]
    """Make the windows of neurons fit so many samples more, between these extremes."""
    due = False
    for j in range(j0, j0 + width):
        largest = max(np.float64(ends[_LINE + j - j0]), -np.float64(ends[j - j0]))
        limit = windows[_LIMIT, j]
        moved = (largest > 0.0) & ((largest >= limit) | (largest < limit * _LOWER_WHEN))
        full = windows[_PENDING, j] + samples > _MOST_SAMPLES
        windows[_DUE, j] = np.float64(moved | full)
        due |= moved | full
    if due:
        _flush(windows, limbs, j0, j0 + width, shape)
        for j in range(j0, j0 + width):
            largest = max(np.float64(ends[_LINE + j - j0]), -np.float64(ends[j - j0]))
            limit = windows[_LIMIT, j]
            if largest > 0.0 and (largest >= limit or largest < limit * _LOWER_WHEN):
                exponent = max((bits_of(largest) >> 52) - 1021, _LEAST_EXPONENT)
                windows[_LIMIT, j] = _power_of_two(exponent)
                windows[_BOTTOM, j] = windows[_LIMIT, j] * _SPAN if exponent > _LEAST_EXPONENT else 0.0
    for j in range(j0, j0 + width):
        windows[_PENDING, j] += samples


@apart
def _sum_tile(tile, lines, lanes, width, ends, j0, limbs, windows, shape, bottoms, work, quick):  # type: ignore[no-untyped-def]
    """Add a tile to the sums of its neurons. What is not finite must be 0 in it, and the lines after its last."""
    line = lanes * width
    if not quick:
        _add_each(tile, lines, line, width, j0, limbs, shape, bottoms, quick != 0)
        return
    for lane in range(1, lanes):
        for j in range(width):
            c = lane * width + j
            ends[j] = min(ends[j], ends[c])
            ends[_LINE + j] = max(ends[_LINE + j], ends[_LINE + c])
    _place_windows(windows, limbs, j0, width, ends, lines * lanes, shape)
    for lane in range(lanes):
        for j in range(width):
            c = lane * width + j
            bottoms[c] = windows[_BOTTOM, j0 + j]
            work[c] = windows[_LIMIT, j0 + j] * windows[_LIMIT, j0 + j] * _MOST_SAMPLES
            work[_LINE + c] = 0.0
            work[2 * _LINE + c] = 0.0
            work[3 * _LINE + c] = 0.0
    left = _sum_window(tile, lines, line, bottoms, work)
    for lane in range(lanes):
        for j in range(width):
            c = lane * width + j
            limit = windows[_LIMIT, j0 + j]
            windows[_HIGH_SQUARES, j0 + j] += work[c] - limit * limit * _MOST_SAMPLES
            windows[_SUM, j0 + j] += work[_LINE + c]
            windows[_MAGNITUDE, j0 + j] += work[2 * _LINE + c]
            windows[_LOW_SQUARES, j0 + j] += work[3 * _LINE + c]
    if left:
        _add_each(tile, lines, line, width, j0, limbs, shape, bottoms, left)


@apart
def _count_up(packed, shift, lanes, width, counts, row, j0):  # type: ignore[no-untyped-def]
    """Add one of the counts that are packed for each column to those of its neuron; whether any is not 0."""
    some = False
    for lane in range(lanes):
        for j in range(width):
            count = (packed[lane * width + j] >> shift) & _FIELD
            counts[row, j0 + j] += count
            some |= count != 0
    return some


@apart
def _note_last(last, s0, lanes, width, counts, j0):  # type: ignore[no-untyped-def]
    for lane in range(lanes):
        for j in range(width):
            line = np.int64(last[lane * width + j])
            counts[_LAST, j0 + j] = max(counts[_LAST, j0 + j], s0 + line * lanes + lane if line >= 0 else -1)


@apart
def _note_extremes(ends, lanes, width, extremes, j0):  # type: ignore[no-untyped-def]
    """Whether any is infinite."""
    infinite = False
    for lane in range(lanes):
        for j in range(width):
            least, most = np.float64(ends[lane * width + j]), np.float64(ends[_LINE + lane * width + j])
            extremes[0, j0 + j] = min(extremes[0, j0 + j], least)
            extremes[1, j0 + j] = max(extremes[1, j0 + j], most)
            infinite |= (least == -_INFINITY) | (most == _INFINITY)
    return infinite


@apart
def _scrub(tile, samples, width, counts, j0):  # type: ignore[no-untyped-def]
    """Count infinities, and put 0 for all that is not finite and has no place in a sum."""
    for k in range(samples):
        for j in range(width):
            v = tile[k * width + j]
            counts[_POSITIVE_INFINITY, j0 + j] += v == _INFINITY
            counts[_NEGATIVE_INFINITY, j0 + j] += v == -_INFINITY
            tile[k * width + j] = v if abs(v) < _INFINITY else 0


@kernel
def observe_neurons(  # type: ignore[no-untyped-def]
    a, x, slopes, start, n, inner, lo, hi, wanted, bounds, shape, counts, extremes, windows, limbs, bins
):  # type: ignore[no-untyped-def]
    """Take a piece of the activations, beginning at element `start` of the whole, into the states of neurons lo to hi.

    `x` is what the bounds on the slope are about, as long as a (or a itself); `slopes` are f'(x) where SLOPES is wanted.
    counts is int64[len(COUNT_ROWS), n], extremes float64[2, n] (least, most), windows float64[WINDOW_ROWS, n] (what is
    summed and not yet in the limbs; `settle_neurons` moves it), limbs int64[n, …] as `geometry` has it; `shape` its numbers.
    bins is int32[HISTOGRAM_BINS]; NaN and zeros fall into bins of NaN, and some NaN into those of infinity.
    """
    if start < 0 or n < 1 or inner < 1 or lo < 0 or hi > n or counts.shape[1] != n or extremes.shape[1] != n:
        raise ValueError("start must not be negative, n and inner must be positive, and counts must have n columns")
    if wanted & (SATURATION | FLATNESS) and x.size != a.size:
        raise ValueError("x must have as many elements as a")
    if wanted & SLOPES and slopes.size != a.size:
        raise ValueError("the slopes must have as many elements as a")
    if bounds.size != 14 or counts.shape[0] != 12 or extremes.shape[0] != 2:
        raise ValueError("there must be 14 bounds, 12 rows of counts and 2 of extremes")
    if wanted & SUMS and (limbs.shape[0] != n or windows.shape[1] != n or limbs.shape[1] != 2 * shape[1] + shape[3]):
        raise ValueError("limbs and windows must have a place for every neuron")
    if wanted & HISTOGRAM and bins.size != HISTOGRAM_BINS:
        raise ValueError("there must be 65,536 bins")
    tile = np.empty(_ROWS * _LINE, a.dtype)
    other = np.empty(_ROWS * _LINE, a.dtype)
    packed = np.empty(_LINE, np.int32)
    ends = np.empty(2 * _LINE, a.dtype)
    last = np.empty(_LINE, a.dtype)
    numbers = np.empty(_ROWS + 1, a.dtype)
    for r in range(_ROWS + 1):
        numbers[r] = r - 1
    bottoms = np.empty(_LINE, np.float32)
    work = np.empty(4 * _LINE, np.float64)
    places = np.empty(_ROWS * _LINE, np.uint32)
    panel = n * inner
    at = start
    end = start + a.size
    while at < end:
        # The next rectangle of neurons by samples: whole panels, or the rest of one, or of a neuron's run within it.
        outer = at // panel
        place = at % panel
        first = place // inner
        skipped = place % inner
        if place == 0 and end - at >= panel:
            repeats = (end - at) // panel
            j_begin, j_end, s_begin, count = 0, n, outer * inner, repeats * inner
            at += repeats * panel
        elif skipped or end - at < inner:
            count = min(inner - skipped, end - at)
            j_begin, j_end, s_begin = first, first + 1, outer * inner + skipped
            at += count
        else:
            j_begin, j_end, s_begin, count = first, min(n, first + (end - at) // inner), outer * inner, inner
            at += (j_end - j_begin) * inner
        j_begin, j_end = max(j_begin, lo), min(j_end, hi)
        for j0 in range(j_begin, j_end, _NEURONS):
            width = min(_NEURONS, j_end - j0)
            done = 0
            while done < count:
                lanes = min(_LINE // width, count - done)
                lines = min(_ROWS, (count - done) // lanes, _MOST_SAMPLES // lanes)
                samples, line, s0 = lines * lanes, lanes * width, s_begin + done
                done += samples
                _gather(tile, a, start, j0, width, s0, samples, n, inner)
                for j in range(j0, j0 + width):
                    counts[_SAMPLES, j] += samples
                # For Numba would compile `_count_up` anew for each constant that it is called with.
                nil = samples & 0
                _signs(tile, lines, line, packed, ends)
                _count_up(packed, nil + 0, lanes, width, counts, nil + (_POSITIVE), j0)
                _count_up(packed, nil + 10, lanes, width, counts, nil + (_NEGATIVE), j0)
                spoilt = _count_up(packed, nil + 20, lanes, width, counts, nil + (_NAN), j0)
                if spoilt:
                    _extremes(tile, lines, line, ends)
                spoilt |= _note_extremes(ends, lanes, width, extremes, j0)
                _last_outside(tile, lines, line, bounds[0], bounds[1], numbers, last)
                _note_last(last, s0, lanes, width, counts, j0)
                for rule in range(2):
                    if wanted & (TOLERANCE if rule else FIRED):
                        _outside(tile, lines, line, bounds[2 * rule], bounds[2 * rule + 1], packed)
                        _count_up(packed, nil + 0, lanes, width, counts, nil + (_NONZERO if rule else _FIRED), j0)
                seen = tile
                if wanted & (SATURATION | FLATNESS | SLOPES) and not wanted & SAME:
                    seen = other
                    _gather(other, slopes if wanted & SLOPES else x, start, j0, width, s0, samples, n, inner)
                if wanted & (FLATNESS | SLOPES):
                    # Slopes are compared with 0, x with the bounds between which its slope is 0.
                    b = 10 if wanted & SLOPES else 6
                    _flats(seen, lines, line, bounds[b], bounds[b + 1], bounds[b + 2], bounds[b + 3], packed)
                    _count_up(packed, nil + 0, lanes, width, counts, nil + (_FLAT), j0)
                if wanted & SATURATION:
                    if wanted & SLOPES:
                        _gather(other, x, start, j0, width, s0, samples, n, inner)
                    _tails(seen, lines, line, bounds[4], bounds[5], packed)
                    _count_up(packed, nil + 0, lanes, width, counts, nil + (_LOW), j0)
                    _count_up(packed, nil + 10, lanes, width, counts, nil + (_HIGH), j0)
                if wanted & HISTOGRAM:
                    _count_bins(tile, samples * width, places, bins, wanted & WINDOWS)
                if spoilt:
                    _scrub(tile, samples, width, counts, j0)
                    _extremes(tile, lines, line, ends)
                if wanted & SUMS:
                    for k in range(samples * width, min(lines + 3, _ROWS) // 4 * 4 * line):
                        tile[k] = 0
                    _sum_tile(
                        tile, lines, lanes, width, ends, j0, limbs, windows, shape, bottoms, work, wanted & WINDOWS
                    )


@apart
def _carry(limbs, begin, end):  # type: ignore[no-untyped-def]
    """Bring every limb of the sums but the last to a digit in [0, 2**32), which makes equal sums equal arrays."""
    for j in range(limbs.shape[0]):
        for limb in range(begin, end - 1):
            limbs[j, limb + 1] += limbs[j, limb] >> 32
            limbs[j, limb] &= _DIGIT


@kernel
def settle_neurons(shape, windows, limbs):  # type: ignore[no-untyped-def]
    """Move what the windows hold into the limbs, and pass on their carries."""
    if windows.shape[1] != limbs.shape[0] or limbs.shape[1] != 2 * shape[1] + shape[3]:
        raise ValueError("limbs and windows must have a place for every neuron")
    size = shape[1]
    for j in range(limbs.shape[0]):
        windows[_DUE, j] = 1.0
    _flush(windows, limbs, 0, limbs.shape[0], shape)
    _carry(limbs, 0, size)
    _carry(limbs, size, 2 * size)
    _carry(limbs, 2 * size, limbs.shape[1])


# ---- histograms ------------------------------------------------------------------------------------------------------


@kernel
def _place(keys, key):  # type: ignore[no-untyped-def]
    """Where a key is in a table with open addressing, or would be; the table has a power of two of places, and free ones."""
    mask = keys.size - 1
    at = (key * -7046029254386353131 >> 20) & mask
    while keys[at] != key and keys[at] != -1:
        at = (at + 1) & mask
    return at


@kernel
def add_to_histograms(a, start, n, inner, lo, hi, table):  # type: ignore[no-untyped-def]
    """Count the elements of neurons lo to hi in int64[2, places]: keys, neuron * HISTOGRAM_BINS + bin or -1, and counts.

    The piece begins at element `start` of the whole, as for `observe_neurons`. The table must have more free places than a has
    elements; NaN are left out.
    """
    if start < 0 or n < 1 or inner < 1 or table.shape[0] != 2 or table.shape[1] & (table.shape[1] - 1):
        raise ValueError("start must not be negative, n and inner must be positive, and the table a power of two long")
    keys, counts = table[0], table[1]
    for p in range(a.size):
        j = (start + p) // inner % n
        v = a[p]
        if lo <= j < hi and v == v:
            # A negative zero is a zero.
            key = j * HISTOGRAM_BINS + _bin(v + 0)
            at = _place(keys, key)
            keys[at] = key
            counts[at] += 1


@kernel
def move_histograms(table, larger):  # type: ignore[no-untyped-def]
    """Move the counts of one table into another, larger and empty one."""
    if table.shape[0] != 2 or larger.shape[0] != 2 or larger.shape[1] & (larger.shape[1] - 1):
        raise ValueError("a table has two rows, and a power of two of places")
    for p in range(table.shape[1]):
        if table[0, p] >= 0:
            at = _place(larger[0], table[0, p])
            larger[0, at] = table[0, p]
            larger[1, at] = table[1, p]


NEURON_REDUCTIONS: dict[str, Reduction] = {
    "observe_neurons": Reduction(
        observe_neurons,
        ("input", "input", "input", *["index"] * 6, "input", "tally", "counts", "sums", "sums", "counts", "bins"),
    ),
    "settle_neurons": Reduction(settle_neurons, ("tally", "sums", "counts")),
    "add_to_histograms": Reduction(add_to_histograms, ("input", *["index"] * 5, "counts")),
    "move_histograms": Reduction(move_histograms, ("counts", "counts")),
}
"""What `compiler.load_reduction` offers, beside `reductions.REDUCTIONS`."""
