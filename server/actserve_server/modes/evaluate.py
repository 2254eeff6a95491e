"""How an activation is evaluated over blocks: which compiled loops, in what order, over whose cores.

Results are yielded piece by piece into scratch memory, so a computation of any size takes constant memory. This module knows
neither what the results are for nor where the blocks come from.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from actserve_server.activations.spec import Activation, AxisActivation
from actserve_server.kernels.compiler import has_fast, load, load_service
from actserve_server.kernels.forms import SIXTEEN_BITS
from actserve_server.kernels.threads import pace_of
from actserve_server.modes.base import Array, Subject
from actserve_server.modes.tables import derivative_table, rounded_table

Pieces = Callable[..., Iterator[tuple[int, Array]]]
"""Given a block's first element and its inputs: the result's pieces, each with the place of its first element.

With into=array the pieces are parts of that array, as long as the block's result; otherwise all are in the same scratch
memory, and good only until the next is asked for.
"""

_SHORT = 64
"""Slices of at most so many elements are not worth a loop each."""

_SPECIAL = ("forward", "jacobian", "jacobian_diagonal")
"""For which a record's `special` may stand; products are its own, as they bear larger gradients."""

_ALONE = 1 << 12
"""Of fewer elements it is not even asked whether another core should have a part."""


def _share(
    subject: Subject, loop: Callable[..., None], size: int, work: Callable[[int, int], None], elements: int = 1
) -> None:
    """Have all of range(size), units of so many elements, worked at by as many cores as are free and worth it for this loop."""
    if subject.team.threads == 1 or size * elements < _ALONE:
        work(0, size)
        return
    pace = pace_of(loop)
    subject.team.share(size, 1, pace.timed(work, elements), grain=pace.grain(elements))


def evaluate(subject: Subject, operation: str) -> Pieces:
    """The evaluation of an operation: forward, derivative, vjp, jacobian, jacobian_diagonal, or gradient_NAME."""
    record = subject.record
    if isinstance(record, Activation):
        return (_from_table if _has_table(subject, operation) else _elementwise)(subject, operation)
    if isinstance(record, AxisActivation):
        special = record.special.get(subject.parameters) if operation in _SPECIAL else None
        if special is not None:
            # What has no fast kernels is exact in both accuracies.
            accuracy = subject.accuracy if record.fast else "exact"
            record, parameters = special
            subject = dataclasses.replace(subject, record=record, parameters=parameters, accuracy=accuracy)
        n, inner = subject.slice_shape
        if (
            record.whole is not None
            and operation in ("forward", "vjp")
            and inner == 1
            and _SHORT < n <= subject.piece_elements
        ):
            return _whole_slices(subject, operation)
        return _along_axis(subject, operation)
    return _whole_blocks(subject, operation)


def readable(subject: Subject) -> Callable[[Array], Array]:
    """A function that gives elements as loops read them: 16 bits as float32, all others as they are."""
    if subject.dtype not in SIXTEEN_BITS:
        return lambda array: array
    widen = load_service("widen", subject.dtype)

    def widened(array: Array) -> Array:
        out = np.empty(array.shape, np.float32)
        widen(array.reshape(-1).view(np.uint16), out.reshape(-1))
        return out

    return widened


def wide_enough(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type of what `readable` gives."""
    return np.dtype(np.float32) if dtype in SIXTEEN_BITS else dtype


def fits_single(parameter: float) -> bool:
    """Whether single precision can compute with a parameter and with its reciprocal."""
    return parameter == 0 or not math.isfinite(parameter) or 1e-30 < abs(parameter) < 1e30


def _bits(array: Array) -> Array:
    """An array as loops write it: 16 bits as integers."""
    return array.view(np.uint16) if array.dtype in SIXTEEN_BITS else array


def _stored(dtype: np.dtype[Any], size: int) -> Array:
    return np.empty(size, np.uint16 if dtype in SIXTEEN_BITS else dtype)


class _Scratch:
    """Memory for one piece of a result at a time, or parts of the caller's."""

    def __init__(self, subject: Subject, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._elements = subject.piece_elements
        self._memory: Array | None = None

    def parts(self, size: int, into: Array | None, unit: int = 1) -> Iterator[tuple[int, int, Array]]:
        """Begin, end and memory of each piece of a result, of a multiple of `unit` elements."""
        step = self._elements // unit * unit
        for start in range(0, size, step):
            stop = min(start + step, size)
            if into is not None:
                yield start, stop, _bits(into)[start:stop]
                continue
            if self._memory is None:
                self._memory = _stored(self._dtype, self._elements)
            yield start, stop, self._memory[: stop - start]

    def shown(self, out: Array) -> Array:
        """A piece in the type of the result."""
        return out.view(self._dtype)


def _loop(subject: Subject, operation: str) -> Callable[..., None]:
    """The compiled loop of an operation, for what `readable` gives."""
    record = subject.record
    numbers = subject.parameters if subject.columns is None else subject.columns.values.reshape(-1).tolist()
    fast = has_fast(record, operation) and all(map(fits_single, numbers))
    accuracy = subject.accuracy if fast else "exact"
    wide = operation.startswith(("gradient", "reduce", "vjp_reduce"))
    dtype = wide_enough(subject.dtype) if wide else subject.dtype
    return load(record, operation, dtype, accuracy)


# ---- each element by itself ------------------------------------------------------------------------------------------


def _elementwise(subject: Subject, operation: str) -> Pieces:
    record, columns = subject.record, subject.columns
    assert isinstance(record, Activation)
    loop = _loop(subject, operation if columns is None else f"{operation}_channels")
    read = readable(subject)
    gradient = operation.startswith("gradient")
    scratch = _Scratch(subject, np.dtype(np.float64) if gradient else subject.dtype)

    def pieces(first: int, *inputs: Array, into: Array | None = None) -> Iterator[tuple[int, Array]]:
        size = inputs[0].size
        for start, stop, out in scratch.parts(size, into):
            ins = [read(array[start:stop]) for array in inputs]

            def work(
                begin: int, end: int, origin: int = first + start, ins: list[Array] = ins, out: Array = out
            ) -> None:
                part = [array[begin:end] for array in ins]
                if columns is not None:
                    loop(*part, origin + begin, out[begin:end], columns.values, columns.inner)
                elif record.indexed:
                    loop(*part, origin + begin, out[begin:end], subject.parameters)
                else:
                    loop(*part, out[begin:end], subject.parameters)

            _share(subject, loop, out.size, work)
            yield first + start, scratch.shown(out)

    return pieces


_TABLED = ("forward", "derivative", "vjp")


def _has_table(subject: Subject, operation: str) -> bool:
    """Whether a result is a function of one 16-bit element, and of nothing else that varies."""
    return subject.dtype in SIXTEEN_BITS and subject.columns is None and not subject.draws and operation in _TABLED


def _from_table(subject: Subject, operation: str) -> Pieces:
    build = derivative_table if operation == "vjp" else rounded_table
    table = build(subject.record, operation, subject.dtype, subject.parameters)
    look_up = load_service("look_up_times" if operation == "vjp" else "look_up", subject.dtype)
    scratch = _Scratch(subject, subject.dtype)

    def pieces(first: int, *inputs: Array, into: Array | None = None) -> Iterator[tuple[int, Array]]:
        bits = [array.view(np.uint16) for array in inputs]
        for start, _, out in scratch.parts(bits[0].size, into):

            def work(begin: int, end: int, start: int = start, out: Array = out) -> None:
                look_up(*(array[start + begin : start + end] for array in bits), table, out[begin:end])

            _share(subject, look_up, out.size, work)
            yield first + start, scratch.shown(out)

    return pieces


# ---- slices along an axis --------------------------------------------------------------------------------------------


def _along_axis(subject: Subject, operation: str) -> Pieces:
    """First what each slice needs, then any piece of the result."""
    record = subject.record
    assert isinstance(record, AxisActivation)
    n, inner = subject.slice_shape
    products = operation == "vjp" or operation.startswith("gradient")
    gradient = operation.startswith("gradient")
    reduce = _loop(subject, "reduce")
    vjp_reduce = _loop(subject, "vjp_reduce") if products else None
    fill = _loop(subject, operation)
    read = readable(subject)
    growth = n if operation == "jacobian" else 1
    scratch = _Scratch(subject, np.dtype(np.float64) if gradient else subject.dtype)
    params = subject.parameters

    def pieces(first: int, *inputs: Array, into: Array | None = None) -> Iterator[tuple[int, Array]]:
        slices = tuple(read(array).reshape(-1, n, inner) for array in inputs)
        outer = len(slices[0])
        states = [np.empty((outer, record.state_size, inner))]
        if products:
            states.append(np.empty((outer, record.vjp_state_size, inner)))

        def look(begin: int, end: int) -> None:
            origin = (first + begin * n * inner,) if record.indexed else ()
            parts = [array[begin:end] for array in slices]
            found = [state[begin:end] for state in states]
            reduce(parts[0], *origin, found[0], params)
            if vjp_reduce is not None:
                vjp_reduce(*parts, *origin, *found, params)

        _share(subject, vjp_reduce or reduce, outer, look, n * inner)
        for start, _, out in scratch.parts(inputs[0].size * growth, into):

            def work(begin: int, end: int, start: int = start, out: Array = out) -> None:
                fill(*slices, start + begin, out[begin:end], *states, first, params)

            _share(subject, fill, out.size, work)
            yield first * growth + start, scratch.shown(out)

    return pieces


def _whole_slices(subject: Subject, operation: str) -> Pieces:
    """Any number of slices at a time, each in one look."""
    n, _ = subject.slice_shape
    loop = _loop(subject, f"whole_{operation}")
    read = readable(subject)
    scratch = _Scratch(subject, subject.dtype)

    def pieces(first: int, *inputs: Array, into: Array | None = None) -> Iterator[tuple[int, Array]]:
        slices = [read(array).reshape(-1, n, 1) for array in inputs]
        for start, stop, out in scratch.parts(inputs[0].size, into, n):
            parts = [array[start // n : stop // n] for array in slices]

            def work(begin: int, end: int, parts: list[Array] = parts, out: Array = out) -> None:
                loop(*(array[begin:end] for array in parts), out[begin * n : end * n], subject.parameters)

            _share(subject, loop, len(parts[0]), work, n)
            yield first + start, scratch.shown(out)

    return pieces


# ---- whole blocks ----------------------------------------------------------------------------------------------------


def _whole_blocks(subject: Subject, operation: str) -> Pieces:
    """Gated units, and axes that change their length: a block of slices at a time."""
    loop = _loop(subject, operation)
    read = readable(subject)
    n, inner = subject.slice_shape
    length = n if operation in ("derivative", "vjp") else subject.result_length
    lengths = (n, subject.result_length)
    params = subject.parameters

    def pieces(first: int, *inputs: Array, into: Array | None = None) -> Iterator[tuple[int, Array]]:
        slices = [read(array).reshape(-1, extent, inner) for array, extent in zip(inputs, lengths, strict=False)]
        outer = len(slices[0])
        flat = _stored(subject.dtype, outer * length * inner) if into is None else _bits(into)
        out = flat.reshape(outer, length, inner)

        def work(begin: int, end: int) -> None:
            loop(*(array[begin:end] for array in slices), out[begin:end], params)

        _share(subject, loop, outer, work, n * inner)
        base = first // (n * inner) * length * inner if n * inner else 0
        for start in range(0, flat.size, subject.piece_elements):
            yield base + start, flat[start : start + subject.piece_elements].view(subject.dtype)

    return pieces


__all__ = ["Pieces", "evaluate", "fits_single", "readable", "wide_enough"]
