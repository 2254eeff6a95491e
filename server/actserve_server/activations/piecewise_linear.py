"""Activations made of straight lines that meet: from the identity to S-shaped ReLU. Says what they are, not how they run.

Where lines are cut off on both sides, or end in a jump, see `clipped_lines` and `thresholds`.
"""

from __future__ import annotations

import math

from actserve_server.activations.spec import (
    CHANNEL_AXIS,
    Activation,
    Constraint,
    Library,
    Parameter,
    ParameterGradient,
    Traits,
    kernel,
)
from actserve_server.activations.thresholds import above, below
from actserve_server.elementary import fma, line, working
from actserve_server.elementary.random import uniform

__all__ = ["ABS", "AFFINE", "IDENTITY", "LEAKY_RELU", "PRELU", "RELU", "RRELU", "SRELU"]


@kernel
def _identity(x: float) -> float:
    return x


@kernel
def _identity_slope(x: float) -> float:
    return 1.0


IDENTITY = Activation(
    name="identity",
    summary="The input itself.",
    reference="Goodfellow, Bengio and Courville, Deep Learning, MIT Press, 2016, section 6.2.2.1 (linear units)",
    formula="x",
    derivative_formula="1",
    forward=_identity,
    derivative=_identity_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=True),
    limits=(-math.inf, math.inf, 1.0, 1.0),
    advice="For the output layer of a regression; a hidden layer gains nothing from it, as lines of lines are lines.",
    aliases=("linear",),
    libraries=(
        Library("torch", ("Identity",)),
        Library("jax", ("identity",)),
        Library("flax", ("identity",)),
        Library("keras", ("linear",)),
        Library("onnx", ("Identity",)),
        Library("huggingface", ("linear",)),
        Library("timm", ("identity",)),
    ),
    ulp=0.0,
    single=("forward", "derivative", "vjp"),
)


# In float64 even for float32 results, since near the zero at -beta/alpha the digits of both are wanted. A line without a
# slope is the same at infinity as everywhere, where 0 * inf would be NaN. To add -0.0 leaves the sign of a zero alone.
@kernel
def _affine(x: float, alpha: float, beta: float) -> float:
    return fma(alpha, x if alpha != 0.0 else 0.0, beta if beta != 0.0 else -0.0)


@kernel
def _affine_slope(x: float, alpha: float, beta: float) -> float:
    return working(alpha)


AFFINE = Activation(
    name="affine",
    summary="A straight line: the input scaled and shifted.",
    reference="ONNX, operator specification, 2017, activation Affine of RNN, GRU and LSTM",
    formula="alpha * x + beta",
    derivative_formula="alpha",
    forward=_affine,
    derivative=_affine_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=True),
    limits=(-math.inf, math.inf, 1.0, 1.0),
    advice="To scale and shift what another layer gives; like any line, it adds nothing to a hidden layer.",
    parameters=(
        Parameter(name="alpha", meaning="The slope.", default=1.0, aliases=("scale",)),
        Parameter(name="beta", meaning="The value at zero.", default=0.0, aliases=("shift",)),
    ),
    libraries=(
        Library("onnx", ("Affine",)),
        Library("onednn", ("eltwise_linear", "linear")),
    ),
    tried=({"alpha": -0.3, "beta": 0.7}, {"alpha": 0.0, "beta": 2.5}, {"alpha": 1e30, "beta": -1e10}),
    ulp=0.501,
    single=("derivative",),
)


@kernel
def _relu(x: float) -> float:
    return x if x > 0.0 else 0.0


@kernel
def _relu_slope(x: float) -> float:
    return 1.0 if x > 0.0 else 0.0


RELU = Activation(
    name="relu",
    summary="The identity above zero, zero below.",
    reference="Nair and Hinton, Rectified linear units improve restricted Boltzmann machines, ICML 2010",
    formula="x if x > 0 else 0",
    derivative_formula="1 if x > 0 else 0",
    forward=_relu,
    derivative=_relu_slope,
    range="[0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=False),
    limits=(0.0, math.inf, 0.0, 1.0),
    kinks=(0.0,),
    advice="The default for hidden layers: cheap, no vanishing gradients above zero; watch for neurons that die.",
    libraries=(
        Library(
            "torch",
            (
                "ReLU",
                "relu",
            ),
        ),
        Library("jax", ("relu",)),
        Library("flax", ("relu",)),
        Library("keras", ("relu",)),
        Library("tensorflow", ("relu",)),
        Library("onnx", ("Relu",)),
        Library("huggingface", ("relu",)),
        Library("ggml", ("RELU",)),
        Library("timm", ("relu",)),
    ),
    ulp=0.0,
    single=("forward", "derivative", "vjp"),
)


# A slope of 0 is a branch of its own: 0 * -inf would be NaN.
@kernel
def _bent(x: float, slope: float) -> float:
    """The identity above zero, the slope's multiple of x below."""
    factor = working(slope)
    product = factor * x
    left = product if factor != 0.0 else 0.0
    return x if x > 0.0 else left


@kernel
def _bent_slope(x: float, slope: float) -> float:
    return 1.0 if x > 0.0 else working(slope)


LEAKY_RELU = Activation(
    name="leaky_relu",
    summary="The identity above zero, a gentle slope below.",
    reference="Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, ICML 2013",
    formula="x if x > 0 else negative_slope * x",
    derivative_formula="1 if x > 0 else negative_slope",
    forward=_bent,
    derivative=_bent_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    limits=(-math.inf, math.inf, 0.01, 1.0),
    kinks=(0.0,),
    advice="Where ReLU leaves dead neurons: the slope below zero keeps a gradient flowing through them.",
    parameters=(Parameter(name="negative_slope", meaning="The slope below zero.", default=0.01, aliases=("alpha",)),),
    libraries=(
        Library("torch", ("LeakyReLU", "leaky_relu")),
        Library("jax", ("leaky_relu",)),
        Library("flax", ("leaky_relu",)),
        Library("keras", ("leaky_relu",), defaults=(("negative_slope", 0.2),)),
        Library("tensorflow", ("leaky_relu",), defaults=(("negative_slope", 0.2),)),
        Library("onnx", ("LeakyRelu",), renamed=(("alpha", "negative_slope"),)),
        Library("huggingface", ("leaky_relu",)),
        Library("timm", ("leaky_relu",)),
    ),
    tried=({"negative_slope": 0.3}, {"negative_slope": 0.0}, {"negative_slope": -2.0}),
    ulp=0.501,
    single=("derivative",),
)


@kernel
def _prelu_gradient(x: float, slope: float) -> float:
    return x if x < 0.0 else 0.0


PRELU = Activation(
    name="prelu",
    summary="Leaky ReLU with a learned slope, one for all or one for each channel.",
    reference="He, Zhang, Ren and Sun, Delving deep into rectifiers, ICCV 2015, arXiv:1502.01852",
    formula="x if x > 0 else slope * x",
    derivative_formula="1 if x > 0 else slope",
    forward=_bent,
    derivative=_bent_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    limits=(-math.inf, math.inf, 0.25, 1.0),
    kinks=(0.0,),
    advice="Where the network is large enough to learn its slopes as well; it is leaky ReLU when they are fixed.",
    parameters=(
        Parameter(
            name="slope",
            meaning="The slope below zero, one number or one for each channel.",
            default=0.25,
            per_channel=True,
            aliases=("negative_slope", "alpha", "weight"),
        ),
        CHANNEL_AXIS,
    ),
    libraries=(
        Library(
            "torch",
            ("PReLU", "prelu"),
            defaults=(("channel_axis", 1),),
            renamed=(("init", "slope"), ("weight", "slope")),
        ),
        Library("keras", ("PReLU",), defaults=(("slope", 0.0),), renamed=(("alpha", "slope"),)),
        Library("flax", ("PReLU",), defaults=(("slope", 0.01),), renamed=(("negative_slope_init", "slope"),)),
        Library("onnx", ("PRelu",)),
        Library("onednn", ("prelu",)),
        Library("huggingface", ("prelu",)),
        Library("timm", ("prelu",)),
    ),
    gradients=(ParameterGradient("slope", "min(x, 0)", _prelu_gradient),),
    tried=({"slope": 0.0}, {"slope": -1.3}, {"slope": 1e-310}),
    ulp=0.501,
    single=("derivative",),
)


# The slope is carried as hi + lo, and halved until the end, so that even -1e308 and 1e308 have a distance.
@kernel
def _half_mixture(lower: float, upper: float, share: float) -> tuple[float, float]:
    """Half of lower + (upper - lower) share, as hi + lo."""
    start, end = 0.5 * lower, 0.5 * upper
    width = end - start
    back = width - end
    width_rest = (end - (width - back)) - (start + back)
    rise = width * share
    hi = start + rise
    part = hi - start
    lost = (start - (hi - part)) + (rise - part)
    return hi, lost + fma(width, share, -rise) + width_rest * share


@kernel
def _drawn_half_slope(
    index: int, lower: float, upper: float, training: float, seed_hi: float, seed_lo: float
) -> tuple[float, float]:
    return _half_mixture(lower, upper, uniform(index, seed_hi, seed_lo) if training > 0.0 else 0.5)


@kernel
def _rrelu(x: float, index: int, lower: float, upper: float, training: float, seed_hi: float, seed_lo: float) -> float:
    hi, lo = _drawn_half_slope(index, lower, upper, training, seed_hi, seed_lo)
    slope, rest = 2.0 * hi, 2.0 * lo
    product = slope * x
    whole = product + rest * x if abs(product) < math.inf else product
    return x if x > 0.0 else (whole if slope != 0.0 else 0.0)


@kernel
def _rrelu_slope(
    x: float, index: int, lower: float, upper: float, training: float, seed_hi: float, seed_lo: float
) -> float:
    hi, lo = _drawn_half_slope(index, lower, upper, training, seed_hi, seed_lo)
    return 1.0 if x > 0.0 else 2.0 * (hi + lo)


RRELU = Activation(
    name="rrelu",
    summary="Leaky ReLU whose slope is drawn anew for every element in training, and is the mean of the draws otherwise.",
    reference="Xu, Wang, Chen and Li, Empirical evaluation of rectified activations in convolutional network, 2015, "
    "arXiv:1505.00853",
    formula="x if x > 0 else (lower + (upper - lower) * (draw if training else 0.5)) * x",
    derivative_formula="1 if x > 0 else lower + (upper - lower) * (draw if training else 0.5)",
    forward=_rrelu,
    derivative=_rrelu_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    limits=(-math.inf, math.inf, 0.5 * (1 / 8 + 1 / 3), 1.0),
    kinks=(0.0,),
    advice="Where a small data set makes leaky ReLU overfit: the random slopes regularize. Draws follow from the seed and "
    "the element's place in the tensor alone, so a derivative asked for with the same seed sees the same ones.",
    parameters=(
        Parameter(name="lower", meaning="The least slope.", default=0.125),
        Parameter(name="upper", meaning="The greatest slope.", default=1 / 3),
        Parameter(name="training", meaning="Whether slopes are drawn.", default=False, kind="flag"),
        Parameter(
            name="seed",
            meaning="What the draws follow from, together with each element's index.",
            default=None,
            kind="seed",
            optional=True,
        ),
    ),
    constraints=(
        Constraint("lower is at most upper", lambda given: given["lower"] <= given["upper"], "lower"),
        Constraint(
            "a seed is given when training is true",
            lambda given: given["seed"] is not None or not given["training"],
            "seed",
        ),
    ),
    libraries=(Library("torch", ("RReLU", "rrelu")),),
    tried=(
        {"training": True, "seed": 7},
        {"training": True, "seed": 2**63 - 1, "lower": -1.0, "upper": 0.7},
        {"lower": 0.3, "upper": 0.3},
        {"lower": -0.3, "upper": 0.3},
    ),
    indexed=True,
    drawn_if="training",
    ulp=1.0,
)


# The line through (at, at) is slope * x + intercept, the intercept in two parts: near the line's zero, at + slope * (x - at)
# would keep only the digits that the rounding of its terms left. In float64 even for float32 results.
@kernel
def _intercept(at: float, slope: float) -> tuple[float, float]:
    fall = slope * at
    intercept = at - fall
    back = intercept - at
    rest = ((at - (intercept - back)) - (fall + back)) - fma(slope, at, -fall)
    return intercept, rest


@kernel
def _srelu(x: float, tl: float, al: float, tr: float, ar: float) -> float:
    left, left_rest = _intercept(tl, al)
    right, right_rest = _intercept(tr, ar)
    falling = line(al, x if al != 0.0 else 0.0, left) + working(left_rest)
    rising = line(ar, x if ar != 0.0 else 0.0, right) + working(right_rest)
    low = falling if below(x, tl) else x
    return rising if above(x, tr) else low


@kernel
def _srelu_slope(x: float, tl: float, al: float, tr: float, ar: float) -> float:
    left = 1.0 if above(x, tl) else working(al)
    return left if below(x, tr) else working(ar)


SRELU = Activation(
    name="srelu",
    summary="The identity in the middle, with a slope of its own beyond either end.",
    reference="Jin, Xu, Feng, Wei, Xiong and Yan, Deep learning with S-shaped rectified linear activation units, AAAI 2016, "
    "arXiv:1512.07030",
    formula="tr + ar * (x - tr) if x >= tr else (tl + al * (x - tl) if x <= tl else x)",
    derivative_formula="ar if x >= tr else (al if x <= tl else 1)",
    forward=_srelu,
    derivative=_srelu_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    limits=(-math.inf, math.inf, 0.1, 0.1),
    kinks=(-1.0, 1.0),
    advice="Where large inputs of both signs should count for less, yet never stop to pass a gradient.",
    parameters=(
        Parameter(name="tl", meaning="Where the middle begins.", default=-1.0),
        Parameter(name="al", meaning="The slope to the left of it.", default=0.1),
        Parameter(name="tr", meaning="Where the middle ends.", default=1.0),
        Parameter(name="ar", meaning="The slope to the right of it.", default=0.1),
    ),
    constraints=(Constraint("tl is below tr", lambda given: given["tl"] < given["tr"], "tl"),),
    tried=(
        {"tl": -0.3, "al": 0.0, "tr": 0.1, "ar": 0.0},
        {"tl": -0.7, "al": -0.4, "tr": 3.3, "ar": -1.7},
        {"tl": 0.3, "al": 2.2, "tr": 0.7, "ar": 0.6},
    ),
    ulp=1.0,
    single=("derivative",),
)


@kernel
def _abs(x: float) -> float:
    return abs(x)


@kernel
def _abs_slope(x: float) -> float:
    left = -1.0 if x < 0.0 else 0.0
    return 1.0 if x > 0.0 else left


ABS = Activation(
    name="abs",
    summary="The magnitude of the input.",
    reference="Jarrett, Kavukcuoglu, Ranzato and LeCun, What is the best multi-stage architecture for object recognition?, "
    "ICCV 2009",
    formula="abs(x)",
    derivative_formula="sign(x)",
    forward=_abs,
    derivative=_abs_slope,
    range="[0, inf)",
    traits=Traits(monotonic=False, zero_centred=False, saturates="no", smooth=False),
    limits=(math.inf, math.inf, -1.0, 1.0),
    kinks=(0.0,),
    advice="Where only the strength of a feature matters, as that of an edge does, and not its sign.",
    aliases=("absolute", "modulus"),
    libraries=(
        Library("torch", ("abs",)),
        Library("jax", ("abs",)),
        Library("tensorflow", ("abs",)),
        Library("onnx", ("Abs",)),
        Library("onednn", ("eltwise_abs", "abs")),
        Library("ggml", ("ABS",)),
    ),
    ulp=0.0,
    single=("forward", "derivative", "vjp"),
)
