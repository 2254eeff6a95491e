"""Forward and derivative: modes whose every element depends on one element or one slice of the input.

Results are yielded piece by piece into one scratch array, so a computation of any size takes constant memory.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator

import numpy as np

from actserve_server.activations.spec import AxisActivation
from actserve_server.errors import InvalidOption
from actserve_server.kernels.compiler import load
from actserve_server.modes.base import Array, Piece, Scalars, Stage, Subject, Tensor

Pieces = Callable[..., Iterator[tuple[int, Array]]]
"""Given a block's first element and its inputs: the result's pieces, each with the place of its first element."""


def elementwise(subject: Subject, operation: str) -> Pieces:
    """Evaluate an elementwise loop over a block."""
    loop = load(subject.record, operation, subject.dtype)
    scratch = np.empty(subject.piece_elements, subject.dtype)

    def pieces(first: int, *inputs: Array) -> Iterator[tuple[int, Array]]:
        size = inputs[0].size
        for start in range(0, size, scratch.size):
            stop = min(start + scratch.size, size)
            out = scratch[: stop - start]
            loop(*(array[start:stop] for array in inputs), out, subject.parameters)
            yield first + start, out

    return pieces


def along_axis(subject: Subject, operation: str) -> Pieces:
    """Evaluate an axis activation over a block of whole slices: first what each slice needs, then any piece of the result."""
    record = subject.record
    assert isinstance(record, AxisActivation)
    n, inner = subject.slice_shape
    reduce = load(record, "reduce", subject.dtype)
    vjp_reduce = load(record, "vjp_reduce", subject.dtype) if operation == "vjp" else None
    fill = load(record, operation, subject.dtype)
    growth = n if operation == "jacobian" else 1
    scratch = np.empty(subject.piece_elements, subject.dtype)

    def pieces(first: int, *inputs: Array) -> Iterator[tuple[int, Array]]:
        slices = tuple(array.reshape(-1, n, inner) for array in inputs)
        outer = len(slices[0])
        states = [np.empty((outer, record.state_size, inner))]
        reduce(slices[0], states[0], subject.parameters)
        if vjp_reduce is not None:
            states.append(np.empty((outer, record.vjp_state_size, inner)))
            vjp_reduce(*slices, *states, subject.parameters)
        size = inputs[0].size * growth
        for start in range(0, size, scratch.size):
            out = scratch[: min(scratch.size, size - start)]
            fill(*slices, start, out, *states, subject.parameters)
            yield first * growth + start, out

    return pieces


def evaluate(subject: Subject, operation: str) -> Pieces:
    """The evaluation of an operation that fits the kind of activation."""
    return (elementwise if subject.axis is None else along_axis)(subject, operation)


class MapStage:
    """A stage that only passes pieces on."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Compute a block."""
        for at, array in self._pieces(first, *inputs):
            yield Piece(0, at, array)

    def finish(self, rows: int | None) -> Iterator[Piece]:
        """Nothing is owed."""
        return iter(())

    def scalars(self) -> Scalars:
        """There are none."""
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """y = f(x)."""

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """There are no options, so none can be wrong."""

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """The activation, of x's shape."""
        return (Tensor("activation", subject.dtype, subject.shape),)

    def start(self, subject: Subject, *, upstream: bool) -> Stage:
        """Begin."""
        return MapStage(evaluate(subject, "forward"))


class JacobianPart(enum.Enum):
    """Which part of an axis activation's Jacobian is wanted."""

    NONE = "none"
    FULL = "full"
    DIAGONAL = "diag"


@dataclasses.dataclass(frozen=True, slots=True)
class Derivative:
    """f'(x); with an upstream gradient g the vector-Jacobian product; for an axis activation a part of the Jacobian."""

    jacobian: JacobianPart = JacobianPart.NONE
    parameter_gradients: bool = False

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """An axis activation needs an upstream gradient or a part of the Jacobian, an elementwise one takes no part."""
        name, part = subject.record.name, self.jacobian
        path = "header.derivative.jacobian"
        if subject.axis is None:
            if part is not JacobianPart.NONE:
                raise InvalidOption(
                    f"{name} works element by element, so its derivative has no jacobian {part.value!r}; leave it out",
                    field=path,
                    value=part.value,
                )
        elif upstream and part is not JacobianPart.NONE:
            raise InvalidOption(
                f"an upstream gradient and jacobian {part.value!r} exclude each other", field=path, value=part.value
            )
        elif not upstream and part is JacobianPart.NONE:
            raise InvalidOption(
                f"the derivative of {name} is a matrix for each slice: give an upstream gradient for the vector-Jacobian "
                f'product, or say jacobian "full" or "diag"',
                field=path,
                allowed='"full", "diag", or an upstream gradient',
            )

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """The derivative, of x's shape; a full Jacobian has the axis once more as its last dimension."""
        shape = subject.shape
        if self.jacobian is JacobianPart.FULL:
            shape = (*shape, subject.slice_shape[0])
        return (Tensor("derivative", subject.dtype, shape),)

    def start(self, subject: Subject, *, upstream: bool) -> Stage:
        """Begin."""
        if upstream:
            operation = "vjp"
        elif subject.axis is None:
            operation = "derivative"
        else:
            operation = "jacobian" if self.jacobian is JacobianPart.FULL else "jacobian_diagonal"
        return MapStage(evaluate(subject, operation))


__all__ = ["Derivative", "Forward", "JacobianPart", "Pieces", "evaluate"]
