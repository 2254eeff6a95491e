"""Exponential rectifiers multiplied by a sigmoid: ELiSH and its cheaper twin. Says what they are, not how they are run.

Both derivatives have a zero r left of x = 0, where their closed forms cancel. With d = x - r they are sums of terms of one
sign instead, which keep their digits at the zero too.
"""

from __future__ import annotations

import math

from actserve_server.activations.spec import Activation, Exact, Traits, kernel
from actserve_server.elementary import expm1, fma, offset, scaled_exp, square_of_more

__all__ = ["ELISH", "HARD_ELISH"]

# log(sqrt(2) - 1), the zero of elish', and exp of it.
ELISH_ROOT_HI = Exact(-0.881373587019543)
ELISH_ROOT_LO = Exact(2.250545892825866e-17)
AT_ELISH_ROOT = 0.41421356237309503

# r, where exp(r) (r + 2) = 1, and 1/(r + 2).
HARD_ELISH_ROOT_HI = Exact(-0.4428544010023886)
HARD_ELISH_ROOT_LO = Exact(1.4810791653201162e-17)
AT_HARD_ELISH_ROOT = 0.6422007040598738


@kernel
def _elish(x: float) -> float:
    magnitude = -abs(x)
    decay = scaled_exp(1.0, magnitude, 0.0)
    share = (x if x >= 0.0 else expm1(min(x, 0.0))) / (1.0 + decay)
    return share if x > 0.0 else scaled_exp(share, magnitude, 0.0)


# Left of zero e (e^2 + 2e - 1)/(1 + e)^2 with e = exp(x), and e^2 + 2e - 1 = (exp(d) - 1) (1 + exp(r) e).
@kernel
def _elish_slope(x: float) -> float:
    magnitude = -min(abs(x), 1500.0)
    decay = scaled_exp(1.0, magnitude, 0.0)
    square = square_of_more(decay)
    rise = expm1(offset(min(x, 0.0), ELISH_ROOT_HI, ELISH_ROOT_LO))
    factor = fma(rise, AT_ELISH_ROOT * decay, rise)
    right = fma(decay, 1.0 - magnitude, 1.0) / square
    return right if x > 0.0 else scaled_exp(factor / square, magnitude, 0.0)


ELISH = Activation(
    name="elish",
    summary="The sigmoid times the identity above zero, and times an ELU below.",
    reference="Basirat and Roth, The quest for the golden activation function, 2018, arXiv:1808.00783",
    formula="x / (1 + exp(-x)) if x > 0 else expm1(x) / (1 + exp(-x))",
    derivative_formula="(1 + exp(-x) * (1 + x)) / (1 + exp(-x))**2 if x > 0 "
    "else exp(x) * (exp(2 * x) + 2 * exp(x) - 1) / (1 + exp(x))**2",
    forward=_elish,
    derivative=_elish_slope,
    range="[-0.171573, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.0, math.inf, 0.0, 1.0),
    advice="An alternative to SiLU that an evolutionary search found for image classifiers.",
)


@kernel
def _hard_elish(x: float) -> float:
    gate = 0.5 * max(min(x + 1.0, 2.0), 0.0)
    return (x if x >= 0.0 else expm1(min(x, 0.0))) * gate


# Left of zero (exp(x) (x + 2) - 1)/2, which with k = 1/(r + 2) is ((exp(d) - 1) (1 + k d) + k d)/2.
@kernel
def _hard_elish_slope(x: float) -> float:
    distance = offset(x, HARD_ELISH_ROOT_HI, HARD_ELISH_ROOT_LO)
    product = AT_HARD_ELISH_ROOT * distance
    left = 0.5 * fma(expm1(distance), 1.0 + product, product)
    right = x + 0.5 if x < 1.0 else 1.0
    return right if x > 0.0 else (left if x > -1.0 else 0.0)


HARD_ELISH = Activation(
    name="hard_elish",
    summary="ELiSH with straight lines for the sigmoid.",
    reference="Basirat and Roth, The quest for the golden activation function, 2018, arXiv:1808.00783",
    formula="x * min((x + 1) / 2, 1) if x > 0 else expm1(x) * max((x + 1) / 2, 0)",
    derivative_formula="(x + 1 / 2 if x < 1 else 1) if x > 0 else ((exp(x) * (x + 2) - 1) / 2 if x > -1 else 0)",
    forward=_hard_elish,
    derivative=_hard_elish_slope,
    range="[-0.099672, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="left", smooth=False),
    limits=(-0.0, math.inf, 0.0, 1.0),
    kinks=(-1.0, 1.0),
    advice="Where ELiSH is wanted at a lower price; neurons that stay below -1 are dead.",
)
