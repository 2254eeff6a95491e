"""Mergeable states: exact sums of squares and counts for each neuron, their bytes, and what is derived from them.

Both ends of the wire use it, and people who merge what several machines saw. Merging is integer addition, so it may
happen in any order and any grouping, and gives the very bytes that one pass over all the data would have given. It is
NumPy only: it knows neither messages nor how states come about.

A state's bytes are, in this order:

    8 bytes          b"actstate"
    4 bytes          the length of the header, little-endian
    header           JSON in ASCII, keys sorted, no spaces: "kind", "version" and what the kind says below
    the rest         the kind's payload

Square sum, version 1: header "count", "nan", "infinite"; the payload is the total, little-endian, without leading zeros.
Neuron counts, version 1: header "activation", "parameters" (an infinity as the text "inf" or "-inf"), "threshold",
"neurons", and "columns", the names of the columns in order; the payload is the columns one after another, a
little-endian int64 for each neuron.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["SQUARE_UNIT_EXPONENT", "NeuronCounts", "SquareSum", "StateError", "StateMismatch"]

SQUARE_UNIT_EXPONENT = -2148
"""Sums of squares are counted in units of 2 to this power: the square of the smallest float64."""

_MAGIC = b"actstate"
_VERSION = 1
_LENGTH_BYTES = 4
_LARGEST_HEADER_BYTES = 1 << 16
# The squares of 2**63 elements, each less than 2**2048.
_LARGEST_TOTAL_BITS = 2048 - SQUARE_UNIT_EXPONENT + 63
_LARGEST_COUNT = (1 << 63) - 1


class StateError(ValueError):
    """Expected error: bytes that are no state, or a state that contradicts itself. The fault of whoever made it."""


class StateMismatch(StateError):
    """Expected error: two states that cannot be merged, for they differ in an option. The fault of the caller."""

    def __init__(self, option: str, left: object, right: object) -> None:
        super().__init__(f"states of different {option} cannot be merged: {left!r} and {right!r}")
        self.option = option
        self.left = left
        self.right = right


@dataclasses.dataclass(frozen=True, slots=True)
class SquareSum:
    """The exact sum of the squares of some numbers, of which NaN and infinities are only counted.

    >>> a = SquareSum(count=2, total=25 << -SQUARE_UNIT_EXPONENT)  # of 3 and 4
    >>> a.merge(SquareSum(count=1, total=1 << -SQUARE_UNIT_EXPONENT)).value()
    26.0
    """

    count: int = 0
    """How many numbers were seen, NaN and infinities included."""
    nan: int = 0
    infinite: int = 0
    total: int = 0
    """The sum over the finite ones, in units of 2**SQUARE_UNIT_EXPONENT."""

    def __post_init__(self) -> None:
        for name in ("count", "nan", "infinite", "total"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise StateError(f"{name} of a square sum must be a whole number, not {value!r}")
        if self.nan + self.infinite > self.count or self.count > _LARGEST_COUNT:
            raise StateError("the counts of a square sum contradict each other")
        if self.total.bit_length() > _LARGEST_TOTAL_BITS:
            raise StateError("the total of a square sum is larger than its numbers could make it")

    def merge(self, other: SquareSum) -> SquareSum:
        """The sum over both; `SquareSum()` is neutral."""
        return SquareSum(
            self.count + other.count, self.nan + other.nan, self.infinite + other.infinite, self.total + other.total
        )

    def value(self) -> float:
        """The sum, correctly rounded: NaN if there was one, else infinity if there was one or the sum overflows."""
        return self.scaled(1)

    def scaled(self, divisor: int) -> float:
        """The sum divided by a positive whole number, as for a mean, correctly rounded once."""
        if self.nan:
            return math.nan
        if self.infinite:
            return math.inf
        try:
            return self.total / (divisor << -SQUARE_UNIT_EXPONENT)
        except OverflowError:
            return math.inf

    def to_bytes(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        header = {"count": self.count, "nan": self.nan, "infinite": self.infinite}
        return _pack("square_sum", header, self.total.to_bytes((self.total.bit_length() + 7) // 8, "little"))

    @classmethod
    def from_bytes(cls, data: bytes) -> SquareSum:
        """What `to_bytes` was called on; raises StateError."""
        header, payload = _unpack("square_sum", ("count", "nan", "infinite"), data)
        if payload[-1:] == b"\0" or len(payload) * 8 > _LARGEST_TOTAL_BITS + 7:
            raise StateError("the total of a square sum is not in its shortest form")
        return cls(header["count"], header["nan"], header["infinite"], int.from_bytes(payload, "little"))


# JSON has no infinity; as a parameter it travels as the text that Python writes.
_INFINITIES = {"inf": math.inf, "-inf": -math.inf}

_COLUMNS = ("samples", "inactive", "zero", "nan")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class NeuronCounts:
    """How often each neuron of a layer was seen, inactive, exactly zero, and not a number.

    >>> counts = NeuronCounts("relu", 0.5, {"samples": [4, 4], "inactive": [4, 1], "zero": [4, 1], "nan": [0, 0]})
    >>> counts.dead, counts.dead_fraction
    (array([ True, False]), 0.5)
    >>> counts.merge(counts).inactive_fraction
    array([1.  , 0.25])

    A NaN counts among the samples and as nothing else. The columns are int64, read-only, one element a neuron. States
    merge by adding columns; a column that merges otherwise would need a new version of the format.
    """

    activation: str
    threshold: float
    """A neuron is dead when at least this share of its samples was inactive."""
    columns: Mapping[str, npt.NDArray[np.int64]]
    """By name: samples; inactive (a <= 0); zero (a == 0); nan."""
    parameters: Mapping[str, float | str] = dataclasses.field(default_factory=dict)
    """The activation's parameters, so that states of different ones are not merged."""

    def __post_init__(self) -> None:
        if type(self.activation) is not str:
            raise StateError(f"the activation's name must be text, not {self.activation!r}")
        threshold = _number("threshold", self.threshold)
        if math.isinf(threshold):
            raise StateError("the threshold must be finite")
        object.__setattr__(self, "threshold", threshold)
        parameters = {name: _parameter(name, value) for name, value in sorted(self.parameters.items())}
        object.__setattr__(self, "parameters", MappingProxyType(parameters))
        if set(self.columns) != set(_COLUMNS):
            raise StateError(f"neuron counts need the columns {', '.join(_COLUMNS)}; got {', '.join(self.columns)}")
        columns = {name: np.array(self.columns[name], np.int64) for name in _COLUMNS}
        for column in columns.values():
            column.flags.writeable = False
            if column.shape != columns["samples"].shape or column.ndim != 1:
                raise StateError("the columns of neuron counts must have one element for each neuron")
            if (column < 0).any():
                raise StateError("a count is negative, or more than an int64 holds")
        # Each side is at most the samples, so that no sum here can overflow.
        if (columns["nan"] > columns["samples"] - np.minimum(columns["inactive"], columns["samples"])).any():
            raise StateError("the counts of a neuron contradict each other")
        if (columns["inactive"] > columns["samples"]).any() or (columns["zero"] > columns["inactive"]).any():
            raise StateError("the counts of a neuron contradict each other")
        object.__setattr__(self, "columns", MappingProxyType(columns))

    def __eq__(self, other: object) -> bool:
        return self.to_bytes() == other.to_bytes() if isinstance(other, NeuronCounts) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.to_bytes())

    @classmethod
    def empty(
        cls, activation: str, threshold: float, neurons: int, parameters: Mapping[str, float | str] | None = None
    ) -> NeuronCounts:
        """No samples yet: the neutral element of `merge`."""
        zeros = np.zeros(neurons, np.int64)
        return cls(activation, threshold, dict.fromkeys(_COLUMNS, zeros), parameters or {})

    def merge(self, other: NeuronCounts) -> NeuronCounts:
        """The counts of both together; raises StateMismatch naming the option in which they differ."""
        for option, left, right in (
            ("activation", self.activation, other.activation),
            ("parameters", dict(self.parameters), dict(other.parameters)),
            ("threshold", self.threshold, other.threshold),
            ("neuron count", self.neurons, other.neurons),
        ):
            if left != right:
                raise StateMismatch(option, left, right)
        columns = {name: self.columns[name] + other.columns[name] for name in _COLUMNS}
        return NeuronCounts(self.activation, self.threshold, columns, self.parameters)

    @property
    def neurons(self) -> int:
        """How many neurons there are."""
        return len(self.columns["samples"])

    @property
    def inactive_fraction(self) -> npt.NDArray[np.float64]:
        """The share of each neuron's samples with a <= 0; NaN without samples."""
        return self._share("inactive")

    @property
    def zero_fraction(self) -> npt.NDArray[np.float64]:
        """The share of each neuron's samples with a == 0; NaN without samples."""
        return self._share("zero")

    @property
    def dead(self) -> npt.NDArray[np.bool_]:
        """Which neurons were inactive on at least `threshold` of their samples; none without samples."""
        return self.inactive_fraction >= self.threshold

    @property
    def dead_fraction(self) -> float:
        """The share of the neurons that are dead; 0 of none."""
        return float(self.dead.mean()) if self.neurons else 0.0

    @property
    def state(self) -> bytes:
        """The same as `to_bytes()`."""
        return self.to_bytes()

    def to_bytes(self) -> bytes:
        """The state as bytes; equal states give equal bytes."""
        header = {
            "activation": self.activation,
            "parameters": {k: str(v) if v in _INFINITIES.values() else v for k, v in self.parameters.items()},
            "threshold": self.threshold,
            "neurons": self.neurons,
            "columns": _COLUMNS,
        }
        return _pack("neuron_counts", header, b"".join(self.columns[name].astype("<i8").tobytes() for name in _COLUMNS))

    @classmethod
    def from_bytes(cls, data: bytes) -> NeuronCounts:
        """What `to_bytes` was called on; raises StateError."""
        expected = ("activation", "parameters", "threshold", "neurons", "columns")
        header, payload = _unpack("neuron_counts", expected, data)
        neurons, names, parameters = header["neurons"], header["columns"], header["parameters"]
        if names != list(_COLUMNS):
            raise StateError(f"neuron counts with the columns {names!r} are not understood")
        if not isinstance(parameters, dict):
            raise StateError("the parameters of neuron counts must be a table")
        if type(neurons) is not int or len(payload) != neurons * len(names) * 8:
            raise StateError(f"neuron counts hold {len(payload)} bytes, which are not {neurons!r} neurons")
        table = np.frombuffer(payload, "<i8").reshape(len(names), neurons)
        return cls(header["activation"], header["threshold"], dict(zip(names, table, strict=True)), parameters)

    def _share(self, name: str) -> npt.NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return self.columns[name] / self.columns["samples"]


def _number(what: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise StateError(f"{what} must be a number, not {value!r}")
    try:
        # A negative zero means the same, and must not make other bytes.
        number = float(value) + 0.0
    except OverflowError:
        raise StateError(f"{what} is too large") from None
    if math.isnan(number):
        raise StateError(f"{what} must be a number, not NaN")
    return number


def _parameter(name: str, value: object) -> float | str:
    if isinstance(value, str):
        return _INFINITIES.get(value, value)
    return _number(f"parameter {name}", value)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def _pack(kind: str, header: Mapping[str, Any], payload: bytes) -> bytes:
    whole = {"kind": kind, "version": _VERSION, **header}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return b"".join((_MAGIC, len(text).to_bytes(_LENGTH_BYTES, "little"), text, payload))


def _unpack(kind: str, expected: tuple[str, ...], data: bytes) -> tuple[dict[str, Any], bytes]:
    start = len(_MAGIC) + _LENGTH_BYTES
    if data[: len(_MAGIC)] != _MAGIC or len(data) < start:
        raise StateError("these bytes are no state")
    length = int.from_bytes(data[len(_MAGIC) : start], "little")
    if length > _LARGEST_HEADER_BYTES or len(data) < start + length:
        raise StateError("the state is cut short")
    try:
        header = json.loads(data[start : start + length], parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise StateError("the state's header cannot be read") from error
    if not isinstance(header, dict) or header.get("kind") != kind:
        raise StateError(f"this is no state of the kind {kind}")
    if header.get("version") != _VERSION:
        raise StateError(f"a state of version {header.get('version')!r} is not understood, only {_VERSION}")
    if header.keys() != {"kind", "version", *expected}:
        raise StateError(f"the header of a state of the kind {kind} has other fields than it should")
    return header, data[start + length :]
