"""Activations that are periodic, and the arc tangent. Says what they are, not how they are run.

An angle is a parameter times x as hi + lo, for what rounding takes from a large product is a good part of a turn. Angles
beyond TRIG_LIMIT have kernels of their own.
"""

from __future__ import annotations

import math

import numpy as np

from actserve_server.activations.spec import (
    CHANNEL_AXIS,
    Activation,
    Exact,
    Library,
    Parameter,
    ParameterGradient,
    Quick,
    Traits,
    kernel,
)
from actserve_server.elementary import (
    LARGEST,
    TRIG_LIMIT,
    atan,
    copysign,
    cos_huge,
    cos_sum,
    fma,
    quick_product,
    sin_huge,
    sin_in_parts,
    sin_sum,
    sqrt,
    two_product,
    working,
)
from actserve_server.elementary.huge import angle

__all__ = ["ARCTAN", "COS", "GCU", "SIN", "SNAKE", "SNAKE_BETA"]

INFINITY = math.inf
SCALE = 1024
HALF_UNSCALED = Exact(2.0**-512)
"""An angle that overflows is that of two factors above 1, each of which is scaled without loss."""
UNIT = Exact(1.0)
QUARTER_PI_HI = Exact(0.7853981633974483)
QUARTER_PI_LO = Exact(3.061616997868383e-17)


# A parameter of 0 makes an angle of 0 even of infinity.
@kernel
def _angle(x: float, factor: float) -> tuple[float, float]:
    """factor * x as hi + lo."""
    return two_product(factor, x if factor != 0.0 else 0.0)


# Half the limit, as a slope may ask for the sine of twice the angle.
@kernel
def _reach(factor: float) -> float:
    return min(0.5 * TRIG_LIMIT / abs(working(factor)), LARGEST)


# In float64 also where numbers are float32: of a huge product their hi and lo would lack whole turns.
@kernel
def _huge_angle(x: float, factor: float) -> tuple[float, float, int]:
    """factor * x as (hi + lo) 2^scale, as there are angles that no float64 can hold."""
    multiplied = np.float64(x) if factor != 0.0 else np.float64(0.0)
    scale = SCALE if abs(factor * multiplied) == INFINITY else 0
    unscaled = HALF_UNSCALED if scale > 0 else UNIT
    first, second = factor * unscaled, multiplied * unscaled
    hi = first * second
    return hi, (fma(first, second, -hi) if abs(hi) < INFINITY else 0.0), scale


# The sine of infinity is NaN.
@kernel
def _slow_sine(x: float, factor: float) -> float:
    hi, lo, scale = _huge_angle(x, factor)
    return sin_huge(hi, lo, scale) if abs(hi) < INFINITY else working(hi - hi)


@kernel
def _slow_cosine(x: float, factor: float) -> float:
    hi, lo, scale = _huge_angle(x, factor)
    return cos_huge(hi, lo, scale) if abs(hi) < INFINITY else working(hi - hi)


@kernel
def _sin(x: float, omega: float) -> float:
    hi, lo = quick_product(omega, x)
    return sin_sum(hi, lo)


@kernel
def _sin_slope(x: float, omega: float) -> float:
    hi, lo = quick_product(omega, x)
    return working(omega) * cos_sum(hi, lo)


@kernel
def _slow_sin_slope(x: float, omega: float) -> float:
    return working(omega) * _slow_cosine(x, omega)


OMEGA = Parameter(name="omega", meaning="The frequency, in radians.", default=1.0, aliases=("frequency",))

SIN = Activation(
    name="sin",
    summary="The sine of the input.",
    reference="Sitzmann, Martel, Bergman, Lindell and Wetzstein, Implicit neural representations with periodic activation "
    "functions, NeurIPS 2020, arXiv:2006.09661",
    formula="sin(omega * x)",
    derivative_formula="omega * cos(omega * x)",
    forward=_slow_sine,
    derivative=_slow_sin_slope,
    range="[-1, 1]",
    traits=Traits(monotonic=False, zero_centred=True, saturates="no", smooth=True),
    limits=(math.nan, math.nan, math.nan, math.nan),
    advice="For networks that represent images, sounds or fields by coordinates; SIREN takes omega = 30 in its first layer.",
    parameters=(OMEGA,),
    aliases=("sine", "siren"),
    libraries=(
        Library("torch", ("sin",)),
        Library("jax", ("sin",)),
        Library("onnx", ("Sin",)),
        Library("ggml", ("SIN",)),
    ),
    tried=({"omega": 0.3}, {"omega": -0.77}, {"omega": 1e-3}, {"omega": 0.0}),
    quick=Quick(_reach, _sin, _sin_slope),
)


@kernel
def _cos(x: float, omega: float) -> float:
    hi, lo = quick_product(omega, x)
    return cos_sum(hi, lo)


@kernel
def _cos_slope(x: float, omega: float) -> float:
    hi, lo = quick_product(omega, x)
    return -working(omega) * sin_sum(hi, lo)


@kernel
def _slow_cos_slope(x: float, omega: float) -> float:
    return -working(omega) * _slow_sine(x, omega)


COS = Activation(
    name="cos",
    summary="The cosine of the input.",
    reference="Rahimi and Recht, Random features for large-scale kernel machines, NIPS 2007",
    formula="cos(omega * x)",
    derivative_formula="-omega * sin(omega * x)",
    forward=_slow_cosine,
    derivative=_slow_cos_slope,
    range="[-1, 1]",
    traits=Traits(monotonic=False, zero_centred=True, saturates="no", smooth=True),
    limits=(math.nan, math.nan, math.nan, math.nan),
    advice="For random Fourier features, and beside the sine in encodings of position.",
    parameters=(OMEGA,),
    aliases=("cosine",),
    libraries=(
        Library("torch", ("cos",)),
        Library("onnx", ("Cos",)),
        Library("ggml", ("COS",)),
    ),
    tried=({"omega": 0.3}, {"omega": -0.77}, {"omega": 1e-3}, {"omega": 0.0}),
    quick=Quick(_reach, _cos, _cos_slope),
)


# 1/beta is carried as hi + lo, and so is sine/beta, for the sum may cancel: by a factor of up to four on the left of snake, and the
# more, the larger alpha/beta is. Where the angle is infinite, so is x.
@kernel
def _with_square(x: float, sine: float, sine_rest: float, beta: float) -> float:
    """x + (sine + sine_rest)^2/beta."""
    inverse = 1.0 / beta
    hi = working(inverse)
    lo = working((inverse - hi) + fma(-inverse, beta, 1.0) * inverse)
    share = sine * hi
    rest = fma(2.0 * sine_rest, hi, fma(sine, lo, fma(sine, hi, -share)))
    value = fma(sine, rest, fma(sine, share, x))
    return value if x != 0.0 else x


@kernel
def _snake_beta(x: float, alpha: float, beta: float) -> float:
    hi, lo = quick_product(alpha, x)
    sine, rest = sin_in_parts(hi, lo)
    return _with_square(x, sine, rest, beta)


@kernel
def _sine_of_any(x: float, factor: float) -> float:
    hi, lo = _angle(x, factor)
    return _slow_sine(x, factor) if abs(hi) > TRIG_LIMIT else sin_sum(hi, lo)


@kernel
def _cosine_of_any(x: float, factor: float) -> float:
    hi, lo = _angle(x, factor)
    return _slow_cosine(x, factor) if abs(hi) > TRIG_LIMIT else cos_sum(hi, lo)


@kernel
def _snake_beta_reach(alpha: float, beta: float) -> float:
    return _reach(alpha)


@kernel
def _slow_snake_beta(x: float, alpha: float, beta: float) -> float:
    hi, lo = _angle(x, alpha)
    if abs(hi) <= TRIG_LIMIT:
        sine, rest = sin_in_parts(hi, lo)
        return _with_square(x, sine, rest, beta)
    sine = _slow_sine(x, alpha)
    return _with_square(x, sine, 0.0, beta) if sine == sine else x


# With r = alpha/beta and its sign s, 1 + r sin(2a) = 1 - |r| + 2 |r| sin^2(a + s pi/4), which does not cancel for |r| <= 1.
# For a greater |r| there are zeros between which it would cancel too, so then the sine is that of 2a.
@kernel
def _turned(hi: float, lo: float, sign: float) -> tuple[float, float]:
    """hi + lo + sign pi/4."""
    quarter = working(QUARTER_PI_HI)
    rest = working((QUARTER_PI_HI - quarter) + QUARTER_PI_LO)
    turn = sign * quarter
    whole = hi + turn
    part = whole - hi
    lost = (hi - (whole - part)) + (turn - part) + (lo + sign * rest)
    total = whole + lost
    return total, (whole - total) + lost


@kernel
def _slope_of_sine(sine: float, sine_rest: float, alpha: float, beta: float) -> float:
    """The slope from the sine of the turned angle, or of twice the angle where |r| > 1."""
    ratio = alpha / beta
    missing = fma(-ratio, beta, alpha) / beta
    least = (1.0 - abs(ratio)) - (missing if ratio > 0.0 else -missing)
    gentle = fma(working(2.0 * abs(ratio)) * sine, sine, working(least))
    steep = fma(working(ratio), sine, fma(working(ratio), sine_rest, 1.0))
    return gentle if abs(ratio) <= 1.0 else steep


@kernel
def _sign_of_ratio(alpha: float, beta: float) -> float:
    return working(copysign(1.0, alpha) * copysign(1.0, beta))


@kernel
def _snake_beta_slope(x: float, alpha: float, beta: float) -> float:
    hi, lo = quick_product(alpha, x)
    turned, rest = _turned(hi, lo, _sign_of_ratio(alpha, beta))
    gentle = abs(alpha / beta) <= 1.0
    sine, sine_rest = sin_in_parts(turned if gentle else 2.0 * hi, rest if gentle else 2.0 * lo)
    return _slope_of_sine(sine, sine_rest, alpha, beta)


# An odd number of quarter turns makes a cosine of the sine, whose sign is squared away; twice that many turn twice the angle's
# sine around.
@kernel
def _slow_snake_beta_slope(x: float, alpha: float, beta: float) -> float:
    hi, lo, scale = _huge_angle(x, alpha)
    if not abs(hi) < INFINITY:
        return working(hi - hi)
    remaining, rest, quarters = angle(hi, lo, scale)
    near = working(remaining)
    lost = working((remaining - near) + rest)
    if abs(alpha / beta) > 1.0:
        doubled, doubled_rest = sin_in_parts(2.0 * near, 2.0 * lost)
        sign = 1.0 if quarters & 1 == 0 else -1.0
        return _slope_of_sine(sign * doubled, sign * doubled_rest, alpha, beta)
    turned, lost = _turned(near, lost, _sign_of_ratio(alpha, beta))
    sine = sin_sum(turned, lost) if quarters & 1 == 0 else cos_sum(turned, lost)
    return _slope_of_sine(sine, 0.0, alpha, beta)


# Gradients take the sines that are right for every angle, as there is no second kernel for the few huge ones.
@kernel
def _snake_beta_alpha(x: float, alpha: float, beta: float) -> float:
    """x sin(2 alpha x)/beta."""
    return x * _sine_of_any(x, alpha) * (2.0 * (_cosine_of_any(x, alpha) * working(1.0 / beta)))


@kernel
def _snake_beta_beta(x: float, alpha: float, beta: float) -> float:
    share = _sine_of_any(x, alpha) * working(1.0 / beta)
    return -share * share


SNAKE_BETA = Activation(
    name="snake_beta",
    summary="x plus a wave, whose frequency and height are set apart.",
    reference="Lee, Ping, Ginsburg, Catanzaro and Yoon, BigVGAN: a universal neural vocoder with large-scale training, "
    "ICLR 2023, arXiv:2206.04658",
    formula="x + sin(alpha * x)**2 / beta",
    derivative_formula="1 + alpha / beta * sin(2 * alpha * x)",
    forward=_slow_snake_beta,
    derivative=_slow_snake_beta_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=True),
    limits=(-math.inf, math.inf, math.nan, math.nan),
    advice="For vocoders and other audio models, which learn both parameters for each channel.",
    parameters=(
        Parameter(
            name="alpha",
            meaning="The frequency of the wave, one number or one for each channel.",
            default=1.0,
            per_channel=True,
        ),
        Parameter(
            name="beta",
            meaning="The wave is divided by it; one number or one for each channel.",
            default=1.0,
            nonzero=True,
            per_channel=True,
        ),
        CHANNEL_AXIS,
    ),
    gradients=(
        ParameterGradient("alpha", "x * sin(2 * alpha * x) / beta", _snake_beta_alpha),
        ParameterGradient("beta", "-(sin(alpha * x) / beta)**2", _snake_beta_beta),
    ),
    tried=(
        {"alpha": 0.3, "beta": 0.7},
        {"alpha": -0.6, "beta": 0.9},
        {"alpha": 0.2, "beta": -3.0},
        {"alpha": 0.0, "beta": 2.0},
        {"alpha": 3.0, "beta": 0.5},
    ),
    cancels=("forward", "derivative"),
    quick=Quick(_snake_beta_reach, _snake_beta, _snake_beta_slope),
)


@kernel
def _snake(x: float, alpha: float) -> float:
    return _snake_beta(x, alpha, alpha)


@kernel
def _slow_snake(x: float, alpha: float) -> float:
    return _slow_snake_beta(x, alpha, alpha)


@kernel
def _snake_slope(x: float, alpha: float) -> float:
    hi, lo = quick_product(alpha, x)
    turned, rest = _turned(hi, lo, 1.0)
    sine = sin_sum(turned, rest)
    return 2.0 * sine * sine


@kernel
def _slow_snake_slope(x: float, alpha: float) -> float:
    return _slow_snake_beta_slope(x, alpha, alpha)


@kernel
def _snake_gradient(x: float, alpha: float) -> float:
    """x sin(2 alpha x)/alpha - sin(alpha x)^2/alpha^2."""
    share = _sine_of_any(x, alpha) * working(1.0 / alpha)
    return fma(2.0 * share, x * _cosine_of_any(x, alpha), -(share * share))


SNAKE = Activation(
    name="snake",
    summary="x plus a wave: the square of a sine, so that it keeps rising.",
    reference="Ziyin, Hartwig and Ueda, Neural networks fail to learn periodic functions and how to fix it, NeurIPS 2020, "
    "arXiv:2006.08195",
    formula="x + sin(alpha * x)**2 / alpha",
    derivative_formula="1 + sin(2 * alpha * x)",
    forward=_slow_snake,
    derivative=_slow_snake_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=True),
    limits=(-math.inf, math.inf, math.nan, math.nan),
    advice="For periodic data such as audio and time series, beyond the range of the training data too.",
    parameters=(
        Parameter(
            name="alpha",
            meaning="The frequency of the wave, one number or one for each channel.",
            default=1.0,
            nonzero=True,
            per_channel=True,
            aliases=("frequency",),
        ),
        CHANNEL_AXIS,
    ),
    gradients=(
        ParameterGradient("alpha", "x * sin(2 * alpha * x) / alpha - (sin(alpha * x) / alpha)**2", _snake_gradient),
    ),
    tried=({"alpha": 0.3}, {"alpha": -0.77}, {"alpha": 1e-6}),
    quick=Quick(_reach, _snake, _snake_slope),
)


@kernel
def _gcu(x: float) -> float:
    return x * cos_sum(x, 0.0)


@kernel
def _gcu_slope(x: float) -> float:
    return fma(-x, sin_sum(x, 0.0), cos_sum(x, 0.0))


@kernel
def _gcu_reach() -> float:
    return TRIG_LIMIT


@kernel
def _slow_gcu(x: float) -> float:
    return x * cos_huge(x, 0.0, 0) if abs(x) < INFINITY else x - x


@kernel
def _slow_gcu_slope(x: float) -> float:
    return fma(-x, sin_huge(x, 0.0, 0), cos_huge(x, 0.0, 0)) if abs(x) < INFINITY else x - x


GCU = Activation(
    name="gcu",
    summary="x times its cosine: the growing cosine unit.",
    reference="Noel, Trivedi and Dutta, Growing cosine unit: a novel oscillatory activation function that can speedup training "
    "and reduce parameters in convolutional neural networks, 2021, arXiv:2108.12943",
    formula="x * cos(x)",
    derivative_formula="cos(x) - x * sin(x)",
    forward=_slow_gcu,
    derivative=_slow_gcu_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="no", smooth=True),
    limits=(math.nan, math.nan, math.nan, math.nan),
    advice="For small convolutional networks, where one oscillating neuron can do what takes several others.",
    cancels=("derivative",),
    quick=Quick(_gcu_reach, _gcu, _gcu_slope),
)


# Beyond it 1 is nothing beside x^2, and x^2 may overflow while its inverse does not underflow.
ARCTAN_CAP = 2.0**40


@kernel
def _arctan(x: float) -> float:
    return atan(x)


@kernel
def _arctan_slope(x: float) -> float:
    magnitude = abs(x)
    capped = min(magnitude, ARCTAN_CAP)
    inverse = 1.0 / (fma(capped, capped, 1.0) if magnitude < ARCTAN_CAP else magnitude)
    return inverse if magnitude < ARCTAN_CAP else inverse * inverse


@kernel
def _arctan_slope_reach() -> float:
    return 0.5 * sqrt(LARGEST)


@kernel
def _quick_arctan_slope(x: float) -> float:
    return 1.0 / fma(x, x, 1.0)


ARCTAN = Activation(
    name="arctan",
    summary="From -pi/2 to pi/2 along an S: the arc tangent.",
    reference="Kamruzzaman and Aziz, A note on activation function in multilayer feedforward learning, IJCNN 2002",
    formula="atan(x)",
    derivative_formula="1 / (1 + x**2)",
    forward=_arctan,
    derivative=_arctan_slope,
    range="(-1.5707963267948966, 1.5707963267948966)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=True),
    limits=(-math.pi / 2, math.pi / 2, 0.0, 0.0),
    advice="In place of tanh where gradients vanish: its slope falls as 1/x^2, not exponentially.",
    aliases=("atan",),
    libraries=(
        Library("torch", ("atan",)),
        Library("onnx", ("Atan",)),
    ),
    quick=Quick(_arctan_slope_reach, None, _quick_arctan_slope),
)
