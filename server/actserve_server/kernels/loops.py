"""The loops that run a record's kernels over arrays, and which of them each operation of a record is.

Each factory takes the form in which tensors are computed and compiled scalar kernels, and returns the plain function that
Numba compiles around them. A loop writes as many elements as its output holds, and refuses shapes that would take it out
of bounds; it knows neither where its pieces come from nor which activation it runs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from actserve_server.activations.spec import (
    Activation,
    AxisActivation,
    GatedActivation,
    Kernel,
    Record,
    ResizingActivation,
)
from actserve_server.kernels.forms import Form, overlap
from actserve_server.kernels.reach import any_beyond, beyond, limit_of
from actserve_server.kernels.vectors import in_widest_vectors

__all__ = ["Operation", "operations"]

Function = Callable[..., Any]

_QUICK_BLOCK = 2048
"""So many elements are looked at before they are computed: they are still in the first cache then."""
_MENDED = 64
"""Short, as of normally distributed numbers some are beyond a limit here and there, and all of their piece is looked at again."""


# ---- each element by itself ------------------------------------------------------------------------------------------


def _elements(form: Form, kernel: Function) -> Function:
    load, store = form.load, form.store

    def elements(x, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if x.size != out.size:
            raise ValueError("out must have as many elements as x")
        for p in range(out.size):
            v = load(x[p])
            out[p] = store(v, kernel(v, *params))

    return elements


def _elements_vjp(form: Form, kernel: Function) -> Function:
    load, store = form.load, form.store

    def elements_vjp(x, g, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if x.size != out.size or g.size != out.size:
            raise ValueError("out and the upstream gradient must have as many elements as x")
        for p in range(out.size):
            v = load(x[p])
            out[p] = store(v, kernel(v, *params) * load(g[p]))

    return elements_vjp


# Where a record has quick kernels, all elements go by them first, and then those that they are not for by the record's own: an
# element's bits depend on it alone. Whether there are any is asked in a loop of its own, as the other needs all registers. Places
# are unsigned: others might be counted from the end, and no loop would be vectorized.


def _elements_quick(form: Form, quick: Function, reach: Function, kernel: Function) -> Function:
    load, store, write = form.load, form.store, form.write

    def elements_quick(x, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if x.size != out.size or overlap(x, out):
            raise ValueError("out must have as many elements as x, and be apart from it")
        limit = limit_of(x, reach(*params))
        for block in range(0, out.size, _QUICK_BLOCK):
            stop = min(block + _QUICK_BLOCK, out.size)
            begin, end = np.uint64(block), np.uint64(stop)
            far = any_beyond(x, begin, end, limit)
            for p in range(begin, end):
                out[p], _ = write(quick(load(x[p]), *params))
            if far:
                for piece in range(block, stop, _MENDED):
                    first, last = np.uint64(piece), np.uint64(min(piece + _MENDED, stop))
                    if any_beyond(x, first, last, limit):
                        for p in range(first, last):
                            if beyond(limit, limit, x[p]) < 0:
                                v = load(x[p])
                                out[p] = store(v, kernel(v, *params))

    return elements_quick


def _elements_quick_vjp(form: Form, quick: Function, reach: Function, kernel: Function) -> Function:
    load, store = form.load, form.store

    def elements_quick_vjp(x, g, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if x.size != out.size or g.size != out.size or overlap(x, out) or overlap(g, out):
            raise ValueError(
                "out and the upstream gradient must have as many elements as x, and out be apart from both"
            )
        limit = limit_of(x, reach(*params))
        for block in range(0, out.size, _QUICK_BLOCK):
            stop = min(block + _QUICK_BLOCK, out.size)
            begin, end = np.uint64(block), np.uint64(stop)
            far = any_beyond(x, begin, end, limit)
            for p in range(begin, end):
                y = quick(load(x[p]), *params) * load(g[p])
                out[p] = store(y, y)
            if far:
                for piece in range(block, stop, _MENDED):
                    first, last = np.uint64(piece), np.uint64(min(piece + _MENDED, stop))
                    if any_beyond(x, first, last, limit):
                        for p in range(first, last):
                            if beyond(limit, limit, x[p]) < 0:
                                v = load(x[p])
                                out[p] = store(v, kernel(v, *params) * load(g[p]))

    return elements_quick_vjp


# `start` is the global index of x[0], by which random draws are keyed.


def _elements_indexed(form: Form, kernel: Function) -> Function:
    load, store = form.load, form.store

    def elements_indexed(x, start, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if x.size != out.size:
            raise ValueError("out must have as many elements as x")
        for p in range(out.size):
            v = load(x[p])
            out[p] = store(v, kernel(v, start + p, *params))

    return elements_indexed


def _elements_indexed_vjp(form: Form, kernel: Function) -> Function:
    load, store = form.load, form.store

    def elements_indexed_vjp(x, g, start, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if x.size != out.size or g.size != out.size:
            raise ValueError("out and the upstream gradient must have as many elements as x")
        for p in range(out.size):
            v = load(x[p])
            out[p] = store(v, kernel(v, start + p, *params) * load(g[p]))

    return elements_indexed_vjp


# Parameters that are arrays come as columns[parameter, channel]; element e of the whole belongs to channel
# (e // inner) % channels. A run is as long as the channel stays, or steps by one with every element.


def _one(kernel: Function) -> Function:
    def one(v, columns, c):  # type: ignore[no-untyped-def]
        return kernel(v, columns[0, c])

    return one


def _two(kernel: Function) -> Function:
    def two(v, columns, c):  # type: ignore[no-untyped-def]
        return kernel(v, columns[0, c], columns[1, c])

    return two


def _three(kernel: Function) -> Function:
    def three(v, columns, c):  # type: ignore[no-untyped-def]
        return kernel(v, columns[0, c], columns[1, c], columns[2, c])

    return three


_BY_COUNT: dict[int, Callable[[Function], Function]] = {1: _one, 2: _two, 3: _three}


def channelled(inner: Callable[[Function], Function], kernel: Function, parameters: int) -> Function:
    """A kernel of so many parameters as one of (v, columns, channel)."""
    return inner(_BY_COUNT[parameters](kernel))


def _channels(form: Form, kernel: Function) -> Function:
    load, store = form.load, form.store

    def channels(x, start, out, columns, inner):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        count = columns.shape[1]
        if x.size != out.size or inner < 1 or count < 1 or start < 0:
            raise ValueError("out must have as many elements as x, and there must be a channel")
        done = 0
        while done < out.size:
            place = start + done
            c = place // inner % count
            span = count - c if inner == 1 else inner - place % inner
            values = x[done : done + span]
            results = out[done : done + span]
            if inner == 1:
                for p in range(results.size):
                    v = load(values[p])
                    results[p] = store(v, kernel(v, columns, c + p))
            else:
                for p in range(results.size):
                    v = load(values[p])
                    results[p] = store(v, kernel(v, columns, c))
            done += results.size

    return channels


def _channels_vjp(form: Form, kernel: Function) -> Function:
    load, store = form.load, form.store

    def channels_vjp(x, g, start, out, columns, inner):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        count = columns.shape[1]
        if x.size != out.size or g.size != out.size or inner < 1 or count < 1 or start < 0:
            raise ValueError(
                "out and the upstream gradient must have as many elements as x, and there must be a channel"
            )
        done = 0
        while done < out.size:
            place = start + done
            c = place // inner % count
            span = count - c if inner == 1 else inner - place % inner
            values = x[done : done + span]
            gradients = g[done : done + span]
            results = out[done : done + span]
            if inner == 1:
                for p in range(results.size):
                    v = load(values[p])
                    results[p] = store(v, kernel(v, columns, c + p) * load(gradients[p]))
            else:
                for p in range(results.size):
                    v = load(values[p])
                    results[p] = store(v, kernel(v, columns, c) * load(gradients[p]))
            done += results.size

    return channels_vjp


# ---- slices along an axis --------------------------------------------------------------------------------------------


# Slices too short for a loop along them are turned on their side, many at a time: one column beside another. There are always as many
# columns, of which those without a slice are NaN: the order of a column's sum depends on how many there are, and a result must not
# depend on which slices came together.
_SHORT = 64
_TURNED = 64
_UNUSED = np.nan


def _reduce(form: Form, kernel: Function) -> Function:
    def reduce(x, state, params):  # type: ignore[no-untyped-def]
        if state.shape[0] != x.shape[0] or state.shape[2] != x.shape[2]:
            raise ValueError("the state must have a column for every slice")
        outer, n, inner = x.shape
        if inner > 1 or n > _SHORT:
            for o in range(outer):
                kernel(x[o], state[o], *params)
            return
        for first in range(0, outer, _TURNED):
            count = min(_TURNED, outer - first)
            block = np.full((n, _TURNED), _UNUSED, x.dtype)
            found = np.zeros((state.shape[1], _TURNED))
            for j in range(count):
                for i in range(n):
                    block[i, j] = x[first + j, i, 0]
            kernel(block, found, *params)
            for j in range(count):
                for row in range(state.shape[1]):
                    state[first + j, row, 0] = found[row, j]

    return reduce


def _reduce_indexed(form: Form, kernel: Function) -> Function:
    def reduce_indexed(x, start, state, params):  # type: ignore[no-untyped-def]
        if state.shape[0] != x.shape[0] or state.shape[2] != x.shape[2]:
            raise ValueError("the state must have a column for every slice")
        for o in range(x.shape[0]):
            kernel(x[o], state[o], start + o * x.shape[1] * x.shape[2], *params)

    return reduce_indexed


def _reduce_vjp(form: Form, kernel: Function) -> Function:
    def reduce_vjp(x, g, state, vjp_state, params):  # type: ignore[no-untyped-def]
        if g.shape != x.shape:
            raise ValueError("the upstream gradient must have the shape of x")
        if state.shape[0] != x.shape[0] or state.shape[2] != x.shape[2]:
            raise ValueError("the state must have a column for every slice")
        if vjp_state.shape[0] != x.shape[0] or vjp_state.shape[2] != x.shape[2]:
            raise ValueError("the state of the product must have a column for every slice")
        outer, n, inner = x.shape
        if inner > 1 or n > _SHORT:
            for o in range(outer):
                kernel(x[o], g[o], state[o], vjp_state[o], *params)
            return
        for first in range(0, outer, _TURNED):
            count = min(_TURNED, outer - first)
            block, upstream = np.full((n, _TURNED), _UNUSED, x.dtype), np.full((n, _TURNED), _UNUSED, x.dtype)
            found = np.full((state.shape[1], _TURNED), _UNUSED)
            products = np.zeros((vjp_state.shape[1], _TURNED))
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

    return reduce_vjp


def _reduce_vjp_indexed(form: Form, kernel: Function) -> Function:
    def reduce_vjp_indexed(x, g, start, state, vjp_state, params):  # type: ignore[no-untyped-def]
        if g.shape != x.shape:
            raise ValueError("the upstream gradient must have the shape of x")
        if state.shape[0] != x.shape[0] or state.shape[2] != x.shape[2]:
            raise ValueError("the state must have a column for every slice")
        if vjp_state.shape[0] != x.shape[0] or vjp_state.shape[2] != x.shape[2]:
            raise ValueError("the state of the product must have a column for every slice")
        for o in range(x.shape[0]):
            kernel(x[o], g[o], state[o], vjp_state[o], start + o * x.shape[1] * x.shape[2], *params)

    return reduce_vjp_indexed


# In the loops below `start` is the place of out[0] in the flattened result. Single columns are run along i, and several
# along j row by row, through one-dimensional pieces: so the innermost loop walks through memory that LLVM can see to be
# contiguous, which a column of an array of more dimensions is not. NaNs are looked for along the way and mended
# afterwards: that costs less than a choice for each element. The kernels of an indexed record are also given the
# global index of their element, `origin` being that of x[0, 0, 0]: the loops are made with and without it from one text,
# `at`, which Numba removes where it gives nothing.


def _no_index(origin, place):  # type: ignore[no-untyped-def]
    return ()


def _index(origin, place):  # type: ignore[no-untyped-def]
    return (origin + place,)


def _slices(form: Form, kernel: Function, at: Function) -> Function:
    load, write, mend = form.load, form.write, form.mend

    def slices(x, start, out, state, origin, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        values = x.reshape(x.size)[start : start + out.size]
        done = 0
        while done < out.size:
            place = start + done
            row = place // inner
            j = place % inner
            o = row // n
            i = row % n
            span = n - i if inner == 1 else inner - j
            piece = out[done : done + span]
            elements = values[done : done + span]
            found = state[o]
            spoilt = False
            if inner == 1:
                for p in range(piece.size):
                    v = load(elements[p])
                    piece[p], nan = write(kernel(v, i + p, 0, found, *at(origin, place + p), *params))
                    spoilt |= nan | np.isnan(elements[p])
            else:
                for p in range(piece.size):
                    v = load(elements[p])
                    piece[p], nan = write(kernel(v, i, j + p, found, *at(origin, place + p), *params))
                    spoilt |= nan | np.isnan(elements[p])
            if spoilt:
                for p in range(piece.size):
                    piece[p] = mend(elements[p], piece[p])
            done += piece.size

    return slices


def _slices_vjp(form: Form, kernel: Function, at: Function) -> Function:
    load, write, mend = form.load, form.write, form.mend

    def slices_vjp(x, g, start, out, state, vjp_state, origin, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        if g.shape != x.shape or vjp_state.shape[0] != outer or vjp_state.shape[2] != inner:
            raise ValueError("the upstream gradient or its state does not fit x")
        values = x.reshape(x.size)[start : start + out.size]
        gradients = g.reshape(g.size)[start : start + out.size]
        done = 0
        while done < out.size:
            place = start + done
            row = place // inner
            j = place % inner
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
                    v, u = load(elements[p]), load(upstream[p])
                    y = kernel(v, u, i + p, 0, found, products, *at(origin, place + p), *params)
                    piece[p], nan = write(y)
                    spoilt |= nan | np.isnan(elements[p])
            else:
                for p in range(piece.size):
                    v, u = load(elements[p]), load(upstream[p])
                    y = kernel(v, u, i, j + p, found, products, *at(origin, place + p), *params)
                    piece[p], nan = write(y)
                    spoilt |= nan | np.isnan(elements[p])
            if spoilt:
                for p in range(piece.size):
                    piece[p] = mend(elements[p], piece[p])
            done += piece.size

    return slices_vjp


def _jacobian(form: Form, kernel: Function, at: Function) -> Function:
    load, store = form.load, form.store

    def jacobian(x, start, out, state, origin, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size * n or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        values = x.reshape(x.size)
        done = 0
        while done < out.size:
            element = (start + done) // n
            k = (start + done) % n
            row = element // inner
            j = element % inner
            o = row // n
            i = row % n
            v = load(values[element])
            piece = out[done : done + n - k]
            found = state[o]
            if inner == 1:
                column = values[o * n + k : (o + 1) * n]
                for p in range(piece.size):
                    w = load(column[p])
                    piece[p] = store(v, kernel(v, w, i, k + p, 0, found, *at(origin, element), *params))
            else:
                for p in range(piece.size):
                    w = load(x[o, k + p, j])
                    piece[p] = store(v, kernel(v, w, i, k + p, j, found, *at(origin, element), *params))
            done += piece.size

    return jacobian


def _jacobian_diagonal(form: Form, kernel: Function, at: Function) -> Function:
    load, store = form.load, form.store

    def jacobian_diagonal(x, start, out, state, origin, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        outer, n, inner = x.shape
        if start < 0 or start + out.size > x.size or state.shape[0] != outer or state.shape[2] != inner:
            raise ValueError("out or the state does not fit x")
        values = x.reshape(x.size)[start : start + out.size]
        done = 0
        while done < out.size:
            place = start + done
            row = place // inner
            j = place % inner
            o = row // n
            i = row % n
            span = n - i if inner == 1 else inner - j
            piece = out[done : done + span]
            elements = values[done : done + span]
            found = state[o]
            if inner == 1:
                for p in range(piece.size):
                    v = load(elements[p])
                    piece[p] = store(v, kernel(v, v, i + p, i + p, 0, found, *at(origin, place + p), *params))
            else:
                for p in range(piece.size):
                    v = load(elements[p])
                    piece[p] = store(v, kernel(v, v, i, i, j + p, found, *at(origin, place + p), *params))
            done += piece.size

    return jacobian_diagonal


# Slices that lie each in one run of memory need no state between two looks at them.


def _whole(form: Form, look: Function, kernel: Function) -> Function:
    load, write, mend, scalar = form.load, form.write, form.mend, form.scalar

    def whole(x, out, params):  # type: ignore[no-untyped-def]
        outer, n, inner = x.shape
        if inner != 1 or out.size != x.size:
            raise ValueError("slices must lie in one run, and out must have as many elements as they")
        terms = np.empty(n, scalar)
        for o in range(outer if n > 0 else 0):
            values = x[o].reshape(n)
            first, second = look(values, terms, *params)
            a, b = scalar(first), scalar(second)
            piece = out[o * n : o * n + n]
            spoilt = False
            for p in range(n):
                piece[p], nan = write(kernel(load(values[p]), terms[p], a, b))
                spoilt |= nan
            if spoilt:
                for p in range(n):
                    piece[p] = mend(values[p], piece[p])

    return whole


def _whole_vjp(form: Form, look: Function, kernel: Function) -> Function:
    load, write, mend, scalar = form.load, form.write, form.mend, form.scalar

    def whole_vjp(x, g, out, params):  # type: ignore[no-untyped-def]
        outer, n, inner = x.shape
        if inner != 1 or out.size != x.size or g.shape != x.shape:
            raise ValueError("slices must lie in one run, and out and g must have as many elements as they")
        terms = np.empty(n, scalar)
        for o in range(outer if n > 0 else 0):
            values, gradients = x[o].reshape(n), g[o].reshape(n)
            first, second = look(values, gradients, terms, *params)
            a, b = scalar(first), scalar(second)
            piece = out[o * n : o * n + n]
            spoilt = False
            for p in range(n):
                piece[p], nan = write(kernel(load(gradients[p]), terms[p], a, b))
                spoilt |= nan
            if spoilt:
                for p in range(n):
                    piece[p] = mend(values[p], piece[p])

    return whole_vjp


# ---- gated units -----------------------------------------------------------------------------------------------------

# The first two parameters are the words `activated` (0: the first half) and `layout` (0: halves, 1: in turn). A single
# column is one run of all its pairs; of several, each row of pairs is a run.


def _gated(form: Form, kernel: Function) -> Function:
    load, store = form.load, form.store

    def gated(x, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        outer, n, inner = x.shape
        half = n // 2
        if n % 2 or out.shape[0] != outer or out.shape[1] != half or out.shape[2] != inner:
            raise ValueError("out must be half as long as x")
        second = np.int64(params[0])
        step, gap = (2, 1) if params[1] > 0.0 else (1, half)
        runs, length = (1, half) if inner == 1 else (half, inner)
        stride = step if inner == 1 else 1
        for o in range(outer):
            flat = x[o].reshape(n * inner)
            results = out[o].reshape(half * inner)
            for r in range(runs):
                first = r * step * inner
                u_from = first + second * gap * inner
                v_from = first + (1 - second) * gap * inner
                piece = results[r * length : (r + 1) * length]
                if stride == 1:
                    us, vs = flat[u_from : u_from + length], flat[v_from : v_from + length]
                    for p in range(length):
                        u, v = load(us[p]), load(vs[p])
                        piece[p] = store(u if u != u else v, kernel(u, v, *params[2:]))
                else:
                    for p in range(length):
                        u, v = load(flat[u_from + 2 * p]), load(flat[v_from + 2 * p])
                        piece[p] = store(u if u != u else v, kernel(u, v, *params[2:]))

    return gated


def _gated_partials(form: Form, u_kernel: Function, v_kernel: Function) -> Function:
    load, store = form.load, form.store

    def gated_partials(x, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        outer, n, inner = x.shape
        half = n // 2
        if n % 2 or out.shape != x.shape:
            raise ValueError("out must have the shape of x, whose axis is even")
        second = np.int64(params[0])
        step, gap = (2, 1) if params[1] > 0.0 else (1, half)
        runs, length = (1, half) if inner == 1 else (half, inner)
        stride = step if inner == 1 else 1
        for o in range(outer):
            flat = x[o].reshape(n * inner)
            results = out[o].reshape(n * inner)
            for r in range(runs):
                first = r * step * inner
                u_from = first + second * gap * inner
                v_from = first + (1 - second) * gap * inner
                if stride == 1:
                    us, vs = flat[u_from : u_from + length], flat[v_from : v_from + length]
                    by_u, by_v = results[u_from : u_from + length], results[v_from : v_from + length]
                    for p in range(length):
                        u, v = load(us[p]), load(vs[p])
                        by_u[p] = store(u if u != u else v, u_kernel(u, v, *params[2:]))
                        by_v[p] = store(u if u != u else v, v_kernel(u, v, *params[2:]))
                else:
                    for p in range(length):
                        u, v = load(flat[u_from + 2 * p]), load(flat[v_from + 2 * p])
                        results[u_from + 2 * p] = store(u if u != u else v, u_kernel(u, v, *params[2:]))
                        results[v_from + 2 * p] = store(u if u != u else v, v_kernel(u, v, *params[2:]))

    return gated_partials


def _gated_vjp(form: Form, u_kernel: Function, v_kernel: Function) -> Function:
    load, store = form.load, form.store

    def gated_vjp(x, g, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        outer, n, inner = x.shape
        half = n // 2
        if n % 2 or out.shape != x.shape or g.shape[0] != outer or g.shape[1] != half or g.shape[2] != inner:
            raise ValueError("out must have the shape of x, whose axis is even, and the upstream gradient half of it")
        second = np.int64(params[0])
        step, gap = (2, 1) if params[1] > 0.0 else (1, half)
        runs, length = (1, half) if inner == 1 else (half, inner)
        stride = step if inner == 1 else 1
        for o in range(outer):
            flat, gradients = x[o].reshape(n * inner), g[o].reshape(half * inner)
            results = out[o].reshape(n * inner)
            for r in range(runs):
                first = r * step * inner
                u_from = first + second * gap * inner
                v_from = first + (1 - second) * gap * inner
                factors = gradients[r * length : (r + 1) * length]
                if stride == 1:
                    us, vs = flat[u_from : u_from + length], flat[v_from : v_from + length]
                    by_u, by_v = results[u_from : u_from + length], results[v_from : v_from + length]
                    for p in range(length):
                        u, v, factor = load(us[p]), load(vs[p]), load(factors[p])
                        by_u[p] = store(u if u != u else v, u_kernel(u, v, *params[2:]) * factor)
                        by_v[p] = store(u if u != u else v, v_kernel(u, v, *params[2:]) * factor)
                else:
                    for p in range(length):
                        u, v, factor = load(flat[u_from + 2 * p]), load(flat[v_from + 2 * p]), load(factors[p])
                        results[u_from + 2 * p] = store(u if u != u else v, u_kernel(u, v, *params[2:]) * factor)
                        results[v_from + 2 * p] = store(u if u != u else v, v_kernel(u, v, *params[2:]) * factor)

    return gated_vjp


# ---- axes that change their length -----------------------------------------------------------------------------------


def _resize(form: Form, kernel: Function) -> Function:
    store = form.store

    def resize(x, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if out.shape[0] != x.shape[0] or out.shape[2] != x.shape[2]:
            raise ValueError("out must differ from x in the length of the axis alone")
        for o in range(out.shape[0]):
            for i in range(out.shape[1]):
                for j in range(out.shape[2]):
                    y = kernel(x[o], i, j, *params)
                    out[o, i, j] = store(y, y)

    return resize


def _resize_vjp(form: Form, kernel: Function) -> Function:
    store = form.store

    def resize_vjp(x, g, out, params):  # type: ignore[no-untyped-def]
        in_widest_vectors()
        if out.shape != x.shape or g.shape[0] != x.shape[0] or g.shape[2] != x.shape[2]:
            raise ValueError("out must have the shape of x, and g differ from it in the length of the axis alone")
        for o in range(out.shape[0]):
            for i in range(out.shape[1]):
                for j in range(out.shape[2]):
                    y = kernel(x[o], g[o], i, j, *params)
                    out[o, i, j] = store(y, y)

    return resize_vjp


# ---- which loop an operation is ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """What one operation runs: a loop around kernels, and the arguments the result takes."""

    loop: Callable[..., Function]
    kernels: tuple[Kernel, ...]
    arguments: tuple[str, ...]
    """The argument types, in the words of `build.ARGUMENTS`."""
    cancels: bool = False
    """Whether float32 results need the wide elementary functions."""
    single: bool = False
    """Whether float32 results are as good, to the bit, in single precision."""
    columns: int = 0
    """How many parameters the kernel is given as columns; 0 where parameters are plain numbers."""
    helpers: tuple[Function, ...] = ()
    """Plain functions that the loop takes after the kernels, compiled as they are."""
    sums: bool = False
    """Whether it adds up elements, in an order that the vectors it is compiled for decide."""


_FILL = ("index", "output", "state", "index", "params")


def operations(record: Record) -> dict[str, Operation]:
    """The operations of a record, by name.

    >>> list(operations(find("relu")))
    ['forward', 'derivative', 'vjp']
    """
    match record:
        case Activation():
            return _elementwise(record)
        case AxisActivation():
            return _along_axis(record)
        case GatedActivation():
            partials = (record.u_derivative, record.v_derivative)
            loose = any(operation != "forward" for operation in record.cancels)
            cancels = "forward" in record.cancels
            return {
                "forward": Operation(_gated, (record.forward,), ("block", "result_block", "params"), cancels),
                "derivative": Operation(_gated_partials, partials, ("block", "result_block", "params"), loose),
                "vjp": Operation(_gated_vjp, partials, ("block", "block", "result_block", "params"), loose),
            }
        case ResizingActivation():
            return {
                "forward": Operation(_resize, (record.forward,), ("block", "result_block", "params")),
                "vjp": Operation(_resize_vjp, (record.vjp,), ("block", "block", "result_block", "params")),
            }


def _elementwise(record: Activation) -> dict[str, Operation]:
    table: dict[str, Operation] = {}
    channelled = any(parameter.per_channel for parameter in record.parameters)
    columns = sum(parameter.kind != "axis" for parameter in record.parameters)
    quick = record.quick
    for name, kernel, shorter in (
        ("forward", record.forward, quick.forward if quick else None),
        ("derivative", record.derivative, quick.derivative if quick else None),
    ):
        cancels = name in record.cancels
        plain: Callable[..., Function] = _elements
        vjp: Callable[..., Function] = _elements_vjp
        kernels: tuple[Kernel, ...] = (kernel,)
        position: tuple[str, ...] = ()
        if record.indexed:
            plain, vjp, position = _elements_indexed, _elements_indexed_vjp, ("index",)
        elif quick is not None and shorter is not None:
            plain, vjp, kernels = _elements_quick, _elements_quick_vjp, (shorter, quick.reach, kernel)
        table[name] = Operation(
            plain, kernels, ("input", *position, "output", "params"), cancels, name in record.single
        )
        if name == "derivative":
            arguments = ("input", "input", *position, "output", "params")
            table["vjp"] = Operation(vjp, kernels, arguments, cancels, "vjp" in record.single)
        if channelled:
            tail = ("index", "output", "columns", "index")
            table[f"{name}_channels"] = Operation(_channels, (kernel,), ("input", *tail), cancels, columns=columns)
            if name == "derivative":
                table["vjp_channels"] = Operation(
                    _channels_vjp, (kernel,), ("input", "input", *tail), cancels, columns=columns
                )
    for gradient in record.gradients:
        name, kernels = f"gradient_{gradient.parameter}", (gradient.kernel,)
        table[name] = Operation(_elements_vjp, kernels, ("input", "input", "wide_output", "params"), True)
        if channelled:
            tail = ("index", "wide_output", "columns", "index")
            table[f"{name}_channels"] = Operation(
                _channels_vjp, kernels, ("input", "input", *tail), True, columns=columns
            )
    return table


def _along_axis(record: AxisActivation) -> dict[str, Operation]:
    at = (_index if record.indexed else _no_index,)
    position = ("index",) if record.indexed else ()
    reduce, reduce_vjp = (_reduce_indexed, _reduce_vjp_indexed) if record.indexed else (_reduce, _reduce_vjp)
    table = {
        "reduce": Operation(reduce, (record.reduce,), ("block", *position, "state", "params"), sums=True),
        "forward": Operation(_slices, (record.forward,), ("block", *_FILL), helpers=at),
        "vjp_reduce": Operation(
            reduce_vjp, (record.vjp_reduce,), ("block", "block", *position, "state", "state", "params"), sums=True
        ),
        "vjp": Operation(
            _slices_vjp,
            (record.vjp,),
            ("block", "block", "index", "output", "state", "state", "index", "params"),
            helpers=at,
        ),
        "jacobian": Operation(_jacobian, (record.jacobian,), ("block", *_FILL), helpers=at),
        "jacobian_diagonal": Operation(_jacobian_diagonal, (record.jacobian,), ("block", *_FILL), helpers=at),
    }
    whole = record.whole
    if whole is not None:
        for name, loop, kernels, inputs in (
            ("whole_forward", _whole, (whole.look, whole.forward), ("block",)),
            ("whole_vjp", _whole_vjp, (whole.look_vjp, whole.vjp), ("block", "block")),
        ):
            table[name] = Operation(loop, kernels, (*inputs, "output", "params"), sums=True)
    for gradient in record.gradients:
        table[f"gradient_{gradient.parameter}"] = Operation(
            _slices_vjp,
            (gradient.kernel,),
            ("block", "block", "index", "wide_output", "state", "state", "index", "params"),
            helpers=at,
        )
    return table
