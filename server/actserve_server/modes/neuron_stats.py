"""Neuron statistics: how often each neuron of a layer is inactive over a batch, and which are dead."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator

import numpy as np
from actserve.stats import NeuronCounts

from actserve_server.errors import InvalidAxis, InvalidOption
from actserve_server.kernels import compiler
from actserve_server.kernels.reductions import COUNT_ROWS, new_counts
from actserve_server.modes.base import (
    Array,
    Counts,
    NeuronSummary,
    Piece,
    Scalars,
    Stage,
    Subject,
    Tensor,
    resolve_axis,
)
from actserve_server.modes.evaluate import evaluate, readable, wide_enough

_AXIS_FIELD = "header.neuron_stats.neuron_axis"


def _state_options(subject: Subject) -> dict[str, float | str]:
    """What states must have in common to be merged: the parameters, and a digest of those that are arrays."""
    options: dict[str, float | str] = {
        name: value if isinstance(value, str) else float(value)
        for name, value in subject.options.items()
        if value is not None
    }
    if subject.columns is not None:
        options["arrays"] = hashlib.sha256(subject.columns.values.tobytes()).hexdigest()
    return options


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronStats:
    """Per neuron the share of the batch with activation <= 0; dead are the neurons where it reaches the threshold."""

    threshold: float = 0.1
    neuron_axis: int = -1

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """The threshold is a share; the neuron axis lies within the shape, and its length must be known beforehand."""
        if not 0 <= self.threshold <= 1:
            raise InvalidOption(
                f"threshold is {self.threshold}, and must be in [0, 1]",
                field="header.neuron_stats.threshold",
                value=self.threshold,
                allowed="a number in [0, 1]",
            )
        axis = resolve_axis(self.neuron_axis, subject.shape, field=_AXIS_FIELD, name="neuron_axis")
        if axis == 0 and open_ended:
            raise InvalidAxis(
                "in an open-ended job axis 0 is the batch, so it can't be the neuron_axis",
                field=_AXIS_FIELD,
                value=self.neuron_axis,
            )

    def neurons(self, subject: Subject) -> tuple[int, int]:
        """(n, inner): how many neurons there are, and how many elements of one neuron follow one another."""
        shape = subject.result_shape
        if not shape:
            return 1, 1
        axis = self.neuron_axis % len(shape)
        return shape[axis], math.prod(shape[axis + 1 :])

    def state(self, subject: Subject, counts: Array) -> NeuronCounts:
        """The mergeable state that counts make, with the options that states must share to be merged."""
        columns = dict(zip(COUNT_ROWS, counts, strict=True))
        return NeuronCounts(subject.record.name, self.threshold, columns, _state_options(subject))

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """Arrays with an element a neuron, and the state."""
        n, _ = self.neurons(subject)
        state = len(self.state(subject, new_counts(n)).state)
        return (
            Tensor("inactive_fraction", np.dtype(np.float64), (n,)),
            Tensor("zero_fraction", np.dtype(np.float64), (n,)),
            Tensor("dead", np.dtype(np.bool_), (n,)),
            Tensor("state", np.dtype(np.uint8), (state,)),
        )

    def start(self, subject: Subject, counts: Counts, *, upstream: bool) -> Stage:
        """Begin."""
        return _Stage(self, subject, counts)


class _Stage:
    """The counts so far."""

    def __init__(self, mode: NeuronStats, subject: Subject, counts: Counts) -> None:
        self._mode = mode
        self._subject = subject
        self._nonfinite = counts
        self._read = readable(subject)
        self._forward = evaluate(subject, "forward")
        self._count = compiler.load_reduction("count_neurons", wide_enough(subject.dtype))
        self._n, self._inner = mode.neurons(subject)
        self._counts = new_counts(self._n)

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Count a block."""
        for at, piece in self._forward(first, *inputs):
            self._nonfinite.add(at, piece)
            self._count(self._read(piece), at, self._n, self._inner, self._counts)
        return iter(())

    @property
    def _state(self) -> NeuronCounts:
        return self._mode.state(self._subject, self._counts)

    def finish(self, rows: int | None) -> Iterator[Piece]:
        """What the counts say."""
        state = self._state
        arrays = (state.inactive_fraction, state.zero_fraction, state.dead, np.frombuffer(state.state, np.uint8))
        for index, array in enumerate(arrays):
            step = max(self._subject.piece_elements * self._subject.dtype.itemsize // array.itemsize, 1)
            for first in range(0, array.size, step):
                yield Piece(index, first, array[first : first + step])

    def scalars(self) -> Scalars:
        """The layer in four numbers."""
        state = self._state
        samples = state.columns["samples"]
        return NeuronSummary(
            dead_fraction=state.dead_fraction,
            dead_count=int(np.count_nonzero(state.dead)),
            neuron_count=state.neurons,
            sample_count=int(samples[0]) if len(samples) else 0,
        )
