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
from actserve_server.kernels.forms import SIXTEEN_BITS
from actserve_server.kernels.reductions import SQUARE_UNIT_EXPONENT, new_square_sum, square_sum
from actserve_server.modes.base import Array, Counts, Penalty, Piece, Scalars, Stage, Subject, Tensor
from actserve_server.modes.evaluate import evaluate, readable, wide_enough


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
        """The gradient, when it is wanted: of the activation's shape, or of x's."""
        shape = subject.shape if self.gradient_wrt is GradientWrt.INPUT else subject.result_shape
        return (Tensor("gradient", subject.dtype, shape),) if self.gradient else ()

    def start(self, subject: Subject, counts: Counts, *, upstream: bool) -> Stage:
        """Begin."""
        return _Stage(self, subject, counts)


class _Stage:
    """The sum so far."""

    def __init__(self, mode: Regularization, subject: Subject, counts: Counts) -> None:
        self._mode = mode
        self._subject = subject
        self._nonfinite = counts
        self._read = readable(subject)
        self._forward = evaluate(subject, "forward")
        self._add_squares = compiler.load_reduction("add_squares", wide_enough(subject.dtype))
        self._tally = new_square_sum()
        self._rows: int | None = None
        self._chained = mode.gradient and mode.gradient_wrt is GradientWrt.INPUT
        self._vjp = evaluate(subject, "vjp") if self._chained else None
        sixteen = mode.gradient and subject.dtype in SIXTEEN_BITS
        self._narrow = compiler.load_service("narrow", subject.dtype) if sixteen else None
        self._factor = 2 * mode.strength / self._divisor(subject.result_shape) if mode.gradient else 0.0

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Add a block to the sum, and give its gradient when that is wanted."""
        (x,) = inputs
        activations: list[Array] = []
        for at, piece in self._forward(first, x):
            self._nonfinite.add(at, piece)
            self._add_squares(self._read(piece), self._tally)
            if self._chained:
                activations.append(piece.copy())
            elif self._mode.gradient:
                yield Piece(0, at, self._scaled(piece))
        if self._vjp is not None and activations:
            for at, piece in self._vjp(first, x, np.concatenate(activations)):
                yield Piece(0, at, self._scaled(piece))

    def _scaled(self, piece: Array) -> Array:
        with np.errstate(all="ignore"):
            product = self._read(piece).astype(np.float64) * self._factor
        if self._narrow is None:
            return product.astype(piece.dtype)
        out = np.empty(piece.size, np.uint16)
        self._narrow(product, out)
        return out.view(piece.dtype)

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
        shape = self._subject.result_shape
        if self._rows is not None and shape[0] < 0:
            shape = (self._rows, *shape[1:])
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
