"""The vocabulary in which a regularizer is declared: what every record says, and nothing about how it is run.

A record says what `actserve.penalties.FORMS` does not: in which words it is described, what its parameters may be, and the
kernels, scalar functions in float64, that give its terms and the slope of its penalty. Of what sums the penalty is a
function, and of which, both ends of the wire must know, so that stands there. In formulas a is the activation (or the input,
where that is penalised), s the strength, sums go over all elements, and a slice lies along `penalty_axis`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from actserve.penalties import PenaltyState

from actserve_server.activations.spec import Parameter
from actserve_server.elementary.source import Kernel

Coefficients = Callable[[PenaltyState], tuple[Any, ...]]
"""What a slope's kernel takes beside the activation, from a state that may be only the options of one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Regularizer:
    """What every regularizer says of itself."""

    name: str
    aliases: tuple[str, ...] = ()
    summary: str
    formula: str
    """The penalty, for the reduction "sum"."""
    gradient_formula: str
    """Its derivative by the element a (by x, where it says so)."""
    convention: str = ""
    """What is meant where the formulas say nothing."""
    domain: str = ""
    """Where it is undefined, in words; all else is allowed."""
    libraries: str = ""
    """Whose definition it equals, and with which reduction."""
    reference: str
    parameters: tuple[Parameter, ...] = ()
    mean_over: str = "elements"
    """What the reduction "mean" counts."""
    whole_gradient: bool = False
    """Whether the gradient at an element depends on all of them, so that it needs a state first."""

    @property
    def axis_parameter(self) -> Parameter | None:
        """The parameter that says along which dimension it works, if there is one."""
        return next((parameter for parameter in self.parameters if parameter.kind == "axis"), None)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pointwise(Regularizer):
    """Sums of functions of single elements; the gradient at an element is one of it and of some coefficients.

    ============================  ============================================================
    term(a, *parameters)          the term that is summed, where it is no magnitude and no square
    slope(a, *coefficients)       the derivative, before strength and reduction
    coefficients(state)           what the slope takes
    ============================  ============================================================
    """

    term: Kernel | None = None
    slope: Kernel
    slope_width: int
    """How many coefficients there are."""
    coefficients: Coefficients


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slicewise(Regularizer):
    """A term for each slice along an axis.

    ================================  ===============================================================
    term(x, j, *parameters)           the term of slice j of a block x[n, inner]
    slope(x, j, out, *parameters)     fills slice j of out[n, inner] with the term's derivatives
    ================================  ===============================================================

    The term summed is its square where the regularizer's form sums squares; the slope is that of the square then.
    """

    term: Kernel
    slope: Kernel


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Neuronwise(Regularizer):
    """A function of each neuron's sum over the batch; the gradient is `offset + factor * a` with one of each a neuron.

    `coefficients(state)` gives the arrays of offsets and factors.
    """

    coefficients: Coefficients


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Temporal(Regularizer):
    """Squares of differences along an axis."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contractive(Regularizer):
    """Squares of the activation's derivative."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Orthogonal(Regularizer):
    """Cosines between the rows or the columns of a matrix."""


Record = Pointwise | Slicewise | Neuronwise | Temporal | Contractive | Orthogonal

__all__ = [
    "Coefficients",
    "Contractive",
    "Neuronwise",
    "Orthogonal",
    "Pointwise",
    "Record",
    "Regularizer",
    "Slicewise",
    "Temporal",
]
