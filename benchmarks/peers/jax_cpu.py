"""JAX on the CPU, compiled with `jit`; derivatives by its automatic differentiation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import nn
from jax import numpy as jnp

from peers import expressions
from peers.bound import Bound

NAME = "JAX"

jax.config.update("jax_enable_x64", True)
# A call that is waited for anyway is quicker in the thread that makes it.
jax.config.update("jax_cpu_enable_async_dispatch", False)

_NATIVE: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x + 0,
    "relu": nn.relu,
    "relu6": nn.relu6,
    "leaky_relu": nn.leaky_relu,
    "abs": jnp.abs,
    "hard_tanh": nn.hard_tanh,
    "hard_sigmoid": nn.hard_sigmoid,
    "hard_swish": nn.hard_silu,
    "sparse_sigmoid": nn.sparse_sigmoid,
    "sparse_plus": nn.sparse_plus,
    "elu": nn.elu,
    "celu": nn.celu,
    "selu": nn.selu,
    "exponential": jnp.exp,
    "sigmoid": nn.sigmoid,
    "log_sigmoid": nn.log_sigmoid,
    "softplus": nn.softplus,
    "silu": nn.silu,
    "mish": nn.mish,
    "squareplus": nn.squareplus,
    "gelu": lambda x: nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: nn.gelu(x, approximate=True),
    "tanh": jnp.tanh,
    "softsign": nn.soft_sign,
    "sin": jnp.sin,
    "cos": jnp.cos,
    "erf": jax.scipy.special.erf,
    "arctan": jnp.arctan,
    "square": jnp.square,
    "sign": jnp.sign,
    "softmax": nn.softmax,
    "log_softmax": nn.log_softmax,
}


def version() -> str:
    """The version that is timed."""
    return str(jax.__version__)


def _written(root: expressions.Node) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        def step(word: str, arguments: list[Any]) -> Any:
            if word in ("erf", "erfc"):
                return getattr(jax.scipy.special, word)(*arguments)
            return getattr(jnp, word)(*arguments)

        # Weakly typed constants, or bfloat16 would become float32.
        return expressions.emit(root, lambda leaf: x if leaf[0] == "x" else float(leaf[1]), step).astype(x.dtype)

    return function


def bind(record: Any, operation: str, inputs: Sequence[np.ndarray[Any, Any]], threads: int) -> Bound | None:
    """See `peers`. The threads are those of the process: JAX takes as many as it may run on when it is first used."""
    function = _NATIVE.get(record.name)
    if function is None:
        if inputs[0].ndim == 2:
            return None
        try:
            function = _written(expressions.expression(record, "forward"))
        except expressions.Unsupported:
            return None
    call: Any = function
    if operation == "derivative":
        call = jax.vmap(jax.grad(function))
    elif operation == "vjp":
        call = lambda x, g: jax.vjp(function, x)[1](g)[0]
    given = [jnp.asarray(array) for array in inputs]
    compiled = jax.jit(call).lower(*given).compile()

    def run() -> None:
        compiled(*given).block_until_ready()

    return Bound(run, lambda: np.asarray(compiled(*given), np.float64))
