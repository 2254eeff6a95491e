"""Activations with a jump: what stays below a threshold is cut off. Says what they are, not how they are run.

A threshold is met exactly in every precision, so an element just above or below it is never taken for the other; see
`above`. Every derivative is that of the lines on both sides, for the jump itself has none.
"""

from __future__ import annotations

import math

from actserve_server.activations.spec import (
    CHANNEL_AXIS,
    Activation,
    Exact,
    Library,
    Parameter,
    ParameterGradient,
    Traits,
    kernel,
    word,
)
from actserve_server.elementary import LARGEST, copysign, offset, working

__all__ = [
    "HARD_SHRINK",
    "JUMP_RELU",
    "SHRINK",
    "SIGN",
    "SOFT_SHRINK",
    "STEP",
    "THRESHOLD",
    "THRESHOLDED_RELU",
    "above",
    "below",
]


FLOAT32_HALF_STEP = Exact(2.0**-24)
"""A float32 less this part of itself is nearest to the next float32 towards zero."""
FLOAT32_LEAST_STEP = Exact(0.75 * 2.0**-149)
"""Where that part is too little to matter, this much leads to the next one."""


# What depends on the parameter alone is computed once, outside the loop: one comparison an element is left.
@kernel
def _rounded_down(bound: float) -> float:
    """The greatest number that is not above a parameter, which may have more digits than a number has."""
    rounded = working(min(max(bound, -LARGEST), LARGEST))
    step = max(abs(rounded) * FLOAT32_HALF_STEP, FLOAT32_LEAST_STEP)
    return working(rounded - step) if rounded > bound else rounded


@kernel
def above(x: float, bound: float) -> bool:
    """Whether x > bound, a parameter, exactly so even where the bound is rounded to be compared."""
    return x > _rounded_down(bound)


@kernel
def below(x: float, bound: float) -> bool:
    """Whether x < bound likewise."""
    return -x > _rounded_down(-bound)


@kernel
def _threshold(x: float, threshold: float, value: float) -> float:
    return x if above(x, threshold) else working(value)


@kernel
def _threshold_slope(x: float, threshold: float, value: float) -> float:
    return 1.0 if above(x, threshold) else 0.0


THRESHOLD = Activation(
    name="threshold",
    summary="The identity above a threshold, one fixed value up to it.",
    reference="Collobert, Bengio and Mariethoz, Torch: a modular machine learning software library, IDIAP 2002",
    formula="x if x > threshold else value",
    derivative_formula="1 if x > threshold else 0",
    forward=_threshold,
    derivative=_threshold_slope,
    range="[0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=False),
    limits=(0.0, math.inf, 0.0, 1.0),
    kinks=(0.0,),
    advice="To replace small values by a floor of your choice; with both parameters 0 it is ReLU.",
    parameters=(
        Parameter(name="threshold", meaning="Above it, the input passes.", default=0.0),
        Parameter(name="value", meaning="What all else becomes.", default=0.0),
    ),
    libraries=(
        Library("torch", ("Threshold", "threshold")),
        Library("keras", ("threshold",), renamed=(("default_value", "value"),)),
    ),
    tried=({"threshold": 0.1, "value": -20.3}, {"threshold": -0.7, "value": 0.1}),
    ulp=0.501,
    single=("forward", "derivative", "vjp"),
)


@kernel
def _thresholded_relu(x: float, alpha: float) -> float:
    return x if above(x, alpha) else 0.0


@kernel
def _thresholded_relu_slope(x: float, alpha: float) -> float:
    return 1.0 if above(x, alpha) else 0.0


THRESHOLDED_RELU = Activation(
    name="thresholded_relu",
    summary="The identity above a threshold, zero up to it.",
    reference="Konda, Memisevic and Krueger, Zero-bias autoencoders and the benefits of co-adapting features, ICLR 2015, "
    "arXiv:1402.3337",
    formula="x if x > alpha else 0",
    derivative_formula="1 if x > alpha else 0",
    forward=_thresholded_relu,
    derivative=_thresholded_relu_slope,
    range="[0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=False),
    limits=(0.0, math.inf, 0.0, 1.0),
    kinks=(1.0,),
    advice="For autoencoders without biases, where weak responses are to be silenced and strong ones left as they are.",
    parameters=(Parameter(name="alpha", meaning="The threshold.", default=1.0, aliases=("theta",)),),
    libraries=(
        Library("tensorflow", ("ThresholdedReLU",), renamed=(("theta", "alpha"),)),
        Library("onnx", ("ThresholdedRelu",)),
    ),
    tried=({"alpha": 0.1}, {"alpha": 0.0}, {"alpha": -0.7}),
    ulp=0.0,
    single=("forward", "derivative", "vjp"),
)


@kernel
def _jump_relu(x: float, threshold: float, bandwidth: float) -> float:
    return x if above(x, threshold) else 0.0


@kernel
def _jump_relu_slope(x: float, threshold: float, bandwidth: float) -> float:
    return 1.0 if above(x, threshold) else 0.0


# The difference is taken in float64 even for float32 results, where it is exact for all but far-off elements.
@kernel
def _jump_relu_gradient(x: float, threshold: float, bandwidth: float) -> float:
    return working(-threshold / bandwidth) if abs(x - threshold) < 0.5 * bandwidth else 0.0


JUMP_RELU = Activation(
    name="jump_relu",
    summary="The identity above a learned threshold, zero up to it.",
    reference="Erichson, Yao and Mahoney, JumpReLU: a retrofit defense strategy for adversarial attacks, 2019, "
    "arXiv:1904.03750; Rajamanoharan et al., Jumping ahead: improving reconstruction fidelity with JumpReLU sparse "
    "autoencoders, 2024, arXiv:2407.14435",
    formula="x if x > threshold else 0",
    derivative_formula="1 if x > threshold else 0",
    forward=_jump_relu,
    derivative=_jump_relu_slope,
    range="[0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=False),
    limits=(0.0, math.inf, 0.0, 1.0),
    kinks=(0.001,),
    advice="For sparse autoencoders: every feature has a threshold, learned through the gradient that the bandwidth gives.",
    parameters=(
        Parameter(
            name="threshold",
            meaning="Above it, the input passes; one number or one for each feature.",
            default=0.001,
            per_channel=True,
        ),
        Parameter(
            name="bandwidth",
            meaning="Width of the window around the threshold in which elements count for its gradient.",
            default=0.001,
            low=0.0,
        ),
        CHANNEL_AXIS,
    ),
    gradients=(
        ParameterGradient(
            "threshold",
            "-threshold / bandwidth if abs(x - threshold) < bandwidth / 2 else 0",
            _jump_relu_gradient,
        ),
    ),
    tried=({"threshold": 0.1, "bandwidth": 2.0}, {"threshold": -0.3}, {"threshold": 0.0, "bandwidth": 0.1}),
    ulp=0.0,
    single=("forward", "derivative", "vjp"),
)


@kernel
def _hard_shrink(x: float, lambd: float) -> float:
    return x if above(abs(x), lambd) else 0.0


@kernel
def _shrink_slope(x: float, lambd: float) -> float:
    return 1.0 if above(abs(x), lambd) else 0.0


HARD_SHRINK = Activation(
    name="hard_shrink",
    summary="The identity far from zero, zero near it.",
    reference="Donoho and Johnstone, Ideal spatial adaptation by wavelet shrinkage, Biometrika 1994",
    formula="x if abs(x) > lambd else 0",
    derivative_formula="1 if abs(x) > lambd else 0",
    forward=_hard_shrink,
    derivative=_shrink_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    limits=(-math.inf, math.inf, 1.0, 1.0),
    kinks=(-0.5, 0.5),
    advice="For sparse codes and denoising, where what survives the threshold should keep its size.",
    parameters=(
        Parameter(
            name="lambd",
            meaning="Up to this magnitude, the result is zero.",
            default=0.5,
            low=0.0,
            low_open=False,
            aliases=("lambda", "threshold"),
        ),
    ),
    libraries=(
        Library("torch", ("Hardshrink", "hardshrink")),
        Library("keras", ("hard_shrink",), renamed=(("threshold", "lambd"),)),
    ),
    tried=({"lambd": 0.1}, {"lambd": 0.0}, {"lambd": 3.3}),
    ulp=0.0,
    single=("forward", "derivative", "vjp"),
)


# Just above the threshold all digits of the parameter are wanted.
@kernel
def _soft_shrink(x: float, lambd: float) -> float:
    magnitude = offset(abs(x), lambd, 0.0)
    return copysign(magnitude, x) if magnitude > 0.0 else 0.0


SOFT_SHRINK = Activation(
    name="soft_shrink",
    summary="Everything is moved towards zero by the same amount, and stays there once it has arrived.",
    reference="Donoho, De-noising by soft-thresholding, IEEE Transactions on Information Theory 1995",
    formula="sign(x) * max(abs(x) - lambd, 0)",
    derivative_formula="1 if abs(x) > lambd else 0",
    forward=_soft_shrink,
    derivative=_shrink_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    limits=(-math.inf, math.inf, 1.0, 1.0),
    kinks=(-0.5, 0.5),
    advice="For sparse codes: it is the step that an L1 penalty takes, and has no jump.",
    parameters=(
        Parameter(
            name="lambd",
            meaning="How far everything is moved.",
            default=0.5,
            low=0.0,
            low_open=False,
            aliases=("lambda", "threshold"),
        ),
    ),
    libraries=(
        Library("torch", ("Softshrink", "softshrink")),
        Library("keras", ("soft_shrink",), renamed=(("threshold", "lambd"),)),
    ),
    tried=({"lambd": 0.1}, {"lambd": 0.0}, {"lambd": 3.3}),
    ulp=0.501,
    single=("derivative", "vjp"),
)


@kernel
def _shrink(x: float, lambd: float, bias: float) -> float:
    magnitude = offset(abs(x), bias, 0.0)
    moved = magnitude if x > 0.0 else -magnitude
    return moved if above(abs(x), lambd) else 0.0


@kernel
def _biased_shrink_slope(x: float, lambd: float, bias: float) -> float:
    return 1.0 if above(abs(x), lambd) else 0.0


SHRINK = Activation(
    name="shrink",
    summary="Zero near zero; beyond a threshold, the input moved towards zero by a bias.",
    reference="ONNX, operator specification, opset 9, 2018, operator Shrink",
    formula="x + bias if x < -lambd else (x - bias if x > lambd else 0)",
    derivative_formula="1 if abs(x) > lambd else 0",
    forward=_shrink,
    derivative=_biased_shrink_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=False),
    limits=(-math.inf, math.inf, 1.0, 1.0),
    kinks=(-0.5, 0.5),
    advice="For what lies between hard shrink, which has no bias, and soft shrink, whose bias is the threshold.",
    parameters=(
        Parameter(
            name="lambd",
            meaning="Up to this magnitude, the result is zero.",
            default=0.5,
            low=0.0,
            low_open=False,
            aliases=("lambda",),
        ),
        Parameter(name="bias", meaning="How far all else is moved towards zero.", default=0.0),
    ),
    libraries=(Library("onnx", ("Shrink",)),),
    tried=({"lambd": 0.1, "bias": 0.1}, {"lambd": 0.3, "bias": -1.7}, {"lambd": 0.7, "bias": 2.9}),
    ulp=0.501,
    single=("derivative", "vjp"),
)


@kernel
def _sign(x: float, ste: float) -> float:
    low = -1.0 if x < 0.0 else x
    return 1.0 if x > 0.0 else low


@kernel
def _sign_slope(x: float, ste: float) -> float:
    inside = 1.0 if abs(x) <= 1.0 else 0.0
    return 1.0 if ste == 2.0 else (inside if ste == 1.0 else 0.0)


SIGN = Activation(
    name="sign",
    summary="1 above zero, -1 below it, 0 at zero.",
    reference="Hubara, Courbariaux, Soudry, El-Yaniv and Bengio, Binarized neural networks, NIPS 2016, arXiv:1602.02830",
    formula="sign(x)",
    derivative_formula='1 if ste == "identity" or (ste == "hardtanh" and abs(x) <= 1) else 0',
    forward=_sign,
    derivative=_sign_slope,
    range="[-1, 1]",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=False),
    limits=(-1.0, 1.0, 0.0, 0.0),
    kinks=(0.0,),
    advice="For binary networks; train them with the straight-through derivative of hardtanh, as the true one is 0.",
    parameters=(
        word(
            "ste",
            "What the derivative is: the true one, or the straight-through one of hardtanh or of the identity.",
            "zero",
            "hardtanh",
            "identity",
        ),
    ),
    aliases=("sgn",),
    libraries=(
        Library("onnx", ("Sign",)),
        Library("ggml", ("SGN",)),
    ),
    tried=({"ste": "hardtanh"}, {"ste": "identity"}),
    ulp=0.0,
    single=("forward",),
)


@kernel
def _step(x: float, ste: float, bandwidth: float) -> float:
    return 1.0 if x > 0.0 else 0.0


@kernel
def _step_slope(x: float, ste: float, bandwidth: float) -> float:
    return working(1.0 / bandwidth) if (ste == 1.0) & below(abs(x), 0.5 * bandwidth) else 0.0


STEP = Activation(
    name="step",
    summary="1 above zero, 0 up to it.",
    reference="McCulloch and Pitts, A logical calculus of the ideas immanent in nervous activity, 1943",
    formula="1 if x > 0 else 0",
    derivative_formula='1 / bandwidth if ste == "rectangle" and abs(x) < bandwidth / 2 else 0',
    forward=_step,
    derivative=_step_slope,
    range="[0, 1]",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=False),
    limits=(0.0, 1.0, 0.0, 0.0),
    kinks=(0.0,),
    advice="For gates and spiking neurons; train them with the rectangle as derivative, as the true one is 0.",
    parameters=(
        word("ste", "What the derivative is: the true one, or a rectangle of area 1 around zero.", "zero", "rectangle"),
        Parameter(name="bandwidth", meaning="The width of the rectangle.", default=1.0, low=0.0),
    ),
    aliases=("heaviside",),
    libraries=(
        Library("torch", ("heaviside",)),
        Library("ggml", ("STEP",)),
    ),
    tried=({"ste": "rectangle"}, {"ste": "rectangle", "bandwidth": 0.2}, {"ste": "rectangle", "bandwidth": 7.0}),
    ulp=0.0,
    single=("forward",),
)
