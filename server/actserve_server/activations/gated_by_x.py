"""x times a sigmoid of x: SiLU, GELU and their kin. Says what they are, not how they are run.

Kernels named `..._times` give the product of an activation, or of its slope, with a finite y: where the activation
alone would underflow, the product need not. Gated units and the scalar activations share them.
"""

from __future__ import annotations

import math

from actserve_server.activations.spec import Activation, Constraint, Exact, Library, Parameter, Quick, Traits, kernel
from actserve_server.elementary import (
    EXP_LIMIT,
    LARGEST,
    decayed,
    exp_sum,
    fma,
    gate_slope,
    gelu_slope_ratio,
    normal_tail_parts,
    offset,
    quick_exp,
    quick_product,
    scaled_normal_tail,
    silu_slope_quotient,
    sqrt,
    swish_slope,
    two_product,
    working,
)

__all__ = [
    "CLIPPED_GELU",
    "GELU",
    "GELU_TANH",
    "QUICK_GELU",
    "SILU",
    "gate_argument",
    "gelu_parts",
    "gelu_slope_times",
    "gelu_tanh_slope_times",
    "gelu_tanh_times",
    "gelu_times",
    "quick_gelu_slope_times",
    "quick_gelu_times",
    "sigmoid_times",
    "silu_slope_times",
    "silu_times",
    "swish_slope_of_sum",
    "swish_slope_times",
]

# Printed by tools/fit_elementary.py SILU_ROOT GELU_ROOT INVERSE_SQRT_2PI.
SILU_ROOT_HI = Exact(-1.2784645427610737)
SILU_ROOT_LO = Exact(-1.0946994183093437e-16)
GELU_TURN_HI = Exact(0.7517915246935645)
GELU_TURN_LO = Exact(-1.4956759177009883e-17)
"""How far to the left of zero GELU turns: the root, negated."""
INVERSE_SQRT_2PI_HI = 0.3989422804014327
INVERSE_SQRT_2PI_LO = -2.49232720227773e-17

NEAR = 0.25
"""How near its zero a derivative is taken from the quotient by the distance, where the closed form would cancel."""

# 2 sqrt(2/pi), and that times the float64 0.044715, each as a float64 and the float64 of the rest.
TANH_LINE_HI = 1.5957691216057308
TANH_LINE_LO = -9.96930880911092e-17
TANH_BEND_HI = 0.07135481627260025
TANH_BEND_LO = -4.1218577217431825e-18

TANH_LINE = Exact(TANH_LINE_HI)
TANH_BEND = Exact(TANH_BEND_HI)
QUICKNESS = Exact(1.702)

SIGMOID_END = 1500.0
"""Beyond it, a sigmoid is 0 or 1 in float64, whatever finite number multiplies it."""
TANH_FORM_END = 28.0
"""Beyond it, 2u in GELU's form with tanh is beyond SIGMOID_END."""
FAR = 8.0
"""Beyond it gelu' is far from its zero."""
NORMAL_END = 55.0
"""Beyond it, the normal distribution's tail is 0 in float64, whatever finite number multiplies it."""


# The exponential is asked for twice in the same words, so that its polynomial is computed once.
@kernel
def sigmoid_times(y: float, hi: float, lo: float) -> float:
    """y/(1 + exp(-(hi + lo))), where lo is what rounding took from hi; y is finite unless hi >= 0."""
    magnitude = -abs(hi)
    rest = -lo if hi > 0.0 else lo
    share = y / (1.0 + exp_sum(magnitude, rest))
    return share if hi >= 0.0 else decayed(share, magnitude, rest)


@kernel
def swish_slope_times(y: float, growth: float, growth_rest: float, hi: float, lo: float) -> float:
    """y (s + growth s (1 - s)), where s = 1/(1 + exp(-(hi + lo))) and `growth`, finite, has the sign of hi.

    It is y times the derivative of x s where growth = x z', z being what s is the sigmoid of; `growth_rest` is what
    rounding took from it. It cancels at its zero.
    """
    magnitude = -abs(hi)
    rest = -lo if hi > 0.0 else lo
    decay = exp_sum(magnitude, rest)
    share = y / ((1.0 + decay) * (1.0 + decay))
    right = fma(decay, 1.0 + growth, 1.0) * share
    left = decayed(((1.0 + growth) + (decay + growth_rest)) * share, magnitude, rest)
    return right if hi >= 0.0 else left


@kernel
def swish_slope_of_sum(y: float, hi: float, lo: float) -> float:
    """y times the derivative of z/(1 + exp(-z)) at z = hi + lo; cancels nowhere."""
    distance = offset(hi, SILU_ROOT_HI, SILU_ROOT_LO) + lo
    closed = swish_slope_times(y, min(max(hi, -SIGMOID_END), SIGMOID_END), lo, hi, lo)
    return y * (distance * silu_slope_quotient(distance)) if abs(distance) < NEAR else closed


@kernel
def gate_argument(beta: float, x: float) -> tuple[float, float]:
    """beta x as hi + lo, and hi alone where its sigmoid is 0 or 1 anyway."""
    hi, lo = two_product(beta, min(max(x, -LARGEST), LARGEST))
    return hi, (lo if abs(hi) < SIGMOID_END else 0.0)


# x is made small where its sigmoid is 0: its infinity would meet that 0.
@kernel
def silu_times(x: float, y: float, beta: float) -> float:
    hi, lo = gate_argument(beta, x)
    return sigmoid_times((x if hi > -SIGMOID_END else min(max(x, -1.0), 1.0)) * y, hi, lo)


@kernel
def silu_slope_times(x: float, y: float, beta: float) -> float:
    hi, lo = gate_argument(beta, x)
    return swish_slope_of_sum(y, hi, lo)


@kernel
def _silu(x: float, beta: float) -> float:
    return silu_times(x, 1.0, beta)


@kernel
def _silu_slope(x: float, beta: float) -> float:
    return silu_slope_times(x, 1.0, beta)


@kernel
def _silu_reach(beta: float) -> float:
    return min(EXP_LIMIT / abs(working(beta)), LARGEST)


@kernel
def _short_silu(x: float, beta: float) -> float:
    hi, lo = quick_product(beta, x)
    return x / (1.0 + quick_exp(-hi, -lo))


@kernel
def _short_silu_slope(x: float, beta: float) -> float:
    hi, lo = quick_product(beta, x)
    return swish_slope(hi, lo)


SILU = Activation(
    name="silu",
    summary="x times its own sigmoid: smooth, and slightly negative to the left of zero.",
    reference="Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, 2017, arXiv:1702.03118; with beta, "
    "Ramachandran, Zoph and Le, Searching for activation functions, 2017, arXiv:1710.05941",
    formula="x / (1 + exp(-beta * x))",
    derivative_formula="(1 + exp(-beta * x) * (1 + beta * x)) / (1 + exp(-beta * x))**2",
    forward=_silu,
    derivative=_silu_slope,
    range="[-0.278465, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For deep convolutional networks and, inside SwiGLU, language models; a smooth stand-in for ReLU.",
    parameters=(Parameter(name="beta", meaning="Sharpness of the gate; 0 makes it x/2.", default=1.0),),
    aliases=("swish",),
    libraries=(
        Library("torch", ("SiLU", "silu")),
        Library("jax", ("silu", "swish")),
        Library("flax", ("silu", "swish")),
        Library("keras", ("silu", "swish")),
        Library("tensorflow", ("silu", "swish")),
        Library("onnx", ("Swish",), renamed=(("alpha", "beta"),)),
        Library("onednn", ("eltwise_swish",), renamed=(("alpha", "beta"),)),
        Library("huggingface", ("silu", "swish")),
        Library("ggml", ("SILU",)),
        Library("timm", ("silu", "swish")),
    ),
    tried=({"beta": 1.7}, {"beta": -0.3}, {"beta": 1e-297}, {"beta": 0.0}),
    quick=Quick(_silu_reach, _short_silu, _short_silu_slope),
)


@kernel
def quick_gelu_times(x: float, y: float) -> float:
    bounded = max(x, -SIGMOID_END)
    hi, lo = two_product(QUICKNESS, min(bounded, SIGMOID_END))
    return sigmoid_times(bounded * y, hi, lo)


@kernel
def quick_gelu_slope_times(x: float, y: float) -> float:
    hi, lo = two_product(QUICKNESS, min(max(x, -SIGMOID_END), SIGMOID_END))
    return swish_slope_of_sum(y, hi, lo)


@kernel
def _quick_gelu(x: float) -> float:
    return quick_gelu_times(x, 1.0)


@kernel
def _quick_gelu_slope(x: float) -> float:
    return quick_gelu_slope_times(x, 1.0)


@kernel
def _quick_gelu_reach() -> float:
    return EXP_LIMIT / 1.75


@kernel
def _short_quick_gelu(x: float) -> float:
    hi, lo = quick_product(QUICKNESS, x)
    return x / (1.0 + quick_exp(-hi, -lo))


@kernel
def _short_quick_gelu_slope(x: float) -> float:
    hi, lo = quick_product(QUICKNESS, x)
    return swish_slope(hi, lo)


QUICK_GELU = Activation(
    name="quick_gelu",
    summary="x times the sigmoid of 1.702 x: a quick approximation of GELU.",
    reference="Hendrycks and Gimpel, Gaussian error linear units, 2016, arXiv:1606.08415",
    formula="x / (1 + exp(-1.702 * x))",
    derivative_formula="(1 + exp(-1.702 * x) * (1 + 1.702 * x)) / (1 + exp(-1.702 * x))**2",
    forward=_quick_gelu,
    derivative=_quick_gelu_slope,
    range="[-0.163611, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For models trained with it, such as CLIP; GELU itself is as good elsewhere.",
    libraries=(
        Library("huggingface", ("quick_gelu",)),
        Library("ggml", ("GELU_QUICK",)),
        Library("timm", ("quick_gelu",)),
    ),
    quick=Quick(_quick_gelu_reach, _short_quick_gelu, _short_quick_gelu_slope),
)


# Phi(-a) = R(a) exp(-a^2/2), with the square carried as hi + lo: rounding it would cost a^2/2 units in the last place.
@kernel
def gelu_parts(x: float) -> tuple[float, float, float, float]:
    """a, R, hi, lo: |x|, made finite, and Phi(-a) = R exp(hi + lo)."""
    a = min(abs(x), NORMAL_END)
    hi = -0.5 * (a * a)
    return a, scaled_normal_tail(a), hi, fma(-0.5 * a, a, -hi)


# x Phi(x) = x - a Phi(-a) where x >= 0, and -a Phi(-a) below.
@kernel
def gelu_times(x: float, y: float) -> float:
    a, tail, hi, lo = gelu_parts(x)
    return (x * y if x >= 0.0 else -0.0) - decayed(a * tail * y, hi, lo)


# gelu'(-a) = (r - a) S exp(-a^2/2), where r is its zero, and gelu'(a) = 1 - gelu'(-a).
@kernel
def _gelu_slope_factor(a: float) -> float:
    return -offset(a, GELU_TURN_HI, GELU_TURN_LO) * gelu_slope_ratio(a)


# Far out nothing cancels, and R - a/sqrt(2 pi) is rounded less often: results that are nearly subnormal have no digit to spare.
@kernel
def gelu_slope_times(x: float, y: float) -> float:
    a, tail, hi, lo = gelu_parts(x)
    excess = fma(a, INVERSE_SQRT_2PI_HI, fma(a, INVERSE_SQRT_2PI_LO, -tail))
    left = decayed((_gelu_slope_factor(a) if a < FAR else -excess) * y, hi, lo)
    return y - left if x >= 0.0 else left


@kernel
def _gelu(x: float) -> float:
    return gelu_times(x, 1.0)


@kernel
def _gelu_slope(x: float) -> float:
    return gelu_slope_times(x, 1.0)


@kernel
def _gelu_reach() -> float:
    return sqrt(2.0 * EXP_LIMIT)


@kernel
def _bell(a: float) -> float:
    """exp(-a^2/2)."""
    hi = -0.5 * (a * a)
    return quick_exp(hi, fma(-0.5 * a, a, -hi))


@kernel
def _short_gelu(x: float) -> float:
    a = abs(x)
    above, below = normal_tail_parts(a)
    return (x if x >= 0.0 else -0.0) - a * above * _bell(a) / below


@kernel
def _short_gelu_slope(x: float) -> float:
    a = abs(x)
    left = _gelu_slope_factor(a) * _bell(a)
    return 1.0 - left if x >= 0.0 else left


GELU = Activation(
    name="gelu",
    summary="x times the probability that a standard normal variable is below x.",
    reference="Hendrycks and Gimpel, Gaussian error linear units, 2016, arXiv:1606.08415",
    formula="x * erfc(-x / sqrt(2)) / 2",
    derivative_formula="erfc(-x / sqrt(2)) / 2 + x * exp(-x**2 / 2) / sqrt(2 * pi)",
    forward=_gelu,
    derivative=_gelu_slope,
    range="[-0.169972, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For transformers, whose usual choice it is; this is the exact form, not the approximation by tanh.",
    libraries=(
        Library("torch", ("GELU", "gelu")),
        Library("keras", ("gelu",)),
        Library("tensorflow", ("gelu",)),
        Library("onnx", ("Gelu",)),
        Library("onednn", ("eltwise_gelu_erf", "gelu_erf")),
        Library("huggingface", ("gelu", "gelu_python")),
        Library("ggml", ("GELU_ERF",)),
        Library("timm", ("gelu",)),
    ),
    quick=Quick(_gelu_reach, _short_gelu, _short_gelu_slope),
)


# 2u = 2 sqrt(2/pi) (x + 0.044715 x^3) for |x| <= TANH_FORM_END, as hi + lo: rounding it, or what x is multiplied by in it, would
# cost 2u units in the last place.
@kernel
def _twice_u(x: float) -> tuple[float, float, float]:
    """2u as hi + lo, and its part with the cube."""
    square = x * x
    bend, bend_rest = quick_product(TANH_BEND, square)
    factor = TANH_LINE_HI + bend
    part = factor - TANH_LINE_HI
    lost = (TANH_LINE_HI - (factor - part)) + (bend - part)
    # In float32 the constant has a rest of another size.
    line_rest = fma(TANH_BEND_LO, square, TANH_LINE_LO + working(TANH_LINE - TANH_LINE_HI))
    rest = lost + (bend_rest + fma(TANH_BEND_HI, fma(x, x, -square), line_rest))
    hi = factor * x
    return hi, fma(factor, x, -hi) + x * rest, bend * x


@kernel
def gelu_tanh_times(x: float, y: float) -> float:
    bounded = max(x, -TANH_FORM_END)
    hi, lo, _ = _twice_u(min(bounded, TANH_FORM_END))
    return sigmoid_times(bounded * y, hi, lo)


@kernel
def gelu_tanh_slope_times(x: float, y: float) -> float:
    hi, lo, bend = _twice_u(min(max(x, -TANH_FORM_END), TANH_FORM_END))
    growth = fma(2.0, bend, hi)
    return swish_slope_times(y, growth, fma(2.0, bend, hi - growth) + lo, hi, lo)


@kernel
def _gelu_tanh(x: float) -> float:
    return gelu_tanh_times(x, 1.0)


@kernel
def _gelu_tanh_slope(x: float) -> float:
    return gelu_tanh_slope_times(x, 1.0)


# There 2u is 221 of 350, and in single precision 86 of 87.
@kernel
def _gelu_tanh_reach() -> float:
    return 3.25 * sqrt(sqrt(EXP_LIMIT))


@kernel
def _short_gelu_tanh(x: float) -> float:
    hi, lo, _ = _twice_u(x)
    return x / (1.0 + quick_exp(-hi, -lo))


@kernel
def _short_gelu_tanh_slope(x: float) -> float:
    hi, lo, bend = _twice_u(x)
    growth = fma(2.0, bend, hi)
    return gate_slope(1.0, growth, fma(2.0, bend, hi - growth) + lo, hi, lo)


GELU_TANH = Activation(
    name="gelu_tanh",
    summary="GELU with its normal probability approximated by a tanh of a cubic.",
    reference="Hendrycks and Gimpel, Gaussian error linear units, 2016, arXiv:1606.08415",
    formula="x / (1 + exp(-2 * sqrt(2 / pi) * (x + 0.044715 * x**3)))",
    derivative_formula="1 / (1 + exp(-2 * sqrt(2 / pi) * (x + 0.044715 * x**3))) "
    "+ x * 2 * sqrt(2 / pi) * (1 + 3 * (0.044715 * x**2)) * exp(-2 * sqrt(2 / pi) * (x + 0.044715 * x**3)) "
    "/ (1 + exp(-2 * sqrt(2 / pi) * (x + 0.044715 * x**3)))**2",
    forward=_gelu_tanh,
    derivative=_gelu_tanh_slope,
    range="[-0.170041, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For models trained with it, such as GPT-2, BERT in JAX and Gemma; new ones may as well take GELU itself.",
    aliases=("gelu_new", "gelu_pytorch_tanh"),
    libraries=(
        Library("jax", ("gelu",)),
        Library("flax", ("gelu",)),
        Library("onednn", ("eltwise_gelu_tanh", "gelu_tanh")),
        Library("huggingface", ("gelu_pytorch_tanh", "gelu_new", "gelu_fast", "gelu_python_tanh", "gelu_accurate")),
        Library("ggml", ("GELU",)),
        Library("timm", ("gelu_tanh",)),
    ),
    quick=Quick(_gelu_tanh_reach, _short_gelu_tanh, _short_gelu_tanh_slope),
)


# Which side of a bound gelu(x) lies on is asked of max(x, 0) minus the bound, for the loss |x| Phi(-|x|) may be far below
# the rounding error of gelu(x): gelu(10) is below 10.
@kernel
def _clipped_gelu(x: float, min_val: float, max_val: float) -> float:
    return min(max(gelu_times(x, 1.0), working(min_val)), working(max_val))


@kernel
def _clipped_gelu_slope(x: float, min_val: float, max_val: float) -> float:
    a, tail, hi, lo = gelu_parts(x)
    loss = decayed(a * tail, hi, lo)
    positive = max(x, 0.0)
    above = positive - working(min_val) > loss
    below = positive - working(max_val) < loss
    return (gelu_slope_times(x, 1.0) if above else 0.0) if below else 0.0


CLIPPED_GELU = Activation(
    name="clipped_gelu",
    summary="GELU, held between two bounds.",
    reference="Wu, Judd, Zhang, Isaev and Micikevicius, Integer quantization for deep learning inference, 2020, "
    "arXiv:2004.09602",
    formula="min(max(x * erfc(-x / sqrt(2)) / 2, min_val), max_val)",
    derivative_formula="erfc(-x / sqrt(2)) / 2 + x * exp(-x**2 / 2) / sqrt(2 * pi) "
    "if min_val < x * erfc(-x / sqrt(2)) / 2 < max_val else 0",
    forward=_clipped_gelu,
    derivative=_clipped_gelu_slope,
    range="[-0.169972, max_val]",
    traits=Traits(monotonic=False, zero_centred=True, saturates="both", smooth=False),
    limits=(-0.0, 10.0, 0.0, 0.0),
    kinks=(10.0,),
    advice="For transformers that are to be quantized: the bounds keep the range of values small.",
    parameters=(
        Parameter(name="min_val", meaning="The lower bound of the result.", default=-10.0, aliases=("min",)),
        Parameter(name="max_val", meaning="The upper bound of the result.", default=10.0, aliases=("max",)),
    ),
    constraints=(
        Constraint("min_val must be at most max_val", lambda given: given["min_val"] <= given["max_val"], "min_val"),
    ),
    aliases=("gelu_10",),
    libraries=(Library("huggingface", ("gelu_10",)),),
    tried=({"min_val": -0.1, "max_val": 3.0}, {"min_val": 0.5, "max_val": 0.5}, {"min_val": -3.0, "max_val": -0.125}),
)
