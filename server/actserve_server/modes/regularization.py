"""Regularization: a penalty on the activations, from exact sums, and its gradient on request.

What a gradient needs decides how it comes. Where that at an element depends on the element or its slice alone, it streams.
Where it depends on all of x through the sums (hoyer, kl_sparsity, groups over the batch, a mean over rows not yet counted), x
is held until the sums are known, within a limit; or the caller gives the state of a pass before, and it streams too. Where
the penalty itself compares all rows with one another (orthogonal, slices along axis 0), x is held in any case.
"""

from __future__ import annotations

import dataclasses
import enum
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np
from actserve.penalties import PenaltyState, Sums, Undefined, form_of
from actserve.stats import StateMismatch

from actserve_server.activations.second_derivative import second_derivative
from actserve_server.activations.spec import Activation
from actserve_server.errors import InvalidAxis, InvalidOption, LimitExceeded, OutOfDomain
from actserve_server.kernels import compiler
from actserve_server.kernels.forms import SIXTEEN_BITS
from actserve_server.modes.base import (
    Array,
    Counts,
    Penalty,
    Piece,
    Room,
    Scalars,
    Stage,
    Subject,
    Tensor,
    resolve_axis,
    state_parameters,
)
from actserve_server.modes.evaluate import Pieces, evaluate, readable
from actserve_server.modes.measures import Geometry, Measure, Slope, make
from actserve_server.regularizers.spec import Contractive, Record, Slicewise, Temporal

_FIELD = "header.regularization"


class Reduction(enum.Enum):
    """What the sum is divided by."""

    SUM = "sum"
    BATCH_MEAN = "batch_mean"
    MEAN = "mean"


class GradientWrt(enum.Enum):
    """With respect to what the gradient is taken."""

    ACTIVATION = "activation"
    INPUT = "input"


class Target(enum.Enum):
    """What is penalised."""

    OUTPUT = "output"
    INPUT = "input"


@dataclasses.dataclass(frozen=True, slots=True)
class Regularization:
    """A penalty over the activations a = f(x), as `forward` gives them, or over x."""

    regularizer: Record
    options: Mapping[str, float | str | None]
    """The regularizer's parameters, checked and complete; None where one was left out that has no default."""
    strength: float | None = None
    """None: the regularizer's own, 0.01 unless it has weights that were given."""
    reduction: Reduction = Reduction.SUM
    gradient: bool = False
    gradient_wrt: GradientWrt = GradientWrt.ACTIVATION
    of: Target = Target.OUTPUT
    axis: int | None = None
    """The activation's, along which the penalty too works unless it is told otherwise."""
    state: PenaltyState | None = None
    """That of all the data, for the gradient of a part of them."""

    @property
    def takes_axis(self) -> bool:
        """Whether an axis has a meaning though the activation has none."""
        parameter = self.regularizer.axis_parameter
        return parameter is not None and parameter.name == "penalty_axis"

    # ---- before it runs ----------------------------------------------------------------------------------------------

    def check(self, subject: Subject, *, upstream: bool, open_ended: bool) -> None:
        """Options that fit one another and the tensor, and memory for what must be held."""
        strength = self._strength
        if not (math.isfinite(strength) and strength >= 0):
            raise InvalidOption(
                f"strength is {strength}, and must be finite and not negative",
                field=f"{_FIELD}.strength",
                value=strength,
                allowed="a number in [0, inf)",
            )
        if isinstance(self.regularizer, Contractive):
            self._check_contractive(subject)
        geometry = self.geometry(subject)
        if self.regularizer.name == "kl_sparsity" and geometry.axis == 0 and open_ended:
            raise InvalidAxis(
                "in an open-ended job axis 0 is the batch, so it can't be the neuron_axis",
                field=f"{_FIELD}.parameters['neuron_axis']",
                value=0,
            )
        measure = self.measure(subject)
        if self.state is not None:
            self._check_state(subject, measure)
        rows = -1 if open_ended else geometry.shape[0]
        self.check_memory(subject, measure, rows)
        if not open_ended and self.holds(measure, open_ended=False):
            self.check_held(subject, measure, math.prod(subject.shape) * subject.dtype.itemsize)

    def _check_contractive(self, subject: Subject) -> None:
        name = subject.record.name
        if not isinstance(subject.record, Activation):
            raise InvalidOption(
                f"contractive penalises the derivative of each element, and {name} has a matrix of them for each slice",
                field=f"{_FIELD}.regularizer",
                value="contractive",
                allowed="elementwise activations",
            )
        if self.of is Target.INPUT:
            raise InvalidOption(
                "contractive penalises the activation's derivative, so it is not of the input",
                field=f"{_FIELD}.of",
                value=self.of.value,
                allowed="output",
            )
        if self.gradient and second_derivative(subject.record) is None:
            raise InvalidOption(
                f"the gradient of contractive needs the second derivative of {name}, which is not known",
                field=f"{_FIELD}.gradient",
                value=True,
                allowed="false",
            )

    def _check_state(self, subject: Subject, measure: Measure) -> None:
        assert self.state is not None
        field = f"{_FIELD}.state"
        if measure.whole or measure.whole_slope:
            raise InvalidOption(
                f"the gradient of {self._named(subject)} is no function of sums, so a state is of no use to it",
                field=field,
                value=self.state.regularizer,
            )
        try:
            self.empty_state(subject, measure).check_like(self.state)
        except StateMismatch as error:
            raise InvalidOption(
                f"the state is of another {error.option}: {error.right!r}, and the request has {error.left!r}",
                field=field,
                value=error.right,
                allowed=error.left,
            ) from None

    def check_memory(self, subject: Subject, measure: Measure, rows: int) -> None:
        """Raise LimitExceeded if the sums, or what takes their place, need more than may be held."""
        if (size := measure.memory(rows)) > subject.max_held_bytes:
            raise LimitExceeded(
                f"{self._named(subject)} over a tensor of this shape must hold {size:,} bytes",
                field="header.inputs[0].shape",
                value=size,
                limit=subject.max_held_bytes,
                setting="max_slice_bytes",
            )

    def check_held(self, subject: Subject, measure: Measure, size: int) -> None:
        """Raise LimitExceeded, saying what to do instead, if so many bytes of x may not be held."""
        if size <= subject.max_held_bytes:
            return
        because, field = f"{self._named(subject)} compares all rows with one another", "header.inputs[0].shape"
        if not measure.whole:
            because = f"the gradient of {self._named(subject)} needs all of x first"
        if not (measure.whole or measure.whole_slope):
            # By this field a client knows that two passes would do.
            field = f"{_FIELD}.gradient"
            because += " (or give the state of a call without gradient, and it streams)"
        raise LimitExceeded(
            f"{because}, so x of {size:,} bytes must be held",
            field=field,
            value=size,
            limit=subject.max_held_bytes,
            setting="max_slice_bytes",
        )

    def _named(self, subject: Subject) -> str:
        return self.regularizer.name + (" along axis 0" if self.takes_axis and self.geometry(subject).axis == 0 else "")

    @property
    def _strength(self) -> float:
        if self.strength is not None:
            return self.strength
        weights = self.regularizer.name == "l1l2" and any(self.options[name] is not None for name in ("l1", "l2"))
        return 1.0 if weights else 0.01

    def shape(self, subject: Subject) -> tuple[int, ...]:
        """The shape of what is penalised."""
        return subject.shape if self.of is Target.INPUT else subject.result_shape

    def geometry(self, subject: Subject) -> Geometry:
        """How what is penalised lies along the regularizer's axis."""
        shape, parameter = self.shape(subject), self.regularizer.axis_parameter
        if parameter is None:
            return Geometry(shape, None)
        axis = self.options[parameter.name]
        field = f"{_FIELD}.parameters[{parameter.name!r}]"
        if axis is None and isinstance(self.regularizer, Temporal):
            axis = self.axis if subject.axis is None else None
            axis = -min(2, max(len(shape), 1)) if axis is None else axis
        elif axis is None:
            axis = -1 if self.axis is None else self.axis
        if self.options[parameter.name] is None and self.axis is not None:
            field = "header.axis"
        return Geometry(shape, resolve_axis(int(axis), shape, field=field, name=field.rpartition(".")[2]))

    def measure(self, subject: Subject) -> Measure:
        """A measure of nothing yet."""
        geometry = self.geometry(subject)
        options = self._state_options(geometry)
        words = {parameter.name: parameter.choices for parameter in self.regularizer.parameters}
        numbers = tuple(
            float(words[p.name].index(str(options[p.name]))) if p.kind == "word" else float(options[p.name])
            for p in self.regularizer.parameters
            if p.kind != "axis"
        )
        return make(self.regularizer, options, numbers, geometry, subject.team)

    def _state_options(self, geometry: Geometry) -> dict[str, float | str]:
        """The regularizer's parameters as a state has them: axes from the start, and the weights as they are meant."""
        options = dict(self.options)
        if self.regularizer.name == "l1l2":
            given = any(value is not None for value in options.values())
            options = {name: (0.0 if given else 1.0) if value is None else value for name, value in options.items()}
        if (parameter := self.regularizer.axis_parameter) is not None:
            options[parameter.name] = float(geometry.axis or 0)
        return {name: value if isinstance(value, str) else float(value or 0.0) for name, value in options.items()}

    def empty_state(self, subject: Subject, measure: Measure, rows: int = 0, elements: int = 0) -> PenaltyState:
        """The state of a pass over rows, with sums of nothing yet."""
        options = self._state_options(self.geometry(subject))
        accuracy = {} if subject.accuracy == "exact" else {"accuracy": subject.accuracy}
        width = measure.terms(1) if form_of(self.regularizer.name, options).terms == "neuron" else 1
        return PenaltyState(
            regularizer=self.regularizer.name,
            activation=subject.record.name,
            parameters=state_parameters(subject) | accuracy,
            options=options,
            of=self.of.value,
            strength=self._strength,
            reduction=self.reduction.value,
            elements=elements,
            rows=rows,
            terms=measure.terms(rows),
            whole=measure.whole or measure.whole_slope,
            sums=tuple(Sums((0,) * width) for _ in form_of(self.regularizer.name, options).quantities),
        )

    def holds(self, measure: Measure, *, open_ended: bool) -> bool:
        """Whether x must be held until all of it is there."""
        if measure.whole or (self.gradient and measure.whole_slope):
            return True
        unknown = measure.needs_state or (open_ended and self.reduction is not Reduction.SUM)
        return self.gradient and unknown and self.state is None

    def block_axis(self, subject: Subject) -> int | None:
        """From which dimension on blocks must be whole: for the activation's slices, and the regularizer's."""
        whole_slices = isinstance(self.regularizer, (Slicewise, Temporal))
        axis = self.geometry(subject).axis if whole_slices else None
        axes = [a for a in (subject.axis, axis or None) if a is not None]
        return min(axes, default=None)

    @property
    def chained(self) -> bool:
        """Whether the gradient goes on through the activation."""
        return (
            self.gradient
            and self.gradient_wrt is GradientWrt.INPUT
            and self.of is Target.OUTPUT
            and not isinstance(self.regularizer, Contractive)
        )

    def results(self, subject: Subject) -> tuple[Tensor, ...]:
        """The gradient, when it is wanted: of the shape of what is penalised, or of x's."""
        shape = subject.shape if self.chained else self.shape(subject)
        return (Tensor("gradient", subject.dtype, shape),) if self.gradient else ()

    def unit_result(self, subject: Subject) -> int:
        """Nothing is computed unit by unit."""
        return 0

    def start(self, subject: Subject, counts: Counts, *, upstream: bool, into: Room | None = None) -> Stage:
        """Begin."""
        return _Stage(self, subject, counts)


# ---- the input's way through the activation, in float64 ------------------------------------------------------------


def _all_of(pieces: Pieces, first: int, size: int, *inputs: Array) -> Array:
    """A result of an evaluation as one new array of float64."""
    out = np.empty(size)
    for _ in pieces(first, *inputs, into=out):
        pass
    return out


_STEP = 2.0**-9


class _Curvature:
    """f'(x) and f''(x) of an elementwise activation.

    f'' is the derivative of a formula, which overflows where f' is far beyond its interesting part; there it is the slope of
    f' between four points.
    """

    def __init__(self, subject: Subject) -> None:
        assert isinstance(subject.record, Activation)
        second = second_derivative(subject.record)
        assert second is not None
        self._slope = evaluate(subject, "derivative")
        self._curve = evaluate(dataclasses.replace(subject, record=second), "derivative")

    def product(self, first: int, x: Array) -> Array:
        """2 f'(x) f''(x)."""

        def slope(shift: float) -> Array:
            return _all_of(self._slope, first, x.size, x + shift)

        curve = _all_of(self._curve, first, x.size, x)
        lost = ~np.isfinite(curve) & ~np.isnan(x)
        if lost.any():
            near, far = slope(_STEP) - slope(-_STEP), slope(2 * _STEP) - slope(-2 * _STEP)
            curve = np.where(lost, (8 * near - far) / (12 * _STEP), curve)
        return 2 * slope(0.0) * curve


class _Stage:
    """The sums so far, and what is held for later."""

    def __init__(self, mode: Regularization, subject: Subject, counts: Counts) -> None:
        self._mode = mode
        self._subject = subject
        self._nonfinite = counts
        self._read = readable(subject)
        self._measure = mode.measure(subject)
        contractive = isinstance(mode.regularizer, Contractive)
        penalised = "derivative" if contractive else "forward"
        self._penalised = evaluate(subject, penalised) if mode.of is Target.OUTPUT else None
        double = dataclasses.replace(subject, dtype=np.dtype(np.float64), accuracy="exact")
        self._chain = evaluate(double, "vjp") if mode.chained else None
        self._curvature = _Curvature(double) if contractive and mode.gradient else None
        sixteen = mode.gradient and subject.dtype in SIXTEEN_BITS
        self._narrow = compiler.load_service("narrow", subject.dtype) if sixteen else None
        open_ended = subject.shape[:1] == (-1,)
        self._holds = mode.holds(self._measure, open_ended=open_ended)
        self._held: list[tuple[int, Array]] = []
        self._held_bytes = 0
        self._elements = 0
        self._state: PenaltyState | None = mode.state
        self._penalty = 0.0
        self._slope: Slope | None = None
        self._factor = 0.0
        if mode.gradient and not self._holds:
            rows = 0 if open_ended else mode.geometry(subject).shape[0]
            self._prepare(mode.state or mode.empty_state(subject, self._measure, rows))

    def _prepare(self, state: PenaltyState) -> None:
        """Get ready for the gradient of data with such a state."""
        if not (isinstance(self._mode.regularizer, Contractive)):
            self._slope = self._measure.slope(state)
        self._factor = float(Fraction(state.strength) / state.divisor)

    def block(self, first: int, *inputs: Array) -> Iterator[Piece]:
        """Add a block to the sums, and give its gradient if that needs nothing else."""
        (x,) = inputs
        if self._holds:
            self._held_bytes += x.nbytes
            self._mode.check_held(self._subject, self._measure, self._held_bytes)
            self._held.append((first, x.copy()))
        if self._measure.whole:
            return
        at, values = self._values(first, x, counted=True)
        self._measure.add(at, self._read(values))
        if self._mode.gradient and not self._holds:
            yield from self._gradient(first, x, at, values)

    def _values(self, first: int, x: Array, *, counted: bool) -> tuple[int, Array]:
        """The penalised values of a block, and the place of the first."""
        subject = self._subject
        at, values = first, x
        if self._penalised is not None:
            unit = subject.unit_elements
            at = first // unit * subject.result_unit_elements if unit else 0
            values = np.empty(x.size // unit * subject.result_unit_elements if unit else 0, subject.dtype)
            for _ in self._penalised(first, x, into=values):
                pass
        if counted:
            self._nonfinite.add(at, values)
            self._elements += values.size
        return at, values

    def _gradient(self, first: int, x: Array, at: int, values: Array, slope: Array | None = None) -> Iterator[Piece]:
        with np.errstate(all="ignore"):
            if self._curvature is not None:
                slope = self._curvature.product(first, self._read(x).astype(np.float64))
            elif slope is None:
                assert self._slope is not None
                slope = self._slope(at, self._read(values).astype(np.float64))
            gradient = slope * self._factor
            if self._chain is not None:
                at = first
                gradient = _all_of(self._chain, first, x.size, self._read(x).astype(np.float64), gradient)
            rounded = self._rounded(gradient)
        step = self._subject.piece_elements
        for start in range(0, rounded.size, step):
            yield Piece(0, at + start, rounded[start : start + step])

    def _rounded(self, gradient: Array) -> Array:
        if self._narrow is None:
            return gradient.astype(self._subject.dtype)
        out = np.empty(gradient.size, np.uint16)
        self._narrow(gradient, out)
        return out.view(self._subject.dtype)

    def finish(self, rows: int | None) -> Iterator[Piece]:
        """The sums are complete: the penalty, and the gradient that waited for them."""
        rows = 1 if rows is None else rows
        whole = np.empty(0, self._subject.dtype)
        if self._measure.whole or (self._holds and self._measure.whole_slope):
            parts = [self._values(first, x, counted=self._measure.whole)[1] for first, x in self._held]
            whole = np.concatenate(parts) if parts else whole
        if self._measure.whole and whole.size:
            self._mode.check_memory(self._subject, self._measure, rows)
            self._measure.add(0, self._read(whole))
        blank = self._mode.empty_state(self._subject, self._measure, rows, self._elements)
        state = dataclasses.replace(blank, sums=self._measure.sums())
        try:
            self._penalty = state.penalty
        except Undefined as error:
            raise OutOfDomain(str(error), field="data", allowed=self._mode.regularizer.domain) from None
        self._state = state
        if self._mode.gradient and self._holds and self._held:
            self._prepare(self._mode.state or state)
            yield from self._owed(whole)
        self._held.clear()

    def _owed(self, whole: Array) -> Iterator[Piece]:
        """The gradient of all that was held."""
        slopes: Array | None = None
        if self._measure.whole_slope:
            assert self._slope is not None
            with np.errstate(all="ignore"):
                slopes = self._slope(0, self._read(whole).astype(np.float64))
        for first, x in self._held:
            at, values = self._values(first, x, counted=False)
            yield from self._gradient(first, x, at, values, None if slopes is None else slopes[at : at + values.size])

    def scalars(self) -> Scalars:
        """The penalty, and the state that it is of."""
        assert self._state is not None
        return Penalty(self._penalty, self._state.to_bytes())
