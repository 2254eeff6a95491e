"""x times a bounded function of a logarithm: Mish, Smish, Logish and Serf. Says what they are, not how they are run.

What multiplies x is rational in e = exp(-|x|), or a function of a logarithm of what is: so one exponential serves, and far
to the left, where it is e times a constant, the product is taken in one step, so that the tail keeps its digits.
"""

from __future__ import annotations

import math

from actserve_server.activations.gated_by_x import SIGMOID_END
from actserve_server.activations.spec import Activation, Exact, Library, Traits, kernel
from actserve_server.elementary import (
    LOGISH_SLOPE,
    SERF_SLOPE,
    SLOPE_MIDDLE,
    SLOPE_REACH,
    SMISH_SLOPE,
    decayed,
    erf,
    exp_sum,
    fma,
    log1p,
    offset,
    over_sum,
)
from actserve_server.elementary.bits import polynomial

__all__ = ["LINEAR_TAIL", "LOGISH", "MISH", "SERF", "SMISH"]

TWO_OVER_SQRT_PI = 1.1283791670955126
LOG_TWO_OVER_SQRT_PI = 0.12078223763524522

# The zeros of derivatives, printed by tools/fit_elementary.py.
SMISH_ROOT_HI = Exact(-1.3945193019245041)
SMISH_ROOT_LO = Exact(4.458392154467205e-17)
LOGISH_ROOT_HI = Exact(-1.3724541370256922)
LOGISH_ROOT_LO = Exact(7.791774027651745e-17)
SERF_ROOT_HI = Exact(-1.193059968928188)
SERF_ROOT_LO = Exact(3.096701676302884e-17)

LINEAR_TAIL = -40.0
"""Below it, what is linear in exp(x) to first order is linear to within half a unit in the last place."""


# tanh(log(1 + w)) = w (w + 2)/(w (w + 2) + 2), where w = exp(x).
@kernel
def _mish(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    above = decay + 2.0 if x < 0.0 else fma(2.0, decay, 1.0)
    below = fma(decay, above, 2.0) if x < 0.0 else fma(2.0 * decay, decay, above)
    share = max(x, -SIGMOID_END) * (above / below)
    return decayed(share, magnitude, 0.0) if x < 0.0 else share


# In powers of e, and not as the rule for quotients gives it: there, terms of 5 and 7 leave 1 around the zero.
@kernel
def _mish_slope(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    bounded = min(max(x, -SIGMOID_END), SIGMOID_END)
    first = 4.0 * (1.0 + bounded)
    second = fma(4.0, bounded, 6.0)
    left = fma(decay, fma(decay, 4.0 + decay, second), first)
    right = fma(decay, fma(decay, fma(decay, first, second), 4.0), 1.0)
    # The square of what is below, whose rounding would count twice.
    below_left = fma(decay, fma(decay, fma(decay, 4.0 + decay, 8.0), 8.0), 4.0)
    below_right = fma(decay, fma(decay, fma(decay, fma(4.0, decay, 8.0), 8.0), 4.0), 1.0)
    share = (left if x < 0.0 else right) / (below_left if x < 0.0 else below_right)
    return decayed(share, magnitude, 0.0) if x < 0.0 else share


MISH = Activation(
    name="mish",
    summary="x times the tanh of its softplus: smooth, and slightly negative to the left of zero.",
    reference="Misra, Mish: a self regularized non-monotonic activation function, BMVC 2020, arXiv:1908.08681",
    formula="x * tanh(log1p(exp(x)))",
    derivative_formula="tanh(log1p(exp(x))) + x / (1 + exp(-x)) / cosh(log1p(exp(x)))**2",
    forward=_mish,
    derivative=_mish_slope,
    range="[-0.308844, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For convolutional networks such as detectors of objects, where it often gains a little over Swish.",
    libraries=(
        Library("torch", ("Mish", "mish")),
        Library("jax", ("mish",)),
        Library("keras", ("mish",)),
        Library("tensorflow", ("mish",)),
        Library("onnx", ("Mish",)),
        Library("onednn", ("eltwise_mish",)),
        Library("huggingface", ("mish",)),
        Library("timm", ("mish",)),
    ),
    cancels=("derivative",),
)


# tanh(log(1 + s)) = s (2 + s)/(s (2 + s) + 2), where s is the sigmoid of x.
@kernel
def _smish(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    above = fma(3.0, decay, 2.0) if x < 0.0 else fma(2.0, decay, 3.0)
    below = fma(decay, fma(5.0, decay, 6.0), 2.0) if x < 0.0 else fma(decay, fma(2.0, decay, 6.0), 5.0)
    share = max(x, -SIGMOID_END) * (above / below)
    return decayed(share, magnitude, 0.0) if x < 0.0 else share


@kernel
def _smish_slope(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    bounded = min(max(x, -SIGMOID_END), SIGMOID_END)
    first = 4.0 * (1.0 + bounded)
    second = fma(12.0, bounded, 18.0)
    third = fma(8.0, bounded, 28.0)
    left = fma(decay, fma(decay, fma(15.0, decay, third), second), first)
    right = fma(decay, fma(decay, fma(decay, first, second), third), 15.0)
    below_left = fma(decay, fma(decay, fma(decay, fma(25.0, decay, 60.0), 56.0), 24.0), 4.0)
    below_right = fma(decay, fma(decay, fma(decay, fma(4.0, decay, 24.0), 56.0), 60.0), 25.0)
    share = (left if x < 0.0 else right) / (below_left if x < 0.0 else below_right)
    value = decayed(share, magnitude, 0.0) if x < 0.0 else share
    around = offset(x, SMISH_ROOT_HI, SMISH_ROOT_LO) * polynomial(x - SLOPE_MIDDLE, SMISH_SLOPE)
    return around if abs(x - SLOPE_MIDDLE) < SLOPE_REACH else value


SMISH = Activation(
    name="smish",
    summary="x times the tanh of log(1 + sigmoid(x)): like Mish, but of slope 0.6 to the right.",
    reference="Wang, Ren and Wang, Smish: a novel activation function for deep learning methods, Electronics 11(4), 2022",
    formula="x * tanh(log1p(1 / (1 + exp(-x))))",
    derivative_formula="tanh(log1p(1 / (1 + exp(-x)))) "
    "+ x / cosh(log1p(1 / (1 + exp(-x))))**2 * exp(-x) / ((1 + exp(-x)) * (2 + exp(-x)))",
    forward=_smish,
    derivative=_smish_slope,
    range="[-0.249994, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 0.6),
    advice="As a stand-in for Mish in small convolutional networks.",
    cancels=("derivative",),
)


@kernel
def _logish(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    bounded = max(x, -SIGMOID_END)
    value = bounded * log1p((decay if x < 0.0 else 1.0) / (1.0 + decay))
    return decayed(bounded, magnitude, 0.0) if x < LINEAR_TAIL else value


@kernel
def _logish_slope(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    bounded = min(max(x, -SIGMOID_END), SIGMOID_END)
    turn = decay / fma(decay, fma(2.0, decay, 3.0) if x < 0.0 else 3.0 + decay, 1.0 if x < 0.0 else 2.0)
    value = fma(bounded, turn, log1p((decay if x < 0.0 else 1.0) / (1.0 + decay)))
    whole = decayed(1.0 + bounded, magnitude, 0.0) if x < LINEAR_TAIL else value
    around = offset(x, LOGISH_ROOT_HI, LOGISH_ROOT_LO) * polynomial(x - SLOPE_MIDDLE, LOGISH_SLOPE)
    return around if abs(x - SLOPE_MIDDLE) < SLOPE_REACH else whole


LOGISH = Activation(
    name="logish",
    summary="x times log(1 + sigmoid(x)).",
    reference="Zhu, Zeng, Liu and Zhang, Logish: a new nonlinear nonmonotonic activation function for convolutional "
    "neural network, Neurocomputing 458, 2021",
    formula="x * log1p(1 / (1 + exp(-x)))",
    derivative_formula="log1p(1 / (1 + exp(-x))) + x * exp(-x) / ((1 + exp(-x)) * (2 + exp(-x)))",
    forward=_logish,
    derivative=_logish_slope,
    range="[-0.252769, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, math.log(2.0)),
    advice="As a stand-in for Mish in convolutional networks, at about the price of two exponentials.",
    cancels=("derivative",),
)


SERF_END = 30.0
"""Beyond it, the error function of the softplus is 1, and its derivative 0, in float64."""


@kernel
def _softplus(x: float) -> float:
    return log1p(exp_sum(-abs(x), 0.0)) + min(max(x, 0.0), SERF_END)


@kernel
def _serf(x: float) -> float:
    bounded = max(x, -SIGMOID_END)
    value = bounded * erf(_softplus(x))
    return decayed(TWO_OVER_SQRT_PI * bounded, -abs(x), 0.0) if x < LINEAR_TAIL else value


@kernel
def _serf_slope(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    bounded = min(max(x, -SIGMOID_END), SERF_END)
    inner = _softplus(x)
    density = exp_sum(LOG_TWO_OVER_SQRT_PI - inner * inner, 0.0)
    value = fma(over_sum(bounded * (decay if x < 0.0 else 1.0), 1.0, decay), density, erf(inner))
    whole = decayed(TWO_OVER_SQRT_PI * (1.0 + bounded), magnitude, 0.0) if x < LINEAR_TAIL else value
    around = offset(x, SERF_ROOT_HI, SERF_ROOT_LO) * polynomial(x - SLOPE_MIDDLE, SERF_SLOPE)
    return around if abs(x - SLOPE_MIDDLE) < SLOPE_REACH else whole


SERF = Activation(
    name="serf",
    summary="x times the error function of its softplus: like Mish, and a little deeper to the left of zero.",
    reference="Nag, Bhattacharyya, Mukherjee and Kundu, SERF: towards better training of deep neural networks using "
    "log-softplus error activation function, 2021, arXiv:2108.09598",
    formula="x * erf(log1p(exp(x)))",
    derivative_formula="erf(log1p(exp(x))) + x * 2 / sqrt(pi) * exp(-log1p(exp(x))**2) / (1 + exp(-x))",
    forward=_serf,
    derivative=_serf_slope,
    range="[-0.348438, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="As a stand-in for Mish; it costs more.",
    cancels=("derivative",),
)
