"""Activations of the form x times a sigmoid of x: SiLU and GELU. Says what they are, not how they are run."""

from __future__ import annotations

import math
import sys

from actserve_server.activations.spec import Activation, Library, Parameter, Traits, kernel
from actserve_server.elementary import (
    fma,
    gelu_slope_quotient,
    scaled_exp,
    scaled_normal_tail,
    silu_slope_quotient,
)

__all__ = ["GELU", "SILU"]

LARGEST = sys.float_info.max

# Printed by tools/fit_elementary.py SILU_ROOT GELU_ROOT INVERSE_SQRT_2PI.
SILU_ROOT_HI = -1.2784645427610737
SILU_ROOT_LO = -1.0946994183093437e-16
GELU_ROOT_HI = -0.7517915246935645
GELU_ROOT_LO = 1.4956759177009883e-17
INVERSE_SQRT_2PI_HI = 0.3989422804014327
INVERSE_SQRT_2PI_LO = -2.49232720227773e-17

NEAR = 0.25
"""How near its zero a derivative is taken from the quotient by the distance, where the closed form would cancel."""


# x is made finite where its infinity would meet a 0; beta x is carried as hi + lo. The exponential is asked for twice
# in the same words, so that its polynomial is computed once.
@kernel
def _silu(x: float, beta: float) -> float:
    finite = min(max(x, -LARGEST), LARGEST)
    hi = beta * finite
    lo = fma(beta, finite, -hi)
    magnitude = -abs(hi)
    rest = -lo if hi > 0.0 else lo
    share = finite / (1.0 + scaled_exp(1.0, magnitude, rest))
    right = share if x == finite else x
    return right if hi >= 0.0 else scaled_exp(share, magnitude, rest)


@kernel
def _silu_slope(x: float, beta: float) -> float:
    finite = min(max(x, -LARGEST), LARGEST)
    product = beta * finite
    hi = min(max(product, -1500.0), 1500.0)
    lo = fma(beta, finite, -hi) if hi == product else 0.0
    magnitude = -abs(hi)
    rest = -lo if hi > 0.0 else lo
    decay = scaled_exp(1.0, magnitude, rest)
    square = (1.0 + decay) * (1.0 + decay)
    right = fma(decay, 1.0 + hi, 1.0) / square
    left = scaled_exp(((1.0 + hi) + (decay + lo)) / square, magnitude, rest)
    distance = (hi - SILU_ROOT_HI) + (lo - SILU_ROOT_LO)
    near_root = distance * silu_slope_quotient(distance)
    return near_root if abs(distance) < NEAR else (right if hi >= 0.0 else left)


SILU = Activation(
    name="silu",
    summary="x times its own sigmoid: smooth, and slightly negative to the left of zero.",
    reference="Elfwing, Uchibe and Doya, Sigmoid-weighted linear units, 2017, arXiv:1702.03118; with beta, "
    "Ramachandran, Zoph and Le, Searching for activation functions, 2017, arXiv:1710.05941",
    formula="x / (1 + exp(-beta * x))",
    derivative_formula="(1 + exp(-beta * x) * (1 + beta * x)) / (1 + exp(-beta * x))**2",
    forward=_silu,
    derivative=_silu_slope,
    range="[-0.278465, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For deep convolutional networks and, inside SwiGLU, language models; a smooth stand-in for ReLU.",
    parameters=(Parameter(name="beta", meaning="Sharpness of the gate; 0 makes it x/2.", default=1.0),),
    aliases=("swish",),
    libraries=(
        Library("torch", ("SiLU", "silu")),
        Library("jax", ("silu", "swish")),
        Library("flax", ("silu", "swish")),
        Library("keras", ("silu", "swish")),
        Library("tensorflow", ("silu", "swish")),
        Library("onnx", ("Swish",), renamed=(("alpha", "beta"),)),
        Library("huggingface", ("silu", "swish")),
        Library("ggml", ("SILU",)),
        Library("timm", ("silu", "swish")),
    ),
    tried=({"beta": 1.7}, {"beta": -0.3}, {"beta": 1e-297}, {"beta": 0.0}),
)


# Phi(-a) = R(a) exp(-a^2/2), with the square carried as hi + lo: rounding it would cost a^2/2 units in the last place.
@kernel
def _gelu(x: float) -> float:
    a = min(abs(x), 40.0)
    tail = scaled_normal_tail(a)
    hi = -0.5 * (a * a)
    lo = fma(-0.5 * a, a, -hi)
    value = scaled_exp(-a * tail if x < 0.0 else tail, hi, lo)
    return value if x < 0.0 else x * (1.0 - value)


# gelu'(-a) = R exp(-a^2/2) - a phi(a), and gelu'(a) = 1 - gelu'(-a).
@kernel
def _gelu_slope(x: float) -> float:
    a = min(abs(x), 40.0)
    hi = -0.5 * (a * a)
    lo = fma(-0.5 * a, a, -hi)
    excess = fma(a, INVERSE_SQRT_2PI_HI, fma(a, INVERSE_SQRT_2PI_LO, -scaled_normal_tail(a)))
    value = scaled_exp(excess, hi, lo)
    distance = (x - GELU_ROOT_HI) - GELU_ROOT_LO
    near_root = distance * gelu_slope_quotient(distance)
    return near_root if abs(distance) < NEAR else (-value if x < 0.0 else 1.0 + value)


GELU = Activation(
    name="gelu",
    summary="x times the probability that a standard normal variable is below x.",
    reference="Hendrycks and Gimpel, Gaussian error linear units, 2016, arXiv:1606.08415",
    formula="x * erfc(-x / sqrt(2)) / 2",
    derivative_formula="erfc(-x / sqrt(2)) / 2 + x * exp(-x**2 / 2) / sqrt(2 * pi)",
    forward=_gelu,
    derivative=_gelu_slope,
    range="[-0.169971, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="For transformers, whose usual choice it is; this is the exact form, not the approximation by tanh.",
    libraries=(
        Library("torch", ("GELU", "gelu")),
        Library("keras", ("gelu",)),
        Library("tensorflow", ("gelu",)),
        Library("onnx", ("Gelu",)),
        Library("huggingface", ("gelu", "gelu_python")),
        Library("ggml", ("GELU_ERF",)),
        Library("timm", ("gelu",)),
    ),
)
