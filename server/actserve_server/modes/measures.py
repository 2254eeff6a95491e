"""How the sums of each regularizer are taken over blocks of penalised values, and how its slope is got from them.

A measure is given the penalised values, the activations as `forward` gives them, in blocks; it keeps exact sums, so what it
says does not depend on how they were cut. Its slope is the penalty's derivative by those values, without strength and
reduction, in float64. This module knows neither chunks nor the chain to the input.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from actserve.penalties import PenaltyState, Sums, form_of

from actserve_server.errors import InvalidShape, OutOfDomain
from actserve_server.kernels import compiler
from actserve_server.kernels.reductions import (
    add_channel_squares,
    new_square_sum,
    new_square_sums,
    new_value_sums,
    settle,
    settle_squares,
    square_sum,
    value_counts,
)
from actserve_server.kernels.threads import Team
from actserve_server.modes.base import Array
from actserve_server.regularizers.pointwise import root
from actserve_server.regularizers.spec import Contractive, Neuronwise, Orthogonal, Pointwise, Record, Slicewise

__all__ = ["Geometry", "Measure", "Slope", "make"]

Slope = Callable[[int, Array], Array]
"""Given a block's first element and the penalised values as float64: the derivative by each."""

_VALUES_BETWEEN_CARRIES = 1 << 30
_SQUARES_BETWEEN_CARRIES = 1 << 26


class Geometry:
    """What of a penalised tensor lies along an axis: n entries, each `inner` elements from the next."""

    def __init__(self, shape: tuple[int, ...], axis: int | None) -> None:
        self.shape = shape or (1,)
        """The penalised tensor's; the first dimension may be -1."""
        self.axis = axis
        self.n = self.shape[axis] if axis is not None else 1
        self.inner = math.prod(self.shape[axis + 1 :]) if axis is not None else 1
        self.row = math.prod(self.shape[1:])

    def count(self, rows: int) -> int:
        """How many elements so many rows have."""
        return rows * self.row


class Measure(Protocol):
    """The sums so far."""

    whole: bool
    """Whether the values must be given all at once."""
    whole_slope: bool
    """Whether the slope must be given all at once, too."""
    needs_state: bool
    """Whether the slope at a value depends on all of them through the sums."""

    def memory(self, rows: int) -> int:
        """How many bytes are needed for so many rows beside the values; -1: as many as are needed for any."""

    def add(self, first: int, values: Array) -> None:
        """Add a block, float32 or float64, whose first value is element `first`. Raises errors.OutOfDomain."""

    def sums(self) -> tuple[Sums, ...]:
        """The sums, in the order of the regularizer's form."""

    def terms(self, rows: int) -> int:
        """How many terms there are over so many rows."""

    def slope(self, state: PenaltyState) -> Slope:
        """The derivative, with the sums of a state."""


# ---- sums ----------------------------------------------------------------------------------------------------------


class _ValueSums:
    """Exact sums of float64 values, one a channel."""

    def __init__(self, channels: int = 1, inner: int = 1) -> None:
        self._limbs = new_value_sums(channels)
        self._inner = inner
        self._add = compiler.load_reduction("add_values", np.float64)
        self._unsettled = 0

    def add(self, first: int, values: Array) -> None:
        self._add(np.ascontiguousarray(values), first, self._inner, self._limbs)
        self._unsettled += values.size
        if self._unsettled > _VALUES_BETWEEN_CARRIES:
            settle(self._limbs)
            self._unsettled = 0

    def sums(self) -> Sums:
        return _columns([value_counts(tally) for tally in self._limbs])


class _SquareSum:
    """The exact sum of squares."""

    def __init__(self) -> None:
        self._tally = new_square_sum()

    def add(self, values: Array) -> None:
        compiler.load_reduction("add_squares", values.dtype)(np.ascontiguousarray(values), self._tally)

    def sums(self) -> Sums:
        return _columns([_square_counts(self._tally)])


def _square_counts(tally: Array) -> tuple[int, int, int, int]:
    found = square_sum(tally)
    return found.total, found.nan, found.infinite, 0


def _columns(rows: list[tuple[int, int, int, int]]) -> Sums:
    return Sums(*(tuple(row[column] for row in rows) for column in range(4)))


def _double(values: Array) -> Array:
    return values.astype(np.float64)


# ---- measures ------------------------------------------------------------------------------------------------------


class _Pointwise:
    """Functions of single elements."""

    whole = whole_slope = False

    def __init__(self, record: Pointwise | Contractive, numbers: tuple[float, ...], geometry: Geometry) -> None:
        self._record = record
        self._numbers = numbers
        self._geometry = geometry
        self.needs_state = record.whole_gradient
        self._takers: list[tuple[str, Any]] = []
        for quantity in form_of(record.name, {}).quantities:
            self._takers.append((quantity, _SquareSum() if quantity == "squares" else _ValueSums()))
        self._term = compiler.load_penalty(record.name, "term") if getattr(record, "term", None) else None

    def memory(self, rows: int) -> int:
        return 0

    def add(self, first: int, values: Array) -> None:
        for quantity, taker in self._takers:
            if quantity == "squares":
                taker.add(values)
            elif self._term is None:
                taker.add(first, np.abs(_double(values)))
            else:
                terms = np.empty(values.size)
                self._term(_double(values), terms, self._numbers)
                taker.add(first, terms)

    def sums(self) -> tuple[Sums, ...]:
        return tuple(taker.sums() for _, taker in self._takers)

    def terms(self, rows: int) -> int:
        return self._geometry.count(rows)

    def slope(self, state: PenaltyState) -> Slope:
        assert isinstance(self._record, Pointwise)
        compiled = compiler.load_penalty(self._record.name, "slope")
        coefficients = self._record.coefficients(state)

        def slope(first: int, values: Array) -> Array:
            out = np.empty(values.size)
            compiled(values, out, coefficients)
            return out

        return slope


class _Slicewise:
    """A term for each slice."""

    needs_state = False

    def __init__(self, record: Slicewise, numbers: tuple[float, ...], geometry: Geometry) -> None:
        self._record = record
        self._numbers = numbers
        self._geometry = geometry
        self.whole = self.whole_slope = geometry.axis == 0
        self._squares = _SquareSum() if form_of(record.name, {}).quantities == ("squares",) else None
        self._values = _ValueSums()
        self._seen = 0

    def _slices(self, values: Array) -> Array:
        inner = self._geometry.inner
        n = values.size // inner if self._geometry.axis == 0 else self._geometry.n
        return values.reshape(-1, n, inner)

    def memory(self, rows: int) -> int:
        return 0

    def add(self, first: int, values: Array) -> None:
        slices = self._slices(_double(values))
        terms = np.empty(slices.shape[0] * slices.shape[2])
        compiler.load_penalty(self._record.name, "term")(slices, terms, self._numbers)
        if (terms < 0).any() and self._record.domain:
            place = self._seen + int(np.flatnonzero(terms < 0)[0])
            raise OutOfDomain(
                f"{self._record.name} is undefined for {self._record.domain}, and slice {place} is one",
                field="data",
                value=f"slice {place}",
                allowed="slices with an element other than 0",
            )
        self._seen += terms.size
        if self._squares is not None:
            self._squares.add(terms)
        else:
            self._values.add(0, terms)

    def sums(self) -> tuple[Sums, ...]:
        return ((self._squares or self._values).sums(),)

    def terms(self, rows: int) -> int:
        if self._geometry.axis == 0:
            return self._geometry.inner if rows else 0
        return self._geometry.count(rows) // self._geometry.n if self._geometry.n else 0

    def slope(self, state: PenaltyState) -> Slope:
        compiled = compiler.load_penalty(self._record.name, "slope")

        def slope(first: int, values: Array) -> Array:
            slices = self._slices(values)
            out = np.empty(slices.shape)
            compiled(slices, out, self._numbers)
            return out.reshape(-1)

        return slope


class _Channelwise:
    """A sum for each neuron or group; the slope is an offset and a factor of each."""

    whole = whole_slope = False
    needs_state = True

    def __init__(self, geometry: Geometry, channels: int, inner: int) -> None:
        self._geometry = geometry
        self._channels = channels
        self._inner = inner

    def memory(self, rows: int) -> int:
        return self._channels * new_square_sum().nbytes

    def coefficients(self, state: PenaltyState) -> tuple[Array, Array]:
        raise NotImplementedError

    def slope(self, state: PenaltyState) -> Slope:
        offsets, factors = self.coefficients(state)

        def slope(first: int, values: Array) -> Array:
            channel = (first + np.arange(values.size)) // self._inner % self._channels
            # An offset alone says nothing of a NaN, and no gradient hides one.
            return np.where(np.isnan(values), np.nan, offsets[channel] + factors[channel] * values)

        return slope

    def terms(self, rows: int) -> int:
        return self._channels


class _Neuronwise(_Channelwise):
    """The sum of each neuron's activations."""

    def __init__(self, record: Neuronwise, geometry: Geometry) -> None:
        super().__init__(geometry, geometry.n, geometry.inner)
        self._record = record
        self._sums: _ValueSums | None = None

    def add(self, first: int, values: Array) -> None:
        if self._sums is None:
            self._sums = _ValueSums(self._channels, self._inner)
        outside = (values < 0) | (values > 1)
        if outside.any():
            place = int(np.flatnonzero(outside)[0])
            raise OutOfDomain(
                f"element {first + place} of the activations is {float(values[place])!r}, and {self._record.name} is only "
                "defined for activations in [0, 1] whose mean is in (0, 1), as sigmoid's are",
                field="data",
                value=float(values[place]),
                allowed="[0, 1]",
            )
        self._sums.add(first, _double(values))

    def sums(self) -> tuple[Sums, ...]:
        return (Sums((0,) * self._channels) if self._sums is None else self._sums.sums(),)

    def coefficients(self, state: PenaltyState) -> tuple[Array, Array]:
        offsets, factors = self._record.coefficients(state)
        return offsets, factors


class _Groups(_Channelwise):
    """The sum of squares of each group that lies along axis 0."""

    def __init__(self, geometry: Geometry) -> None:
        super().__init__(geometry, geometry.row, 1)
        self._tallies: Array | None = None
        self._unsettled = 0

    def add(self, first: int, values: Array) -> None:
        if self._tallies is None:
            self._tallies = new_square_sums(self._channels)
        add = compiler.load_reduction(add_channel_squares.__name__, values.dtype)
        add(values, first, self._inner, self._tallies)
        self._unsettled += values.size
        if self._unsettled > _SQUARES_BETWEEN_CARRIES:
            settle_squares(self._tallies)
            self._unsettled = 0

    def sums(self) -> tuple[Sums, ...]:
        if self._tallies is None:
            return (Sums((0,) * self._channels),)
        settle_squares(self._tallies)
        return (_columns([_square_counts(tally) for tally in self._tallies]),)

    def coefficients(self, state: PenaltyState) -> tuple[Array, Array]:
        size = state.elements // max(state.width, 1)

        def factor(squares: Fraction | float) -> float:
            if isinstance(squares, float):
                return math.nan if squares != squares else 0.0
            return root(Fraction(size) / squares) if squares else 0.0

        factors = np.array([factor(squares) for squares in state.values["squares"]])
        return np.zeros(state.width), factors


class _Temporal:
    """Squares of differences of values that are `lag` entries apart."""

    whole = False
    needs_state = False

    def __init__(self, numbers: tuple[float, ...], geometry: Geometry) -> None:
        self._lag = int(numbers[0])
        self._geometry = geometry
        self.whole_slope = geometry.axis == 0
        self._apart = self._lag * geometry.inner
        # Where no two entries are so far apart nothing is kept; along axis 0 more may come.
        self._idle = geometry.axis != 0 and self._lag >= geometry.n
        self._tail = np.empty(0)
        self._sum = _SquareSum()

    def memory(self, rows: int) -> int:
        return 0 if self._idle else 8 * self._apart

    def add(self, first: int, values: Array) -> None:
        if self._idle:
            return
        known = np.concatenate([self._tail, _double(values)])
        base, begin = first - self._tail.size, max(first, self._apart)
        if (count := first + values.size - begin) > 0:
            later = known[begin - base :]
            with np.errstate(all="ignore"):
                differences = later - known[begin - self._apart - base :][:count]
            if self._geometry.axis != 0:
                steps = (begin + np.arange(count)) // self._geometry.inner % self._geometry.n
                differences = differences[steps >= self._lag]
            self._sum.add(differences)
        self._tail = known[-self._apart :]

    def sums(self) -> tuple[Sums, ...]:
        return (self._sum.sums(),)

    def terms(self, rows: int) -> int:
        geometry = self._geometry
        n = rows if geometry.axis == 0 else geometry.n
        return geometry.count(rows) // n * max(n - self._lag, 0) if n else 0

    def slope(self, state: PenaltyState) -> Slope:
        geometry, lag = self._geometry, self._lag

        def slope(first: int, values: Array) -> Array:
            n = values.size // geometry.inner if geometry.axis == 0 else geometry.n
            steps = values.reshape(-1, n, geometry.inner)
            out = np.zeros(steps.shape)
            if lag < n:
                differences = 2.0 * (steps[:, lag:] - steps[:, :-lag])
                out[:, lag:] = differences
                out[:, :-lag] -= differences
            return out.reshape(-1)

        return slope


class _Orthogonal:
    """Cosines between the rows or the columns of a matrix, each a dot product with its rounding errors carried along.

    Nothing smaller than all of it says what they are between rows, so all of it is held, and a state cannot be merged. Each
    cosine is rounded to float64, and only then are they summed, exactly.
    """

    whole = whole_slope = True
    needs_state = False

    def __init__(self, columns: bool, geometry: Geometry, team: Team) -> None:
        self._columns = columns
        self._geometry = geometry
        self._team = team
        self._units = self._norms = np.empty((1, 0))
        self._signs = np.empty((0, 0))
        self._sums: list[_ValueSums] = [_ValueSums()]

    def memory(self, rows: int) -> int:
        vectors = self._geometry.shape[1] if self._columns else max(rows, 0)
        return 8 * vectors**2

    def add(self, first: int, values: Array) -> None:
        matrix = _double(values).reshape(-1, self._geometry.row)
        if self._columns:
            matrix = np.ascontiguousarray(matrix.T)
        n = len(matrix)
        if n < 2:
            raise OutOfDomain(
                f"orthogonal compares {'columns' if self._columns else 'rows'} with one another, and needs at least 2; there is 1",
                field="header.inputs[0].shape",
                value=n,
                allowed="at least 2",
            )
        norms = np.zeros((1, n))
        compiler.load_penalty("", "norms")(matrix, norms)
        with np.errstate(all="ignore"):
            units = matrix / np.where(norms[0] == 0, 1.0, norms[0])[:, None]
        products = compiler.load_penalty("", "products")
        across = np.ascontiguousarray(units.T)
        signs = np.zeros((n, n))
        guard = threading.Lock()

        def work(begin: int, end: int) -> None:
            total = _ValueSums()
            for place in range(begin, end):
                # Rows far from the middle have few and many partners: in turn, so that all threads have as much to do.
                i = place // 2 if place % 2 else n - 1 - place // 2
                dots = np.empty((2, max(i, 1)))
                products(across, i, dots)
                total.add(0, np.abs(dots[0, :i]))
                signs[i, :i] = np.sign(dots[0, :i])
            with guard:
                self._sums.append(total)

        self._team.share(n, 1, work, grain=max((1 << 16) // max(n * matrix.shape[1], 1), 1))
        self._units, self._norms, self._signs = units, norms, signs + signs.T

    def sums(self) -> tuple[Sums, ...]:
        first, *rest = (total.sums() for total in self._sums)
        for other in rest:
            first = first.merge(other)
        return (first,)

    def terms(self, rows: int) -> int:
        n = self._geometry.shape[1] if self._columns else rows
        return n * (n - 1) // 2 if rows else 0

    def slope(self, state: PenaltyState) -> Slope:
        pairs = max(state.terms, 1)
        cosines = compiler.load_penalty("", "cosines")

        def slope(first: int, values: Array) -> Array:
            units = self._units
            out = np.empty(units.shape)
            self._team.share(len(units), 1, lambda a, b: cosines(self._signs[a:b], units, out[a:b]), grain=1)
            # The part along the vector itself changes its length alone, which the cosine does not see.
            along = (
                np.array([math.fsum(v) for v in out * units]) if np.isfinite(out).all() else (out * units).sum(axis=1)
            )
            lengths = np.where(self._norms[0] == 0, math.inf, self._norms[0])
            out = (out - along[:, None] * units) / lengths[:, None] / pairs
            return (out.T if self._columns else out).reshape(-1)

        return slope


def make(
    record: Record, options: dict[str, float | str], numbers: tuple[float, ...], geometry: Geometry, team: Team
) -> Measure:
    """The measure of a regularizer over a tensor; `numbers` are its parameters as kernels take them, without axes."""
    if isinstance(record, (Pointwise, Contractive)):
        return _Pointwise(record, numbers, geometry)
    if isinstance(record, Slicewise):
        over_rows = form_of(record.name, options).terms == "neuron"
        return _Groups(geometry) if over_rows else _Slicewise(record, numbers, geometry)
    if isinstance(record, Neuronwise):
        return _Neuronwise(record, geometry)
    if isinstance(record, Orthogonal):
        if len(geometry.shape) != 2:
            raise InvalidShape(
                f"orthogonal penalises a matrix, and the shape is {list(geometry.shape)}",
                field="header.inputs[0].shape",
                value=list(geometry.shape),
                allowed="2 dimensions",
            )
        return _Orthogonal(options["mode"] == "columns", geometry, team)
    return _Temporal(numbers, geometry)
