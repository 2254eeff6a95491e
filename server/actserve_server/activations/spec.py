"""The vocabulary in which an activation is declared: what every record says, and nothing about how it is run.

A record states its mathematics twice on purpose: a *formula* for people and for the oracle (a Python expression that
mpmath evaluates at any precision, where the naive form is exact) and a *kernel* for the CPU (a scalar function in a
numerically stable form, which `actserve_server.kernels` compiles into a loop). Tests hold the two equal.

Formulas are written with abs, min, max, sign, sqrt, exp, expm1, log, log1p, tanh, cosh, sin, cos, atan, erf, erfc, pi, fsum.
This module knows neither Numba nor messages: a kernel here is a plain Python function.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from actserve_server.elementary.source import Exact, Kernel, kernel

Value = float | str | bool | None
"""The value of a parameter; None is one that was not given and has no default."""

ParameterKind = Literal["number", "integer", "flag", "word", "seed", "axis"]


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """What shapes an activation: a number, a whole number, a switch, a word, a seed, or an axis.

    Numbers are used as given (float64), never rounded to the tensor's type. A bound is inclusive unless its `_open`
    flag is set. Infinities are refused unless a bound is infinite and closed; NaN is always refused.

    A kernel is given numbers and whole numbers as they are, a flag as 0.0 or 1.0, a word as the index of the one chosen,
    and a seed as two numbers, its upper and its lower 32 bits. An axis says along which dimension the arrays of
    `per_channel` parameters lie; no kernel is given it.
    """

    name: str
    meaning: str
    default: Value
    """None: it must be given, unless a constraint of the record says when it must."""
    kind: ParameterKind = "number"
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = True
    high_open: bool = True
    nonzero: bool = False
    choices: tuple[str, ...] = ()
    """The words allowed, for a parameter that is a word."""
    aliases: tuple[str, ...] = ()
    """Other names under which the parameter is accepted, such as the article's `alpha` for `negative_slope`."""
    per_channel: bool = False
    """Whether an array may be given, with a value for each channel."""
    optional: bool = False
    """Whether it may be left out although it has no default."""
    within_axis: bool = False
    """Whether it may be at most as large as the axis is long."""

    def allowed(self) -> str:
        """The values allowed, in words, for messages and documentation."""
        match self.kind:
            case "word":
                return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
            case "flag":
                return "true or false"
            case "seed":
                return "a whole number in [0, 2^63 - 1]"
            case "axis":
                return "a dimension of the tensor"
        lower = "(" if self.low_open else "["
        upper = ")" if self.high_open else "]"
        noun = "a whole number" if self.kind == "integer" else "a number"
        interval = f"{noun} in {lower}{self.low:g}, {self.high:g}{upper}"
        interval += " other than 0" if self.nonzero else ""
        return interval + (", or an array of them" if self.per_channel else "")

    def accepts(self, value: float) -> bool:
        """Whether a number lies within the bounds; NaN never does."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and not (self.nonzero and value == 0)


def word(name: str, meaning: str, *choices: str, aliases: tuple[str, ...] = ()) -> Parameter:
    """A parameter that is one of some words; the first is its default."""
    return Parameter(name, meaning, choices[0], kind="word", choices=choices, aliases=aliases)


CHANNEL_AXIS = Parameter(
    name="channel_axis",
    meaning="The dimension along which an array's values differ; without it the array broadcasts as in NumPy.",
    default=None,
    kind="axis",
    optional=True,
)


@dataclasses.dataclass(frozen=True, slots=True)
class Constraint:
    """What must hold between parameters, in words and as a function of all of them by name."""

    words: str
    holds: Callable[[Mapping[str, Any]], bool]
    field: str
    """The parameter to name when it does not."""


@dataclasses.dataclass(frozen=True, slots=True)
class Library:
    """What another library calls an activation, and where its defaults or its parameters' names differ.

    >>> Library("keras", ("leaky_relu",), defaults=(("negative_slope", 0.2),))
    """

    library: str
    """One of LIBRARIES."""
    names: tuple[str, ...]
    """All its names, the usual one first; compared without case, `_` and `-`."""
    defaults: tuple[tuple[str, Value], ...] = ()
    """Parameters, by our name, whose default differs there."""
    renamed: tuple[tuple[str, str], ...] = ()
    """Parameters by the library's name, each with ours."""


LIBRARIES = ("torch", "jax", "flax", "keras", "tensorflow", "onnx", "onednn", "huggingface", "ggml", "timm")
"""The libraries whose names are known, and which `preset` may therefore be."""


@dataclasses.dataclass(frozen=True, slots=True)
class ParameterGradient:
    """The derivative of an activation with respect to one of its parameters."""

    parameter: str
    formula: str
    kernel: Kernel
    """Takes what the activation's own kernels take."""


@dataclasses.dataclass(frozen=True, slots=True)
class Traits:
    """What people choose an activation by. Every trait is checked by a test, at the default parameters."""

    monotonic: bool
    """Never decreasing over the whole line (along an axis: an element never falls when it alone grows)."""
    zero_centred: bool
    """Takes both signs, so that its outputs need not all push the next layer's weights the same way."""
    saturates: Literal["no", "left", "right", "both"]
    """On which side the slope tends to 0."""
    smooth: bool
    """Has a continuous derivative everywhere."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Quick:
    """Shorter kernels, which need not look after infinities, NaN, underflow and overflow.

    The loop takes them for every element within `reach`, and the record's own kernels for the others: by the element
    alone, so that bits do not depend on its neighbours.
    """

    reach: Kernel
    """Of (*parameters): the quick kernels are right for |x| up to it, within the bounds that hold for the record's own. A finite
    number; where it is not above zero, they are for no element."""
    forward: Kernel | None
    derivative: Kernel | None
    """None where there is none shorter."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Activation:
    """An elementwise activation: y = f(x), each element by itself.

    Kernels take the element and then the parameters in the order of `parameters`, as `Parameter` says.
    """

    name: str
    summary: str
    reference: str
    formula: str
    derivative_formula: str
    """The exact derivative; at a kink it is the convention: the corner belongs to the inactive branch."""
    forward: Kernel
    derivative: Kernel
    range: str
    traits: Traits
    limits: tuple[float, float, float, float]
    """f(-inf), f(inf), f'(-inf), f'(inf) at the default parameters; NaN where there is no limit."""
    kinks: tuple[float, ...] = ()
    """Where the derivative jumps, at the default parameters."""
    advice: str
    """When to choose it, in a sentence."""
    parameters: tuple[Parameter, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    aliases: tuple[str, ...] = ()
    libraries: tuple[Library, ...] = ()
    gradients: tuple[ParameterGradient, ...] = ()
    """Derivatives with respect to parameters, where people train them."""
    tried: tuple[Mapping[str, Value], ...] = ()
    """Other parameters at which tests hold kernels to formulas."""
    ulp: float = 4.0
    """The bound of the error of `forward` in float64, in units in the last place; derivatives have 6."""
    cancels: tuple[Literal["forward", "derivative"], ...] = ()
    """Kernels that subtract nearly equal terms at a zero that is not at x = 0: for float32 results they too are bound to
    the wide elementary functions, as an error of 2^-40 relative to a term would be one of the result."""
    single: tuple[Literal["forward", "derivative", "vjp"], ...] = ()
    """Operations that round once at most, and as well in single precision: what they give is x, a parameter, or one sum, product or
    square of float32 numbers. For float32 results they are computed so, in twice as many elements at a time and for the same bits."""
    indexed: bool = False
    """Whether its kernels take the element's global index (an integer) between the element and the parameters."""
    drawn_if: str = ""
    """The flag without which the index has no say, so that what it gives is a function of the element alone."""
    quick: Quick | None = None
    """Shorter kernels for the elements that people have."""
    truth: Callable[[Any, Sequence[float], bool], Any] | None = None
    """Of a formula that came from outside, and so is never evaluated as text: f (False) or f' (True) at a number, given the kernel's
    parameters, at mpmath's present precision."""
    second: Kernel | None = None
    """The kernel of the second derivative, where it does not come from the text of the first."""
    revision: str = ""
    """Of one that was added: tells it apart from others that have had its name. Those of the catalogue have none."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Whole:
    """A shorter way for slices that lie each in one run of memory: what the first look at one computes, the second only finishes.

    The first returns two numbers (float64), and may leave terms[n] of the precision's type, for the second.
    """

    look: Kernel
    """look(x, terms, *parameters) -> a, b"""
    forward: Kernel
    """forward(v, term, a, b): y[i], where v = x[i] and term = terms[i]."""
    look_vjp: Kernel
    """look_vjp(x, g, terms, *parameters) -> a, b"""
    vjp: Kernel
    """vjp(u, term, a, b): (J^T g)[i], where u = g[i]."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AxisActivation:
    """An activation of whole slices along an axis, as softmax is.

    It is evaluated in two steps. `reduce` looks at a block of slices, x[n, inner] (slice j is x[:, j]), and leaves what
    it found in state[state_size, inner] (float64); the other kernels then give any single element from the element,
    its place (i, j) and the state, so that a result can be produced in pieces of any size.

    ========================================  ==========================================================
    reduce(x, state, *parameters)             fills state; x is C-contiguous, n x inner
    forward(v, i, j, state, *parameters)      y[i, j], where v = x[i, j]
    vjp_reduce(x, g, state, vjp_state, ...)   fills vjp_state[vjp_state_size, inner] from the upstream gradient g
    vjp(v, u, i, j, state, vjp_state, ...)    (J^T g)[i, j], where u = g[i, j]
    jacobian(v, w, i, k, j, state, ...)       dy[i, j]/dx[k, j], where v = x[i, j] and w = x[k, j]
    ========================================  ==========================================================
    """

    name: str
    summary: str
    reference: str
    formula: str
    """f(x, i): the i-th element of the result, where x is the list of the slice's elements and `fsum` may be used."""
    derivative_formula: str
    """dy_i/dx_k as an expression of x, i, k."""
    state_size: int
    reduce: Kernel
    forward: Kernel
    vjp_state_size: int
    vjp_reduce: Kernel
    vjp: Kernel
    jacobian: Kernel
    range: str
    traits: Traits
    advice: str
    """When to choose it, in a sentence."""
    parameters: tuple[Parameter, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    aliases: tuple[str, ...] = ()
    libraries: tuple[Library, ...] = ()
    tried: tuple[Mapping[str, Value], ...] = ()
    gradients: tuple[ParameterGradient, ...] = ()
    """Their kernels are (v, u, i, j, state, vjp_state, *parameters) -> the element's share of the sum, u = g[i, j]."""
    indexed: bool = False
    """Whether `reduce` and `vjp_reduce` take the global index of x[0, 0], and `forward`, `vjp` and `jacobian` that of v (an
    integer), before the parameters. The element x[i, j] has index i * inner + j from x[0, 0]."""
    fast: bool = False
    """Whether its kernels gain from single precision; where not, the fast results are the exact ones."""
    whole: Whole | None = None
    branches: bool = False
    """Whether its kernels take one of several ways, most of them long: where a loop worked at several elements at once it would take all."""
    special: Mapping[tuple[float, ...], tuple[AxisActivation, tuple[float, ...]]] = dataclasses.field(
        default_factory=dict
    )
    """Other records, with their parameters, whose results and Jacobians are the same at some parameters (as kernels take them), and take
    less time."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GatedActivation:
    """A gated unit: an axis is halved, and one half decides how much of the other passes.

    Kernels take u, the element of the half that goes through the activation, v, its partner in the other half, and the
    parameters. Every record has the words `activated` (which half is u) and `layout` (halves one after the other, or
    element by element in turn) as its first two parameters; kernels are not given them.
    """

    name: str
    summary: str
    reference: str
    formula: str
    """Of u and v."""
    u_formula: str
    """The partial derivative with respect to u."""
    v_formula: str
    """The partial derivative with respect to v."""
    forward: Kernel
    u_derivative: Kernel
    v_derivative: Kernel
    range: str
    traits: Traits
    advice: str
    parameters: tuple[Parameter, ...]
    constraints: tuple[Constraint, ...] = ()
    aliases: tuple[str, ...] = ()
    libraries: tuple[Library, ...] = ()
    tried: tuple[Mapping[str, Value], ...] = ()
    cancels: tuple[Literal["forward", "u_derivative", "v_derivative"], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ResizingActivation:
    """An activation that changes the length of an axis, as CReLU (twice as long) and maxout (shorter) do.

    ===============================  ==================================================================
    length(n, **parameters)          the length of the result's axis; plain Python, raises ValueError in words
    forward(x, i, j, *parameters)    y[i, j] from the block x[n, inner]
    vjp(x, g, i, j, *parameters)     (J^T g)[i, j] from the block and the upstream gradient g[length, inner]
    ===============================  ==================================================================

    The elements of x and g are of the tensor's type, so kernels read each as a float64. They must let a NaN through themselves.
    """

    name: str
    summary: str
    reference: str
    formula: str
    """f(x, i): the i-th element of the result, where x is the list of the slice's elements."""
    derivative_formula: str
    """dy_i/dx_k as an expression of x, i, k."""
    length: Callable[..., int]
    forward: Kernel
    vjp: Kernel
    range: str
    traits: Traits
    advice: str
    parameters: tuple[Parameter, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    aliases: tuple[str, ...] = ()
    libraries: tuple[Library, ...] = ()
    tried: tuple[Mapping[str, Value], ...] = ()


Record = Activation | AxisActivation | GatedActivation | ResizingActivation

__all__ = [
    "CHANNEL_AXIS",
    "LIBRARIES",
    "Activation",
    "AxisActivation",
    "Constraint",
    "Exact",
    "GatedActivation",
    "Kernel",
    "Library",
    "Parameter",
    "ParameterGradient",
    "Record",
    "ResizingActivation",
    "Traits",
    "Value",
    "Whole",
    "kernel",
    "word",
]
