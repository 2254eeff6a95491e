"""x times a bounded function of a logarithm: Mish, Smish and Logish. Says what they are, not how they are run.

In each, what multiplies x is rational in e = exp(-|x|), or a logarithm of what is: so one exponential serves, and where
x < 0 a factor e is set apart, so that the tail on the left keeps its digits.
"""

from __future__ import annotations

import math

from actserve_server.activations.gated_by_x import SIGMOID_END
from actserve_server.activations.spec import Activation, Library, Traits, kernel
from actserve_server.elementary import exp_sum, fma, log1p, scaled_exp

__all__ = ["LINEAR_TAIL", "LOGISH", "MISH", "SMISH"]

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
    return scaled_exp(share, magnitude, 0.0) if x < 0.0 else share


@kernel
def _mish_slope(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    above = decay + 2.0 if x < 0.0 else fma(2.0, decay, 1.0)
    below = fma(decay, above, 2.0) if x < 0.0 else fma(2.0 * decay, decay, above)
    turn = (1.0 if x < 0.0 else decay * decay) * (1.0 + decay)
    bounded = min(max(x, -SIGMOID_END), SIGMOID_END)
    share = fma(above, below, 4.0 * bounded * turn) / (below * below)
    return scaled_exp(share, magnitude, 0.0) if x < 0.0 else share


MISH = Activation(
    name="mish",
    summary="x times the tanh of its softplus: smooth, and slightly negative to the left of zero.",
    reference="Misra, Mish: a self regularized non-monotonic activation function, BMVC 2020, arXiv:1908.08681",
    formula="x * tanh(log1p(exp(x)))",
    derivative_formula="tanh(log1p(exp(x))) + x / (1 + exp(-x)) / cosh(log1p(exp(x)))**2",
    forward=_mish,
    derivative=_mish_slope,
    range="[-0.308841, inf)",
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
    return scaled_exp(share, magnitude, 0.0) if x < 0.0 else share


@kernel
def _smish_slope(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    above = fma(3.0, decay, 2.0) if x < 0.0 else fma(2.0, decay, 3.0)
    below = fma(decay, fma(5.0, decay, 6.0), 2.0) if x < 0.0 else fma(decay, fma(2.0, decay, 6.0), 5.0)
    turn = (1.0 + decay) * (fma(2.0, decay, 1.0) if x < 0.0 else decay * (2.0 + decay))
    bounded = min(max(x, -SIGMOID_END), SIGMOID_END)
    share = fma(above, below, 4.0 * bounded * turn) / (below * below)
    return scaled_exp(share, magnitude, 0.0) if x < 0.0 else share


SMISH = Activation(
    name="smish",
    summary="x times the tanh of log(1 + sigmoid(x)): like Mish, but of slope 0.6 to the right.",
    reference="Wang, Ren and Wang, Smish: a novel activation function for deep learning methods, Electronics 11(4), 2022",
    formula="x * tanh(log1p(1 / (1 + exp(-x))))",
    derivative_formula="tanh(log1p(1 / (1 + exp(-x)))) "
    "+ x / cosh(log1p(1 / (1 + exp(-x))))**2 * exp(-x) / ((1 + exp(-x)) * (2 + exp(-x)))",
    forward=_smish,
    derivative=_smish_slope,
    range="[-0.249991, inf)",
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
    return scaled_exp(bounded, magnitude, 0.0) if x < LINEAR_TAIL else value


@kernel
def _logish_slope(x: float) -> float:
    magnitude = -abs(x)
    decay = exp_sum(magnitude, 0.0)
    bounded = min(max(x, -SIGMOID_END), SIGMOID_END)
    inverse = 1.0 / (1.0 + decay)
    turn = bounded * decay * inverse / (fma(2.0, decay, 1.0) if x < 0.0 else 2.0 + decay)
    value = log1p((decay if x < 0.0 else 1.0) * inverse) + turn
    return scaled_exp(1.0 + bounded, magnitude, 0.0) if x < LINEAR_TAIL else value


LOGISH = Activation(
    name="logish",
    summary="x times log(1 + sigmoid(x)).",
    reference="Zhu, Zeng, Liu and Zhang, Logish: a new nonlinear nonmonotonic activation function for convolutional "
    "neural network, Neurocomputing 458, 2021",
    formula="x * log1p(1 / (1 + exp(-x)))",
    derivative_formula="log1p(1 / (1 + exp(-x))) + x * exp(-x) / ((1 + exp(-x)) * (2 + exp(-x)))",
    forward=_logish,
    derivative=_logish_slope,
    range="[-0.252764, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, math.log(2.0)),
    advice="As a stand-in for Mish in convolutional networks, at about the price of two exponentials.",
    cancels=("derivative",),
)
