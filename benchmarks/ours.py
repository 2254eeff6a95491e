"""The one place where the benchmarks meet the engine: a record's operation as a call on arrays."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from actserve_server.activations import formula
from actserve_server.activations.spec import Activation, AxisActivation, Record
from actserve_server.kernels.threads import SOLO, Team
from actserve_server.modes.base import Subject
from actserve_server.modes.evaluate import evaluate

Array = np.ndarray[Any, Any]

PIECE_BYTES = 1 << 24
"""More than the server computes at a time, which counts what is not finite in each piece while it is in the cache: here nobody looks
at a result before it is whole, and four pieces of a short array would cost a fifth of its time in Python."""


def parameters(record: Record) -> tuple[float, ...]:
    """The defaults as kernels take them; raises TypeError where one must be given."""
    if any(p.default is None and not p.optional for p in record.parameters):
        raise TypeError(f"{record.name} has a parameter without a default")
    return formula.parameters(record)


@functools.cache
def _team(threads: int) -> Team:
    return SOLO if threads == 1 else Team(threads)


def ours(
    record: Record, operation: str, dtype: Any, accuracy: str = "exact", threads: int = 1
) -> Callable[..., None] | None:
    """A call f(x, out), or f(x, g, out) of a vector-Jacobian product, at the defaults; None for what the engine has not.

    >>> sigmoid = ours(find("sigmoid"), "forward", np.float32)
    >>> sigmoid(x, out)
    """
    if not isinstance(record, (Activation, AxisActivation)):
        return None
    try:
        params = parameters(record)
    except TypeError:
        return None
    name = "vjp" if isinstance(record, AxisActivation) and operation == "derivative" else operation
    evaluations: dict[tuple[int, ...], Callable[..., None]] = {}

    def call(*arrays: Array) -> None:
        *inputs, out = arrays
        evaluation = evaluations.get(out.shape)
        if evaluation is None:
            evaluation = evaluations[out.shape] = _evaluation(
                record, name, np.dtype(dtype), accuracy, _team(threads), params, out.shape
            )
        evaluation(*(array.reshape(-1) for array in inputs), out=out.reshape(-1))

    return call


def _evaluation(
    record: Record,
    operation: str,
    dtype: np.dtype[Any],
    accuracy: str,
    team: Team,
    params: tuple[float, ...],
    shape: tuple[int, ...],
) -> Callable[..., None]:
    axis = len(shape) - 1 if isinstance(record, AxisActivation) else None
    row = shape[-1] if axis is not None else 1
    subject = Subject(
        record=record,
        parameters=params,
        dtype=dtype,
        shape=shape,
        axis=axis,
        piece_elements=PIECE_BYTES // dtype.itemsize,
        result_length=shape[-1] if axis is not None else 0,
        accuracy=accuracy,
        team=team,
    )
    pieces = evaluate(subject, operation)
    step = max(PIECE_BYTES // (row * dtype.itemsize), 1) * row

    def run(*inputs: Array, out: Array) -> None:
        for first in range(0, out.size, step):
            last = first + step
            for _ in pieces(first, *(array[first:last] for array in inputs), into=out[first:last]):
                pass

    return run
