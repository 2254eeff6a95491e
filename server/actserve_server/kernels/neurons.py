"""Loops that take activations into the state of each neuron: counts, extremes, exact sums, and histograms.

The activations are a piece of an array of shape (outer, n, inner), whose middle axis counts the neurons; sample s of a
neuron is element (s // inner, neuron, s % inner). A piece is cut into tiles of some neurons by some samples, each copied into
memory of its own, [samples, neurons], so that one set of loops serves every layout and stays in the first-level cache. When
there are few neurons, several samples lie in a line of the tile beside each other.

Every number of a state is an integer, or the largest or smallest of some, so a state depends neither on how the input was cut
nor on the order of the pieces. The loops are plain functions, compiled by `compiler.load_reduction`; what is derived from a
state, and its form on the wire, are not known here.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from actserve_server.elementary.bits import bits_of, float_of, nearest_float32
from actserve_server.elementary.source import kernel
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
    "fired_below",
    "fired_above",
    "zero_below",
    "zero_above",
    "low",
    "high",
    "flat_low",
    "flat_high",
    "flat_from",
    "flat_to",
)
"""What the bounds say, each of the type of the elements. A neuron fires where a < fired_below or a > fired_above, and is not
zero where a < zero_below or a > zero_above. Of whatever the slope depends on, x or a: saturated low where it is <= low, high where it
is >= high; the slope is exactly 0 where it is <= flat_low, >= flat_high, or within [flat_from, flat_to]. A NaN never is."""

_SAMPLES, _POSITIVE, _NEGATIVE, _NAN, _POSITIVE_INFINITY, _NEGATIVE_INFINITY = 0, 1, 2, 3, 4, 5
_FIRED, _NONZERO, _LOW, _HIGH, _FLAT, _LAST = 6, 7, 8, 9, 10, 11

# What is wanted, as bits of an integer.
SUMS, WINDOWS, TOLERANCE, SATURATION, FLATNESS, SLOPES = 1, 2, 4, 8, 16, 32
"""SUMS: exact sums. WINDOWS: the elements are float32, so sums may go the quick way. TOLERANCE: zero is not just 0 itself.
SATURATION, FLATNESS: the bounds on x are to be looked at. SLOPES: the slopes themselves are given, and looked at for zeros."""

HISTOGRAM_BINS = 1 << 16
"""A bin for each value of the upper 16 bits of a float32."""

_NEURONS = 128
_LINE = 128
_ROWS = 32
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
_LIMIT, _PENDING, _SUM, _MAGNITUDE, _HIGH_SQUARES, _LOW_SQUARES, _BOTTOM = 0, 1, 2, 3, 4, 5, 6
WINDOW_ROWS = 7


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


@kernel
def _deposit(row, number, position):  # type: ignore[no-untyped-def]
    """Add number * 2**position, in units of limb 0; the number lies within (-2**63, 2**63)."""
    limb = position >> 5
    shift = position & 31
    low = (number & _DIGIT) << shift
    high = ((number >> 32) << shift) + (low >> 32)
    row[limb] += low & _DIGIT
    row[limb + 1] += high & _DIGIT
    row[limb + 2] += high >> 32


@kernel
def _add_one(row, v, shape):  # type: ignore[no-untyped-def]
    """The slow way: a finite number and its square, an integer of 106 bits, in three products of its halves."""
    bits = bits_of(np.float64(v))
    exponent = (bits >> 52) & _EXPONENT_MASK
    significand = bits & _FRACTION
    if exponent > 0:
        significand |= _FRACTION + 1
    else:
        exponent = 1
    if shape[4]:
        # A float32: its 24 bits, so that no position lies below the first limb.
        significand >>= 29
        exponent += 29
    offset, limbs, square_offset = shape[0], shape[1], shape[2]
    position = exponent - 1075
    _deposit(row[(0 if bits >= 0 else limbs) :], significand, position + offset)
    squares = row[2 * limbs :]
    high = significand >> 27
    low = significand & 0x7FFFFFF
    position = 2 * position + square_offset
    _deposit(squares, low * low, position)
    if high:
        _deposit(squares, high * low, position + 28)
        _deposit(squares, high * high, position + 54)


@kernel
def _flush(windows, row, j, shape):  # type: ignore[no-untyped-def]
    """Move what a neuron's window holds into its limbs."""
    # Before the first number that is not 0 a window has no limit, and holds nothing.
    if windows[_LIMIT, j] > 0.0:
        exponent = (bits_of(windows[_LIMIT, j]) >> 52) - 1023
        unit = _power_of_two(43 - exponent)
        total = np.int64(windows[_SUM, j] * unit)
        magnitude = np.int64(windows[_MAGNITUDE, j] * unit)
        offset, limbs, square_offset = shape[0], shape[1], shape[2]
        _deposit(row, (magnitude + total) >> 1, exponent - 43 + offset)
        _deposit(row[limbs:], (magnitude - total) >> 1, exponent - 43 + offset)
        squares = row[2 * limbs :]
        high = np.int64(windows[_HIGH_SQUARES, j] * _power_of_two(42 - 2 * exponent))
        low = np.int64(windows[_LOW_SQUARES, j] * _power_of_two(86 - 2 * exponent))
        _deposit(squares, high, 2 * exponent - 42 + square_offset)
        _deposit(squares, low, 2 * exponent - 86 + square_offset)
    windows[_PENDING, j] = 0.0
    windows[_SUM, j] = 0.0
    windows[_MAGNITUDE, j] = 0.0
    windows[_HIGH_SQUARES, j] = 0.0
    windows[_LOW_SQUARES, j] = 0.0


@kernel
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


@kernel
def _signs(tile, rows, line, packed, least, most):  # type: ignore[no-untyped-def]
    """Count what is positive, negative and NaN, and find the extremes."""
    for c in range(line):
        packed[c] = 0
        least[c] = _INFINITY
        most[c] = -_INFINITY
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            packed[c] += np.int32(v > 0) + (np.int32(v < 0) << 10) + (np.int32(v != v) << 20)
            least[c] = v if v < least[c] else least[c]
            most[c] = v if v > most[c] else most[c]


@kernel
def _outside(tile, rows, line, below, above, packed, last):  # type: ignore[no-untyped-def]
    """Count what is outside two bounds, and find the last line in which it was."""
    for c in range(line):
        packed[c] = 0
        last[c] = -1
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        at = np.int32(r)
        for c in range(line):
            v = row[c]
            found = (v > above) | (v < below)
            packed[c] += np.int32(found)
            last[c] = at if found else last[c]


@kernel
def _tails(tile, rows, line, low, high, packed):  # type: ignore[no-untyped-def]
    """Count what is at or below one bound, and at or above another."""
    for c in range(line):
        packed[c] = 0
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            packed[c] += np.int32(v <= low) + (np.int32(v >= high) << 10)


@kernel
def _flats(tile, rows, line, low, high, begin, end, packed):  # type: ignore[no-untyped-def]
    """Count what is in either tail or in the interval between."""
    for c in range(line):
        packed[c] = 0
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            packed[c] += np.int32((v <= low) | (v >= high) | ((v >= begin) & (v <= end)))


@kernel
def _zeros(tile, rows, line, packed):  # type: ignore[no-untyped-def]
    for c in range(line):
        packed[c] = 0
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            packed[c] += np.int32(row[c] == 0)


@kernel
def _sum_window(tile, rows, line, bottoms, starts, sums):  # type: ignore[no-untyped-def]
    """Add up what lies in each column's window; whether anything does not."""
    left = False
    totals, magnitudes, highs, lows = sums[0], sums[1], sums[2], sums[3]
    for c in range(line):
        totals[c] = 0.0
        magnitudes[c] = 0.0
        highs[c] = starts[c]
        lows[c] = 0.0
    for r in range(rows):
        row = tile[r * line : (r + 1) * line]
        for c in range(line):
            v = row[c]
            inside = (abs(v) >= bottoms[c]) & (abs(v) < _INFINITY)
            w = v if inside else np.float32(0.0)
            left |= w != v
            wide = np.float64(w)
            square = wide * wide
            high = highs[c] + square
            totals[c] += wide
            magnitudes[c] += abs(wide)
            lows[c] += square - (high - highs[c])
            highs[c] = high
    return left


# ---- a tile ----------------------------------------------------------------------------------------------------------


@kernel
def _largest_finite(tile, samples, width, j):  # type: ignore[no-untyped-def]
    largest = 0.0
    for k in range(samples):
        v = np.float64(abs(tile[k * width + j]))
        if v > largest and v < _INFINITY:
            largest = v
    return largest


@kernel
def _sum_tile(tile, lines, lanes, width, least, most, limbs, windows, shape, bottoms, starts, sums, quick):  # type: ignore[no-untyped-def]
    """Add a tile to the sums of its neurons."""
    samples = lines * lanes
    if not quick:
        for k in range(samples):
            for j in range(width):
                v = tile[k * width + j]
                if abs(v) < _INFINITY and v != 0:
                    _add_one(limbs[j], v, shape)
        return
    for j in range(width):
        largest = 0.0
        for lane in range(lanes):
            c = lane * width + j
            largest = max(largest, np.float64(most[c]), -np.float64(least[c]))
        if largest == _INFINITY:
            largest = _largest_finite(tile, samples, width, j)
        limit = windows[_LIMIT, j]
        if largest >= limit or (largest < limit * _LOWER_WHEN and largest > 0.0):
            if largest > 0.0:
                _flush(windows, limbs[j], j, shape)
                exponent = max((bits_of(largest) >> 52) - 1021, _LEAST_EXPONENT)
                windows[_LIMIT, j] = _power_of_two(exponent)
                windows[_BOTTOM, j] = windows[_LIMIT, j] * _SPAN if exponent > _LEAST_EXPONENT else 0.0
        elif windows[_PENDING, j] + samples > _MOST_SAMPLES:
            _flush(windows, limbs[j], j, shape)
        windows[_PENDING, j] += samples
    for lane in range(lanes):
        for j in range(width):
            c = lane * width + j
            bottoms[c] = windows[_BOTTOM, j]
            starts[c] = windows[_LIMIT, j] * windows[_LIMIT, j] * _MOST_SAMPLES
    left = _sum_window(tile, lines, lanes * width, bottoms, starts, sums)
    for lane in range(lanes):
        for j in range(width):
            c = lane * width + j
            windows[_SUM, j] += sums[0, c]
            windows[_MAGNITUDE, j] += sums[1, c]
            windows[_HIGH_SQUARES, j] += sums[2, c] - starts[c]
            windows[_LOW_SQUARES, j] += sums[3, c]
    if left:
        for k in range(samples):
            for j in range(width):
                v = tile[k * width + j]
                if abs(v) < bottoms[j] and v != 0:
                    _add_one(limbs[j], v, shape)


@kernel
def observe_neurons(a, x, slopes, start, n, inner, lo, hi, wanted, bounds, shape, counts, extremes, windows, limbs):  # type: ignore[no-untyped-def]
    """Take a piece of the activations, beginning at element `start` of the whole, into the states of neurons lo to hi.

    `x` is what the bounds on the slope are about, as long as a (or a itself); `slopes` are f'(x) where SLOPES is wanted.
    counts is int64[len(COUNT_ROWS), n], extremes float64[2, n] (least, most), windows float64[7, n] (what is
    summed and not yet in the limbs; `settle_neurons` moves it), limbs int64[n, …] as `geometry` has it; `shape` its numbers.
    """
    if start < 0 or n < 1 or inner < 1 or lo < 0 or hi > n or counts.shape[1] != n or extremes.shape[1] != n:
        raise ValueError("start must not be negative, n and inner must be positive, and counts must have n columns")
    if wanted & (SATURATION | FLATNESS) and x.size != a.size:
        raise ValueError("x must have as many elements as a")
    if wanted & SLOPES and slopes.size != a.size:
        raise ValueError("the slopes must have as many elements as a")
    if bounds.size != 10 or counts.shape[0] != 12 or extremes.shape[0] != 2:
        raise ValueError("there must be 10 bounds, 12 rows of counts and 2 of extremes")
    if wanted & SUMS and (limbs.shape[0] != n or windows.shape[1] != n or limbs.shape[1] != 2 * shape[1] + shape[3]):
        raise ValueError("limbs and windows must have a place for every neuron")
    tile = np.empty(_ROWS * _LINE, a.dtype)
    other = np.empty(_ROWS * _LINE, a.dtype)
    packed = np.empty(_LINE, np.int32)
    last = np.empty(_LINE, np.int32)
    least = np.empty(_LINE, a.dtype)
    most = np.empty(_LINE, a.dtype)
    bottoms = np.empty(_LINE, np.float32)
    starts = np.empty(_LINE, np.float64)
    sums = np.empty((4, _LINE), np.float64)
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
                part = counts[:, j0 : j0 + width]
                ends = extremes[:, j0 : j0 + width]

                _signs(tile, lines, line, packed, least, most)
                infinite = False
                for lane in range(lanes):
                    for j in range(width):
                        c = lane * width + j
                        part[_POSITIVE, j] += packed[c] & _FIELD
                        part[_NEGATIVE, j] += (packed[c] >> 10) & _FIELD
                        part[_NAN, j] += packed[c] >> 20
                        ends[0, j] = min(ends[0, j], np.float64(least[c]))
                        ends[1, j] = max(ends[1, j], np.float64(most[c]))
                        infinite |= (least[c] == -_INFINITY) | (most[c] == _INFINITY)
                for j in range(width):
                    part[_SAMPLES, j] += samples
                if infinite:
                    for k in range(samples):
                        for j in range(width):
                            part[_POSITIVE_INFINITY, j] += tile[k * width + j] == _INFINITY
                            part[_NEGATIVE_INFINITY, j] += tile[k * width + j] == -_INFINITY

                if wanted & SUMS:
                    _sum_tile(
                        tile, lines, lanes, width, least, most, limbs[j0 : j0 + width], windows[:, j0 : j0 + width],
                        shape, bottoms, starts, sums, wanted & WINDOWS,
                    )  # fmt: skip

                _outside(tile, lines, line, bounds[0], bounds[1], packed, last)
                for lane in range(lanes):
                    for j in range(width):
                        c = lane * width + j
                        part[_FIRED, j] += packed[c]
                        sample = s0 + last[c] * lanes + lane if last[c] >= 0 else -1
                        part[_LAST, j] = max(part[_LAST, j], sample)
                if wanted & TOLERANCE:
                    _outside(tile, lines, line, bounds[2], bounds[3], packed, last)
                    for lane in range(lanes):
                        for j in range(width):
                            part[_NONZERO, j] += packed[lane * width + j]

                if wanted & (SATURATION | FLATNESS):
                    _gather(other, x, start, j0, width, s0, samples, n, inner)
                if wanted & SATURATION:
                    _tails(other, lines, line, bounds[4], bounds[5], packed)
                    for lane in range(lanes):
                        for j in range(width):
                            part[_LOW, j] += packed[lane * width + j] & _FIELD
                            part[_HIGH, j] += packed[lane * width + j] >> 10
                if wanted & FLATNESS:
                    _flats(other, lines, line, bounds[6], bounds[7], bounds[8], bounds[9], packed)
                    for lane in range(lanes):
                        for j in range(width):
                            part[_FLAT, j] += packed[lane * width + j]
                if wanted & SLOPES:
                    _gather(other, slopes, start, j0, width, s0, samples, n, inner)
                    _zeros(other, lines, line, packed)
                    for lane in range(lanes):
                        for j in range(width):
                            part[_FLAT, j] += packed[lane * width + j]


@kernel
def _carry(digits):  # type: ignore[no-untyped-def]
    """Bring every limb but the last to a digit in [0, 2**32), which makes equal sums equal arrays."""
    for limb in range(digits.size - 1):
        digits[limb + 1] += digits[limb] >> 32
        digits[limb] &= _DIGIT


@kernel
def settle_neurons(shape, windows, limbs):  # type: ignore[no-untyped-def]
    """Move what the windows hold into the limbs, and pass on their carries."""
    if windows.shape[1] != limbs.shape[0] or limbs.shape[1] != 2 * shape[1] + shape[3]:
        raise ValueError("limbs and windows must have a place for every neuron")
    for j in range(limbs.shape[0]):
        row = limbs[j]
        _flush(windows, row, j, shape)
        _carry(row[: shape[1]])
        _carry(row[shape[1] : 2 * shape[1]])
        _carry(row[2 * shape[1] :])


# ---- histograms ------------------------------------------------------------------------------------------------------


@kernel
def _bin(v):  # type: ignore[no-untyped-def]
    """The upper half of the nearest float32; what is finite keeps out of the bins of infinity."""
    bits = np.int64(bits_of(nearest_float32(v)))
    if bits & 0x7FFFFFFF == 0x7F800000 and abs(v) < _INFINITY:
        bits -= 1
    return (bits >> 16) & 0xFFFF


@kernel
def add_to_histogram(a, counts):  # type: ignore[no-untyped-def]
    """Count the elements of a in int64[4, HISTOGRAM_BINS], whose rows are to be added up.

    Four rows, for an element that waits until the count of its predecessor is written waits for long where they are
    equal, as zeros are. NaN fall into bins of their own, and into those of infinity.
    """
    if counts.shape[0] != 4 or counts.shape[1] != HISTOGRAM_BINS:
        raise ValueError("counts must have 4 rows of 65,536 bins")
    rest = a.size // 4 * 4
    for p in range(0, rest, 4):
        counts[0, _bin(a[p])] += 1
        counts[1, _bin(a[p + 1])] += 1
        counts[2, _bin(a[p + 2])] += 1
        counts[3, _bin(a[p + 3])] += 1
    for p in range(rest, a.size):
        counts[0, _bin(a[p])] += 1


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
            key = j * HISTOGRAM_BINS + _bin(v)
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
        ("input", "input", "input", *["index"] * 6, "input", "tally", "counts", "sums", "sums", "counts"),
    ),
    "settle_neurons": Reduction(settle_neurons, ("tally", "sums", "counts")),
    "add_to_histogram": Reduction(add_to_histogram, ("input", "counts")),
    "add_to_histograms": Reduction(add_to_histograms, ("input", *["index"] * 5, "counts")),
    "move_histograms": Reduction(move_histograms, ("counts", "counts")),
}
"""What `compiler.load_reduction` offers, beside `reductions.REDUCTIONS`."""
