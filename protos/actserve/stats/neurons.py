"""The state of a layer's neurons, and everything that is derived from it.

Version 2 of its bytes (version 1 held four counts and is not read any more): the header holds "activation", "parameters"
(an infinity as the text "inf" or "-inf"), "options" by their names, "shape" of the neurons, "begin" and "end" of the samples seen,
"columns" (the names of the columns in order), "sums" (for positive values, magnitudes of negative ones and squares the
first digit and how many, or null) and "histogram" (how many bytes, or null). The payload is the columns, a little-endian
int64 for each neuron, then the least and the largest numbers, float64, then the digits of the sums as `sums.ExactSums` has
them, then the histogram as `histograms.Histogram` has it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from actserve.stats.format import INFINITIES, StateError, StateMismatch, number, pack, parameter, unpack
from actserve.stats.histograms import Histogram
from actserve.stats.sums import SQUARE_OFFSET, VALUE_OFFSET, ExactSums

__all__ = ["COLUMNS", "FIRED", "HISTOGRAMS", "INPUTS", "SLOPES", "LayerStats", "NeuronOptions", "NeuronStats"]

_KIND, _VERSION = "neuron_stats", 2

COLUMNS = (
    "samples",
    "zero",
    "positive",
    "negative",
    "nan",
    "positive_infinity",
    "negative_infinity",
    "saturated_low",
    "saturated_high",
    "zero_gradient",
    "inactive",
    "last_fired",
)
"""What is counted of each neuron; last_fired is the index of the last sample in which it fired, -1 when it never did."""

FIRED = ("positive", "nonzero", "abs>eps")
"""The rules by which a neuron fires: a > 0, a != 0, or abs(a) > eps."""

INPUTS = ("pre", "post")
"""What x is: the pre-activation, to which the activation is applied, or the activations themselves."""

HISTOGRAMS = (None, "layer", "neuron")
"""For what histograms are kept."""

SLOPES = ("all", "zeros", "none")
"""What may be known of the slopes: saturation and vanishing gradients, the latter alone, or neither."""

_DIGIT_BITS = 32
_MOST_DIMENSIONS = 32
_LARGEST_COUNT = (1 << 63) - 1

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]


def _share(name: str, value: object) -> float:
    result = number(name, value)
    if not 0 <= result <= 1:
        raise StateError(f"{name} is {value!r}, and must be in [0, 1]")
    return result


def _size(name: str, value: object) -> float:
    result = number(name, value)
    if not 0 <= result < math.inf:
        raise StateError(f"{name} is {value!r}, and must be in [0, inf)")
    return result


def _choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices or isinstance(value, bool):
        raise StateError(f"{name} is {value!r}, and must be one of {', '.join(map(repr, choices))}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NeuronOptions:
    """What states must have in common to be merged, beside the activation and its parameters.

    >>> NeuronOptions(fired="abs>eps", eps=1e-3).threshold
    0.1

    Raises StateError naming the option, its value and what is allowed.
    """

    threshold: float = 0.1
    """A neuron is dead when at least this share of its samples was inactive."""
    neuron_axis: tuple[int, ...] = (-1,)
    """The axes whose entries are the neurons, as they were asked for."""
    fired: str = "positive"
    """The rule of FIRED by which a neuron fires; a sample in which it does not, and is no NaN, is inactive."""
    eps: float = 0.0
    """The bound of the rule "abs>eps"; 0 with the others."""
    zero_tolerance: float = 0.0
    """What counts as zero: abs(a) <= zero_tolerance."""
    tau: float = 0.0
    """A neuron is dormant when its mean |a| is at most tau times the layer's mean of it."""
    saturation_eps: float = 1e-3
    """The slope is small where it is below this part of the largest there is."""
    dead_after_samples: int | None = None
    """How many samples without firing make a neuron `not_fired_recently`; None for all."""
    input: str = "pre"
    """What x is, one of INPUTS."""
    histogram: str | None = None
    """For what there are histograms, one of HISTOGRAMS."""
    sums: bool = True
    """Whether there are exact sums."""
    accuracy: str = "exact"
    """How the activation is computed."""
    slopes: str = "all"
    """What is known of the slopes, one of SLOPES; it follows from the activation and the input."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        put(self, "threshold", _share("threshold", self.threshold))
        put(self, "eps", _size("eps", self.eps))
        put(self, "zero_tolerance", _size("zero_tolerance", self.zero_tolerance))
        put(self, "tau", _size("tau", self.tau))
        put(self, "saturation_eps", _share("saturation_eps", self.saturation_eps))
        _choice("fired", self.fired, FIRED)
        _choice("input", self.input, INPUTS)
        _choice("histogram", self.histogram, HISTOGRAMS)
        _choice("slopes", self.slopes, SLOPES)
        if self.fired != "abs>eps" and self.eps:
            raise StateError(f'eps is {self.eps!r}, and goes with fired "abs>eps", not {self.fired!r}')
        axes = self.neuron_axis
        if not isinstance(axes, tuple) or not axes or any(type(axis) is not int for axis in axes):
            raise StateError(f"neuron_axis is {axes!r}, and must be one or more whole numbers")
        after = self.dead_after_samples
        if after is not None and (type(after) is not int or not 0 < after <= _LARGEST_COUNT):
            raise StateError(f"dead_after_samples is {after!r}, and must be a whole number of at least 1")
        if type(self.sums) is not bool or not isinstance(self.accuracy, str):
            raise StateError("sums must be true or false, and accuracy a word")
        if self.tau and not self.sums:
            raise StateError(f"tau is {self.tau!r}, and needs sums, which dormancy is told by")

    def check_alike(self, other: NeuronOptions) -> None:
        """Raise StateMismatch naming the first option that differs, and both values."""
        for field in dataclasses.fields(self):
            left, right = getattr(self, field.name), getattr(other, field.name)
            if left != right:
                raise StateMismatch(field.name, left, right)


@dataclasses.dataclass(frozen=True, slots=True)
class LayerStats:
    """A layer in numbers: how many neurons are in which condition, and its activations taken together.

    Shares are of all activations, NaN included; a figure that cannot be known (no sums, no slopes, no samples) is NaN.
    """

    neurons: int
    samples: int
    """Of each neuron, the most there are."""
    dead: int
    dead_fraction: float
    never_fired: int
    not_fired_recently: int
    dormant: int
    """0 without sums."""
    dormant_fraction: float
    inactive_fraction: float
    zero_fraction: float
    """The layer's sparsity: the share of activations that are zero."""
    l0: float
    """How many neurons are not zero in a sample, on average; NaN counts as not zero."""
    saturated_fraction: float
    vanishing_fraction: float
    mean: float
    variance: float
    min: float
    max: float
    nan: int
    positive_infinity: int
    negative_infinity: int


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NeuronStats:
    """What was seen of each neuron of a layer: a state that merges, and all that follows from it.

    >>> columns = dict.fromkeys(COLUMNS, [0, 0]) | {"samples": [4, 4], "inactive": [4, 1], "positive": [0, 3], "last_fired": [-1, 3]}
    >>> stats = NeuronStats("relu", NeuronOptions(threshold=0.5, sums=False), (2,), columns, [0.0, 0.0], [0.0, 2.0], end=4)
    >>> stats.dead, stats.dead_fraction
    (array([ True, False]), 0.5)
    >>> stats.inactive_fraction
    array([1.  , 0.25])

    Arrays have an element for each neuron: one dimension, or as many as there are neuron axes. A NaN counts among the samples,
    and as nothing else but NaN; so in every share and mean it is in the denominator only. Merging adds counts and sums and
    takes the least, the largest and the last: any order and any grouping gives the same bytes.
    """

    activation: str
    options: NeuronOptions
    shape: tuple[int, ...]
    """The lengths of the neuron axes."""
    columns: Mapping[str, Counts]
    """The counts, by the names in COLUMNS; int64, read-only, of that shape."""
    least: Floats
    """The least number of each neuron, NaN left out; inf when there is none."""
    largest: Floats
    """The largest number of each neuron; -inf when there is none."""
    sums: tuple[ExactSums, ExactSums, ExactSums] | None = None
    """Of the positive values, of the magnitudes of the negative ones, and of the squares, of all that are finite."""
    histogram: Histogram | None = None
    """Of the whole layer, or one for each neuron."""
    begin: int = 0
    """The global index of the first sample seen."""
    end: int = 0
    """The global index after the last sample seen; where begin is when there is none."""
    parameters: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    """The activation's parameters, so that states of different ones are not merged."""

    def __post_init__(self) -> None:
        put = object.__setattr__
        if type(self.activation) is not str:
            raise StateError(f"the activation's name must be text, not {self.activation!r}")
        shape = self.shape
        if not isinstance(shape, tuple) or any(type(length) is not int or length < 0 for length in shape):
            raise StateError(f"the shape of the neurons is {shape!r}, and must be lengths")
        parameters = {name: parameter(name, value) for name, value in sorted(self.parameters.items())}
        put(self, "parameters", MappingProxyType(parameters))
        if set(self.columns) != set(COLUMNS):
            raise StateError(f"neuron statistics need the columns {', '.join(COLUMNS)}; got {', '.join(self.columns)}")
        columns = {name: np.array(self.columns[name], np.int64) for name in COLUMNS}
        # A negative zero equals the other one, so which of them was met first must not show.
        put(self, "least", np.array(self.least, np.float64) + 0.0)
        put(self, "largest", np.array(self.largest, np.float64) + 0.0)
        for array in (*columns.values(), self.least, self.largest):
            array.flags.writeable = False
            if array.shape != shape:
                raise StateError("the columns of neuron statistics must have one element for each neuron")
        put(self, "columns", MappingProxyType(columns))
        if (self.sums is not None) != self.options.sums or (self.histogram is not None) != (
            self.options.histogram is not None
        ):
            raise StateError("neuron statistics hold other sums or histograms than their options say")
        self._check()

    def _check(self) -> None:
        """Raise StateError where counts contradict each other."""
        c = self.columns
        samples = c["samples"]
        if any((c[name] < 0).any() for name in COLUMNS if name != "last_fired"):
            raise StateError("a count is negative, or more than an int64 holds")
        if (
            type(self.begin) is not int
            or type(self.end) is not int
            or not 0 <= self.begin <= self.end <= _LARGEST_COUNT
        ):
            raise StateError(f"the samples {self.begin!r} to {self.end!r} are no range")
        if self.begin and self.begin == self.end:
            raise StateError("without samples their range must be 0 to 0")
        seen = [
            # One by one, so that no sum can overflow.
            (c["positive"] <= samples)
            & (c["negative"] <= samples)
            & (c["nan"] <= samples)
            & (c["inactive"] <= samples),
            (c["zero"] <= samples - c["nan"]) & (c["inactive"] <= samples - c["nan"]),
            (c["positive"] <= samples - c["nan"]) & (c["negative"] <= samples - c["nan"] - c["positive"]),
            (c["positive_infinity"] <= c["positive"]) & (c["negative_infinity"] <= c["negative"]),
            (c["saturated_low"] <= samples) & (c["saturated_high"] <= samples) & (c["zero_gradient"] <= samples),
            (c["last_fired"] >= -1) & (c["last_fired"] < self.end),
            (c["last_fired"] < 0) == (c["inactive"] == samples - c["nan"]),
            ~np.isnan(self.least) & ~np.isnan(self.largest),
            (self.least <= self.largest) == (samples > c["nan"]),
        ]
        if not all(condition.all() for condition in seen):
            raise StateError("the counts of a neuron contradict each other")
        if self.sums is not None and any(len(part.digits) != self.neurons for part in self.sums):
            raise StateError("the sums of neuron statistics must be one for each neuron")

    def __eq__(self, other: object) -> bool:
        return self.to_bytes() == other.to_bytes() if isinstance(other, NeuronStats) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    @classmethod
    def empty(
        cls,
        activation: str,
        options: NeuronOptions,
        shape: tuple[int, ...],
        parameters: Mapping[str, float | str] | None = None,
    ) -> NeuronStats:
        """No samples yet: the neutral element of `merge`."""
        zeros = np.zeros(shape, np.int64)
        neurons = zeros.size
        return cls(
            activation,
            options,
            shape,
            dict.fromkeys(COLUMNS, zeros) | {"last_fired": zeros - 1},
            np.full(shape, np.inf),
            np.full(shape, -np.inf),
            (ExactSums.none(neurons),) * 3 if options.sums else None,
            None if options.histogram is None else Histogram.of(zeros.reshape(-1)[:0], zeros.reshape(-1)[:0]),
            parameters=parameters or {},
        )

    def merge(self, other: NeuronStats) -> NeuronStats:
        """The statistics of both together; raises StateMismatch naming the option in which they differ, and both values."""
        if self.activation != other.activation:
            raise StateMismatch("activation", self.activation, other.activation)
        if dict(self.parameters) != dict(other.parameters):
            raise StateMismatch("parameters", dict(self.parameters), dict(other.parameters))
        self.options.check_alike(other.options)
        if self.shape != other.shape:
            raise StateMismatch("neuron count", _lengths(self.shape), _lengths(other.shape))
        columns = {name: self.columns[name] + other.columns[name] for name in COLUMNS}
        columns["last_fired"] = np.maximum(self.columns["last_fired"], other.columns["last_fired"])
        ranges = [(part.begin, part.end) for part in (self, other) if part.end > part.begin] or [(0, 0)]
        return NeuronStats(
            self.activation,
            self.options,
            self.shape,
            columns,
            np.minimum(self.least, other.least),
            np.maximum(self.largest, other.largest),
            _both(self.sums, other.sums, _merge_sums),
            _both(self.histogram, other.histogram, Histogram.merge),
            min(begin for begin, _ in ranges),
            max(end for _, end in ranges),
            self.parameters,
        )

    # ---- what follows: of each neuron ------------------------------------------------------------------------------

    @property
    def neurons(self) -> int:
        """How many neurons there are."""
        return math.prod(self.shape)

    @property
    def threshold(self) -> float:
        """The option of that name."""
        return self.options.threshold

    @property
    def samples(self) -> Counts:
        """How many activations were seen."""
        return self.columns["samples"]

    @property
    def nan(self) -> Counts:
        """How many of them were NaN."""
        return self.columns["nan"]

    @property
    def last_fired(self) -> Counts:
        """The global index of the last sample in which it fired; -1 when it never did."""
        return self.columns["last_fired"]

    @property
    def inactive_fraction(self) -> Floats:
        """The share of samples in which it did not fire (a <= 0, or as `options.fired` says); NaN without samples."""
        return self._share("inactive")

    @property
    def zero_fraction(self) -> Floats:
        """The share of samples with a == 0 (or abs(a) <= zero_tolerance); NaN without samples."""
        return self._share("zero")

    @property
    def saturated_low_fraction(self) -> Floats:
        """The share of samples in the lower tail, where the slope stays small; NaN where no tails are known."""
        return self._known("saturated_low")

    @property
    def saturated_high_fraction(self) -> Floats:
        """The share of samples in the upper tail."""
        return self._known("saturated_high")

    @property
    def saturated_fraction(self) -> Floats:
        """The share of samples in either tail."""
        return self.saturated_low_fraction + self.saturated_high_fraction

    @property
    def vanishing_fraction(self) -> Floats:
        """The share of samples whose slope f'(x) is exactly 0, so that no gradient passes."""
        return self._known("zero_gradient")

    @property
    def dead(self) -> Bools:
        """Whether it was inactive on at least `threshold` of its samples; never without samples."""
        return self.inactive_fraction >= self.threshold

    @property
    def never_fired(self) -> Bools:
        """Whether it fired in no sample at all, of which there must be one."""
        return (self.last_fired < 0) & (self.samples > 0)

    def not_fired_within(self, samples: int) -> Bools:
        """Whether it fired in none of the last so many samples, by their global indices; never when fewer were seen."""
        if samples < 1:
            raise StateError(f"samples is {samples!r}, and must be at least 1")
        since = self.end - 1 - np.maximum(self.last_fired, self.begin - 1)
        return (since >= samples) & (self.samples > 0)

    @property
    def not_fired_recently(self) -> Bools:
        """`not_fired_within` the option `dead_after_samples`; of all samples when that is not set."""
        after = self.options.dead_after_samples
        return self.never_fired if after is None else self.not_fired_within(after)

    @property
    def mean(self) -> Floats:
        """The exact sum by the number of samples, rounded once; infinities as IEEE addition has them, NaN without samples."""
        return self._by_neuron(self._mean)

    @property
    def mean_magnitude(self) -> Floats:
        """The mean of |a|, rounded once."""
        return self._by_neuron(self._mean_magnitude)

    @property
    def mean_square(self) -> Floats:
        """The mean of a**2, rounded once."""
        return self._by_neuron(self._mean_square)

    @property
    def variance(self) -> Floats:
        """The mean of a**2 less the square of the mean, exactly, rounded once; NaN when an activation is infinite."""
        return self._by_neuron(self._variance)

    @property
    def min(self) -> Floats:
        """The least activation; NaN when there is no number."""
        return np.where(self.least > self.largest, math.nan, self.least)

    @property
    def max(self) -> Floats:
        """The largest activation; NaN when there is no number."""
        return np.where(self.least > self.largest, math.nan, self.largest)

    @property
    def dormancy(self) -> Floats:
        """The score of Sokar et al. (2023): its mean |a|, by the mean over the layer of that; 0 in a layer that is all 0."""
        magnitudes = self.mean_magnitude
        mean = float(magnitudes.mean()) if magnitudes.size else math.nan
        with np.errstate(invalid="ignore"):
            return np.zeros_like(magnitudes) if mean == 0 else magnitudes / mean

    @property
    def dormant(self) -> Bools:
        """Whether its dormancy is at most `tau`."""
        return self.dormancy <= self.options.tau

    def quantile(self, q: float | Sequence[float]) -> Any:
        """The least number that a share q of the numbers does not exceed, within 0.4 % (relatively): of the layer, or of each
        neuron when the histogram is for neurons.

        A number or, for several q, an array with a last dimension for them; NaN where there are no numbers. Numbers beyond the
        range of float32 count as its largest, those below its normal range are exact to 1e-40. Raises StateError without a histogram.
        """
        shares = [number("q", share) for share in np.atleast_1d(np.asarray(q, np.float64)).tolist()]
        if any(not 0 <= share <= 1 for share in shares):
            raise StateError(f"q is {q!r}, and must be in [0, 1]")
        if self.histogram is None:
            raise StateError('there is no histogram; ask for one: histogram="layer" or "neuron"')
        if self.options.histogram == "layer":
            found = self.histogram.quantiles(0, shares)
            if self.neurons:
                found = np.clip(found, self.least.min(), self.largest.max())
        else:
            rows = [self.histogram.quantiles(place, shares) for place in range(self.neurons)]
            table = np.array(rows).reshape(*self.shape, len(shares))
            with np.errstate(invalid="ignore"):
                found = np.clip(table, self.least[..., np.newaxis], self.largest[..., np.newaxis])
        if np.ndim(q):
            return found
        return float(found[0]) if found.ndim == 1 else found[..., 0]

    # ---- what follows: of the layer --------------------------------------------------------------------------------

    @property
    def dead_fraction(self) -> float:
        """The share of the neurons that are dead; 0 of none."""
        return _mean_of(self.dead)

    @property
    def never_fired_fraction(self) -> float:
        """The share of the neurons that never fired; 0 of none."""
        return _mean_of(self.never_fired)

    @property
    def dormant_fraction(self) -> float:
        """The share of the neurons that are dormant; 0 of none, NaN without sums."""
        return _mean_of(self.dormant) if self.sums is not None else math.nan

    @property
    def sparsity(self) -> float:
        """The share of all activations that are zero; NaN of none."""
        return self._of_all("zero")

    @property
    def l0(self) -> float:
        """How many neurons are not zero in a sample, on average; a NaN counts as not zero."""
        with np.errstate(invalid="ignore"):
            return float(((self.samples - self.columns["zero"]) / self.samples).sum())

    @property
    def layer(self) -> LayerStats:
        """All of the layer's figures."""
        sums = self.sums is not None
        slopes = self.options.slopes
        dormant = self.dormant if sums else np.zeros(self.shape, np.bool_)
        return LayerStats(
            neurons=self.neurons,
            samples=int(self.samples.max(initial=0)),
            dead=int(self.dead.sum()),
            dead_fraction=self.dead_fraction,
            never_fired=int(self.never_fired.sum()),
            not_fired_recently=int(self.not_fired_recently.sum()),
            dormant=int(dormant.sum()),
            dormant_fraction=self.dormant_fraction,
            inactive_fraction=self._of_all("inactive"),
            zero_fraction=self.sparsity,
            l0=self.l0,
            saturated_fraction=self._of_all("saturated_low") + self._of_all("saturated_high")
            if slopes == "all"
            else math.nan,
            vanishing_fraction=self._of_all("zero_gradient") if slopes != "none" else math.nan,
            mean=self._of_layer(self._mean),
            variance=self._of_layer(self._variance),
            min=float(np.min(self.min)) if self.neurons and not np.isnan(self.min).all() else math.nan,
            max=float(np.max(self.max)) if self.neurons and not np.isnan(self.max).all() else math.nan,
            nan=_total(self.nan),
            positive_infinity=_total(self.columns["positive_infinity"]),
            negative_infinity=_total(self.columns["negative_infinity"]),
        )

    # ---- bytes -----------------------------------------------------------------------------------------------------

    @property
    def state(self) -> bytes:
        """The same as `to_bytes()`."""
        return self.to_bytes()

    def to_bytes(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        histogram = None if self.histogram is None else self.histogram.to_bytes()
        header = {
            "activation": self.activation,
            "parameters": {k: str(v) if v in INFINITIES.values() else v for k, v in self.parameters.items()},
            "options": {field.name: getattr(self.options, field.name) for field in dataclasses.fields(self.options)},
            "shape": self.shape,
            "begin": self.begin,
            "end": self.end,
            "columns": COLUMNS,
            "sums": None if self.sums is None else [[part.first, part.digits.shape[1]] for part in self.sums],
            "histogram": None if histogram is None else len(histogram),
        }
        payload = [self.columns[name].astype("<i8").tobytes() for name in COLUMNS]
        payload += [self.least.astype("<f8").tobytes(), self.largest.astype("<f8").tobytes()]
        payload += [part.to_bytes() for part in self.sums or ()]
        return pack(_KIND, _VERSION, header, b"".join((*payload, histogram or b"")))

    @classmethod
    def from_bytes(cls, data: bytes) -> NeuronStats:
        """What `to_bytes` was called on; raises StateError."""
        expected = ("activation", "parameters", "options", "shape", "begin", "end", "columns", "sums", "histogram")
        header, payload = unpack(_KIND, _VERSION, expected, data)
        parameters, shape = header["parameters"], header["shape"]
        if header["columns"] != list(COLUMNS):
            raise StateError(f"neuron statistics with the columns {header['columns']!r} are not understood")
        if not isinstance(parameters, dict):
            raise StateError("the parameters of neuron statistics must be a table")
        if (
            not isinstance(shape, list)
            or len(shape) > _MOST_DIMENSIONS
            or any(type(length) is not int or not 0 <= length <= _LARGEST_COUNT for length in shape)
        ):
            raise StateError(f"the shape of the neurons is {shape!r}, and must be lengths")
        reader = _Reader(payload, math.prod(shape))
        table = [reader.take(8).view("<i8").reshape(shape) for _ in COLUMNS]
        least, largest = (reader.take(8).view("<f8").reshape(shape) for _ in range(2))
        sums = _read_sums(header["sums"], reader)
        histogram = None
        options = _read_options(header["options"])
        if header["histogram"] is not None:
            histograms = 1 if options.histogram == "layer" else reader.neurons
            histogram = Histogram.from_bytes(histograms, reader.rest(header["histogram"]))
        reader.end()
        return cls(
            header["activation"],
            options,
            tuple(shape),
            dict(zip(COLUMNS, table, strict=True)),
            least,
            largest,
            sums,
            histogram,
            header["begin"],
            header["end"],
            parameters,
        )

    # ---- arithmetic ------------------------------------------------------------------------------------------------

    def _share(self, name: str) -> Floats:
        with np.errstate(invalid="ignore"):
            return self.columns[name] / self.samples

    def _known(self, name: str) -> Floats:
        known = self.options.slopes in (("all", "zeros") if name == "zero_gradient" else ("all",))
        return self._share(name) if known else np.full(self.shape, math.nan)

    def _of_all(self, name: str) -> float:
        samples = _total(self.samples)
        return _total(self.columns[name]) / samples if samples else math.nan

    def _by_neuron(self, derive: Callable[..., float]) -> Floats:
        """A figure of each neuron, from its whole numbers: samples, infinities, and sums in their units."""
        if self.sums is None:
            return np.full(self.shape, math.nan)
        positive, negative, squares = (part.integers() for part in self.sums)
        infinities = (self.columns[name].reshape(-1).tolist() for name in ("positive_infinity", "negative_infinity"))
        rows = zip(self.samples.reshape(-1).tolist(), *infinities, positive, negative, squares, strict=True)
        units = [part.first for part in self.sums]
        return np.array([derive(units, *row) for row in rows], np.float64).reshape(self.shape)

    def _of_layer(self, derive: Callable[..., float]) -> float:
        if self.sums is None:
            return math.nan
        infinities = (_total(self.columns[name]) for name in ("positive_infinity", "negative_infinity"))
        sums = (sum(part.integers()) for part in self.sums)
        return derive([part.first for part in self.sums], _total(self.samples), *infinities, *sums)

    @staticmethod
    def _mean(units: list[int], samples: int, up: int, down: int, positive: int, negative: int, _: int) -> float:
        if up or down:
            return math.nan if up and down else math.inf if up else -math.inf
        total = (positive << _DIGIT_BITS * units[0]) - (negative << _DIGIT_BITS * units[1])
        return _quotient(total, samples, VALUE_OFFSET)

    @staticmethod
    def _mean_magnitude(
        units: list[int], samples: int, up: int, down: int, positive: int, negative: int, _: int
    ) -> float:
        total = (positive << _DIGIT_BITS * units[0]) + (negative << _DIGIT_BITS * units[1])
        return math.inf if up or down else _quotient(total, samples, VALUE_OFFSET)

    @staticmethod
    def _mean_square(units: list[int], samples: int, up: int, down: int, _: int, __: int, squares: int) -> float:
        return math.inf if up or down else _quotient(squares << _DIGIT_BITS * units[2], samples, SQUARE_OFFSET)

    @staticmethod
    def _variance(
        units: list[int], samples: int, up: int, down: int, positive: int, negative: int, squares: int
    ) -> float:
        if up or down:
            return math.nan
        total = (positive << _DIGIT_BITS * units[0]) - (negative << _DIGIT_BITS * units[1])
        rest = (squares << _DIGIT_BITS * units[2]) * samples - total * total
        return _quotient(rest, samples * samples, SQUARE_OFFSET)


class _Reader:
    """Takes a payload apart."""

    def __init__(self, payload: bytes, neurons: int) -> None:
        self._payload = payload
        self._at = 0
        self.neurons = neurons

    def rest(self, size: object) -> bytes:
        if type(size) is not int or not 0 <= size <= len(self._payload) - self._at:
            raise StateError(f"neuron statistics hold {len(self._payload)} bytes, which are too few")
        self._at += size
        return self._payload[self._at - size : self._at]

    def take(self, itemsize: int) -> npt.NDArray[np.uint8]:
        """So many bytes of each neuron."""
        return np.frombuffer(self.rest(itemsize * self.neurons), np.uint8)

    def end(self) -> None:
        if self._at != len(self._payload):
            raise StateError(f"neuron statistics hold {len(self._payload)} bytes, and {self._at} are understood")


def _read_sums(header: object, reader: _Reader) -> tuple[ExactSums, ExactSums, ExactSums] | None:
    if header is None:
        return None
    if not isinstance(header, list) or len(header) != 3:
        raise StateError(f"exact sums {header!r} are not understood")
    sums = []
    for place in header:
        if not isinstance(place, list) or len(place) != 2 or type(place[1]) is not int or not 0 <= place[1] < 1 << 16:
            raise StateError(f"exact sums {header!r} are not understood")
        first, width = place
        sums.append(ExactSums.from_bytes(first, width, reader.neurons, reader.take(4 * width).tobytes()))
    return sums[0], sums[1], sums[2]


def _read_options(header: object) -> NeuronOptions:
    names = {field.name for field in dataclasses.fields(NeuronOptions)}
    if not isinstance(header, dict) or header.keys() != names:
        raise StateError("the options of neuron statistics are not those that are understood")
    axes = header["neuron_axis"]
    return NeuronOptions(**header | {"neuron_axis": tuple(axes) if isinstance(axes, list) else axes})


_B = TypeVar("_B")


def _both(left: _B | None, right: _B | None, merge: Callable[[_B, _B], _B]) -> _B | None:
    return None if left is None or right is None else merge(left, right)


def _merge_sums(
    left: tuple[ExactSums, ExactSums, ExactSums], right: tuple[ExactSums, ExactSums, ExactSums]
) -> tuple[ExactSums, ExactSums, ExactSums]:
    one, two, three = (a.merge(b) for a, b in zip(left, right, strict=True))
    return one, two, three


def _lengths(shape: tuple[int, ...]) -> int | list[int]:
    return shape[0] if len(shape) == 1 else list(shape)


def _total(column: Counts) -> int:
    return int(column.sum())


def _mean_of(flags: Bools) -> float:
    return float(flags.mean()) if flags.size else 0.0


def _quotient(total: int, divisor: int, offset: int) -> float:
    """total / divisor in units of 2**-offset, correctly rounded; NaN by 0."""
    if not divisor:
        return math.nan
    try:
        return total / (divisor << offset)
    except OverflowError:
        return math.inf if total > 0 else -math.inf
