"""Regularization: a penalty on the activations, from an exact sum, and its gradient on request."""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from actserve_server.errors import InvalidOption
from actserve_server.kernels import compiler
from actserve_server.kernels.reductions import SQUARE_UNIT_EXPONENT, new_square_sum, square_sum
from actserve_server.modes.base import Array, Penalty, Piece, Scalars, Stage, Subject, Tensor
from actserve_server.modes.maps import evaluate


class Reduction(enum.Enum):
    """What the sum is divided by."""

    SUM = "sum"
    BATCH_MEAN = "batch_mean"
    MEAN = "mean"


class GradientWrt(enum.Enum):
    """With respect to what the gradient is taken."""

    ACTIVATION = "activation"
    INPUT = "input"


@dataclasses.dataclass(frozen=True, slots=True)
class Regularization:
    """The L2 penalty strength * sum(a^2) over the activations a = f(x), as `forward` gives them."""

    strength: float = 0.01
    reduction: Reduction = Reduction.SUM
    gradient: bool = False
    gradient_wrt: GradientWrt = GradientWrt.ACTIVATION

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """The strength is finite and not negative; a mean's gradient needs the size beforehand."""
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise InvalidOption(
                f"strength is {self.strength}, and must be finite and not negative",
                field="header.regularization.strength",
                value=self.strength,
                allowed="a number in [0, inf)",
            )
        if open_ended and self.gradient and self.reduction is not Reduction.SUM:
            raise InvalidOption(
                f"the gradient of a {self.reduction.value} needs the size beforehand, which an open-ended job never has; "
                "give the whole tensor, or take the sum",
                field="header.regularization.reduction",
                value=self.reduction.value,
            )

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """The gradient, when it is wanted."""
        return (Tensor("gradient", subject.dtype, subject.shape),) if self.gradient else ()

    def start(self, subject: Subject, *, upstream: bool) -> Stage:
        """Begin."""
        return _Stage(self, subject)


class _Stage:
    """The sum so far."""

    def __init__(self, mode: Regularization, subject: Subject) -> None:
        self._mode = mode
        self._subject = subject
        self._forward = evaluate(subject, "forward")
        self._add_squares = compiler.load_reduction("add_squares", subject.dtype)
        self._tally = new_square_sum()
        self._rows: int | None = None
        self._chained = mode.gradient and mode.gradient_wrt is GradientWrt.INPUT
        self._vjp = evaluate(subject, "vjp") if self._chained else None
        self._factor = 2 * mode.strength / self._divisor(subject.shape) if mode.gradient else 0.0

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Add a block to the sum, and give its gradient when that is wanted."""
        (x,) = inputs
        activations = np.empty(x.size, x.dtype) if self._chained else None
        for at, piece in self._forward(first, x):
            self._add_squares(piece, self._tally)
            if activations is not None:
                activations[at - first : at - first + piece.size] = piece
            elif self._mode.gradient:
                self._scale(piece)
                yield Piece(0, at, piece)
        if self._vjp is not None:
            for at, piece in self._vjp(first, x, activations):
                self._scale(piece)
                yield Piece(0, at, piece)

    def _scale(self, piece: Array) -> None:
        with np.errstate(all="ignore"):
            np.multiply(piece, self._factor, out=piece, dtype=np.float64, casting="same_kind")

    def finish(self, rows: int | None) -> Iterator[Piece]:
        """Nothing is owed but the sum."""
        self._rows = rows
        return iter(())

    def scalars(self) -> Scalars:
        """The penalty, rounded once."""
        tally = square_sum(self._tally)
        if tally.nan:
            return Penalty(math.nan)
        if tally.infinite:
            return Penalty(math.inf if self._mode.strength else math.nan)
        shape = self._subject.shape if self._rows is None else (self._rows, *self._subject.shape[1:])
        exact = Fraction(tally.total, 1 << -SQUARE_UNIT_EXPONENT) * Fraction(self._mode.strength)
        try:
            return Penalty(float(exact / self._divisor(shape)))
        except OverflowError:
            return Penalty(math.inf)

    def _divisor(self, shape: tuple[int, ...]) -> int:
        """By what the sum is divided; 1 where there is nothing to divide."""
        if self._mode.reduction is Reduction.BATCH_MEAN and shape:
            return shape[0] or 1
        if self._mode.reduction is Reduction.MEAN:
            return math.prod(shape) or 1
        return 1
