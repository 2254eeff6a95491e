"""Rectifiers with an exponential on the left: ELU and softplus. Says what they are, not how they are run."""

from __future__ import annotations

import math

from actserve_server.activations.sigmoids import sigmoid_of_sum
from actserve_server.activations.spec import Activation, Library, Parameter, Traits, kernel
from actserve_server.elementary import expm1, fma, log1p, scaled_exp

__all__ = ["ELU", "SOFTPLUS"]


@kernel
def _elu(x: float, alpha: float) -> float:
    return x if x > 0.0 else alpha * expm1(min(x, 0.0))


# Never as y + alpha, which cancels in the tail.
@kernel
def _elu_slope(x: float, alpha: float) -> float:
    return 1.0 if x > 0.0 else scaled_exp(alpha, min(x, 0.0), 0.0)


ELU = Activation(
    name="elu",
    summary="The identity above zero; below it, an exponential that levels off at -alpha.",
    reference="Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by exponential linear "
    "units, 2015, arXiv:1511.07289",
    formula="x if x > 0 else alpha * (exp(x) - 1)",
    derivative_formula="1 if x > 0 else alpha * exp(x)",
    forward=_elu,
    derivative=_elu_slope,
    range="[-alpha, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=True),
    limits=(-1.0, math.inf, 0.0, 1.0),
    advice="Where ReLU leaves dead neurons and means near zero are wanted, at the price of an exponential.",
    parameters=(Parameter(name="alpha", meaning="Depth of the floor.", default=1.0),),
    libraries=(
        Library(
            "torch",
            (
                "ELU",
                "elu",
            ),
        ),
        Library("jax", ("elu",)),
        Library("flax", ("elu",)),
        Library("keras", ("elu",)),
        Library("tensorflow", ("elu",)),
        Library("onnx", ("Elu",)),
        Library("ggml", ("ELU",)),
        Library("timm", ("elu",)),
    ),
    tried=({"alpha": 0.3}, {"alpha": 1e10}, {"alpha": 1e300}),
    ulp=2.0,
)

# Below exp(-40), log(1 + e) is e to within half a unit in the last place.
LINEAR_TAIL = -40.0


# log(1 + exp(beta x))/beta = (x where beta x > 0, else 0) + log(1 + exp(-|beta x|))/beta. beta x is carried as hi + lo.
# The exponential is asked for twice in the same words, so that its polynomial is computed once.
@kernel
def _softplus(x: float, beta: float, threshold: float) -> float:
    hi = beta * x
    lo = fma(beta, x, -hi)
    magnitude = -abs(hi)
    rest = -lo if hi > 0.0 else lo
    tail = (
        log1p(scaled_exp(1.0, magnitude, rest)) / beta
        if magnitude > LINEAR_TAIL
        else scaled_exp(1.0 / beta, magnitude, rest)
    )
    exact = (x if hi > 0.0 else 0.0) + tail
    return x if (hi - threshold) + lo > 0.0 else exact


@kernel
def _softplus_slope(x: float, beta: float, threshold: float) -> float:
    hi = beta * x
    lo = fma(beta, x, -hi)
    return 1.0 if (hi - threshold) + lo > 0.0 else sigmoid_of_sum(hi, lo)


SOFTPLUS = Activation(
    name="softplus",
    summary="A ReLU without the corner: the integral of the sigmoid.",
    reference="Dugas, Bengio, Belisle, Nadeau and Garcia, Incorporating second-order functional knowledge for better "
    "option pricing, NIPS 2000",
    formula="x if beta * x > threshold else log(1 + exp(beta * x)) / beta",
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
    libraries=(
        Library("torch", ("Softplus", "softplus"), defaults=(("threshold", 20.0),)),
        Library("jax", ("softplus",)),
        Library("flax", ("softplus",)),
        Library("keras", ("softplus",)),
        Library("tensorflow", ("softplus",)),
        Library("onnx", ("Softplus",)),
        Library("ggml", ("SOFTPLUS",), defaults=(("threshold", 20.0),)),
    ),
    tried=({"beta": 0.5}, {"beta": -1.7}, {"beta": 1e-3}, {"beta": 3.1, "threshold": 20.0}),
    ulp=2.0,
)
