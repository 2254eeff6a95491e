"""The one place where the benchmarks meet the engine: a record's operation as a call on arrays."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from actserve_server.activations.spec import Activation, AxisActivation, Record
from actserve_server.kernels.compiler import load

Array = np.ndarray[Any, Any]

BLOCK = 65_536
"""Elements of a block of slices: what a state is computed of and its results are written of while it is in the cache."""

_HAS_ACCURACY = "accuracy" in inspect.signature(load).parameters


def parameters(record: Record) -> tuple[float, ...]:
    """The defaults as kernels take them; raises TypeError where one must be given."""
    found: list[float] = []
    for p in record.parameters:
        match p.kind:
            case "axis":
                continue
            case "seed":
                found += (0.0, 0.0)
            case "word":
                found.append(float(p.choices.index(str(p.default))))
            case _:
                found.append(float(p.default))  # type: ignore[arg-type]
    return tuple(found)


def _load(record: Record, operation: str, dtype: Any, accuracy: str) -> Callable[..., None]:
    if _HAS_ACCURACY:
        return load(record, operation, dtype, accuracy)  # type: ignore[call-arg]
    if accuracy != "exact":
        raise ValueError("there is one accuracy")
    return load(record, operation, dtype)


def ours(
    record: Record, operation: str, dtype: Any, accuracy: str = "exact", threads: int = 1
) -> Callable[..., None] | None:
    """A call f(x, out), or f(x, g, out) of a vector-Jacobian product, at the defaults; None for what the engine has not.

    >>> sigmoid = ours(find("sigmoid"), "forward", np.float32)
    >>> sigmoid(x, out)
    """
    if threads != 1 or np.dtype(dtype) not in (np.float32, np.float64):
        return None
    try:
        if isinstance(record, Activation):
            return _elementwise(record, operation, dtype, accuracy)
        if isinstance(record, AxisActivation):
            return _along_axis(record, operation, dtype, accuracy)
    except (TypeError, ValueError):
        return None
    return None


def _elementwise(record: Activation, operation: str, dtype: Any, accuracy: str) -> Callable[..., None]:
    loop = _load(record, operation, dtype, accuracy)
    params = parameters(record)
    return lambda x, out: loop(x, out, params)


def _along_axis(record: AxisActivation, operation: str, dtype: Any, accuracy: str) -> Callable[..., None]:
    params = parameters(record)
    reduce = _load(record, "reduce", dtype, accuracy)
    if operation == "forward":
        forward = _load(record, "forward", dtype, accuracy)

        def run(x: Array, out: Array) -> None:
            for at in range(0, len(x), max(1, BLOCK // x.shape[1])):
                block = x[at : at + max(1, BLOCK // x.shape[1]), :, np.newaxis]
                state = np.empty((len(block), record.state_size, 1))
                reduce(block, state, params)
                forward(block, 0, out[at : at + len(block)].reshape(-1), state, params)

        return run
    vjp_reduce, vjp = (_load(record, word, dtype, accuracy) for word in ("vjp_reduce", "vjp"))

    def product(x: Array, g: Array, out: Array) -> None:
        for at in range(0, len(x), max(1, BLOCK // x.shape[1])):
            block = x[at : at + max(1, BLOCK // x.shape[1]), :, np.newaxis]
            upstream = g[at : at + len(block), :, np.newaxis]
            state = np.empty((len(block), record.state_size, 1))
            sums = np.empty((len(block), record.vjp_state_size, 1))
            reduce(block, state, params)
            vjp_reduce(block, upstream, state, sums, params)
            vjp(block, upstream, 0, out[at : at + len(block)].reshape(-1), state, sums, params)

    return product
