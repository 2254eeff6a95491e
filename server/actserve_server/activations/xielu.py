"""xIELU: a square above zero, and below it the integral of an ELU. Says what it is, not how it is run."""

from __future__ import annotations

import math

from actserve_server.activations.spec import Activation, Library, Parameter, ParameterGradient, Traits, kernel
from actserve_server.elementary import LARGEST, exp, expm1, fma, offset, two_product, working
from actserve_server.elementary.bits import polynomial

__all__ = ["XIELU"]

# p in exp(x) = 1 + x + x^2 p(x), on [-1, 0]: error 2^-55.29. Printed by tools/fit_elementary.py EXP_REST.
EXP_REST = (
    0.5,
    0.16666666666666638,
    0.0416666666666529,
    0.008333333333079448,
    0.001388888886462464,
    0.00019841268468889938,
    2.480153793380409e-05,
    2.7556145555624154e-06,
    2.7538603389236423e-07,
    2.4853256129520446e-08,
    1.9514759074902308e-09,
    1.0487023332306709e-10,
)

NEAR = -1.0
"""Down to it, exp(x) - 1 - x is taken from its polynomial; below, where nothing cancels, from the exponential."""


@kernel
def _difference_rest(a: float, b: float, difference: float) -> float:
    """What a - b has beyond its rounding (Knuth's two-sum)."""
    part = difference - a
    return (a - (difference - part)) - (b + part)


# Below NEAR, alpha_n (exp(x) - 1 - x) + beta x is summed as alpha_n exp(x) + ((beta - alpha_n) x - alpha_n), whose bracket
# is kept as a sum of two numbers: where the result is near its zero, and where beta is alpha_n, nothing else remains.
@kernel
def _xielu(x: float, alpha_p: float, alpha_n: float, beta: float, eps: float) -> float:
    depth = working(alpha_n)
    tilt = beta - alpha_n
    left = min(x, 0.0)
    hi, lo = two_product(tilt, left if tilt != 0.0 else max(left, -1.0))
    lo = fma(working(_difference_rest(beta, alpha_n, tilt)), max(left, -LARGEST), lo)
    line = hi - depth
    rest = _difference_rest(hi, depth, line) + (lo - working(alpha_n - depth))
    far = fma(depth, exp(left), line) + (rest if abs(line) < LARGEST else 0.0)
    near = x * fma(depth, x * polynomial(x, EXP_REST), working(beta))
    clipped = fma(depth, expm1(working(eps)), hi) + lo
    right = x * fma(working(alpha_p), x, working(beta))
    return right if x > 0.0 else (clipped if offset(x, eps, 0.0) > 0.0 else (near if x > NEAR else far))


@kernel
def _xielu_slope(x: float, alpha_p: float, alpha_n: float, beta: float, eps: float) -> float:
    depth = working(alpha_n)
    tilt = beta - alpha_n
    left = min(x, 0.0)
    far = fma(depth, exp(left), working(tilt)) + working(_difference_rest(beta, alpha_n, tilt))
    near = fma(depth, left * left * polynomial(left, EXP_REST), fma(depth, left, working(beta)))
    right = fma(2.0 * working(alpha_p), x, working(beta))
    return right if x > 0.0 else (working(tilt) if offset(x, eps, 0.0) > 0.0 else (near if x > NEAR else far))


@kernel
def _xielu_by_alpha_p(x: float, alpha_p: float, alpha_n: float, beta: float, eps: float) -> float:
    return x * x if x > 0.0 else 0.0


@kernel
def _xielu_by_alpha_n(x: float, alpha_p: float, alpha_n: float, beta: float, eps: float) -> float:
    left = min(x, 0.0)
    far = exp(left) + (-1.0 - left)
    near = left * left * polynomial(left, EXP_REST)
    clipped = expm1(working(eps)) - left
    value = clipped if offset(x, eps, 0.0) > 0.0 else (near if x > NEAR else far)
    return 0.0 if x > 0.0 else value


XIELU = Activation(
    name="xielu",
    summary="A square above zero and the integral of an ELU below, each with a trainable weight.",
    reference="Huang, Deriving activation functions using integration, 2024, arXiv:2411.13010",
    formula="alpha_p * x**2 + beta * x if x > 0 else alpha_n * (expm1(min(x, eps)) - x) + beta * x",
    derivative_formula="2 * alpha_p * x + beta if x > 0 "
    "else (alpha_n * expm1(x) + beta if x <= eps else beta - alpha_n)",
    forward=_xielu,
    derivative=_xielu_slope,
    range="[-0.205752, inf)",
    traits=Traits(monotonic=False, zero_centred=True, saturates="no", smooth=True),
    limits=(math.inf, math.inf, 0.5 - 0.8, math.inf),
    advice="For language models of the Apertus family; both weights are trained, and the outputs grow like a square.",
    parameters=(
        Parameter(name="alpha_p", meaning="Weight of the square, after its softplus.", default=0.8),
        Parameter(name="alpha_n", meaning="Weight of the exponential, after its softplus.", default=0.8),
        Parameter(name="beta", meaning="Slope at zero.", default=0.5),
        Parameter(
            name="eps",
            meaning="The exponential is taken of x or of this, whichever is less: 0 is the function itself.",
            default=0.0,
            high=0.0,
            high_open=False,
        ),
    ),
    libraries=(
        Library("huggingface", ("xielu",), defaults=(("eps", -1e-6),)),
        Library("ggml", ("XIELU",), defaults=(("eps", -1e-6),)),
    ),
    gradients=(
        ParameterGradient("alpha_p", "x**2 if x > 0 else 0", _xielu_by_alpha_p),
        ParameterGradient("alpha_n", "0 if x > 0 else expm1(min(x, eps)) - x", _xielu_by_alpha_n),
    ),
    tried=(
        {"alpha_p": 0.3, "alpha_n": 1.7, "beta": 0.2},
        {"alpha_n": 0.8, "beta": 0.8},
        {"alpha_p": 0.0, "beta": 0.0},
        {"eps": -1e-6},
    ),
    cancels=("forward", "derivative"),
)
