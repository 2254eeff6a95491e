"""Activations of the normal distribution: its bell and its distribution function. Says what they are, not how they are run.

A square in an exponent is carried as hi + lo: to round it would cost as many units in the last place as it is large.
"""

from __future__ import annotations

from actserve_server.activations.spec import Activation, Library, Parameter, Quick, Traits, kernel
from actserve_server.elementary import (
    EXP_LIMIT,
    LARGEST,
    decay_sum,
    erf_alone,
    fma,
    quick_exp,
    quotient,
    scaled_exp,
    scaled_normal_tail,
    sqrt,
    working,
)

__all__ = ["ERF", "GAUSSIAN", "LAPLACE"]

INVERSE_SQRT_2PI = 0.3989422804014327
TWO_OVER_SQRT_PI = 1.1283791670955126

GONE = 60.0
"""Beyond it exp(-x^2/2) is 0, also when it is multiplied by any number that is not itself near the largest."""
LAST_TAIL = 40.0


@kernel
def _gaussian(x: float) -> float:
    a = min(abs(x), GONE)
    hi = -(a * a)
    return decay_sum(hi, -fma(a, a, hi))


@kernel
def _reach_of_square() -> float:
    return sqrt(EXP_LIMIT)


@kernel
def _exp_of_square(x: float) -> float:
    """exp(-x^2)."""
    hi = -(x * x)
    return quick_exp(hi, -fma(x, x, hi))


@kernel
def _quick_gaussian_slope(x: float) -> float:
    return -2.0 * x * _exp_of_square(x)


@kernel
def _gaussian_slope(x: float) -> float:
    a = max(min(x, GONE), -GONE)
    hi = -(a * a)
    return scaled_exp(-2.0 * a, hi, -fma(a, a, hi))


GAUSSIAN = Activation(
    name="gaussian",
    summary="A bell: 1 at zero, and nothing far from it.",
    reference="Ramasinghe and Lucey, Beyond periodicity: towards a unifying framework for activations in coordinate-MLPs, "
    "2021, arXiv:2111.15135",
    formula="exp(-x**2)",
    derivative_formula="-2 * x * exp(-x**2)",
    forward=_gaussian,
    derivative=_gaussian_slope,
    range="(0, 1]",
    traits=Traits(monotonic=False, zero_centred=False, saturates="both", smooth=True),
    limits=(0.0, 0.0, 0.0, 0.0),
    advice="For networks of coordinates, as in neural fields, and for radial basis functions.",
    aliases=("radial_basis",),
    ulp=2.0,
    quick=Quick(_reach_of_square, _exp_of_square, _quick_gaussian_slope),
)


# (x - mu)/sigma as hi + lo, whose error the tail would multiply by its square. mu is two numbers where one rounds it.
@kernel
def _standardized(x: float, mu: float, sigma: float) -> tuple[float, float]:
    centre = working(mu)
    difference = x - centre
    part = difference - x
    lost = ((x - (difference - part)) - (centre + part)) - working(mu - centre)
    lost = lost if abs(difference) < LARGEST else 0.0
    distance = difference + lost
    hi, lo = quotient(distance, sigma)
    lo = fma((difference - distance) + lost, min(1.0 / working(sigma), LARGEST), lo)
    return max(min(hi, GONE), -GONE), (lo if abs(hi) < GONE else 0.0)


# Phi(-a) = R(a) exp(-a^2/2).
@kernel
def _laplace(x: float, mu: float, sigma: float) -> float:
    t, rest = _standardized(x, mu, sigma)
    a = abs(t)
    hi = -0.5 * (a * a)
    lo = fma(-0.5 * a, a, -hi) - t * rest
    tail = scaled_exp(scaled_normal_tail(min(a, LAST_TAIL)), hi, lo)
    return tail if t < 0.0 else 1.0 - tail


@kernel
def _laplace_slope(x: float, mu: float, sigma: float) -> float:
    t, rest = _standardized(x, mu, sigma)
    hi = -0.5 * (t * t)
    lo = fma(-0.5 * t, t, -hi) - t * rest
    return scaled_exp(INVERSE_SQRT_2PI / working(sigma), hi, lo)


LAPLACE = Activation(
    name="laplace",
    summary="The distribution function of a normal variable, with which Mega stands in for a squared ReLU.",
    reference="Ma, Zhou, Kong, He, Gui, Neubig, May and Zettlemoyer, Mega: moving average equipped gated attention, 2022, "
    "arXiv:2209.10655",
    formula="erfc(-(x - mu) / (sigma * sqrt(2))) / 2",
    derivative_formula="exp(-((x - mu) / sigma)**2 / 2) / (sigma * sqrt(2 * pi))",
    forward=_laplace,
    derivative=_laplace_slope,
    range="(0, 1)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="both", smooth=True),
    limits=(0.0, 1.0, 0.0, 0.0),
    advice="For attention without a softmax: like a squared ReLU near its middle, but bounded, so that training is stable.",
    parameters=(
        Parameter(name="mu", meaning="The mean of the variable, where the result is 1/2.", default=0.707107),
        Parameter(name="sigma", meaning="The standard deviation of the variable.", default=0.282095, low=0.0),
    ),
    libraries=(Library("huggingface", ("laplace",)),),
    tried=({"mu": 0.0, "sigma": 1.0}, {"mu": -3.3, "sigma": 2.7}, {"mu": 1e5, "sigma": 0.1}, {"sigma": 1e-20}),
)


@kernel
def _erf(x: float) -> float:
    return erf_alone(x)


@kernel
def _erf_slope(x: float) -> float:
    a = min(abs(x), GONE)
    hi = -(a * a)
    return scaled_exp(TWO_OVER_SQRT_PI, hi, -fma(a, a, hi))


@kernel
def _quick_erf_slope(x: float) -> float:
    return TWO_OVER_SQRT_PI * _exp_of_square(x)


ERF = Activation(
    name="erf",
    summary="From -1 to 1 along an S: the error function, steeper than tanh and flatter at its ends.",
    reference="Glaisher, On a class of definite integrals, Philosophical Magazine 42, 1871; as a layer, Saad and Solla, "
    "On-line learning in soft committee machines, Physical Review E 52, 1995",
    formula="erf(x)",
    derivative_formula="2 / sqrt(pi) * exp(-x**2)",
    forward=_erf,
    derivative=_erf_slope,
    range="(-1, 1)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=True),
    limits=(-1.0, 1.0, 0.0, 0.0),
    advice="For analyses of learning, where integrals over normal variables have closed forms; else choose tanh.",
    libraries=(
        Library("torch", ("erf",)),
        Library("jax", ("erf",)),
        Library("tensorflow", ("erf",)),
        Library("onnx", ("Erf",)),
    ),
    quick=Quick(_reach_of_square, None, _quick_erf_slope),
)
