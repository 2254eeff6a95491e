"""A layer whose neurons are watched over many batches: what it has seen so far, and which thresholds it has reached.

It knows neither messages nor calls. One thread adds batches; another one may ask for `figures` at any time.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterable, Iterator, Mapping

from actserve.stats import NeuronStats, StateError

from actserve_server.engine.inlets import Chunk, blocks
from actserve_server.engine.names import BUILT_IN, Names, Pinned
from actserve_server.engine.plan import Job, Limits, Plan, check_name, plan
from actserve_server.errors import InvalidOption, InvalidShape, InvalidState
from actserve_server.kernels.threads import SOLO, Team
from actserve_server.modes.base import Tensor, state_parameters
from actserve_server.modes.neuron_stats import Gathering, NeuronStatistics
from actserve_server.modes.neuron_tally import NeuronTally
from actserve_server.modes.slopes import Slopes

FIGURES = ("dead_fraction", "dormant_fraction", "saturated_fraction", "nan_count")
"""What a layer can be alerted for."""


@dataclasses.dataclass(frozen=True, slots=True)
class Thresholds:
    """When a layer is worth an alert."""

    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """By their names in FIGURES."""
    every_samples: int = 0
    """How many samples must have come since the last look; 0: any batch is looked at."""

    def check(self) -> None:
        """Raise InvalidOption for a value that is not allowed."""
        for name, value in self.figures.items():
            low, high = (1, math.inf) if name == "nan_count" else (0, 1)
            if not low <= value <= high:
                allowed = "at least 1" if name == "nan_count" else "in [0, 1]"
                raise InvalidOption(
                    f"{name} is {value}, and must be {allowed}",
                    field=f"thresholds.{name}",
                    value=value,
                    allowed=allowed,
                )
        not_negative("thresholds.every_samples", self.every_samples)


@dataclasses.dataclass(frozen=True, slots=True)
class Alert:
    """A figure that has reached its threshold."""

    figure: str
    value: float
    threshold: float
    samples: int


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was checked, and what it is counted in where the layer has nothing for such batches yet."""

    plan: Plan
    empty: NeuronStats
    tally: NeuronTally
    slopes: Slopes

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return self.plan.inputs[0].sent_bytes


def not_negative(field: str, value: int) -> None:
    """Raise InvalidOption for a number below 0."""
    if value < 0:
        raise InvalidOption(
            f"{field.rpartition('.')[2]} is {value}, and must not be negative", field=field, value=value, allowed=">= 0"
        )


def figure(stats: NeuronStats, name: str) -> float:
    """One of FIGURES; NaN when it is not known."""
    match name:
        case "dead_fraction":
            return stats.dead_fraction
        case "dormant_fraction":
            return stats.dormant_fraction
        case "saturated_fraction":
            if stats.options.slopes != "all":
                return math.nan
            seen = int(stats.samples.sum())
            saturated = int(stats.columns["saturated_low"].sum()) + int(stats.columns["saturated_high"].sum())
            return saturated / seen if seen else math.nan
        case _:
            return float(stats.nan.sum())


class Layer:
    """A layer under way.

    Raises errors.InvalidRequest for what is wrong with the job apart from the shapes of batches, and InvalidState for a state that
    is not one of it.
    """

    def __init__(
        self,
        job: Job,
        limits: Limits,
        team: Team = SOLO,
        *,
        thresholds: Thresholds = Thresholds(),
        snapshot_every_samples: int = 0,
        state: bytes | None = None,
        names: Names = BUILT_IN,
    ) -> None:
        mode = job.mode
        if not isinstance(mode, NeuronStatistics):
            raise InvalidOption("a layer's mode must be MODE_NEURON_STATS", field="header.mode")
        if len(job.inputs) != 1:
            raise InvalidOption(
                f"there are {len(job.inputs)} inputs, and a layer has 1",
                field="header.inputs",
                value=len(job.inputs),
                allowed=1,
            )
        for name, wrong in (
            ("open_ended", job.open_ended),
            ("nonfinite", job.reject_nonfinite),
            ("chunk_bytes", job.chunk_bytes),
            ("inputs[0].shape", job.inputs[0].shape),
        ):
            if wrong:
                raise InvalidOption(f"{name} is not for layers; leave it out", field=f"header.{name}", value=wrong)
        thresholds.check()
        not_negative("snapshot_every_samples", snapshot_every_samples)
        self._job = job
        self._mode = mode
        self._limits = limits
        # To count is as fast as batches come, and nobody waits for it. Another core would take longer to wake up, and is likely to be
        # that of a training which is watched.
        self._team = SOLO if mode.after else team
        self._thresholds = thresholds
        self._every = snapshot_every_samples
        self._names = Pinned(names)
        self._name = check_name(job, self._names)
        mode.options_of(job.accuracy, Slopes("none"))
        self._base = None if state is None else self._checked(state)
        self._empty: NeuronStats | None = None
        self._tally: NeuronTally | None = None
        self._known = Slopes("none")
        self._latest: Batch | None = None
        self._lock = threading.RLock()
        self._whole = True
        self._figures: dict[str, float] = {}
        self._stale = True
        self.changed = False
        """Whether a batch has come since `snapshot`."""
        self._reached = {
            name for name in thresholds.figures if self._base is not None and self._is_reached(self._base, name)
        }
        self._looked_at = self._snapped_at = self.samples

    def _checked(self, state: bytes) -> NeuronStats:
        """A state to go on from; what depends on the shape of batches is checked with the first one."""
        try:
            found = NeuronStats.from_bytes(state)
            options = self._mode.options_of(self._job.accuracy, Slopes(found.options.slopes))
            NeuronStats.empty(self._name, options, found.shape, found.parameters).merge(found)
        except StateError as error:
            raise InvalidState(f"the state of the layer: {error}", field="state_bytes") from None
        return found

    @property
    def samples(self) -> int:
        """How many samples of each neuron were seen."""
        base, tally = self._base, self._tally
        seen = 0 if base is None else int(base.samples.max(initial=0))
        if tally is not None and self._empty is not None and self._empty.neurons:
            seen += tally.elements // self._empty.neurons
        return seen

    # ---- batches ---------------------------------------------------------------------------------------------------

    def check(self, shape: tuple[int, ...]) -> Batch:
        """Check a batch, which changes nothing yet."""
        latest = self._latest
        if latest is not None and latest.plan.subject.shape == shape:
            return latest
        x = Tensor("x", self._job.inputs[0].dtype, shape)
        planned = plan(dataclasses.replace(self._job, inputs=(x,)), self._limits, self._team, self._names)
        mode, subject = planned.mode, planned.subject
        assert isinstance(mode, NeuronStatistics)
        layout = mode.layout(subject)
        known = self._empty or self._base
        if known is not None and layout.shape != known.shape:
            raise InvalidShape(
                f"a batch of shape {list(shape)} has neurons of the shape {list(layout.shape)}, and the layer's batches before "
                f"it {list(known.shape)}",
                field="header.inputs[0].shape",
                value=list(shape),
                allowed=list(known.shape),
            )
        tally, slopes = mode.tally(subject)
        empty = NeuronStats.empty(subject.record.name, tally.options, layout.shape, state_parameters(subject))
        try:
            if known is not None:
                known.merge(empty)
        except StateError as error:
            if self._empty is not None:
                raise InvalidShape(
                    f"a batch of shape {list(shape)} does not go with those before it: {error}",
                    field="header.inputs[0].shape",
                    value=list(shape),
                ) from None
            raise InvalidState(f"the state of the layer: {error}", field="state_bytes") from None
        return Batch(planned, empty, tally, slopes)

    def take(self, batch: Batch, chunks: Iterable[Chunk], *, steady: bool = False) -> None:
        """Take in a batch. Raises what `inlets.blocks` does, and LimitExceeded; the layer is of no use after that.

        With `steady` the bytes may change while they are looked at, as in memory that is somebody else's too.
        """
        if batch is not self._latest:
            if self._tally is None or self._tally.layout != batch.tally.layout:
                with self._lock:
                    self._base = self.stats()
                    self._tally, self._known = batch.tally, batch.slopes
            self._empty, self._latest = batch.empty, batch
        mode, tally = batch.plan.mode, self._tally
        assert isinstance(mode, NeuronStatistics) and tally is not None
        gathering = Gathering(mode, batch.plan.subject, tally, self._known, begin=tally.elements)
        copied = steady and not gathering.looks_once
        with self._lock:
            self._whole = False
        for first, (x,) in blocks(batch.plan, chunks):
            gathering.block(first, x.copy() if copied else x)
        with self._lock:
            self._whole = self._stale = True
        self.changed = True

    # ---- what was seen ---------------------------------------------------------------------------------------------

    def stats(self) -> NeuronStats | None:
        """All that was seen; None before the first batch. Not while a batch comes in."""
        # The tally passes on its carries for that, which two threads must not do at once.
        with self._lock:
            base = self._base
            if self._tally is None or self._empty is None:
                return base
            begin = base.end if base is not None and base.end > base.begin else self._mode.first_sample
            seen = self._tally.state(self._empty.activation, self._empty.parameters, begin)
            return seen if base is None else base.merge(seen)

    def snapshot(self) -> NeuronStats | None:
        """The same, when it has changed since the last snapshot; else None."""
        self._snapped_at = self.samples
        if not self.changed:
            return None
        self.changed = False
        return self.stats()

    @property
    def snapshot_due(self) -> bool:
        """Whether so many samples have come that a snapshot is to be sent."""
        return 0 < self._every <= self.samples - self._snapped_at

    def _is_reached(self, stats: NeuronStats, name: str) -> bool:
        return figure(stats, name) >= self._thresholds.figures[name]

    def alerts(self) -> Iterator[Alert]:
        """What has reached its threshold since the last look."""
        samples = self.samples
        if not self._thresholds.figures or samples - self._looked_at < self._thresholds.every_samples:
            return
        self._looked_at = samples
        stats = self.stats()
        if stats is None:
            return
        for name, threshold in self._thresholds.figures.items():
            if not self._is_reached(stats, name):
                self._reached.discard(name)
            elif name not in self._reached:
                self._reached.add(name)
                yield Alert(name, figure(stats, name), threshold, samples)

    def figures(self) -> Mapping[str, float]:
        """All of FIGURES, and "samples": after the last whole batch, as long as one is coming in. Any thread may ask."""
        with self._lock:
            if self._whole and self._stale:
                stats = self.stats()
                if stats is not None:
                    known = {name: figure(stats, name) for name in FIGURES}
                    self._figures = {**known, "samples": float(self.samples)}
                self._stale = False
            return self._figures


__all__ = ["FIGURES", "Alert", "Batch", "Layer", "Thresholds", "figure", "not_negative"]
