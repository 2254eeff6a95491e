"""Lines that are cut off, and their products with x: the hard versions of curves. Says what they are, not how they run.

Each branch is computed before one is chosen, in one choice after another: nested choices would become masks of masks.
"""

from __future__ import annotations

import math

from actserve_server.activations.spec import Activation, Constraint, Exact, Library, Parameter, Traits, kernel
from actserve_server.activations.thresholds import above, below
from actserve_server.elementary import fma, line, working

__all__ = ["HARD_MISH", "HARD_SIGMOID", "HARD_SWISH", "HARD_TANH", "RELU6", "RELU_N", "SPARSE_SIGMOID"]

INFINITY = math.inf


@kernel
def _relu6(x: float) -> float:
    low = x if x < 6.0 else 6.0
    return low if low > 0.0 else 0.0


@kernel
def _relu6_slope(x: float) -> float:
    return 1.0 if (x > 0.0) & (x < 6.0) else 0.0


RELU6 = Activation(
    name="relu6",
    summary="ReLU that stops growing at 6.",
    reference="Krizhevsky, Convolutional deep belief networks on CIFAR-10, 2010",
    formula="min(max(x, 0), 6)",
    derivative_formula="1 if 0 < x < 6 else 0",
    forward=_relu6,
    derivative=_relu6_slope,
    range="[0, 6]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=False),
    limits=(0.0, 6.0, 0.0, 0.0),
    kinks=(0.0, 6.0),
    advice="For networks that will run in few bits, as on phones: the bound on its outputs keeps their steps small.",
    libraries=(
        Library("torch", ("ReLU6", "relu6")),
        Library("jax", ("relu6",)),
        Library("flax", ("relu6",)),
        Library("keras", ("relu6",)),
        Library("tensorflow", ("relu6",)),
        Library("huggingface", ("relu6",)),
        Library("timm", ("relu6",)),
    ),
    ulp=0.0,
    single=("forward", "derivative", "vjp"),
)


@kernel
def _relu_n(x: float, max_value: float) -> float:
    ceiling = working(max_value)
    low = x if x < ceiling else ceiling
    return low if low > 0.0 else 0.0


@kernel
def _relu_n_slope(x: float, max_value: float) -> float:
    return 1.0 if (x > 0.0) & below(x, max_value) else 0.0


RELU_N = Activation(
    name="relu_n",
    summary="ReLU that stops growing at a value of your choice.",
    reference="Hannun et al., Deep Speech: scaling up end-to-end speech recognition, 2014, arXiv:1412.5567",
    formula="min(max(x, 0), max_value)",
    derivative_formula="1 if 0 < x < max_value else 0",
    forward=_relu_n,
    derivative=_relu_n_slope,
    range="[0, max_value]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=False),
    limits=(0.0, 20.0, 0.0, 0.0),
    kinks=(0.0, 20.0),
    advice="For recurrent networks without gates, whose activations must not run away.",
    parameters=(Parameter(name="max_value", meaning="Where it stops growing.", default=20.0, low=0.0),),
    aliases=("clipped_relu", "bounded_relu"),
    libraries=(Library("onednn", ("eltwise_bounded_relu", "bounded_relu"), renamed=(("alpha", "max_value"),)),),
    tried=({"max_value": 0.1}, {"max_value": 1.0}, {"max_value": 1e300}),
    ulp=0.501,
    single=("forward", "derivative", "vjp"),
)


@kernel
def _hard_tanh(x: float, min_val: float, max_val: float) -> float:
    high = x if above(x, min_val) else working(min_val)
    return high if below(high, max_val) else working(max_val)


# An infinite bound is none: the slope is 1 at that infinity too.
@kernel
def _hard_tanh_slope(x: float, min_val: float, max_val: float) -> float:
    over = 1.0 if above(x, min_val) | (min_val == -INFINITY) else 0.0
    return over if below(x, max_val) | (max_val == INFINITY) else 0.0


HARD_TANH = Activation(
    name="hard_tanh",
    summary="The identity, cut off at a floor and a ceiling.",
    reference="Collobert, Large scale machine learning, doctoral thesis, Universite Paris VI, 2004",
    formula="min(max(x, min_val), max_val)",
    derivative_formula="1 if min_val < x < max_val else 0",
    forward=_hard_tanh,
    derivative=_hard_tanh_slope,
    range="[min_val, max_val]",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=False),
    limits=(-1.0, 1.0, 0.0, 0.0),
    kinks=(-1.0, 1.0),
    advice="Where tanh is too slow or too round, as in small recurrent or quantized networks; also to clip a tensor.",
    parameters=(
        Parameter(
            name="min_val",
            meaning="The floor; -inf for none.",
            default=-1.0,
            low_open=False,
            aliases=("min", "min_value"),
        ),
        Parameter(
            name="max_val",
            meaning="The ceiling; inf for none.",
            default=1.0,
            high_open=False,
            aliases=("max", "max_value"),
        ),
    ),
    constraints=(
        Constraint("min_val is at most max_val", lambda given: given["min_val"] <= given["max_val"], "min_val"),
    ),
    aliases=("clip", "clamp"),
    libraries=(
        Library("torch", ("Hardtanh", "hardtanh")),
        Library("jax", ("hard_tanh",)),
        Library("flax", ("hard_tanh",)),
        Library("keras", ("hard_tanh",)),
        Library(
            "tensorflow",
            ("clip_by_value",),
            renamed=(("clip_value_min", "min_val"), ("clip_value_max", "max_val")),
        ),
        Library(
            "onnx",
            ("Clip",),
            defaults=(("min_val", -math.inf), ("max_val", math.inf)),
            renamed=(("min", "min_val"), ("max", "max_val")),
        ),
        Library(
            "onednn",
            ("eltwise_clip_v2", "eltwise_clip", "clip_v2", "clip"),
            renamed=(("alpha", "min_val"), ("beta", "max_val")),
        ),
    ),
    tried=(
        {"min_val": -0.1, "max_val": 0.3},
        {"min_val": -math.inf, "max_val": 0.7},
        {"min_val": 0.0, "max_val": math.inf},
        {"min_val": -math.inf, "max_val": math.inf},
        {"min_val": 0.3, "max_val": 0.3},
    ),
    ulp=0.501,
    single=("forward", "derivative", "vjp"),
)


SIXTH = Exact(1 / 6)
"""As a parameter it means a sixth, of which it is the nearest float64."""
SIXTH_REST = Exact(9.25185853854297e-18)
"""What a sixth has beyond it."""


@kernel
def _rest(alpha: float) -> float:
    return SIXTH_REST if alpha == SIXTH else 0.0


# The product with the rest is rounded before it is added, which makes the sum exactly 0 at -3 and 1 at 3.
@kernel
def _hard_sigmoid(x: float, alpha: float, beta: float) -> float:
    whole = line(alpha, x if alpha != 0.0 else 0.0, beta)
    value = whole + working(_rest(alpha)) * x
    low = value if value < 1.0 else 1.0
    return low if whole > 0.0 else 0.0


# In float64 even for float32 results, as it jumps. Whether the line is below 1 is asked of the line less 1, since just below
# it would have been rounded up to it.
@kernel
def _hard_sigmoid_slope(x: float, alpha: float, beta: float) -> float:
    less = beta - 1.0
    back = less - beta
    less_rest = (beta - (less - back)) - (1.0 + back)
    rest = _rest(alpha) * x
    inside = (fma(alpha, x, beta) + rest > 0.0) & (fma(alpha, x, less) + (less_rest + rest) < 0.0)
    return working(alpha) if inside else 0.0


HARD_SIGMOID = Activation(
    name="hard_sigmoid",
    summary="A straight line through 1/2, cut off at 0 and at 1.",
    reference="Courbariaux, Bengio and David, BinaryConnect, NIPS 2015, arXiv:1511.00363",
    formula="min(max((x / 6 if alpha == 0.16666666666666666 else alpha * x) + beta, 0), 1)",
    derivative_formula="(sqrt(1) / 6 if alpha == 0.16666666666666666 else alpha) "
    "if 0 < (x / 6 if alpha == 0.16666666666666666 else alpha * x) + beta < 1 else 0",
    forward=_hard_sigmoid,
    derivative=_hard_sigmoid_slope,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=False),
    limits=(0.0, 1.0, 0.0, 0.0),
    kinks=(-3.0, 3.0),
    advice="For gates on small devices: a sigmoid without its exponential, and without a gradient outside the middle.",
    parameters=(
        Parameter(name="alpha", meaning="The slope; 0.16666666666666666 means a sixth exactly.", default=1 / 6),
        Parameter(name="beta", meaning="The value at zero.", default=0.5),
    ),
    libraries=(
        Library("torch", ("Hardsigmoid", "hardsigmoid")),
        Library("jax", ("hard_sigmoid",)),
        Library("flax", ("hard_sigmoid",)),
        Library("keras", ("hard_sigmoid",)),
        Library("tensorflow", ("hard_sigmoid",)),
        Library("onnx", ("HardSigmoid",), defaults=(("alpha", 0.2),)),
        Library("onednn", ("eltwise_hardsigmoid", "hardsigmoid")),
        Library("ggml", ("HARDSIGMOID",)),
        Library("timm", ("hard_sigmoid",)),
    ),
    tried=(
        {"alpha": 0.2},
        {"alpha": 1 / 6, "beta": 0.3},
        {"alpha": -0.7, "beta": 0.1},
        {"alpha": 0.0, "beta": 0.3},
        {"alpha": 1e-3, "beta": 12.0},
    ),
    ulp=1.0,
)


@kernel
def _sparse_sigmoid(x: float) -> float:
    line = 0.5 * (x + 1.0)
    rising = line if x < 1.0 else 1.0
    return rising if x > -1.0 else 0.0


@kernel
def _sparse_sigmoid_slope(x: float) -> float:
    return 0.5 if (x > -1.0) & (x < 1.0) else 0.0


SPARSE_SIGMOID = Activation(
    name="sparse_sigmoid",
    summary="The line from 0 at -1 to 1 at 1, cut off at both ends: the binary case of sparsemax.",
    reference="Blondel, Martins and Niculae, Learning classifiers with Fenchel-Young losses, AISTATS 2019, arXiv:1805.09717",
    formula="min(max((x + 1) / 2, 0), 1)",
    derivative_formula="0.5 if -1 < x < 1 else 0",
    forward=_sparse_sigmoid,
    derivative=_sparse_sigmoid_slope,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=False),
    limits=(0.0, 1.0, 0.0, 0.0),
    kinks=(-1.0, 1.0),
    advice="Where a probability should be exactly 0 or 1 once the score is clear.",
    libraries=(
        Library("jax", ("sparse_sigmoid",)),
        Library("keras", ("sparse_sigmoid",)),
    ),
    ulp=0.501,
    single=("forward", "derivative", "vjp"),
)


# x + 3 is exact near -3, and so is x + 3/2 near -3/2; x/6 + 1/2 and x/3 + 1/2 would cancel there.
@kernel
def _hard_swish(x: float) -> float:
    parabola = x * ((x + 3.0) * (1.0 / 6.0))
    rising = parabola if x < 3.0 else x
    return rising if x > -3.0 else -0.0


@kernel
def _hard_swish_slope(x: float) -> float:
    line = (x + 1.5) * (1.0 / 3.0)
    rising = line if x < 3.0 else 1.0
    return rising if x > -3.0 else 0.0


HARD_SWISH = Activation(
    name="hard_swish",
    summary="x times a hard sigmoid: zero on the left, x on the right, a parabola between.",
    reference="Howard et al., Searching for MobileNetV3, ICCV 2019, arXiv:1905.02244",
    formula="x * min(max(x + 3, 0), 6) / 6",
    derivative_formula="0 if x <= -3 else (1 if x >= 3 else x / 3 + 0.5)",
    forward=_hard_swish,
    derivative=_hard_swish_slope,
    range="[-0.375, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=False),
    limits=(-0.0, math.inf, 0.0, 1.0),
    kinks=(-3.0, 3.0),
    advice="For vision on small devices: most of what SiLU gives, without its exponential.",
    aliases=("hard_silu",),
    libraries=(
        Library("torch", ("Hardswish", "hardswish")),
        Library("jax", ("hard_swish", "hard_silu")),
        Library("flax", ("hard_swish", "hard_silu")),
        Library("keras", ("hard_swish", "hard_silu")),
        Library("onnx", ("HardSwish",)),
        Library("onednn", ("eltwise_hardswish", "hardswish")),
        Library("huggingface", ("hardswish",)),
        Library("ggml", ("HARDSWISH",)),
        Library("timm", ("hard_swish",)),
    ),
    ulp=3.0,
)


@kernel
def _hard_mish(x: float) -> float:
    parabola = x * (0.5 * (x + 2.0))
    rising = parabola if x < 0.0 else x
    return rising if x > -2.0 else -0.0


@kernel
def _hard_mish_slope(x: float) -> float:
    line = x + 1.0
    rising = line if x < 0.0 else 1.0
    return rising if x > -2.0 else 0.0


HARD_MISH = Activation(
    name="hard_mish",
    summary="Zero on the left, x on the right, a parabola between that leaves x without a corner.",
    reference="Misra, Mish: a self regularized non-monotonic activation function, BMVC 2020, arXiv:1908.08681; "
    "its hard version is of timm, 2020",
    formula="x * min(max(x + 2, 0), 2) / 2",
    derivative_formula="0 if x <= -2 else (1 if x >= 0 else x + 1)",
    forward=_hard_mish,
    derivative=_hard_mish_slope,
    range="[-0.5, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=False),
    limits=(-0.0, math.inf, 0.0, 1.0),
    kinks=(-2.0,),
    advice="In place of Mish where its exponential, logarithm and tanh cost too much.",
    libraries=(Library("timm", ("hard_mish",)),),
    ulp=2.0,
    single=("derivative",),
)
