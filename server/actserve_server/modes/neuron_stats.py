"""Neuron statistics: what a layer's neurons do over a batch, as a state that merges, and what is derived from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
from actserve.stats import NeuronOptions, NeuronStats, StateError

from actserve_server.errors import InvalidAxis, InvalidOption, LimitExceeded
from actserve_server.modes.base import (
    Array,
    Counts,
    NeuronSummary,
    Piece,
    Room,
    Scalars,
    Stage,
    Subject,
    Tensor,
    resolve_axis,
    state_parameters,
)
from actserve_server.modes.evaluate import evaluate, readable, wide_enough
from actserve_server.modes.neuron_tally import Layout, NeuronTally, column_bytes
from actserve_server.modes.slopes import Slopes, slopes

_FIELD = "header.neuron_stats"
_AXIS_FIELD = f"{_FIELD}.neuron_axis"
_LARGEST_SAMPLE = 1 << 62
"""Far below what an int64 holds, so that no index of a sample overflows."""


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronStatistics:
    """Counts, sums and histograms of each neuron's activations. Options are those of the state; its `slopes` and `accuracy`
    follow from the subject."""

    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    """Of `actserve.stats.NeuronOptions`, unchecked."""
    first_sample: int = 0
    """The global index of the first sample."""
    max_bytes: int = 1 << 62
    """How large the state may grow in memory."""

    @property
    def after(self) -> bool:
        """Whether x holds the activations already."""
        return self.options.get("input") == "post"

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """Options within their bounds; the neuron axes within the shape, and of lengths known beforehand."""
        options = self.options_of(subject.accuracy, Slopes("none"))
        if not 0 <= self.first_sample <= _LARGEST_SAMPLE:
            raise InvalidOption(
                f"first_sample is {self.first_sample}, and must be in [0, 2^62]",
                field=f"{_FIELD}.first_sample",
                value=self.first_sample,
                allowed="[0, 2^62]",
            )
        axes = [
            resolve_axis(axis, subject.shape, field=_AXIS_FIELD, name="neuron_axis") for axis in options.neuron_axis
        ]
        if len(set(axes)) < len(axes):
            raise InvalidAxis(
                f"neuron_axis is {list(options.neuron_axis)}, and names an axis twice",
                field=_AXIS_FIELD,
                value=list(options.neuron_axis),
            )
        if 0 in axes and open_ended:
            raise InvalidAxis(
                "in an open-ended job axis 0 is the batch, so it can't be the neuron_axis",
                field=_AXIS_FIELD,
                value=list(options.neuron_axis),
            )
        self._limit(
            self.layout(subject).columns * column_bytes(options, wide_enough(subject.dtype).itemsize), _AXIS_FIELD
        )

    def _limit(self, size: int, field: str) -> None:
        if size > self.max_bytes:
            raise LimitExceeded(
                "the state of the neurons, in bytes",
                field=field,
                value=size,
                limit=self.max_bytes,
                setting="max_slice_bytes",
            )

    def check_histograms(self, tally: NeuronTally) -> None:
        """Raise LimitExceeded when histograms of neurons have grown beyond what a server holds."""
        self._limit(tally.histogram_bytes, f"{_FIELD}.histogram")

    def within(self, max_bytes: int) -> NeuronStatistics:
        """The same, holding at most so many bytes of state."""
        return dataclasses.replace(self, max_bytes=max_bytes)

    def options_of(self, accuracy: str, known: Slopes) -> NeuronOptions:
        """The options of the state. Raises InvalidOption for a value that is not allowed."""
        try:
            return NeuronOptions(**{**self.options, "slopes": known.known, "accuracy": accuracy})  # type: ignore[arg-type]
        except StateError as error:
            name = str(error).partition(" ")[0]
            raise InvalidOption(
                str(error),
                field=f"{_FIELD}.{name}",
                value=self.options.get(name),
                allowed=str(error).partition("must be ")[2],
            ) from None

    def layout(self, subject: Subject) -> Layout:
        """Where the neurons are in f(x)."""
        shape = subject.result_shape
        given = self.options.get("neuron_axis", (-1,))
        assert isinstance(given, tuple)
        return Layout.of(shape, tuple(sorted({axis % max(len(shape), 1) for axis in given})))

    def tally(self, subject: Subject) -> tuple[NeuronTally, Slopes]:
        """An empty tally for the subject."""
        epsilon = self.options.get("saturation_eps", NeuronOptions().saturation_eps)
        assert isinstance(epsilon, float)
        known = slopes(subject, epsilon, after=self.after)
        dtype = wide_enough(subject.dtype)
        options, layout = self.options_of(subject.accuracy, known), self.layout(subject)
        return NeuronTally(options, layout, dtype, known, subject.team, after=self.after), known

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """Arrays with an element a neuron, and the state."""
        shape = self.layout(subject).shape
        kinds = {"f": np.float64, "b": np.bool_, "i": np.int64}
        tensors = [Tensor(name, np.dtype(kinds[kind]), shape) for name, kind in RESULTS.items()]
        return (*tensors, Tensor("state", np.dtype(np.uint8), (-1,)))

    def unit_result(self, subject: Subject) -> int:
        """Nothing is computed unit by unit."""
        return 0

    def start(self, subject: Subject, counts: Counts, *, upstream: bool, into: Room | None = None) -> Stage:
        """Begin."""
        return _Stage(self, subject, counts)


RESULTS = {
    "inactive_fraction": "f",
    "zero_fraction": "f",
    "dead": "b",
    "never_fired": "b",
    "not_fired_recently": "b",
    "dormant": "b",
    "saturated_fraction": "f",
    "vanishing_fraction": "f",
    "mean": "f",
    "variance": "f",
    "min": "f",
    "max": "f",
    "nan": "i",
    "last_fired": "i",
}
"""The tensors of a result beside the state, by their names in `actserve.stats.NeuronStats`, and of what type they are."""


def pieces(stats: NeuronStats, piece_bytes: int) -> Iterator[Piece]:
    """The tensors of a result, in order, the state last."""
    arrays = [np.ascontiguousarray(getattr(stats, name)).reshape(-1) for name in RESULTS]
    for index, array in enumerate([*arrays, np.frombuffer(stats.state, np.uint8)]):
        step = max(piece_bytes // array.itemsize, 1)
        for first in range(0, array.size, step):
            yield Piece(index, first, array[first : first + step])


def summary(stats: NeuronStats) -> NeuronSummary:
    """The layer in a few numbers."""
    return NeuronSummary(
        dead_fraction=stats.dead_fraction,
        dead_count=int(np.count_nonzero(stats.dead)),
        neuron_count=stats.neurons,
        sample_count=int(stats.samples.max(initial=0)),
        never_fired_count=int(np.count_nonzero(stats.never_fired)),
        dormant_count=int(np.count_nonzero(stats.dormant)),
        nan_count=int(stats.nan.sum()),
        state_bytes=len(stats.state),
    )


class Gathering:
    """Feeds the blocks of one tensor to a tally, of which other tensors may have filled the first `begin` elements."""

    def __init__(
        self,
        mode: NeuronStatistics,
        subject: Subject,
        tally: NeuronTally,
        known: Slopes,
        counts: Counts | None = None,
        begin: int = 0,
    ) -> None:
        self._mode = mode
        self._tally = tally
        self._counts = counts
        self._begin = begin
        self._read = readable(subject)
        self._forward = None if mode.after else evaluate(subject, "forward")
        self._slope = evaluate(subject, "derivative") if known.computed else None

    @property
    def looks_once(self) -> bool:
        """Whether each element of x is read just once: the loops over neurons copy a tile before they look at it."""
        return self._forward is None and self._tally.options.histogram != "neuron"

    def block(self, first: int, x: Array) -> None:
        """Take in the block of x that begins at its element `first`. Raises LimitExceeded when histograms grow too large."""
        if self._forward is None:
            self._count(first, x)
            self._tally.add(self._read(x), None, None, self._begin + first)
            self._mode.check_histograms(self._tally)
            return
        for at, piece in self._forward(first, x):
            self._count(at, piece)
            a = self._read(piece)
            if self._tally.options.slopes == "none":
                self._tally.add(a, None, None, self._begin + at)
                continue
            # Elementwise: f(x) has its elements where x has them.
            part = x[at - first : at - first + piece.size]
            found = None
            if self._slope is not None:
                ((_, slope),) = self._slope(at, part)
                found = self._read(slope)
            self._tally.add(a, self._read(part), found, self._begin + at)
        self._mode.check_histograms(self._tally)

    def _count(self, first: int, a: Array) -> None:
        if self._counts is not None:
            self._counts.add(first, a)


class _Stage:
    """The tally so far."""

    def __init__(self, mode: NeuronStatistics, subject: Subject, counts: Counts) -> None:
        self._mode = mode
        self._subject = subject
        self._tally, known = mode.tally(subject)
        self._gathering = Gathering(mode, subject, self._tally, known, counts)
        self._stats: NeuronStats | None = None

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Take in a block."""
        (x,) = inputs
        self._gathering.block(first, x)
        return iter(())

    def finish(self, rows: int | None) -> Iterator[Piece]:
        """What the tally says."""
        stats = self._tally.state(self._subject.record.name, state_parameters(self._subject), self._mode.first_sample)
        self._stats = stats
        yield from pieces(stats, self._subject.piece_elements * self._subject.dtype.itemsize)

    def scalars(self) -> Scalars:
        """The layer in a few numbers."""
        assert self._stats is not None
        return summary(self._stats)


__all__ = ["RESULTS", "Gathering", "NeuronStatistics", "pieces", "summary"]
