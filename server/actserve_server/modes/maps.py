"""Forward and derivative: modes whose every element depends on one element or one slice of the input."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence

import numpy as np

from actserve_server.activations.spec import Activation, AxisActivation, Record, ResizingActivation
from actserve_server.errors import InvalidOption
from actserve_server.modes.base import Array, Counts, Piece, Room, Scalars, Stage, Subject, Tensor
from actserve_server.modes.evaluate import evaluate
from actserve_server.modes.parameter_sums import ParameterSum


class MapStage:
    """A stage that only passes pieces on, and sums up gradients of parameters on the way."""

    def __init__(
        self,
        subject: Subject,
        operation: str,
        counts: Counts,
        gradients: Sequence[str] = (),
        *,
        made: int,
        into: Room | None,
    ) -> None:
        self._pieces = evaluate(subject, operation)
        self._unit, self._made = subject.unit_elements, made
        self._into = into
        self._counts = counts
        self._sums = [ParameterSum(subject, name) for name in gradients]

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Compute a block."""
        into = None
        if self._into is not None:
            begin, end = (place // self._unit * self._made for place in (first, first + inputs[0].size))
            into = self._into.part(begin, end)
        for at, array in self._pieces(first, *inputs, into=into):
            self._counts.add(at, array)
            yield Piece(0, at, array)
        for total in self._sums:
            total.add(first, *inputs)

    def finish(self, rows: int | None) -> Iterator[Piece]:
        """The gradients of parameters."""
        for index, total in enumerate(self._sums, 1):
            yield Piece(index, 0, total.result())

    def scalars(self) -> Scalars:
        """There are none."""
        return None


@dataclasses.dataclass(frozen=True, slots=True)
class Forward:
    """y = f(x)."""

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """There are no options, so none can be wrong."""

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """The activation, of x's shape unless the activation changes an axis' length."""
        return (Tensor("activation", subject.dtype, subject.result_shape),)

    def unit_result(self, subject: Subject) -> int:
        """An element for an element, or the slices of a block for it."""
        return subject.result_unit_elements

    def start(self, subject: Subject, counts: Counts, *, upstream: bool, into: Room | None = None) -> Stage:
        """Begin."""
        return MapStage(subject, "forward", counts, made=subject.result_unit_elements, into=into)


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
    """Whether the gradients with respect to the activation's parameters are wanted too, given an upstream gradient."""

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """What is wanted must exist for the kind of activation."""
        record, part = subject.record, self.jacobian
        path = "header.derivative.jacobian"
        if part is not JacobianPart.NONE and not isinstance(record, AxisActivation):
            why = "works element by element" if subject.axis is None else "changes the length of its axis"
            raise InvalidOption(
                f"{record.name} {why}, so its derivative has no jacobian {part.value!r}; leave it out",
                field=path,
                value=part.value,
            )
        if isinstance(record, AxisActivation):
            self._check_jacobian(record.name, upstream, path)
        if isinstance(record, ResizingActivation) and not upstream:
            raise InvalidOption(
                f"the derivative of {record.name} needs an upstream gradient, of the shape of its result",
                field="header.inputs",
                allowed="x and the upstream gradient",
            )
        if self.parameter_gradients:
            self._check_gradients(record, upstream)

    def _check_jacobian(self, name: str, upstream: bool, path: str) -> None:
        part = self.jacobian
        if upstream and part is not JacobianPart.NONE:
            raise InvalidOption(
                f"an upstream gradient and jacobian {part.value!r} exclude each other", field=path, value=part.value
            )
        if not upstream and part is JacobianPart.NONE:
            raise InvalidOption(
                f"the derivative of {name} is a matrix for each slice: give an upstream gradient for the vector-Jacobian "
                f'product, or say jacobian "full" or "diag"',
                field=path,
                allowed='"full", "diag", or an upstream gradient',
            )

    def _check_gradients(self, record: Record, upstream: bool) -> None:
        path = "header.derivative.parameter_gradients"
        if not _gradients(record):
            raise InvalidOption(
                f"{record.name} has no parameter that a gradient is taken with respect to", field=path, value=True
            )
        if not upstream:
            raise InvalidOption(
                f"the gradients of {record.name}'s parameters need an upstream gradient", field=path, value=True
            )

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """The derivative, of x's shape; a full Jacobian has the axis once more as its last dimension."""
        shape = subject.shape
        if self.jacobian is JacobianPart.FULL:
            shape = (*shape, subject.slice_shape[0])
        derivative = Tensor("derivative", subject.dtype, shape)
        if not self.parameter_gradients:
            return (derivative,)
        shapes = subject.columns.shapes if subject.columns is not None else {}
        double = np.dtype(np.float64)
        names = _gradients(subject.record)
        return (derivative, *(Tensor(f"gradient of {name}", double, shapes.get(name, ())) for name in names))

    def unit_result(self, subject: Subject) -> int:
        """As many as x has, times the axis' length in a full Jacobian; sums over all elements have no parts."""
        return 0 if self.parameter_gradients else self._made(subject)

    def _made(self, subject: Subject) -> int:
        return subject.unit_elements * (subject.slice_shape[0] if self.jacobian is JacobianPart.FULL else 1)

    def start(self, subject: Subject, counts: Counts, *, upstream: bool, into: Room | None = None) -> Stage:
        """Begin."""
        if upstream:
            operation = "vjp"
        elif not isinstance(subject.record, AxisActivation):
            operation = "derivative"
        else:
            operation = "jacobian" if self.jacobian is JacobianPart.FULL else "jacobian_diagonal"
        gradients = _gradients(subject.record) if self.parameter_gradients else ()
        return MapStage(subject, operation, counts, gradients, made=self._made(subject), into=into)


def _gradients(record: Record) -> tuple[str, ...]:
    """The parameters of which a record knows the gradient."""
    if not isinstance(record, (Activation, AxisActivation)):
        return ()
    return tuple(gradient.parameter for gradient in record.gradients)


__all__ = ["Derivative", "Forward", "JacobianPart"]
