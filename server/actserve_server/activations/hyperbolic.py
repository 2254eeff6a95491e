"""Activations made of the hyperbolic tangent, other than itself. Says what they are, not how they are run."""

from __future__ import annotations

import math

from actserve_server.activations.sigmoids import quick_sech_squared, sech_squared
from actserve_server.activations.spec import Activation, Library, Parameter, Quick, Traits, kernel
from actserve_server.elementary import (
    EXP_LIMIT,
    LARGEST,
    copysign,
    decay_sum,
    fma,
    quick_product,
    quotient,
    scaled_exp,
    tanh,
    two_product,
    working,
)
from actserve_server.elementary.bits import polynomial

__all__ = ["SCALED_TANH", "SOFTCAP", "TANH_SHRINK"]

STRAIGHT = 2.0**-28
"""Below it, tanh(u) is u to within half a unit in the last place. The result is then taken without u, which may be
subnormal and have lost its digits."""


# The argument is 0 where beta is, also for an infinite x.
@kernel
def _scaled_tanh(x: float, alpha: float, beta: float) -> float:
    hi, _ = two_product(beta, x if beta != 0.0 else copysign(0.0, x))
    straight = working(alpha * beta) * x
    return working(alpha) * tanh(hi) if abs(hi) > STRAIGHT or beta == 0.0 else straight


@kernel
def _scaled_tanh_slope(x: float, alpha: float, beta: float) -> float:
    hi, lo = two_product(beta, x if beta != 0.0 else 0.0)
    magnitude = -2.0 * abs(hi)
    rest = -2.0 * (lo if hi > 0.0 else -lo)
    decay = scaled_exp(1.0, magnitude, rest)
    return scaled_exp(working(4.0 * alpha * beta) / fma(decay, 2.0 + decay, 1.0), magnitude, rest)


@kernel
def _scaled_tanh_reach(alpha: float, beta: float) -> float:
    return min(0.5 * EXP_LIMIT / abs(working(beta)), LARGEST)


@kernel
def _quick_scaled_tanh_slope(x: float, alpha: float, beta: float) -> float:
    hi, lo = quick_product(beta, x)
    return working(alpha * beta) * quick_sech_squared(hi, lo)


SCALED_TANH = Activation(
    name="scaled_tanh",
    summary="A tanh stretched so that f(1) = 1 and f(-1) = -1, where it bends most.",
    reference="LeCun, Bottou, Orr and Mueller, Efficient BackProp, Neural Networks: Tricks of the Trade, 1998",
    formula="alpha * tanh(beta * x)",
    derivative_formula="alpha * beta / cosh(beta * x)**2",
    forward=_scaled_tanh,
    derivative=_scaled_tanh_slope,
    range="(-alpha, alpha)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=True),
    limits=(-1.7159, 1.7159, 0.0, 0.0),
    advice="For targets of 1 and -1, which a plain tanh would reach at infinity only.",
    parameters=(
        Parameter(name="alpha", meaning="The height of the plateaus.", default=1.7159),
        Parameter(name="beta", meaning="What the input is multiplied by.", default=2 / 3),
    ),
    aliases=("lecun_tanh",),
    libraries=(Library("onnx", ("ScaledTanh",)),),
    tried=(
        {"alpha": 0.3, "beta": -2.5},
        {"alpha": 1e100, "beta": 1e-100},
        {"alpha": 1e-30, "beta": 1e30},
    ),
    quick=Quick(_scaled_tanh_reach, None, _quick_scaled_tanh_slope),
)


@kernel
def _softcap(x: float, cap: float) -> float:
    hi, _ = quotient(x, cap)
    return working(cap) * tanh(hi) if abs(hi) > STRAIGHT else x


@kernel
def _softcap_slope(x: float, cap: float) -> float:
    hi, lo = quotient(x, cap)
    return sech_squared(hi, lo)


@kernel
def _softcap_reach(cap: float) -> float:
    return min(0.5 * EXP_LIMIT * working(cap), LARGEST)


@kernel
def _quick_softcap_slope(x: float, cap: float) -> float:
    hi, lo = quotient(x, cap)
    return quick_sech_squared(hi, lo)


SOFTCAP = Activation(
    name="softcap",
    summary="The identity near zero, bent so that it never exceeds a cap.",
    reference="Bello, Pham, Le, Norouzi and Bengio, Neural combinatorial optimization with reinforcement learning, 2016, "
    "arXiv:1611.09940; Gemma Team, Gemma 2, 2024, arXiv:2408.00118",
    formula="cap * tanh(x / cap)",
    derivative_formula="1 / cosh(x / cap)**2",
    forward=_softcap,
    derivative=_softcap_slope,
    range="(-cap, cap)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="both", smooth=True),
    limits=(-30.0, 30.0, 0.0, 0.0),
    advice="For logits before a softmax, so that none runs away: 30 for the output's and 50 for attention's in Gemma 2.",
    parameters=(Parameter(name="cap", meaning="What the result stays below.", default=30.0, low=0.0),),
    aliases=("logit_softcap", "logit_softcapping"),
    tried=({"cap": 50.0}, {"cap": 0.7}, {"cap": 1e-30}, {"cap": 1e30}),
    quick=Quick(_softcap_reach, None, _quick_softcap_slope),
)

# p in tanh(x) = x - x z p(z), z = x^2, on [0.0, 1.0]: error 2^-53.08. Printed by
# tools/fit_elementary.py SHRINK.
SHRINK = (
    0.3333333333333333,
    -0.13333333333333092,
    0.05396825396804674,
    -0.021869488529139666,
    0.00886323540474017,
    -0.003592126680859629,
    0.0014558247010901383,
    -0.0005899793317774305,
    0.00023895716069582672,
    -9.64630045245541e-05,
    3.838995065121829e-05,
    -1.460650117919972e-05,
    4.988037782876494e-06,
    -1.3793192970260093e-06,
    2.633484404882726e-07,
    -2.516043726601646e-08,
)


# Where x > 1 it is ((x - 1) + (x + 1) exp(-2x))/(1 + exp(-2x)), whose terms are positive.
@kernel
def _tanh_shrink(x: float) -> float:
    magnitude = abs(x)
    decay = decay_sum(-2.0 * magnitude, 0.0)
    z = x * x
    near = magnitude * (z * fma(z, polynomial(z, SHRINK[1:]), SHRINK[0]))
    far = fma(decay, min(magnitude, 1000.0) + 1.0, magnitude - 1.0) / (1.0 + decay)
    return copysign(near if magnitude < 1.0 else far, x)


@kernel
def _tanh_shrink_slope(x: float) -> float:
    root = tanh(x)
    return root * root


TANH_SHRINK = Activation(
    name="tanh_shrink",
    summary="What tanh leaves of x: flat at zero, straight far from it.",
    reference="Gregor and LeCun, Learning fast approximations of sparse coding, ICML 2010 (shrinkage functions)",
    formula="x - tanh(x)",
    derivative_formula="tanh(x)**2",
    forward=_tanh_shrink,
    derivative=_tanh_shrink_slope,
    range="(-inf, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="no", smooth=True),
    limits=(-math.inf, math.inf, 1.0, 1.0),
    advice="For sparse codes, where small values should shrink towards zero without a threshold.",
    libraries=(
        Library("torch", ("Tanhshrink", "tanhshrink")),
        Library("keras", ("tanh_shrink",)),
    ),
)
