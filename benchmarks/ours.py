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

PIECE_BYTES = 1 << 20
"""As the server computes: a chunk at a time; here into the caller's array, there into scratch memory."""


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
    return functools.partial(_run, record, name, np.dtype(dtype), accuracy, _team(threads), params)


def _run(
    record: Record,
    operation: str,
    dtype: np.dtype[Any],
    accuracy: str,
    team: Team,
    params: tuple[float, ...],
    *arrays: Array,
) -> None:
    *inputs, out = arrays
    pieces = _evaluation(record, operation, dtype, accuracy, team, params, out.shape)
    flat = [array.reshape(-1) for array in inputs]
    target = out.reshape(-1)
    if isinstance(record, Activation):
        pieces(0, *flat, out=target)
        return
    row = inputs[0].shape[-1]
    step = max(PIECE_BYTES // (row * dtype.itemsize), 1) * row
    for first in range(0, target.size, step):
        pieces(first, *(array[first : first + step] for array in flat), out=target[first : first + step])


@functools.lru_cache(256)
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
    return _into(evaluate(subject, operation))


def _into(pieces: Any) -> Callable[..., None]:
    """All pieces, computed where the caller wants them."""

    def run(first: int, *inputs: Array, out: Array) -> None:
        for _ in pieces(first, *inputs, into=out):
            pass

    return run
