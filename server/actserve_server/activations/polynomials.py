"""Activations that are squares, whole or in part. Says what they are, not how they are run."""

from __future__ import annotations

import math

from actserve_server.activations.spec import Activation, Library, Parameter, Traits, kernel
from actserve_server.elementary import LARGEST, fma, two_product, working

__all__ = ["RELU_SQUARED", "SPARSE_PLUS", "SQUARE", "STAR_RELU"]


@kernel
def _square(x: float) -> float:
    return x * x


@kernel
def _square_slope(x: float) -> float:
    return 2.0 * x


SQUARE = Activation(
    name="square",
    summary="The square of the input.",
    reference="Gilad-Bachrach et al., CryptoNets: applying neural networks to encrypted data, ICML 2016",
    formula="x**2",
    derivative_formula="2 * x",
    forward=_square,
    derivative=_square_slope,
    range="[0, inf)",
    traits=Traits(monotonic=False, zero_centred=False, saturates="no", smooth=True),
    limits=(math.inf, math.inf, -math.inf, math.inf),
    advice="For energies, and for networks that must be polynomials, as on encrypted data; it grows without bound.",
    libraries=(
        Library("torch", ("square",)),
        Library("onednn", ("eltwise_square", "square")),
        Library("ggml", ("SQR",)),
    ),
    ulp=0.501,
    single=("forward", "derivative"),
)


@kernel
def _relu_squared(x: float) -> float:
    return x * x if x > 0.0 else 0.0


@kernel
def _relu_squared_slope(x: float) -> float:
    return 2.0 * x if x > 0.0 else 0.0


RELU_SQUARED = Activation(
    name="relu_squared",
    summary="The square of ReLU: zero on the left, a parabola on the right.",
    reference="So et al., Primer: searching for efficient transformers for language modeling, NeurIPS 2021, "
    "arXiv:2109.08668",
    formula="max(x, 0)**2",
    derivative_formula="2 * max(x, 0)",
    forward=_relu_squared,
    derivative=_relu_squared_slope,
    range="[0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=True),
    limits=(0.0, math.inf, 0.0, math.inf),
    advice="For the feed-forward layers of language models, where it is sparse and cheap; in float16 it overflows above 255.",
    aliases=("relu2", "squared_relu"),
    libraries=(Library("huggingface", ("relu2",)),),
    ulp=0.501,
    single=("forward",),
)


# In float64 even for float32 results: the sum has a zero, near which all digits of its terms are wanted.
@kernel
def _star_relu(x: float, s: float, b: float) -> float:
    positive = x if x > 0.0 else 0.0
    hi, lo = two_product(s, positive)
    whole = fma(hi, positive, working(b))
    # Where that is infinite, so may the rest be, with the other sign.
    value = whole + (lo * positive if abs(whole) <= LARGEST else 0.0)
    return value if s != 0.0 else working(b)


@kernel
def _star_relu_slope(x: float, s: float, b: float) -> float:
    factor = working(s)
    slope = 2.0 * factor * x
    positive = slope if x > 0.0 else 0.0
    return positive if factor != 0.0 else 0.0


STAR_RELU = Activation(
    name="star_relu",
    summary="The square of ReLU, scaled and shifted so that normal inputs give mean 0 and variance 1.",
    reference="Yu et al., MetaFormer baselines for vision, 2022, arXiv:2210.13452",
    formula="s * max(x, 0)**2 + b",
    derivative_formula="2 * s * max(x, 0)",
    forward=_star_relu,
    derivative=_star_relu_slope,
    range="[b, inf)",
    traits=Traits(monotonic=True, zero_centred=True, saturates="left", smooth=True),
    limits=(-0.4472, math.inf, 0.0, math.inf),
    advice="For vision models of the MetaFormer kind, in place of GELU, at a small part of its cost.",
    parameters=(
        Parameter(name="s", meaning="Scale of the square.", default=0.8944, aliases=("scale",)),
        Parameter(name="b", meaning="The value at and below zero.", default=-0.4472, aliases=("bias",)),
    ),
    libraries=(
        Library(
            "timm",
            ("StarReLU", "star_relu"),
            defaults=(("s", 1.0), ("b", 0.0)),
            renamed=(("scale_value", "s"), ("bias_value", "b")),
        ),
    ),
    tried=({"s": 1.0, "b": 0.0}, {"s": -0.3, "b": 2.7}, {"s": 0.0, "b": 0.3}, {"s": 2.5, "b": -10.0}),
)


# x + 1 is exact near -1, where the result has its double zero.
@kernel
def _sparse_plus(x: float) -> float:
    half = 0.5 * (x + 1.0)
    parabola = half * half
    rising = parabola if x < 1.0 else x
    return rising if x > -1.0 else 0.0


@kernel
def _sparse_plus_slope(x: float) -> float:
    line = 0.5 * (x + 1.0)
    rising = line if x < 1.0 else 1.0
    return rising if x > -1.0 else 0.0


SPARSE_PLUS = Activation(
    name="sparse_plus",
    summary="A ReLU whose corner is rounded by a parabola between -1 and 1.",
    reference="Blondel, Martins and Niculae, Learning classifiers with Fenchel-Young losses, AISTATS 2019, arXiv:1805.09717",
    formula="0 if x <= -1 else (x if x >= 1 else (x + 1)**2 / 4)",
    derivative_formula="0 if x <= -1 else (1 if x >= 1 else (x + 1) / 2)",
    forward=_sparse_plus,
    derivative=_sparse_plus_slope,
    range="[0, inf)",
    traits=Traits(monotonic=True, zero_centred=False, saturates="left", smooth=True),
    limits=(0.0, math.inf, 0.0, 1.0),
    advice="Where softplus is wanted but exact zeros are too: it is the integral of the sparse sigmoid.",
    libraries=(
        Library("jax", ("sparse_plus",)),
        Library("keras", ("sparse_plus",)),
    ),
    ulp=3.0,
)
