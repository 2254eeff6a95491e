"""Activations made of straight lines: identity, ReLU and leaky ReLU. Says what they are, not how they are run."""

from __future__ import annotations

import math

from actserve_server.activations.spec import Activation, Library, Parameter, Traits, kernel

__all__ = ["IDENTITY", "LEAKY_RELU", "RELU"]


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
)


# 0 * -inf is NaN, the limit of 0 * x is not: hence the clamp where the slope is 0.
@kernel
def _leaky_relu(x: float, negative_slope: float) -> float:
    return x if x > 0.0 else negative_slope * (x if negative_slope != 0.0 else max(x, -1.0))


@kernel
def _leaky_relu_slope(x: float, negative_slope: float) -> float:
    return 1.0 if x > 0.0 else negative_slope


LEAKY_RELU = Activation(
    name="leaky_relu",
    summary="The identity above zero, a gentle slope below.",
    reference="Maas, Hannun and Ng, Rectifier nonlinearities improve neural network acoustic models, ICML 2013",
    formula="x if x > 0 else negative_slope * x",
    derivative_formula="1 if x > 0 else negative_slope",
    forward=_leaky_relu,
    derivative=_leaky_relu_slope,
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
        Library("onnx", ("LeakyRelu",)),
        Library("huggingface", ("leaky_relu",)),
        Library("timm", ("leaky_relu",)),
    ),
    tried=({"negative_slope": 0.3}, {"negative_slope": 0.0}, {"negative_slope": -2.0}),
    ulp=0.501,
)
