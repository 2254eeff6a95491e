"""Activations shaped like an S: the logistic sigmoid and tanh. Says what they are, not how they are run."""

from __future__ import annotations

from actserve_server.activations.spec import Activation, Library, Quick, Traits, kernel
from actserve_server.elementary import EXP_LIMIT, decay_sum, fma, over_sum, quick_exp, scaled_exp, tanh_alone

__all__ = ["SIGMOID", "TANH", "exp_reach", "quick_sech_squared", "sech_squared", "sigmoid_of_sum"]


@kernel
def sigmoid_of_sum(hi: float, lo: float) -> float:
    """1/(1 + exp(-(hi + lo))), where lo is what rounding took from hi."""
    decay = decay_sum(-abs(hi), -lo if hi > 0.0 else lo)
    return over_sum(1.0 if hi >= 0.0 else decay, 1.0, decay)


@kernel
def _sigmoid(x: float) -> float:
    return sigmoid_of_sum(x, 0.0)


# From the decaying exponential and never as y (1 - y), which is exactly 0 beyond x = 37 in float64, and 17 in float32.
@kernel
def _sigmoid_slope(x: float) -> float:
    decay = decay_sum(-abs(x), 0.0)
    return decay / fma(decay, 2.0 + decay, 1.0)


@kernel
def _quick_sigmoid(x: float) -> float:
    return 1.0 / (1.0 + quick_exp(-x, 0.0))


@kernel
def _quick_sigmoid_slope(x: float) -> float:
    decay = quick_exp(-abs(x), 0.0)
    return decay / fma(decay, 2.0 + decay, 1.0)


@kernel
def exp_reach() -> float:
    return EXP_LIMIT


SIGMOID = Activation(
    name="sigmoid",
    summary="From 0 to 1 along an S: the logistic function.",
    reference="Cox, The regression analysis of binary sequences, Journal of the Royal Statistical Society B 20, 1958",
    formula="1 / (1 + exp(-x))",
    derivative_formula="exp(-x) / (1 + exp(-x))**2",
    forward=_sigmoid,
    derivative=_sigmoid_slope,
    range="(0, 1)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    limits=(0.0, 1.0, 0.0, 0.0),
    advice="For the output of a binary classifier and for gates; in hidden layers its gradients vanish at both ends.",
    aliases=("logistic", "expit"),
    libraries=(
        Library(
            "torch",
            (
                "Sigmoid",
                "sigmoid",
            ),
        ),
        Library("jax", ("sigmoid",)),
        Library("flax", ("sigmoid",)),
        Library("keras", ("sigmoid",)),
        Library("tensorflow", ("sigmoid",)),
        Library("onnx", ("Sigmoid",)),
        Library("onednn", ("logistic", "eltwise_logistic")),
        Library("huggingface", ("sigmoid",)),
        Library("ggml", ("SIGMOID",)),
        Library("timm", ("sigmoid",)),
    ),
    ulp=2.0,
    quick=Quick(exp_reach, _quick_sigmoid, _quick_sigmoid_slope),
)


@kernel
def _tanh(x: float) -> float:
    return tanh_alone(x)


# Of 4 exp(-2|x|)/(1 + exp(-2|x|))^2 the numerator is rounded once, also where it is subnormal.
@kernel
def sech_squared(hi: float, lo: float) -> float:
    """1/cosh(hi + lo)^2, where lo is what rounding took from hi."""
    grown = scaled_exp(4.0, -2.0 * abs(hi), -2.0 * (lo if hi > 0.0 else -lo))
    decay = 0.25 * grown
    return grown / fma(decay, 2.0 + decay, 1.0)


# The same from the square of exp(-|x|): shorter, and precise enough where x is not rounded.
@kernel
def _tanh_slope(x: float) -> float:
    twice = 2.0 * decay_sum(-abs(x), 0.0)
    grown = twice * twice
    decay = 0.25 * grown
    return grown / fma(decay, 2.0 + decay, 1.0)


@kernel
def _tanh_slope_reach() -> float:
    return 0.5 * EXP_LIMIT


@kernel
def quick_sech_squared(hi: float, lo: float) -> float:
    """sech_squared for |hi| <= EXP_LIMIT/2."""
    decay = quick_exp(-2.0 * abs(hi), -2.0 * (lo if hi > 0.0 else -lo))
    return 4.0 * decay / fma(decay, 2.0 + decay, 1.0)


@kernel
def _quick_tanh_slope(x: float) -> float:
    return quick_sech_squared(x, 0.0)


TANH = Activation(
    name="tanh",
    summary="From -1 to 1 along an S: the hyperbolic tangent.",
    reference="LeCun, Bottou, Orr and Mueller, Efficient BackProp, Neural Networks: Tricks of the Trade, 1998",
    formula="tanh(x)",
    derivative_formula="1 / cosh(x)**2",
    forward=_tanh,
    derivative=_tanh_slope,
    range="(-1, 1)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=True),
    limits=(-1.0, 1.0, 0.0, 0.0),
    advice="For normalized inputs and recurrent cells, where outputs of both signs help; it saturates at both ends.",
    libraries=(
        Library(
            "torch",
            (
                "Tanh",
                "tanh",
            ),
        ),
        Library("jax", ("tanh",)),
        Library("flax", ("tanh",)),
        Library("keras", ("tanh",)),
        Library("tensorflow", ("tanh",)),
        Library("onnx", ("Tanh",)),
        Library("onednn", ("tanh", "eltwise_tanh")),
        Library("huggingface", ("tanh",)),
        Library("ggml", ("TANH",)),
        Library("timm", ("tanh",)),
    ),
    ulp=2.0,
    quick=Quick(_tanh_slope_reach, None, _quick_tanh_slope),
)
