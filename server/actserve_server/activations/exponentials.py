"""The exponential, and rectifiers that are one on the left: ELU and its kin. Says what they are, not how they are run."""

from __future__ import annotations

import math

from actserve_server.activations.sigmoids import exp_reach
from actserve_server.activations.spec import (
    Activation,
    Constraint,
    Library,
    Parameter,
    ParameterGradient,
    Quick,
    Traits,
    kernel,
)
from actserve_server.elementary import (
    EXP_LIMIT,
    LARGEST,
    decay_sum,
    exp,
    expm1,
    fma,
    quick_exp,
    quotient,
    quotient_rest,
    scaled_exp,
    working,
)

__all__ = ["CELU", "ELU", "EXPONENTIAL", "PELU", "SELU"]

STRAIGHT = -(2.0**-54)
"""Above it, exp(u) - 1 is u to within half a unit in the last place. x itself is then the result, also where x/alpha
would be subnormal and have lost its digits."""


@kernel
def _exponential(x: float) -> float:
    return exp(x)


@kernel
def _quick_exponential(x: float) -> float:
    return quick_exp(x, 0.0)


EXPONENTIAL = Activation(
    name="exponential",
    summary="e to the power of x.",
    reference="Nelder and Wedderburn, Generalized linear models, Journal of the Royal Statistical Society A 135, 1972 "
    "(inverse of the log link)",
    formula="exp(x)",
    derivative_formula="exp(x)",
    forward=_exponential,
    derivative=_exponential,
    range="(0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=True),
    limits=(0.0, math.inf, 0.0, math.inf),
    advice="For an output that is a rate or a scale and multiplies; in hidden layers it overflows.",
    aliases=("exp",),
    libraries=(
        Library("torch", ("exp",)),
        Library("jax", ("exp",)),
        Library("keras", ("exponential",)),
        Library("tensorflow", ("exponential", "exp")),
        Library("onnx", ("Exp",)),
        Library("onednn", ("exp", "eltwise_exp")),
        Library("ggml", ("EXP",)),
    ),
    ulp=2.0,
    quick=Quick(exp_reach, _quick_exponential, _quick_exponential),
)


@kernel
def _elu(x: float, alpha: float) -> float:
    return x if x >= 0.0 else working(alpha) * expm1(min(x, 0.0))


# Never as y + alpha, which cancels in the tail.
@kernel
def _elu_slope(x: float, alpha: float) -> float:
    return 1.0 if x > 0.0 else scaled_exp(working(alpha), min(x, 0.0), 0.0)


@kernel
def _elu_reach(alpha: float) -> float:
    return EXP_LIMIT


@kernel
def _quick_elu_slope(x: float, alpha: float) -> float:
    return 1.0 if x > 0.0 else working(alpha) * quick_exp(min(x, 0.0), 0.0)


ELU = Activation(
    name="elu",
    summary="The identity above zero; below it, an exponential that levels off at -alpha.",
    reference="Clevert, Unterthiner and Hochreiter, Fast and accurate deep network learning by exponential linear "
    "units, 2015, arXiv:1511.07289",
    formula="x if x > 0 else alpha * expm1(x)",
    derivative_formula="1 if x > 0 else alpha * exp(x)",
    forward=_elu,
    derivative=_elu_slope,
    range="[-alpha, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=True),
    limits=(-1.0, math.inf, 0.0, 1.0),
    advice="Where ReLU leaves dead neurons and means near zero are wanted, at the price of an exponential.",
    parameters=(Parameter(name="alpha", meaning="Depth of the floor.", default=1.0),),
    libraries=(
        Library("torch", ("ELU", "elu")),
        Library("jax", ("elu",)),
        Library("flax", ("elu",)),
        Library("keras", ("elu",)),
        Library("tensorflow", ("elu",)),
        Library("onnx", ("Elu",)),
        Library("onednn", ("elu", "eltwise_elu")),
        Library("ggml", ("ELU",)),
        Library("timm", ("elu",)),
    ),
    tried=({"alpha": 0.3}, {"alpha": -2.0}, {"alpha": 0.0}, {"alpha": 1e10}, {"alpha": 1e30}),
    ulp=2.0,
    quick=Quick(_elu_reach, None, _quick_elu_slope),
)


@kernel
def _celu(x: float, alpha: float) -> float:
    bounded, depth = min(x, 0.0), working(alpha)
    hi, _ = quotient(bounded, alpha)
    growth = expm1(hi)
    lost = quotient_rest(bounded, alpha, hi)
    rest = depth * (lost * (1.0 + growth)) if (lost != 0.0) & (growth > -1.0) else 0.0
    return x if x >= 0.0 or hi > STRAIGHT else fma(depth, growth, rest)


@kernel
def _celu_slope(x: float, alpha: float) -> float:
    hi, lo = quotient(min(x, 0.0), alpha)
    return 1.0 if x >= 0.0 else decay_sum(hi, lo)


@kernel
def _celu_reach(alpha: float) -> float:
    return min(EXP_LIMIT * working(alpha), LARGEST)


@kernel
def _quick_celu_slope(x: float, alpha: float) -> float:
    hi, lo = quotient(min(x, 0.0), alpha)
    return 1.0 if x >= 0.0 else quick_exp(hi, lo)


CELU = Activation(
    name="celu",
    summary="An ELU whose slope at zero is 1 whatever its depth, as the input is divided by alpha.",
    reference="Barron, Continuously differentiable exponential linear units, 2017, arXiv:1704.07483",
    formula="x if x > 0 else alpha * expm1(x / alpha)",
    derivative_formula="1 if x > 0 else exp(x / alpha)",
    forward=_celu,
    derivative=_celu_slope,
    range="[-alpha, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=True),
    limits=(-1.0, math.inf, 0.0, 1.0),
    advice="Instead of ELU where alpha is not 1, for then it has no corner at zero.",
    parameters=(
        Parameter(name="alpha", meaning="Depth of the floor, and how slowly it is reached.", default=1.0, low=0.0),
    ),
    libraries=(
        Library("torch", ("CELU", "celu")),
        Library("jax", ("celu",)),
        Library("flax", ("celu",)),
        Library("keras", ("celu",)),
        Library("onnx", ("Celu",)),
        Library("timm", ("celu",)),
    ),
    tried=({"alpha": 0.3}, {"alpha": 7.0}, {"alpha": 1e-30}, {"alpha": 1e30}),
    ulp=2.0,
    quick=Quick(_celu_reach, None, _quick_celu_slope),
)


# Both are multiplied by one rounded product: two roundings in turn would show in subnormal results.
@kernel
def _selu(x: float, alpha: float, gamma: float) -> float:
    return working(gamma) * x if x >= 0.0 else working(gamma * alpha) * expm1(min(x, 0.0))


@kernel
def _selu_slope(x: float, alpha: float, gamma: float) -> float:
    return working(gamma) if x > 0.0 else scaled_exp(working(gamma * alpha), min(x, 0.0), 0.0)


@kernel
def _selu_reach(alpha: float, gamma: float) -> float:
    return EXP_LIMIT


@kernel
def _quick_selu_slope(x: float, alpha: float, gamma: float) -> float:
    return working(gamma) if x > 0.0 else working(gamma * alpha) * quick_exp(min(x, 0.0), 0.0)


SELU = Activation(
    name="selu",
    summary="An ELU with the two constants that keep the mean at 0 and the variance at 1 from layer to layer.",
    reference="Klambauer, Unterthiner, Mayr and Hochreiter, Self-normalizing neural networks, 2017, arXiv:1706.02515",
    formula="gamma * (x if x > 0 else alpha * expm1(x))",
    derivative_formula="gamma if x > 0 else gamma * alpha * exp(x)",
    forward=_selu,
    derivative=_selu_slope,
    range="[-alpha * gamma, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=False),
    limits=(-1.0507009873554805 * 1.6732632423543772, math.inf, 0.0, 1.0507009873554805),
    kinks=(0.0,),
    advice="For deep networks of dense layers without normalization, with LeCun's initialization and alpha dropout.",
    parameters=(
        Parameter(name="alpha", meaning="Depth of the floor before it is scaled.", default=1.6732632423543772),
        Parameter(name="gamma", meaning="What everything is multiplied by.", default=1.0507009873554805),
    ),
    constraints=(
        Constraint("alpha times gamma must be finite", lambda p: math.isfinite(p["alpha"] * p["gamma"]), "gamma"),
    ),
    libraries=(
        Library("torch", ("SELU", "selu")),
        Library("jax", ("selu",)),
        Library("flax", ("selu",)),
        Library("keras", ("selu",)),
        Library("tensorflow", ("selu",)),
        Library("onnx", ("Selu",), defaults=(("alpha", 1.6732631921768188), ("gamma", 1.0507010221481323))),
        Library("timm", ("selu",)),
    ),
    tried=(
        {"alpha": 0.7, "gamma": 3.0},
        {"alpha": -1.3, "gamma": -0.6},
        {"alpha": 1e300, "gamma": 1e-300},
        {"alpha": 1e-200, "gamma": 1e-200},
    ),
    ulp=2.0,
    quick=Quick(_selu_reach, None, _quick_selu_slope),
)


@kernel
def _pelu(x: float, alpha: float, beta: float) -> float:
    hi, _ = quotient(min(x, 0.0), beta)
    slope = working(alpha / beta)
    return slope * x if x >= 0.0 or hi > STRAIGHT else working(alpha) * expm1(hi)


@kernel
def _pelu_slope(x: float, alpha: float, beta: float) -> float:
    hi, lo = quotient(min(x, 0.0), beta)
    slope = working(alpha / beta)
    return slope if x >= 0.0 else scaled_exp(slope, hi, lo)


@kernel
def _pelu_by_alpha(x: float, alpha: float, beta: float) -> float:
    hi, _ = quotient(x, beta)
    return hi if hi > STRAIGHT else expm1(hi)


# Beyond -1500 the exponential is 0, and would be multiplied by an infinity.
@kernel
def _pelu_by_beta(x: float, alpha: float, beta: float) -> float:
    hi, lo = quotient(x, beta)
    slope = working(alpha / beta)
    near = max(hi, -1500.0)
    decay = min(near, 0.0)
    return -slope * hi if x > 0.0 else scaled_exp(-slope * near, decay, lo if decay == hi else 0.0)


PELU = Activation(
    name="pelu",
    summary="An ELU with a slope and a depth of its own, both of which can be trained.",
    reference="Trottier, Giguere and Chaib-draa, Parametric exponential linear unit for deep convolutional neural "
    "networks, 2016, arXiv:1605.09332",
    formula="alpha / beta * x if x > 0 else alpha * expm1(x / beta)",
    derivative_formula="alpha / beta if x > 0 else alpha / beta * exp(x / beta)",
    forward=_pelu,
    derivative=_pelu_slope,
    range="[-alpha, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=True),
    limits=(-1.0, math.inf, 0.0, 1.0),
    advice="Where an ELU's shape should be learned, a pair of numbers for each layer.",
    parameters=(
        Parameter(name="alpha", meaning="Depth of the floor.", default=1.0, low=0.0),
        Parameter(name="beta", meaning="How slowly the floor is reached; divides the slope.", default=1.0, low=0.0),
    ),
    gradients=(
        ParameterGradient("alpha", "x / beta if x > 0 else expm1(x / beta)", _pelu_by_alpha),
        ParameterGradient("beta", "-alpha * x / beta**2 * (1 if x > 0 else exp(x / beta))", _pelu_by_beta),
    ),
    tried=(
        {"alpha": 0.3, "beta": 2.5},
        {"alpha": 7.0, "beta": 0.1},
        {"alpha": 1e-30, "beta": 1e-30},
        {"alpha": 1e30, "beta": 1e20},
    ),
    ulp=2.0,
)
