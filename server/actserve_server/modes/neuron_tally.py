"""The state of a layer's neurons while it grows: arrays that compiled loops add to, and the state that they make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from actserve.stats import SQUARE_OFFSET, VALUE_OFFSET, ExactSums, Histogram, NeuronOptions, NeuronStats

from actserve_server.kernels import compiler, neurons
from actserve_server.kernels.neurons import COUNT_ROWS, HISTOGRAM_BINS
from actserve_server.kernels.threads import SOLO, Team, pace_of
from actserve_server.modes.base import Array
from actserve_server.modes.slopes import Slopes

_NEURONS_OF_A_SHARE = 128
"""Shares are multiples of so many neurons: a quarter of the loops' tile, so that a layer of 1,024 occupies several cores."""

_SETTLED_EVERY = 1 << 26
"""Elements after which the carries of the sums are passed on, each adding at most 9 digits of 32 bits to a limb, and the bins are added up,
which count to 2**31."""

_LEAST_TABLE = 1 << 12


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """Where in a tensor the neurons are: an array of shape (any, *middle, inner), some of whose middle axes count them.

    >>> Layout.of((32, 64, 7, 7), (1,))
    Layout(middle=(64,), neuron_axes=(0,), inner=49)
    """

    middle: tuple[int, ...]
    """The lengths of the dimensions from the first neuron axis to the last one."""
    neuron_axes: tuple[int, ...]
    """Which of them are neuron axes."""
    inner: int

    @classmethod
    def of(cls, shape: tuple[int, ...], axes: tuple[int, ...]) -> Layout:
        """The layout of a tensor; the axes are counted from the start, and ascending."""
        if not shape:
            return cls((1,), (0,), 1)
        first, last = axes[0], axes[-1]
        return cls(shape[first : last + 1], tuple(axis - first for axis in axes), math.prod(shape[last + 1 :]))

    @property
    def columns(self) -> int:
        """How many columns are counted: neurons, times the batch dimensions that lie between their axes."""
        return math.prod(self.middle)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the neurons."""
        return tuple(self.middle[axis] for axis in self.neuron_axes)

    @property
    def repeats(self) -> int:
        """How many columns a neuron has."""
        return math.prod(length for axis, length in enumerate(self.middle) if axis not in self.neuron_axes)

    def gathered(self, columns: Array) -> Array:
        """[columns, …] as [repeats, neurons, …]."""
        rest = tuple(axis for axis in range(len(self.middle)) if axis not in self.neuron_axes)
        more = columns.shape[1:]
        order = (*rest, *self.neuron_axes, *range(len(self.middle), len(self.middle) + len(more)))
        width = math.prod(self.shape)
        return columns.reshape(*self.middle, *more).transpose(order).reshape(self.repeats, width, *more)


def column_bytes(options: NeuronOptions, itemsize: int) -> int:
    """How many bytes are held of each column, histograms aside."""
    sums = neurons.geometry(itemsize)
    return 8 * (len(COUNT_ROWS) + 2 + (options.sums and neurons.WINDOW_ROWS + 2 * sums.limbs + sums.square_limbs))


class NeuronTally:
    """Counts, extremes, sums and histograms so far.

    >>> tally = NeuronTally(NeuronOptions(), Layout.of((4, 2), (1,)), np.dtype(np.float32), Slopes("none"))
    >>> tally.add(np.ones(8, np.float32), None, None, 0)
    >>> tally.state("relu", {}).samples
    array([4, 4])

    Elements are float32 or float64; pieces may come in any order. `after`: the bounds of the slopes are on the activations, and `add` is
    given no x.
    """

    def __init__(
        self,
        options: NeuronOptions,
        layout: Layout,
        dtype: np.dtype[np.floating],
        slopes: Slopes,
        team: Team = SOLO,
        *,
        after: bool = False,
    ) -> None:
        self.options = options
        self._layout = layout
        self._team = team
        self._slopes = slopes
        self._observe = compiler.load_reduction("observe_neurons", dtype)
        self._settle = compiler.load_reduction("settle_neurons", dtype)
        n = layout.columns
        self._geometry = neurons.geometry(dtype.itemsize)
        limbs = 2 * self._geometry.limbs + self._geometry.square_limbs
        self._shape = np.array([*dataclasses.astuple(self._geometry), dtype.itemsize == 4], np.int64)
        self._counts = np.zeros((len(COUNT_ROWS), n), np.int64)
        self._counts[-1] = -1
        self._extremes = np.repeat([[np.inf], [-np.inf]], n, axis=1)
        summed = n if options.sums else 0
        self._windows = np.zeros((neurons.WINDOW_ROWS, summed))
        self._limbs = np.zeros((summed, limbs), np.int64)
        self._bounds = _bounds(options, slopes, dtype)
        self._wanted = _wanted(options, slopes, dtype)
        self._slopes_are_tails = _slopes_are_tails(slopes)
        # relu's: what is no NaN and not positive, which is counted anyway.
        self._low_is_the_rest = after and slopes.low == 0 and math.isnan(slopes.high)
        if self._low_is_the_rest:
            self._wanted &= ~neurons.SATURATION
        self._elements = self._unsettled = 0
        self._histogram = np.zeros(HISTOGRAM_BINS, np.int64)
        self._bins: list[npt.NDArray[np.int32]] = []
        self._table: npt.NDArray[np.int64] | None = None
        if options.histogram == "neuron":
            self._add_to_histograms = compiler.load_reduction("add_to_histograms", dtype)
            self._move = compiler.load_reduction("move_histograms", dtype)
            self._table = _empty_table(_LEAST_TABLE)

    def add(self, a: Array, x: Array | None, slopes: Array | None, first: int) -> None:
        """Take in a flat piece of the activations that begins at element `first`; with x where bounds are on it, and f'(x)."""
        if not a.size:
            return
        n, inner = self._layout.columns, self._layout.inner
        source = a if x is None else x
        given = a[:0] if slopes is None else slopes
        arrays = (self._bounds, self._shape, self._counts, self._extremes, self._windows, self._limbs)
        wanted = self._wanted | (neurons.SAME if x is None else 0)

        def observe(begin: int, end: int) -> None:
            # Each part of the work counts in bins of its own.
            try:
                bins = self._bins.pop()
            except IndexError:
                bins = np.zeros(HISTOGRAM_BINS if wanted & neurons.HISTOGRAM else 0, np.int32)
            self._observe(a, source, given, first, n, inner, begin, end, wanted, *arrays, bins)
            self._bins.append(bins)

        rows = -(-a.size // n)
        pace = pace_of(self._observe)
        self._team.share(n, _NEURONS_OF_A_SHARE, pace.timed(observe, rows), grain=pace.grain(rows))
        if self._table is not None:
            self._make_room(a.size)
            self._add_to_histograms(a, first, n, inner, 0, n, self._table)
        self._elements += a.size
        self._unsettled += a.size
        if self._unsettled > _SETTLED_EVERY:
            self._settle_all()

    @property
    def histogram_bytes(self) -> int:
        """How many bytes the histograms of neurons take, which grows with what is seen."""
        return 0 if self._table is None else self._table.nbytes

    @property
    def elements(self) -> int:
        """How many elements were added."""
        return self._elements

    @property
    def layout(self) -> Layout:
        """Where the neurons are."""
        return self._layout

    def _settle_all(self) -> None:
        if self.options.sums:
            self._settle(self._shape, self._windows, self._limbs)
        if self.options.histogram == "layer":
            for bins in self._bins:
                self._histogram += bins
                bins[:] = 0
        self._unsettled = 0

    def _make_room(self, size: int) -> None:
        """Make the table of histograms large enough for as many new bins as there are elements to come."""
        assert self._table is not None
        used = int(np.count_nonzero(self._table[0] >= 0))
        places = self._table.shape[1]
        needed = 2 * min(used + size, self._layout.columns * HISTOGRAM_BINS + 1)
        if needed > places:
            larger = _empty_table(1 << (needed - 1).bit_length())
            self._move(self._table, larger)
            self._table = larger

    def state(self, activation: str, parameters: Mapping[str, float | str], first_sample: int = 0) -> NeuronStats:
        """The state of what was added; more may be added afterwards."""
        self._settle_all()
        layout = self._layout
        width = math.prod(layout.shape)
        samples = self._elements // width if width else 0
        raw = dict(zip(COUNT_ROWS, self._counts, strict=True))
        last = self._last_fired(raw.pop("last_fired"), first_sample)
        counts = {name: layout.gathered(row).sum(axis=0) for name, row in raw.items()}
        if not self._wanted & neurons.TOLERANCE:
            counts["nonzero"] = counts["positive"] + counts["negative"]
        if not self._wanted & neurons.FIRED:
            counts["fired"] = counts["positive"] + (counts["negative"] if self.options.fired == "nonzero" else 0)
        numbers = counts["samples"] - counts["nan"]
        if self._low_is_the_rest:
            counts["saturated_low"] = numbers - counts["positive"]
        if self._slopes_are_tails:
            counts["zero_gradient"] = counts["saturated_low"] + counts["saturated_high"]
        counts["inactive"] = numbers - counts.pop("fired")
        counts["zero"] = numbers - counts.pop("nonzero")
        histogram = self._histograms(counts)
        columns = {name: column.reshape(layout.shape) for name, column in (counts | {"last_fired": last}).items()}
        begin = first_sample if samples else 0
        return NeuronStats(
            activation,
            self.options,
            layout.shape,
            columns,
            layout.gathered(self._extremes[0]).min(axis=0).reshape(layout.shape),
            layout.gathered(self._extremes[1]).max(axis=0).reshape(layout.shape),
            self._sums() if self.options.sums else None,
            histogram,
            begin,
            begin + samples,
            parameters,
        )

    def _last_fired(self, rows: Array, first_sample: int) -> Array:
        """The global sample, from the row of each column: samples count through the batch dimensions between neuron axes too."""
        layout = self._layout
        gathered = layout.gathered(rows)
        repeat = np.arange(layout.repeats)[:, np.newaxis]
        inner = max(layout.inner, 1)
        index = (gathered // inner * layout.repeats + repeat) * inner + gathered % inner
        last: Array = np.where(gathered >= 0, index + first_sample, -1).max(axis=0, initial=-1)
        return last

    def _sums(self) -> tuple[ExactSums, ExactSums, ExactSums]:
        gathered = self._layout.gathered(self._limbs)
        limbs = gathered[0] if len(gathered) == 1 else gathered.sum(axis=0)
        g = self._geometry
        value, square = (VALUE_OFFSET - g.offset) // 32, (SQUARE_OFFSET - g.square_offset) // 32
        return (
            ExactSums.of(limbs[:, : g.limbs], value),
            ExactSums.of(limbs[:, g.limbs : 2 * g.limbs], value),
            ExactSums.of(limbs[:, 2 * g.limbs :], square),
        )

    def _histograms(self, counts: Mapping[str, Array]) -> Histogram | None:
        if self.options.histogram == "layer":
            bins = self._histogram.copy()
            # NaN are not to be ordered. Some share a bin with an infinity, whose number is known, and zeros are in bins of NaN.
            bins[_POSITIVE_INFINITY:_NEGATIVE_ZERO] = 0
            bins[_NEGATIVE_INFINITY:] = 0
            bins[_POSITIVE_INFINITY] = counts["positive_infinity"].sum()
            bins[_NEGATIVE_INFINITY] = counts["negative_infinity"].sum()
            bins[0] += (counts["samples"] - counts["nan"] - counts["positive"] - counts["negative"]).sum()
            return Histogram.of(np.arange(HISTOGRAM_BINS), bins)
        if self._table is None:
            return None
        used = self._table[0] >= 0
        columns, bins = np.divmod(self._table[0, used], HISTOGRAM_BINS)
        neuron = np.empty(self._layout.columns, np.int64)
        places = self._layout.gathered(np.arange(self._layout.columns))
        neuron[places] = np.arange(places.shape[1])
        return Histogram.of(neuron[columns] * HISTOGRAM_BINS + bins, self._table[1, used])


_POSITIVE_INFINITY, _NEGATIVE_ZERO, _NEGATIVE_INFINITY = 0x7F80, 0x8000, 0xFF80


def _empty_table(places: int) -> npt.NDArray[np.int64]:
    table = np.zeros((2, places), np.int64)
    table[0] = -1
    return table


def _below(number: float, dtype: np.dtype[np.floating]) -> float:
    """The largest element that is not larger than a number: what exceeds the one exceeds the other."""
    with np.errstate(over="ignore"):
        rounded = np.float64(number).astype(dtype)
    return float(rounded if rounded <= number else np.nextafter(rounded, dtype.type(-np.inf)))


def _bounds(options: NeuronOptions, slopes: Slopes, dtype: np.dtype[np.floating]) -> Array:
    zero = _below(options.zero_tolerance, dtype)
    eps = _below(options.eps, dtype)
    fired = (-math.inf if options.fired == "positive" else -eps, eps)
    saturated = (slopes.low, slopes.high)
    flat = (slopes.flat_low, slopes.flat_high, slopes.flat_from, slopes.flat_to)
    slope = (math.nan, math.nan, 0.0, 0.0)
    return np.array([*fired, -zero, zero, *saturated, *flat, *slope], dtype)


def _slopes_are_tails(slopes: Slopes) -> bool:
    """Whether the slope is 0 just where x is saturated, as relu's is, so that one count will do."""
    bounds = (slopes.low, slopes.high, math.nan, math.nan)
    flats = (slopes.flat_low, slopes.flat_high, slopes.flat_from, slopes.flat_to)
    return not slopes.computed and all(a == b or (a != a and b != b) for a, b in zip(bounds, flats, strict=True))


def _wanted(options: NeuronOptions, slopes: Slopes, dtype: np.dtype[np.floating]) -> int:
    flats = (slopes.flat_low, slopes.flat_high, slopes.flat_from, slopes.flat_to)
    flags = {
        neurons.SUMS: options.sums,
        neurons.WINDOWS: dtype.itemsize == 4,
        neurons.TOLERANCE: options.zero_tolerance > 0,
        neurons.FIRED: options.fired == "abs>eps",
        neurons.SATURATION: not (math.isnan(slopes.low) and math.isnan(slopes.high)),
        neurons.FLATNESS: not (all(map(math.isnan, flats)) or _slopes_are_tails(slopes)),
        neurons.SLOPES: slopes.computed,
        neurons.HISTOGRAM: options.histogram == "layer",
    }
    return sum(flag for flag, wanted in flags.items() if wanted)


__all__ = ["Layout", "NeuronTally", "column_bytes"]
