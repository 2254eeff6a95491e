"""Rectifiers without a corner: softplus, its root, and log-sigmoid. Says what they are, not how they are run.

All of them come from log(1 + exp(u)) = max(u, 0) + log(1 + exp(-|u|)), in which nothing overflows or cancels.
"""

from __future__ import annotations

import math

from actserve_server.activations.sigmoids import exp_reach, sigmoid_of_sum
from actserve_server.activations.spec import Activation, Library, Parameter, Quick, Traits, kernel
from actserve_server.elementary import (
    EXP_LIMIT,
    LARGEST,
    decay_sum,
    fma,
    log_of_more,
    log_of_more_in_parts,
    quick_exp,
    quick_product,
    scaled_exp,
    sqrt,
    two_product,
    working,
)

__all__ = ["LOG_SIGMOID", "SOFTPLUS", "SQRT_SOFTPLUS"]

# Below exp(-40), log(1 + e) is e to within half a unit in the last place.
LINEAR_TAIL = -40.0


# log(1 + exp(beta x))/beta = (x where beta x > 0, else 0) + log(1 + exp(-|beta x|))/beta. beta x is carried as hi + lo, and
# 1/beta too, so that its product is rounded once. In the linear tail the exponential is divided before it can underflow.
@kernel
def _softplus(x: float, beta: float, threshold: float) -> float:
    hi, lo = two_product(beta, x)
    inverse = 1.0 / beta
    inverse_hi = working(inverse)
    rest = working((inverse - inverse_hi) + fma(-inverse, beta, 1.0) / beta)
    finite = abs(inverse_hi) <= LARGEST
    inverse_lo = rest if finite else 0.0
    magnitude = -abs(hi)
    bent = magnitude > LINEAR_TAIL
    decay = scaled_exp(1.0 if bent else min(max(inverse_hi, -LARGEST), LARGEST), magnitude, -lo if hi > 0.0 else lo)
    growth, lost = log_of_more_in_parts(decay)
    tail = fma(growth, inverse_hi, fma(growth, inverse_lo, lost * (inverse_hi if finite else 0.0))) if bent else decay
    exact = (x if hi > 0.0 else 0.0) + tail
    return x if (hi - working(threshold)) + lo > 0.0 else exact


@kernel
def _softplus_slope(x: float, beta: float, threshold: float) -> float:
    hi, lo = two_product(beta, x)
    return 1.0 if (hi - working(threshold)) + lo > 0.0 else sigmoid_of_sum(hi, lo)


@kernel
def _softplus_reach(beta: float, threshold: float) -> float:
    return min(EXP_LIMIT / abs(working(beta)), LARGEST) if abs(working(1.0 / beta)) <= LARGEST else 0.0


@kernel
def _quick_softplus(x: float, beta: float, threshold: float) -> float:
    hi, lo = quick_product(beta, x)
    inverse = 1.0 / beta
    inverse_hi = working(inverse)
    inverse_lo = working((inverse - inverse_hi) + fma(-inverse, beta, 1.0) / beta)
    growth, lost = log_of_more_in_parts(quick_exp(-abs(hi), -lo if hi > 0.0 else lo))
    tail = fma(growth, inverse_hi, fma(growth, inverse_lo, lost * inverse_hi))
    exact = (x if hi > 0.0 else 0.0) + tail
    return x if (hi - working(threshold)) + lo > 0.0 else exact


@kernel
def _quick_softplus_slope(x: float, beta: float, threshold: float) -> float:
    hi, lo = quick_product(beta, x)
    return 1.0 if (hi - working(threshold)) + lo > 0.0 else 1.0 / (1.0 + quick_exp(-hi, -lo))


SOFTPLUS = Activation(
    name="softplus",
    summary="A ReLU without the corner: the integral of the sigmoid.",
    reference="Dugas, Bengio, Belisle, Nadeau and Garcia, Incorporating second-order functional knowledge for better "
    "option pricing, NIPS 2000",
    formula="x if beta * x > threshold else log1p(exp(beta * x)) / beta",
    derivative_formula="1 if beta * x > threshold else 1 / (1 + exp(-beta * x))",
    forward=_softplus,
    derivative=_softplus_slope,
    range="(0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=True),
    limits=(0.0, math.inf, 0.0, 1.0),
    advice="Where an output must be positive, such as a variance; as a hidden layer it is a slower ReLU.",
    parameters=(
        Parameter(name="beta", meaning="Sharpness of the bend.", default=1.0, nonzero=True),
        Parameter(
            name="threshold",
            meaning="Where beta x exceeds it, the result is x itself: 20 gives PyTorch's values.",
            default=math.inf,
            high_open=False,
        ),
    ),
    aliases=("soft_relu",),
    libraries=(
        Library("torch", ("Softplus", "softplus"), defaults=(("threshold", 20.0),)),
        Library("jax", ("softplus",)),
        Library("flax", ("softplus",)),
        Library("keras", ("softplus",)),
        Library("tensorflow", ("softplus",)),
        Library("onnx", ("Softplus",)),
        Library("onednn", ("soft_relu", "eltwise_soft_relu"), renamed=(("alpha", "beta"),)),
        Library("ggml", ("SOFTPLUS",), defaults=(("threshold", 20.0),)),
    ),
    tried=(
        {"beta": 0.5},
        {"beta": -1.7},
        {"beta": 1e-3},
        {"beta": 1e-200},
        {"beta": 2.0**-140},
        {"beta": 1e-310},
        {"beta": 3.1, "threshold": 20.0},
    ),
    ulp=2.0,
    quick=Quick(_softplus_reach, _quick_softplus, _quick_softplus_slope),
)


@kernel
def _log_sigmoid(x: float) -> float:
    return -(max(-x, 0.0) + log_of_more(decay_sum(-abs(x), 0.0)))


@kernel
def _log_sigmoid_slope(x: float) -> float:
    return sigmoid_of_sum(-x, 0.0)


@kernel
def _quick_log_sigmoid(x: float) -> float:
    return -(max(-x, 0.0) + log_of_more(quick_exp(-abs(x), 0.0)))


@kernel
def _quick_log_sigmoid_slope(x: float) -> float:
    return 1.0 / (1.0 + quick_exp(x, 0.0))


LOG_SIGMOID = Activation(
    name="log_sigmoid",
    summary="The logarithm of the sigmoid, never above zero.",
    reference="Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, section 6.2.2.2",
    formula="-log1p(exp(-x))",
    derivative_formula="1 / (1 + exp(x))",
    forward=_log_sigmoid,
    derivative=_log_sigmoid_slope,
    range="(-inf, 0)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="right", smooth=True),
    limits=(-math.inf, -0.0, 1.0, 0.0),
    advice="For the log-probability of a yes, in a loss: the logarithm of a rounded sigmoid has lost both tails.",
    aliases=("log_expit",),
    libraries=(
        Library("torch", ("LogSigmoid", "logsigmoid")),
        Library("jax", ("log_sigmoid",)),
        Library("flax", ("log_sigmoid",)),
        Library("keras", ("log_sigmoid",)),
        Library("tensorflow", ("log_sigmoid",)),
    ),
    ulp=2.0,
    quick=Quick(exp_reach, _quick_log_sigmoid, _quick_log_sigmoid_slope),
)


# In the linear tail the root of exp(x) is the exponential of half of x, which has not underflowed where exp(x) has.
@kernel
def _sqrt_softplus(x: float) -> float:
    straight = x < LINEAR_TAIL
    decay = decay_sum(0.5 * x if straight else -abs(x), 0.0)
    return decay if straight else sqrt(max(x, 0.0) + log_of_more(decay))


@kernel
def _sqrt_softplus_slope(x: float) -> float:
    straight = x < LINEAR_TAIL
    decay = decay_sum(0.5 * x if straight else -abs(x), 0.0)
    root = sqrt(max(x, 0.0) + log_of_more(decay))
    share = (1.0 if x > 0.0 else decay) / ((1.0 + decay) * root)
    return 0.5 * (decay if straight else share)


SQRT_SOFTPLUS = Activation(
    name="sqrt_softplus",
    summary="The square root of softplus: positive, and growing ever more slowly.",
    reference="DeepSeek-AI, DeepSeek-V4, 2026 (scores of the experts in its routers)",
    formula="sqrt(log1p(exp(x)))",
    derivative_formula="1 / ((1 + exp(-x)) * 2 * sqrt(log1p(exp(x))))",
    forward=_sqrt_softplus,
    derivative=_sqrt_softplus_slope,
    range="(0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    limits=(0.0, math.inf, 0.0, 0.0),
    advice="For the scores by which a router chooses experts: positive and unbounded, but large ones are tamed.",
    libraries=(Library("huggingface", ("sqrtsoftplus",)),),
)
