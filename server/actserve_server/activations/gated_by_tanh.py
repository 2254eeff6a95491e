"""x times a tanh: TanhExp, LiSHT and Phish. Says what they are, not how they are run.

With g = exp(2t) - 1, tanh(t) = g/(g + 2) and its derivative is 4 (g + 1)/(g + 2)^2: both keep their digits for small t
and for large.
"""

from __future__ import annotations

import math

from actserve_server.activations.gated_by_softplus import LINEAR_TAIL
from actserve_server.activations.gated_by_x import (
    INVERSE_SQRT_2PI_HI,
    INVERSE_SQRT_2PI_LO,
    SIGMOID_END,
    gelu_parts,
)
from actserve_server.activations.spec import Activation, Exact, Traits, kernel
from actserve_server.elementary import (
    PHISH_MIDDLE,
    PHISH_REACH,
    PHISH_SLOPE,
    SLOPE_MIDDLE,
    SLOPE_REACH,
    TANH_EXP_SLOPE,
    copysign,
    decayed,
    exp_sum,
    expm1,
    fma,
    offset,
)
from actserve_server.elementary.bits import polynomial

__all__ = ["LISHT", "PHISH", "TANH_EXP"]

# The zeros of derivatives, printed by tools/fit_elementary.py.
TANH_EXP_ROOT_HI = Exact(-1.078860058464624)
TANH_EXP_ROOT_LO = Exact(-9.55786742622646e-17)
PHISH_ROOT_HI = Exact(-1.1954312013879125)
PHISH_ROOT_LO = Exact(2.1854420556614362e-17)

TANH_END = 22.0
"""Beyond it, tanh is 1 in float64, and its derivative, times any t here, is lost beside 1. (exp(2t) + 1)^2 is within float32."""
EXP_END = 4.0
"""Beyond it, exp(x) is beyond TANH_END."""
CUBIC_TAIL = -8.0
"""Below it, gelu(x) is so small that its tanh is gelu(x) itself."""


# Every rounding counts where the two cancel in part: so what rounding took from w is put back, and (g + 2)^2 is a sum that is rounded
# last.
@kernel
def _sum_of_tanh(t: float, x: float, y: float) -> float:
    """tanh(t) + x y of its derivative, for t up to TANH_END."""
    g = expm1(2.0 * t)
    w = 4.0 * x * y
    rest = fma(4.0 * x, y, -w)
    return (fma(g, g + 2.0, fma(w, g, rest)) + w) / fma(g, g + 4.0, 4.0)


@kernel
def _tanh_exp(x: float) -> float:
    exponent = min(x, EXP_END)
    bounded = max(x, -SIGMOID_END)
    growth = expm1(2.0 * min(exp_sum(exponent, 0.0), TANH_END))
    value = bounded * (growth / (growth + 2.0))
    return decayed(bounded, exponent, 0.0) if x < LINEAR_TAIL else value


@kernel
def _tanh_exp_slope(x: float) -> float:
    exponent = min(x, EXP_END)
    bounded = min(max(x, -SIGMOID_END), EXP_END)
    inner = min(exp_sum(exponent, 0.0), TANH_END)
    value = _sum_of_tanh(inner, bounded, inner)
    far = decayed(1.0 + bounded, exponent, 0.0) if x < LINEAR_TAIL else value
    around = offset(x, TANH_EXP_ROOT_HI, TANH_EXP_ROOT_LO) * polynomial(x - SLOPE_MIDDLE, TANH_EXP_SLOPE)
    return around if abs(x - SLOPE_MIDDLE) < SLOPE_REACH else far


TANH_EXP = Activation(
    name="tanh_exp",
    summary="x times the tanh of its exponential: nearly the identity above 1, and slightly negative to the left of zero.",
    reference="Liu and Di, TanhExp: a smooth activation function with high convergence speed for lightweight neural "
    "networks, 2020, arXiv:2003.09855; as TeLU, Fernandez and Mali, 2024, arXiv:2412.20269",
    formula="x * tanh(exp(x))",
    derivative_formula="tanh(exp(x)) + x * exp(x) / cosh(exp(x))**2",
    forward=_tanh_exp,
    derivative=_tanh_exp_slope,
    range="[-0.353286, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For lightweight networks: it comes closer to ReLU on the right than Swish and Mish do.",
    aliases=("telu",),
    cancels=("derivative",),
)


@kernel
def _lisht(x: float) -> float:
    growth = expm1(2.0 * min(abs(x), TANH_END))
    return abs(x) * (growth / (growth + 2.0))


@kernel
def _lisht_slope(x: float) -> float:
    a = min(abs(x), TANH_END)
    return copysign(_sum_of_tanh(a, a, 1.0), x)


LISHT = Activation(
    name="lisht",
    summary="x times its own tanh: near zero the square of x, far from it |x|.",
    reference="Roy, Manna, Dubey and Chaudhuri, LiSHT: non-parametric linearly scaled hyperbolic tangent activation "
    "function for neural networks, 2019, arXiv:1901.05894",
    formula="x * tanh(x)",
    derivative_formula="tanh(x) + x / cosh(x)**2",
    forward=_lisht,
    derivative=_lisht_slope,
    range="[0, inf)",
    traits=Traits(monotonic=False, zero_centred=False, saturates="no", smooth=True),
    limits=(math.inf, math.inf, -1.0, 1.0),
    advice="Where the size of an input matters and its sign does not; its outputs are never negative.",
)


# gelu(x) = max(x, 0) - |x| Phi(-|x|). Where x is far to the left, tanh(gelu(x)) x = x^2 Phi(x).
@kernel
def _phish(x: float) -> float:
    a, tail, hi, lo = gelu_parts(x)
    inner = (x if x >= 0.0 else -0.0) - decayed(a * tail, hi, lo)
    growth = expm1(2.0 * min(inner, TANH_END))
    value = x * (growth / (growth + 2.0))
    return decayed(a * a * tail, hi, lo) if x < CUBIC_TAIL else value


@kernel
def _phish_slope(x: float) -> float:
    a, tail, hi, lo = gelu_parts(x)
    inner = (x if x >= 0.0 else -0.0) - decayed(a * tail, hi, lo)
    density_rest = fma(a, INVERSE_SQRT_2PI_LO, -tail)
    value = decayed(fma(a, INVERSE_SQRT_2PI_HI, density_rest), hi, lo)
    slope = 1.0 + value if x >= 0.0 else -value
    near = _sum_of_tanh(min(inner, TANH_END), min(x, TANH_END), slope)
    far = decayed(a * fma(a, INVERSE_SQRT_2PI_HI, density_rest - tail), hi, lo)
    closed = far if x < CUBIC_TAIL else near
    around = offset(x, PHISH_ROOT_HI, PHISH_ROOT_LO) * polynomial(x - PHISH_MIDDLE, PHISH_SLOPE)
    return around if abs(x - PHISH_MIDDLE) < PHISH_REACH else closed


PHISH = Activation(
    name="phish",
    summary="x times the tanh of its GELU: never negative, with a small bump to the left of zero.",
    reference="Naveen, Phish: a novel hyper-optimizable activation function, TechRxiv, 2022",
    formula="x * tanh(x * erfc(-x / sqrt(2)) / 2)",
    derivative_formula="tanh(x * erfc(-x / sqrt(2)) / 2) + x / cosh(x * erfc(-x / sqrt(2)) / 2)**2 "
    "* (erfc(-x / sqrt(2)) / 2 + x * exp(-x**2 / 2) / sqrt(2 * pi))",
    forward=_phish,
    derivative=_phish_slope,
    range="[0, inf)",
    traits=Traits(monotonic=False, zero_centred=False, saturates="left", smooth=True),
    limits=(0.0, math.inf, 0.0, 1.0),
    advice="As an experiment beside GELU and Mish; it costs two exponentials.",
    cancels=("derivative",),
)
