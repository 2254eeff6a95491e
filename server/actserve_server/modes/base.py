"""What every mode is given, and what it gives back."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from actserve_server.activations.spec import Activation, GatedActivation, Record, ResizingActivation, Value
from actserve_server.errors import InvalidAxis
from actserve_server.kernels.threads import SOLO, Team

Array = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's description. A first dimension of -1 is not known yet."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many elements; negative while the first dimension is not known."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes; negative while the first dimension is not known."""
        return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True, slots=True)
class Columns:
    """Parameters of which at least one is an array, laid out a row each: element e belongs to column (e // inner) % columns."""

    values: npt.NDArray[np.float64]
    inner: int
    places: Mapping[str, npt.NDArray[np.int64]]
    """For each parameter that is an array, which of its elements (counted in C order) each column has."""
    shapes: Mapping[str, tuple[int, ...]]
    """The shapes of those arrays, as they were given."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """An activation applied to a tensor: what all modes have in common, checked and complete."""

    record: Record
    parameters: tuple[float, ...]
    """The kernel's arguments, in the record's order, as `spec.Parameter` says."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    axis: int | None
    """Counted from the start; None for an elementwise activation."""
    piece_elements: int
    """How many elements a piece of a result may have."""
    columns: Columns | None = None
    """Set when a parameter is an array; then it stands for `parameters`."""
    options: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    """The parameters by name, as they were given or are by default; arrays are left out."""
    result_length: int = 0
    """The length of the axis in the result of `forward`."""
    accuracy: str = "exact"
    team: Team = SOLO
    """The threads that may share the work."""
    max_held_bytes: int = 1 << 26
    """How many bytes a mode may hold that it cannot compute piece by piece."""

    @property
    def result_shape(self) -> tuple[int, ...]:
        """The shape of f(x)."""
        if self.axis is None or not self.shape:
            return self.shape
        return (*self.shape[: self.axis], self.result_length, *self.shape[self.axis + 1 :])

    @property
    def draws(self) -> bool:
        """Whether an elementwise result depends on random draws, and so on where an element is."""
        record = self.record
        if not isinstance(record, Activation) or not record.indexed:
            return False
        return not record.drawn_if or bool(self.options.get(record.drawn_if))

    @property
    def slice_shape(self) -> tuple[int, int]:
        """(n, inner) of the block that must be held whole: the axis' length, and the product of the dimensions after it."""
        assert self.axis is not None
        # A scalar is a slice of one element.
        return (self.shape[self.axis], math.prod(self.shape[self.axis + 1 :])) if self.shape else (1, 1)

    @property
    def unit_elements(self) -> int:
        """How many elements form the smallest block that can be computed by itself."""
        return 1 if self.axis is None else math.prod(self.slice_shape)

    @property
    def result_unit_elements(self) -> int:
        """How many elements of f(x) such a block makes."""
        return 1 if self.axis is None else self.result_length * self.slice_shape[1]


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Elements of one tensor of the result, in order. The array is only good until the next piece is asked for."""

    tensor: int
    first: int
    """The place of the first element in the flattened tensor."""
    array: Array


@dataclasses.dataclass(frozen=True, slots=True)
class Penalty:
    """The scalar of the regularization mode, and the state that it is computed from."""

    value: float
    state: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronSummary:
    """The scalars of the neuron statistics mode."""

    dead_fraction: float
    dead_count: int
    neuron_count: int
    sample_count: int
    never_fired_count: int
    dormant_count: int
    nan_count: int
    state_bytes: int
    """How long the state is, which is not known beforehand."""


Scalars = Penalty | NeuronSummary | None


class Counts(Protocol):
    """How many elements of a tensor are not finite."""

    @property
    def nan(self) -> int:
        """How many are NaN."""

    @property
    def positive_infinity(self) -> int:
        """How many are +inf."""

    @property
    def negative_infinity(self) -> int:
        """How many are -inf."""

    def add(self, first: int, array: Array) -> None:
        """Count a flat array whose first element is element `first` of the tensor."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Room:
    """Memory for the first result of a computation, or for what is computed of it."""

    memory: Array
    """Flat."""
    first: int = 0
    """The element of the result that it begins with."""

    def part(self, begin: int, end: int) -> Array:
        """The memory for these elements of the result."""
        return self.memory[begin - self.first : end - self.first]


class Stage(Protocol):
    """A computation under way."""

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Compute a block: the flat, equally long pieces of all inputs that begin at element `first`."""

    def finish(self, rows: int | None) -> Iterator[Piece]:
        """All blocks were given: the pieces still owed. `rows` is the first dimension, None for a scalar."""

    def scalars(self) -> Scalars:
        """What the summary says; asked for after `finish`."""


class Mode(Protocol):
    """A mode with its options."""

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """Refuse options that do not fit; raises errors.InvalidOption or errors.InvalidAxis."""

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """The tensors that the mode gives."""

    def unit_result(self, subject: Subject) -> int:
        """How many elements of its one result a unit of x makes, where each unit's are computed by themselves; 0 where not."""

    def start(self, subject: Subject, counts: Counts, *, upstream: bool, into: Room | None = None) -> Stage:
        """Begin; loads the compiled loops, which may take a while when they are cold. The stage counts f(x) or f'(x).

        `into` is memory for all that is computed of the first result: a stage that can writes there, and its pieces are parts of it.
        """


def state_parameters(subject: Subject) -> dict[str, float | str]:
    """What states must have in common to be merged beside the options: the parameters, a digest of those that are arrays,
    the axis of an activation that works along one, and the revision of one that was added."""
    found: dict[str, float | str] = {
        name: value if isinstance(value, str) else float(value)
        for name, value in subject.options.items()
        if value is not None
    }
    if subject.columns is not None:
        found["arrays"] = hashlib.sha256(subject.columns.values.tobytes()).hexdigest()
    if subject.axis is not None:
        # From the end, as batches of other ranks may be of the same layer.
        found["axis"] = float(subject.axis - max(len(subject.shape), 1))
    revision = getattr(subject.record, "revision", "")
    if revision:
        # By a name that no parameter has, which may well be called revision.
        found["formula.revision"] = revision
    return found


def is_axis(record: Record) -> bool:
    """Whether an activation works along an axis."""
    return not isinstance(record, Activation)


def keeps_shape(record: Record) -> bool:
    """Whether f(x) has the shape of x."""
    return not isinstance(record, (GatedActivation, ResizingActivation))


def resolve_axis(axis: int, shape: tuple[int, ...], *, field: str, name: str = "axis") -> int:
    """An axis counted from the start. A scalar has one axis for this purpose, 0 or -1. Raises InvalidAxis."""
    dimensions = max(len(shape), 1)
    if not -dimensions <= axis < dimensions:
        raise InvalidAxis(
            f"{name} is {axis}, and must be in [{-dimensions}, {dimensions - 1}] for a tensor of {len(shape)} dimensions",
            field=field,
            value=axis,
            allowed=f"[{-dimensions}, {dimensions - 1}]",
        )
    return axis % dimensions


__all__ = [
    "Array",
    "Columns",
    "Counts",
    "Mode",
    "NeuronSummary",
    "Penalty",
    "Piece",
    "Room",
    "Scalars",
    "Stage",
    "Subject",
    "Tensor",
    "is_axis",
    "keeps_shape",
    "resolve_axis",
]
