"""PyTorch on the CPU: its own kernels, into tensors given with `out` where it can.

A derivative is asked of the operation's backward kernel with gradients of one. Where that needs the result of the forward
pass, as for sigmoid, the forward pass is part of the call, since the question is f'(x) from x.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from peers.bound import Bound

NAME = "PyTorch"

Call = Callable[..., Any]
_at = torch.ops.aten

SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
RRELU_SLOPE = (1 / 8 + 1 / 3) / 2


def version() -> str:
    """The version that is timed."""
    return str(torch.__version__)


# x, out, spare
_FORWARD: dict[str, Call] = {
    "identity": lambda x, out, _: out.copy_(x),
    "relu": lambda x, out, _: torch.clamp_min(x, 0, out=out),
    "relu6": lambda x, out, _: _at.hardtanh.out(x, 0, 6, out=out),
    "relu_n": lambda x, out, _: _at.hardtanh.out(x, 0, 20, out=out),
    "leaky_relu": lambda x, out, _: _at.leaky_relu.out(x, 0.01, out=out),
    "prelu": lambda x, out, _: F.prelu(x, torch.full((1,), 0.25, dtype=x.dtype)),
    "rrelu": lambda x, out, _: _at.leaky_relu.out(x, RRELU_SLOPE, out=out),
    "abs": lambda x, out, _: torch.abs(x, out=out),
    "sign": lambda x, out, _: torch.sign(x, out=out),
    "step": lambda x, out, _: torch.gt(x, 0, out=out),
    "hard_tanh": lambda x, out, _: _at.hardtanh.out(x, -1, 1, out=out),
    "hard_sigmoid": lambda x, out, _: _at.hardsigmoid.out(x, out=out),
    "hard_swish": lambda x, out, _: _at.hardswish.out(x, out=out),
    "threshold": lambda x, out, _: _at.threshold.out(x, 0, 0, out=out),
    "thresholded_relu": lambda x, out, _: _at.threshold.out(x, 1, 0, out=out),
    "hard_shrink": lambda x, out, _: _at.hardshrink.out(x, 0.5, out=out),
    "soft_shrink": lambda x, out, _: _at.softshrink.out(x, 0.5, out=out),
    "elu": lambda x, out, _: _at.elu.out(x, 1, 1, 1, out=out),
    "celu": lambda x, out, _: _at.elu.out(x, 1, 1, 1, out=out),
    "selu": lambda x, out, _: _at.elu.out(x, SELU_ALPHA, SELU_SCALE, 1, out=out),
    "exponential": lambda x, out, _: torch.exp(x, out=out),
    "sigmoid": lambda x, out, _: torch.sigmoid(x, out=out),
    "log_sigmoid": lambda x, out, spare: _at.log_sigmoid_forward.output(x, output=out, buffer=spare),
    "softplus": lambda x, out, _: _at.softplus.out(x, 1, 20, out=out),
    "silu": lambda x, out, _: _at.silu.out(x, out=out),
    "quick_gelu": lambda x, out, _: torch.mul(torch.sigmoid(torch.mul(x, 1.702, out=out), out=out), x, out=out),
    "mish": lambda x, out, _: _at.mish.out(x, out=out),
    "gelu": lambda x, out, _: _at.gelu.out(x, out=out),
    "gelu_tanh": lambda x, out, _: _at.gelu.out(x, approximate="tanh", out=out),
    "tanh": lambda x, out, _: torch.tanh(x, out=out),
    "tanh_shrink": lambda x, out, _: torch.sub(x, torch.tanh(x, out=out), out=out),
    "softsign": lambda x, out, _: torch.div(x, torch.add(torch.abs(x, out=out), 1, out=out), out=out),
    "relu_squared": lambda x, out, _: torch.square(torch.clamp_min(x, 0, out=out), out=out),
    "softcap": lambda x, out, _: torch.mul(torch.tanh(torch.div(x, 30, out=out), out=out), 30, out=out),
    "square": lambda x, out, _: torch.square(x, out=out),
    "sin": lambda x, out, _: torch.sin(x, out=out),
    "cos": lambda x, out, _: torch.cos(x, out=out),
    "erf": lambda x, out, _: torch.erf(x, out=out),
    "arctan": lambda x, out, _: torch.atan(x, out=out),
}


def _backward(operation: Any, *arguments: Any, **keywords: Any) -> Call:
    """A backward kernel that takes the gradient and x."""
    return lambda x, out, ones, _: operation(ones, x, *arguments, **keywords, grad_input=out)


def _elu(alpha: float, scale: float) -> Call:
    # The flag says that x is given, and not the result.
    return lambda x, out, ones, _: _at.elu_backward.grad_input(ones, alpha, scale, 1, False, x, grad_input=out)


def _erf(x: Any, out: Any, ones: Any, _: Any) -> Any:
    torch.exp(torch.neg(torch.square(x, out=out), out=out), out=out)
    return torch.mul(out, 2 / math.sqrt(math.pi), out=out)


def _arctan(x: Any, out: Any, ones: Any, _: Any) -> Any:
    return torch.div(ones, torch.add(torch.square(x, out=out), 1, out=out), out=out)


def _sigmoid(x: Any, out: Any, ones: Any, spare: Any) -> Any:
    return _at.sigmoid_backward.grad_input(ones, torch.sigmoid(x, out=spare), grad_input=out)


def _tanh(x: Any, out: Any, ones: Any, spare: Any) -> Any:
    return _at.tanh_backward.grad_input(ones, torch.tanh(x, out=spare), grad_input=out)


def _log_sigmoid(x: Any, out: Any, ones: Any, spare: Any) -> Any:
    _at.log_sigmoid_forward.output(x, output=out, buffer=spare)
    return _at.log_sigmoid_backward.grad_input(ones, x, spare, grad_input=out)


# x, out, ones, spare
_DERIVATIVE: dict[str, Call] = {
    "relu": _backward(_at.threshold_backward.grad_input, 0),
    "relu6": _backward(_at.hardtanh_backward.grad_input, 0, 6),
    "relu_n": _backward(_at.hardtanh_backward.grad_input, 0, 20),
    "leaky_relu": _backward(_at.leaky_relu_backward.grad_input, 0.01, False),
    "rrelu": _backward(_at.leaky_relu_backward.grad_input, RRELU_SLOPE, False),
    "abs": lambda x, out, *_: torch.sign(x, out=out),
    "hard_tanh": _backward(_at.hardtanh_backward.grad_input, -1, 1),
    "hard_sigmoid": _backward(_at.hardsigmoid_backward.grad_input),
    "hard_swish": lambda x, out, ones, _: _at.hardswish_backward.default(ones, x),
    "threshold": _backward(_at.threshold_backward.grad_input, 0),
    "thresholded_relu": _backward(_at.threshold_backward.grad_input, 1),
    "hard_shrink": _backward(_at.hardshrink_backward.grad_input, 0.5),
    "soft_shrink": _backward(_at.softshrink_backward.grad_input, 0.5),
    "elu": _elu(1, 1),
    "celu": _elu(1, 1),
    "selu": _elu(SELU_ALPHA, SELU_SCALE),
    "exponential": lambda x, out, *_: torch.exp(x, out=out),
    "sigmoid": _sigmoid,
    "log_sigmoid": _log_sigmoid,
    "softplus": _backward(_at.softplus_backward.grad_input, 1, 20),
    "silu": _backward(_at.silu_backward.grad_input),
    "mish": lambda x, out, ones, _: _at.mish_backward.default(ones, x),
    "gelu": _backward(_at.gelu_backward.grad_input),
    "gelu_tanh": _backward(_at.gelu_backward.grad_input, approximate="tanh"),
    "tanh": _tanh,
    "square": lambda x, out, *_: torch.mul(x, 2, out=out),
    "sin": lambda x, out, *_: torch.cos(x, out=out),
    "cos": lambda x, out, *_: torch.neg(torch.sin(x, out=out), out=out),
    "erf": _erf,
    "arctan": _arctan,
}


def _tensor(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _along_axis(name: str, operation: str, x: Any, given: Sequence[Any], out: Any, spare: Any) -> Call | None:
    forward = {"softmax": _at._softmax.out, "log_softmax": _at._log_softmax.out}.get(name)
    backward = {
        "softmax": _at._softmax_backward_data.out,
        "log_softmax": _at._log_softmax_backward_data.out,
    }.get(name)
    if forward is None or backward is None:
        return None
    if operation == "forward":
        return lambda: forward(x, 1, False, out=out)
    # The two name their output differently.
    word = "grad_input" if name == "softmax" else "out"
    return lambda: backward(given[0], forward(x, 1, False, out=spare), 1, x.dtype, **{word: out})


def bind(record: Any, operation: str, inputs: Sequence[np.ndarray[Any, Any]], threads: int) -> Bound | None:
    """See `peers`."""
    torch.set_num_threads(threads)
    x, *given = (_tensor(array) for array in inputs)
    out, spare = torch.empty_like(x), torch.empty_like(x)
    call: Any
    if x.ndim == 2:
        call = _along_axis(record.name, operation, x, given, out, spare)
        if call is None:
            return None
    elif operation == "forward":
        if (forward := _FORWARD.get(record.name)) is None:
            return None
        call = lambda: forward(x, out, spare)
    else:
        if (derivative := _DERIVATIVE.get(record.name)) is None:
            return None
        ones = torch.ones_like(x)
        call = lambda: derivative(x, out, ones, spare)
    try:
        with torch.inference_mode():
            call()
    except RuntimeError:  # no kernel for this type
        return None

    def run() -> Any:
        return call()

    def result() -> np.ndarray[Any, Any]:
        found = call()
        found = found[0] if isinstance(found, tuple) else found
        return np.asarray(found.double().numpy())

    return Bound(run, result)
