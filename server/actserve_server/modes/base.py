"""What every mode is given, and what it gives back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from actserve_server.activations.spec import AxisActivation, Record
from actserve_server.errors import InvalidAxis

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
class Subject:
    """An activation applied to a tensor: what all modes have in common, checked and complete."""

    record: Record
    parameters: tuple[float, ...]
    """The kernel's arguments, in the record's order; a word as its index."""
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    axis: int | None
    """Counted from the start; None for an elementwise activation."""
    piece_elements: int
    """How many elements a piece of a result may have."""

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


@dataclasses.dataclass(frozen=True, slots=True)
class Piece:
    """Elements of one tensor of the result, in order. The array is only good until the next piece is asked for."""

    tensor: int
    first: int
    """The place of the first element in the flattened tensor."""
    array: Array


@dataclasses.dataclass(frozen=True, slots=True)
class Penalty:
    """The scalar of the regularization mode."""

    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronSummary:
    """The scalars of the neuron statistics mode."""

    dead_fraction: float
    dead_count: int
    neuron_count: int
    sample_count: int


Scalars = Penalty | NeuronSummary | None


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

    def start(self, subject: Subject, *, upstream: bool) -> Stage:
        """Begin; loads the compiled loops, which may take a while when they are cold."""


def is_axis(record: Record) -> bool:
    """Whether an activation works along an axis."""
    return isinstance(record, AxisActivation)


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
    "Mode",
    "NeuronSummary",
    "Penalty",
    "Piece",
    "Scalars",
    "Stage",
    "Subject",
    "Tensor",
    "is_axis",
    "resolve_axis",
]
