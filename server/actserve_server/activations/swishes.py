"""Swish with more parameters: E-Swish, Flatten-T Swish, ACON-C and APTx. Says what they are, not how they are run."""

from __future__ import annotations

import math

from actserve_server.activations.gated_by_x import (
    SIGMOID_END,
    gate_argument,
    sigmoid_times,
    swish_slope_of_sum,
    swish_slope_times,
)
from actserve_server.activations.spec import Activation, Parameter, Quick, Traits, kernel
from actserve_server.elementary import (
    EXP_LIMIT,
    LARGEST,
    exp_sum,
    fma,
    gate_slope,
    quick_exp,
    quick_product,
    scaled_exp,
    scaled_swish_slope,
    square_of_more,
    two_product,
    working,
)

__all__ = ["ACON_C", "APTX", "E_SWISH", "FLATTEN_T_SWISH"]

LARGE = 1000.0
"""Up to it, a factor is none that quick kernels need look out for; down to TINY, a slope."""
TINY = 2.0**-50


@kernel
def _e_swish(x: float, beta: float) -> float:
    bounded = max(x, -SIGMOID_END) if beta != 0.0 else min(max(x, -SIGMOID_END), SIGMOID_END)
    return sigmoid_times(working(beta) * bounded, x, 0.0)


@kernel
def _e_swish_slope(x: float, beta: float) -> float:
    return swish_slope_of_sum(working(beta), x, 0.0)


# A large beta would overflow beside the square of an exponential.
@kernel
def _e_swish_reach(beta: float) -> float:
    return EXP_LIMIT if abs(beta) <= LARGE else 0.0


@kernel
def _quick_e_swish(x: float, beta: float) -> float:
    return working(beta) * x / (1.0 + quick_exp(-x, 0.0))


@kernel
def _quick_e_swish_slope(x: float, beta: float) -> float:
    return scaled_swish_slope(working(beta), x)


E_SWISH = Activation(
    name="e_swish",
    summary="Swish multiplied by a constant a little above 1.",
    reference="Alcaide, E-swish: adjusting activations to different network depths, 2018, arXiv:1801.07145",
    formula="beta * x / (1 + exp(-x))",
    derivative_formula="beta * (1 + exp(-x) * (1 + x)) / (1 + exp(-x))**2",
    forward=_e_swish,
    derivative=_e_swish_slope,
    range="[-0.348081, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.25),
    advice="For shallow networks, with beta between 1 and 2; in very deep ones the gain builds up.",
    parameters=(Parameter(name="beta", meaning="Multiplies the result.", default=1.25),),
    tried=({"beta": 1.75}, {"beta": -0.3}, {"beta": 0.0}, {"beta": 1e6}),
    quick=Quick(_e_swish_reach, _quick_e_swish, _quick_e_swish_slope),
)


@kernel
def _lowered_share(bounded: float, decay: float, threshold: float) -> float:
    """bounded/(1 + decay) + threshold, which may cancel: so what is lost where the quotient is rounded is carried along."""
    whole = 1.0 + decay
    inverse = 1.0 / whole
    share = bounded * inverse
    lost = fma(-share, decay - (whole - 1.0), fma(-share, whole, bounded)) * inverse
    return (share + working(threshold)) + lost


@kernel
def _flatten_t_swish(x: float, threshold: float) -> float:
    bounded = min(max(x, 0.0), LARGEST)
    value = _lowered_share(bounded, exp_sum(-bounded, 0.0), threshold)
    return value if x <= LARGEST else x


@kernel
def _flatten_t_swish_slope(x: float, threshold: float) -> float:
    bounded = min(max(x, 0.0), SIGMOID_END)
    return swish_slope_times(1.0, bounded, 0.0, bounded, 0.0) if x > 0.0 else 0.0


@kernel
def _flatten_t_swish_reach(threshold: float) -> float:
    return EXP_LIMIT


@kernel
def _quick_flatten_t_swish(x: float, threshold: float) -> float:
    bounded = max(x, 0.0)
    return _lowered_share(bounded, quick_exp(-bounded, 0.0), threshold)


@kernel
def _quick_flatten_t_swish_slope(x: float, threshold: float) -> float:
    bounded = max(x, 0.0)
    return gate_slope(1.0, bounded, 0.0, bounded, 0.0) if x > 0.0 else 0.0


FLATTEN_T_SWISH = Activation(
    name="flatten_t_swish",
    summary="Swish above zero and flat below it, moved down as a whole.",
    reference="Chieng, Wahid, Ong and Perla, Flatten-T Swish: a thresholded ReLU-Swish-like activation function for deep "
    "learning, International Journal of Advances in Intelligent Informatics 4, 2018, arXiv:1812.06247",
    formula="(x / (1 + exp(-x)) if x > 0 else 0) + threshold",
    derivative_formula="(1 + exp(-x) * (1 + x)) / (1 + exp(-x))**2 if x > 0 else 0",
    forward=_flatten_t_swish,
    derivative=_flatten_t_swish_slope,
    range="[threshold, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=False),
    limits=(-0.2, math.inf, 0.0, 1.0),
    kinks=(0.0,),
    advice="As a stand-in for ReLU whose outputs average nearer to zero.",
    parameters=(
        Parameter(
            name="threshold",
            meaning="What the result is below zero, and is moved by above it.",
            default=-0.2,
            high=0.0,
            high_open=False,
            aliases=("T",),
        ),
    ),
    aliases=("fts",),
    tried=({"threshold": 0.0}, {"threshold": -1.0}),
    cancels=("forward",),
    quick=Quick(_flatten_t_swish_reach, _quick_flatten_t_swish, _quick_flatten_t_swish_slope),
)


# x (right s + left (1 - s)), where s is the sigmoid of hi + lo: a line of slope `left` far to one side of zero, and one of
# slope `right` far to the other.
@kernel
def _two_lines(x: float, right: float, left: float, hi: float, lo: float) -> float:
    finite = min(max(x, -LARGEST), LARGEST)
    magnitude = -abs(hi)
    rest = -lo if hi > 0.0 else lo
    near = right if hi >= 0.0 else left
    far = left if hi >= 0.0 else right
    inverse = 1.0 / (1.0 + exp_sum(magnitude, rest))
    fading = scaled_exp(finite * (far * inverse), magnitude, rest)
    faded = fading if magnitude > -SIGMOID_END else -0.0
    return (x if near != 0.0 else finite) * (near * inverse) + faded


@kernel
def _two_lines_slope(right: float, left: float, hi: float, lo: float) -> float:
    magnitude = -abs(hi)
    rest = -lo if hi > 0.0 else lo
    near = right if hi >= 0.0 else left
    far = left if hi >= 0.0 else right
    decay = exp_sum(magnitude, rest)
    growth = min(abs(hi), SIGMOID_END)
    inverse = 1.0 / ((1.0 + decay) * (1.0 + decay))
    faded = scaled_exp(far * (((1.0 - growth) + decay) * inverse), magnitude, rest)
    return fma(near, fma(decay, 1.0 + growth, 1.0) * inverse, faded)


@kernel
def _are_tiny(right: float, left: float) -> bool:
    """Whether one of the slopes is tiny, but not 0."""
    return (0.0 < abs(right) < TINY) | (0.0 < abs(left) < TINY)


@kernel
def _quick_two_lines(x: float, right: float, left: float, hi: float, lo: float) -> float:
    """_two_lines for |hi| <= half of EXP_LIMIT, where no product of a slope that is not tiny and the exponential underflows."""
    near = right if hi >= 0.0 else left
    far = left if hi >= 0.0 else right
    decay = quick_exp(-abs(hi), -lo if hi > 0.0 else lo)
    return x * (fma(far, decay, near) / (1.0 + decay))


@kernel
def _quick_two_lines_slope(right: float, left: float, hi: float, lo: float) -> float:
    near = right if hi >= 0.0 else left
    far = left if hi >= 0.0 else right
    growth = abs(hi)
    rest = -lo if hi > 0.0 else lo
    decay = quick_exp(-growth, rest)
    fading = far * (decay * ((1.0 - growth) + (decay + rest)))
    return fma(near, fma(decay, 1.0 + growth, 1.0), fading) / square_of_more(decay)


# beta (p1 - p2) x as hi + lo. What depends on parameters alone is float64 in every precision, and is computed once.
@kernel
def _acon_gain(p1: float, p2: float, beta: float) -> tuple[float, float]:
    difference = p1 - p2
    part = difference - p1
    difference_rest = (p1 - (difference - part)) - (p2 + part)
    gain = beta * difference
    return gain, fma(beta, difference, -gain) + beta * difference_rest


@kernel
def _acon_argument(x: float, p1: float, p2: float, beta: float) -> tuple[float, float]:
    slope, slope_rest = _acon_gain(p1, p2, beta)
    hi, lo = two_product(slope, x)
    return hi, (lo + working(slope_rest) * x if abs(hi) < SIGMOID_END else 0.0)


@kernel
def _acon_c(x: float, p1: float, p2: float, beta: float) -> float:
    hi, lo = _acon_argument(min(max(x, -LARGEST), LARGEST), p1, p2, beta)
    return _two_lines(x, working(p1), working(p2), hi, lo)


@kernel
def _acon_c_slope(x: float, p1: float, p2: float, beta: float) -> float:
    hi, lo = _acon_argument(min(max(x, -LARGEST), LARGEST), p1, p2, beta)
    return _two_lines_slope(working(p1), working(p2), hi, lo)


@kernel
def _acon_c_reach(p1: float, p2: float, beta: float) -> float:
    gain, _ = _acon_gain(p1, p2, beta)
    reach = min(0.5 * EXP_LIMIT / abs(working(gain)), LARGEST)
    return 0.0 if _are_tiny(p1, p2) else reach


@kernel
def _quick_acon_argument(x: float, p1: float, p2: float, beta: float) -> tuple[float, float]:
    gain, gain_rest = _acon_gain(p1, p2, beta)
    hi, lo = quick_product(gain, x)
    return hi, lo + working(gain_rest) * x


@kernel
def _quick_acon_c(x: float, p1: float, p2: float, beta: float) -> float:
    hi, lo = _quick_acon_argument(x, p1, p2, beta)
    return _quick_two_lines(x, working(p1), working(p2), hi, lo)


@kernel
def _quick_acon_c_slope(x: float, p1: float, p2: float, beta: float) -> float:
    hi, lo = _quick_acon_argument(x, p1, p2, beta)
    return _quick_two_lines_slope(working(p1), working(p2), hi, lo)


ACON_C = Activation(
    name="acon_c",
    summary="A smooth maximum of two lines through the origin.",
    reference="Ma, Zhang, Liu and Sun, Activate or not: learning customized activation, CVPR 2021, arXiv:2009.04759",
    formula="(p1 - p2) * x / (1 + exp(-beta * (p1 - p2) * x)) + p2 * x",
    derivative_formula="(p1 - p2) * (1 + exp(-beta * (p1 - p2) * x) * (1 + beta * (p1 - p2) * x)) "
    "/ (1 + exp(-beta * (p1 - p2) * x))**2 + p2",
    forward=_acon_c,
    derivative=_acon_c_slope,
    range="[-0.278465, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="Where a network is to learn, channel by channel, whether to activate: beta = 0 makes it a line.",
    parameters=(
        Parameter(name="p1", meaning="Slope of one of the two lines.", default=1.0),
        Parameter(name="p2", meaning="Slope of the other.", default=0.0),
        Parameter(name="beta", meaning="Sharpness of the bend; 0 makes it the mean of the two lines.", default=1.0),
    ),
    aliases=("acon",),
    tried=(
        {"p1": 1.2, "p2": -0.8, "beta": 1.0},
        {"p1": 0.3, "p2": 0.9, "beta": -2.5},
        {"p1": 1.0, "p2": 0.25, "beta": 0.0},
        {"p1": 1e-3, "p2": 0.0, "beta": 1e3},
    ),
    cancels=("forward", "derivative"),
    quick=Quick(_acon_c_reach, _quick_acon_c, _quick_acon_c_slope),
)


# alpha + tanh(beta x) = (alpha + 1) s + (alpha - 1) (1 - s), where s is the sigmoid of 2 beta x.
@kernel
def _aptx_lines(alpha: float, gamma: float) -> tuple[float, float]:
    return working(gamma * (alpha + 1.0)), working(gamma * (alpha - 1.0))


@kernel
def _aptx(x: float, alpha: float, beta: float, gamma: float) -> float:
    hi, lo = gate_argument(2.0 * beta, x)
    right, left = _aptx_lines(alpha, gamma)
    return _two_lines(x, right, left, hi, lo)


@kernel
def _aptx_slope(x: float, alpha: float, beta: float, gamma: float) -> float:
    hi, lo = gate_argument(2.0 * beta, x)
    right, left = _aptx_lines(alpha, gamma)
    return _two_lines_slope(right, left, hi, lo)


@kernel
def _aptx_reach(alpha: float, beta: float, gamma: float) -> float:
    right, left = _aptx_lines(alpha, gamma)
    reach = min(0.25 * EXP_LIMIT / abs(working(beta)), LARGEST)
    return 0.0 if _are_tiny(right, left) else reach


@kernel
def _quick_aptx(x: float, alpha: float, beta: float, gamma: float) -> float:
    hi, lo = quick_product(2.0 * beta, x)
    right, left = _aptx_lines(alpha, gamma)
    return _quick_two_lines(x, right, left, hi, lo)


@kernel
def _quick_aptx_slope(x: float, alpha: float, beta: float, gamma: float) -> float:
    hi, lo = quick_product(2.0 * beta, x)
    right, left = _aptx_lines(alpha, gamma)
    return _quick_two_lines_slope(right, left, hi, lo)


APTX = Activation(
    name="aptx",
    summary="x times a tanh that is shifted and scaled; by default, x times the sigmoid of 2x.",
    reference="Kumar, APTx: better activation function than MISH, SWISH, and ReLU's variants used in deep learning, "
    "2022, arXiv:2209.06119",
    formula="(alpha + tanh(beta * x)) * gamma * x",
    derivative_formula="gamma * (alpha + tanh(beta * x) + beta * x / cosh(beta * x)**2)",
    forward=_aptx,
    derivative=_aptx_slope,
    range="[-0.139233, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="As a cheaper Mish: with beta = 0.5 it is Swish, and the default lies close to Mish where x > 0.",
    parameters=(
        Parameter(name="alpha", meaning="Added to the tanh: 1 makes the left side vanish.", default=1.0),
        Parameter(name="beta", meaning="Sharpness of the tanh.", default=1.0),
        Parameter(name="gamma", meaning="Multiplies the result.", default=0.5),
    ),
    tried=(
        {"alpha": 0.6, "beta": 1.3, "gamma": 0.7},
        {"alpha": 1.5, "beta": -0.4, "gamma": 1.0},
        {"alpha": 1.0, "beta": 0.5, "gamma": 0.5},
        {"alpha": -1.0, "beta": 1.0, "gamma": -2.0},
    ),
    cancels=("forward", "derivative"),
    quick=Quick(_aptx_reach, _quick_aptx, _quick_aptx_slope),
)
