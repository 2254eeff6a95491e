"""The loops that run a record's kernels over arrays, and the table of operations that `compiler.load` offers.

Each factory takes a compiled scalar kernel and returns the plain function that Numba compiles around it. Scalars go in
as float64 and come out rounded to the array's type once, where they are stored. A NaN that comes out is always the
canonical one, for which operand's NaN survives an instruction differs between processors, and between the body of a
vectorized loop and its remainder.

A loop writes as many elements as its output holds, and refuses shapes that would take it out of bounds; it knows
neither where its pieces come from nor which activation it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from actserve_server.activations.spec import Activation, AxisActivation

__all__ = ["OPERATIONS", "Operation"]

Function = Callable[..., Any]


def _elements(kernel: Function) -> Function:
    def elements(x, out, params):  # type: ignore[no-untyped-def]
        if x.size != out.size:
            raise ValueError("out must have as many elements as x")
        for p in range(out.size):
            v = np.float64(x[p])
            y = kernel(v, *params)
            out[p] = np.nan if np.isnan(v) | np.isnan(y) else y

    return elements


def _elements_vjp(kernel: Function) -> Function:
    def elements_vjp(x, g, out, params):  # type: ignore[no-untyped-def]
        if x.size != out.size or g.size != out.size:
            raise ValueError("out and the upstream gradient must have as many elements as x")
        for p in range(out.size):
            v = np.float64(x[p])
            y = kernel(v, *params) * np.float64(g[p])
            out[p] = np.nan if np.isnan(v) | np.isnan(y) else y

    return elements_vjp


# Slices too short for a loop along them are turned on their side, many at a time: one column beside another.
SHORT = 64
TURNED = 64


def _reduce(kernel: Function) -> Function:
    def reduce(x, state, params):  # type: ignore[no-untyped-def]
        if state.shape[0] != x.shape[0] or state.shape[2] != x.shape[2]:
            raise ValueError("the state must have a column for every slice")
        outer, n, inner = x.shape
        if inner == 1 and n <= SHORT and outer > 1:
            for first in range(0, outer, TURNED):
                count = min(TURNED, outer - first)
                block = np.empty((n, count), x.dtype)
                found = np.empty((state.shape[1], count))
                for j in range(count):
                    for i in range(n):
                        block[i, j] = x[first + j, i, 0]
                kernel(block, found, *params)
                for j in range(count):
                    for row in range(state.shape[1]):
                        state[first + j, row, 0] = found[row, j]
            return
        for o in range(outer):
            kernel(x[o], state[o], *params)

    return reduce


def _reduce_vjp(kernel: Function) -> Function:
    def reduce_vjp(x, g, state, vjp_state, params):  # type: ignore[no-untyped-def]
        if g.shape != x.shape:
            raise ValueError("the upstream gradient must have the shape of x")
        if state.shape[0] != x.shape[0] or state.shape[2] != x.shape[2]:
            raise ValueError("the state must have a column for every slice")
        if vjp_state.shape[0] != x.shape[0] or vjp_state.shape[2] != x.shape[2]:
            raise ValueError("the state of the product must have a column for every slice")
        outer, n, inner = x.shape
        if inner == 1 and n <= SHORT and outer > 1:
            for first in range(0, outer, TURNED):
                count = min(TURNED, outer - first)
                block, upstream = np.empty((n, count), x.dtype), np.empty((n, count), x.dtype)
                found, products = np.empty((state.shape[1], count)), np.empty((vjp_state.shape[1], count))
                for j in range(count):
                    for i in range(n):
                        block[i, j] = x[first + j, i, 0]
                        upstream[i, j] = g[first + j, i, 0]
                    for row in range(state.shape[1]):
                        found[row, j] = state[first + j, row, 0]
                kernel(block, upstream, found, products, *params)
                for j in range(count):
                    for row in range(vjp_state.shape[1]):
                        vjp_state[first + j, row, 0] = products[row, j]
            return
        for o in range(outer):
            kernel(x[o], g[o], state[o], vjp_state[o], *params)

    return reduce_vjp


# In the loops below `start` is the place of out[0] in the flattened result. Single columns are run along i, and several
# along j row by row, through one-dimensional pieces: so the innermost loop walks through memory that LLVM can see to be
# contiguous, which a column of an array of more dimensions is not. NaNs are looked for along the way and made canonical
# afterwards: it costs less than a choice for each element, and LLVM works at several vectors at once where a loop reduces
# something, as it does not where it only stores.


def _slices(kernel: Function) -> Function:
    def slices(x, start, out, state, params):  # type: ignore[no-untyped-def]
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        values = x.reshape(x.size)[start : start + out.size]
        number = out.dtype.type
        done = 0
        while done < out.size:
            row = (start + done) // inner
            j = (start + done) % inner
            o = row // n
            i = row % n
            span = n - i if inner == 1 else inner - j
            piece = out[done : done + span]
            elements = values[done : done + span]
            found = state[o]
            spoilt = False
            if inner == 1:
                for p in range(piece.size):
                    y = number(kernel(np.float64(elements[p]), i + p, 0, found, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            else:
                for p in range(piece.size):
                    y = number(kernel(np.float64(elements[p]), i, j + p, found, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            if spoilt:
                for p in range(piece.size):
                    piece[p] = np.nan if np.isnan(piece[p]) else piece[p]
            done += piece.size

    return slices


def _slices_vjp(kernel: Function) -> Function:
    def slices_vjp(x, g, start, out, state, vjp_state, params):  # type: ignore[no-untyped-def]
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        if g.shape != x.shape or vjp_state.shape[0] != outer or vjp_state.shape[2] != inner:
            raise ValueError("the upstream gradient or its state does not fit x")
        values = x.reshape(x.size)[start : start + out.size]
        gradients = g.reshape(g.size)[start : start + out.size]
        number = out.dtype.type
        done = 0
        while done < out.size:
            row = (start + done) // inner
            j = (start + done) % inner
            o = row // n
            i = row % n
            span = n - i if inner == 1 else inner - j
            piece = out[done : done + span]
            elements = values[done : done + span]
            upstream = gradients[done : done + span]
            found = state[o]
            products = vjp_state[o]
            spoilt = False
            if inner == 1:
                for p in range(piece.size):
                    y = number(kernel(np.float64(elements[p]), np.float64(upstream[p]), i + p, 0, found, products, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            else:
                for p in range(piece.size):
                    y = number(kernel(np.float64(elements[p]), np.float64(upstream[p]), i, j + p, found, products, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            if spoilt:
                for p in range(piece.size):
                    piece[p] = np.nan if np.isnan(piece[p]) else piece[p]
            done += piece.size

    return slices_vjp


def _jacobian(kernel: Function) -> Function:
    def jacobian(x, start, out, state, params):  # type: ignore[no-untyped-def]
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size * n or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        values = x.reshape(x.size)
        number = out.dtype.type
        done = 0
        while done < out.size:
            element = (start + done) // n
            k = (start + done) % n
            row = element // inner
            j = element % inner
            o = row // n
            i = row % n
            v = np.float64(values[element])
            piece = out[done : done + n - k]
            found = state[o]
            spoilt = False
            if inner == 1:
                column = values[o * n + k : (o + 1) * n]
                for p in range(piece.size):
                    y = number(kernel(v, np.float64(column[p]), i, k + p, 0, found, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            else:
                for p in range(piece.size):
                    y = number(kernel(v, np.float64(x[o, k + p, j]), i, k + p, j, found, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            if spoilt:
                for p in range(piece.size):
                    piece[p] = np.nan if np.isnan(piece[p]) else piece[p]
            done += piece.size

    return jacobian


def _jacobian_diagonal(kernel: Function) -> Function:
    def jacobian_diagonal(x, start, out, state, params):  # type: ignore[no-untyped-def]
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        values = x.reshape(x.size)[start : start + out.size]
        number = out.dtype.type
        done = 0
        while done < out.size:
            row = (start + done) // inner
            j = (start + done) % inner
            o = row // n
            i = row % n
            span = n - i if inner == 1 else inner - j
            piece = out[done : done + span]
            elements = values[done : done + span]
            found = state[o]
            spoilt = False
            if inner == 1:
                for p in range(piece.size):
                    v = np.float64(elements[p])
                    y = number(kernel(v, v, i + p, i + p, 0, found, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            else:
                for p in range(piece.size):
                    v = np.float64(elements[p])
                    y = number(kernel(v, v, i, i, j + p, found, *params))
                    spoilt |= np.isnan(y)
                    piece[p] = y
            if spoilt:
                for p in range(piece.size):
                    piece[p] = np.nan if np.isnan(piece[p]) else piece[p]
            done += piece.size

    return jacobian_diagonal


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """What one operation runs: a loop around one of the record's kernels, and the arguments the result takes."""

    loop: Callable[[Function], Function]
    kernel: str
    """The record's attribute that holds the kernel."""
    arguments: tuple[str, ...]
    """The argument types, in the words of `build.ARGUMENTS`."""


OPERATIONS: dict[type, dict[str, Operation]] = {
    Activation: {
        "forward": Operation(_elements, "forward", ("input", "output", "params")),
        "derivative": Operation(_elements, "derivative", ("input", "output", "params")),
        "vjp": Operation(_elements_vjp, "derivative", ("input", "input", "output", "params")),
    },
    AxisActivation: {
        "reduce": Operation(_reduce, "reduce", ("block", "state", "params")),
        "forward": Operation(_slices, "forward", ("block", "index", "output", "state", "params")),
        "vjp_reduce": Operation(_reduce_vjp, "vjp_reduce", ("block", "block", "state", "state", "params")),
        "vjp": Operation(_slices_vjp, "vjp", ("block", "block", "index", "output", "state", "state", "params")),
        "jacobian": Operation(_jacobian, "jacobian", ("block", "index", "output", "state", "params")),
        "jacobian_diagonal": Operation(_jacobian_diagonal, "jacobian", ("block", "index", "output", "state", "params")),
    },
}
"""What can be loaded for each kind of record."""
