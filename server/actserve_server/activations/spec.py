"""The vocabulary in which an activation is declared: what every record says, and nothing about how it is run.

A record states its mathematics twice on purpose: a *formula* for people and for the oracle (a Python expression that
mpmath evaluates at any precision, where the naive form is exact) and a *kernel* for the CPU (a scalar function in a
numerically stable form, which `actserve_server.kernels` compiles into a loop). Tests hold the two equal.

This module knows neither Numba nor messages: a kernel here is a plain Python function.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from actserve_server.elementary.source import Kernel, kernel


@dataclasses.dataclass(frozen=True, slots=True)
class Parameter:
    """A number, or a choice among words, that shapes an activation.

    Numbers are used as given (float64), never rounded to the tensor's type. A bound is inclusive unless its `_open`
    flag is set. Infinities are refused unless a bound is infinite and closed; NaN is always refused.
    """

    name: str
    meaning: str
    default: float | str
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = True
    high_open: bool = True
    nonzero: bool = False
    choices: tuple[str, ...] = ()
    """The words allowed, for a parameter that is a word; a kernel is given the index of the one chosen."""
    aliases: tuple[str, ...] = ()
    """Other names under which the parameter is accepted, such as the article's `alpha` for `negative_slope`."""

    def allowed(self) -> str:
        """The values allowed, in words, for messages and documentation."""
        if self.choices:
            return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
        lower = "(" if self.low_open else "["
        upper = ")" if self.high_open else "]"
        interval = f"a number in {lower}{self.low:g}, {self.high:g}{upper}"
        return interval + " other than 0" if self.nonzero else interval

    def accepts(self, value: float) -> bool:
        """Whether a number lies within the bounds; NaN never does."""
        above = value > self.low if self.low_open else value >= self.low
        below = value < self.high if self.high_open else value <= self.high
        return above and below and not (self.nonzero and value == 0)


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """An elementwise activation: y = f(x), each element by itself.

    Kernels take the element and then the parameters in the order of `parameters`, all as float64.
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
    kinks: tuple[float, ...] = ()
    """Where the derivative jumps, at the default parameters."""
    advice: str
    """When to choose it, in a sentence."""
    parameters: tuple[Parameter, ...] = ()
    aliases: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
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
    aliases: tuple[str, ...] = ()


Record = Activation | AxisActivation

__all__ = ["Activation", "AxisActivation", "Kernel", "Parameter", "Record", "Traits", "kernel"]
