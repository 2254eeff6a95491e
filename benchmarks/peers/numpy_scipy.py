"""NumPy, and SciPy where it has the function, written for speed: in blocks that stay in the cache, with `out=`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from peers import expressions
from peers.bound import Bound, empty, pieces, shared

with contextlib.suppress(ImportError):
    import scipy
    import scipy.special

NAME = "NumPy/SciPy"
BLOCK = 16_384

Array = np.ndarray[Any, Any]


def version() -> str:
    """The versions that are timed."""
    return f"{np.__version__}/{scipy.__version__}"


def bind(record: Any, operation: str, inputs: Sequence[Array], threads: int) -> Bound | None:
    """See `peers`."""
    x = inputs[0]
    out = empty(x.shape, x.dtype)
    if record.name in _ROWS:
        rows = max(1, BLOCK // x.shape[1])
        parts = [_rows(_ROWS[record.name][operation], inputs, out, piece, rows) for piece in pieces(len(x), threads)]
    else:
        try:
            program = _Program(expressions.expression(record, operation))
        except expressions.Unsupported:
            return None
        parts = [program.over(x[piece], out[piece]) for piece in pieces(x.size, threads)]
    run = shared(parts)

    def result() -> Array:
        run()
        return out

    return Bound(run, result)


def _function(word: str) -> np.ufunc:
    return getattr(scipy.special, word) if word in ("erf", "erfc") else getattr(np, word)


class _Program:
    """An expression as ufunc calls on a few buffers, which are used again as soon as their contents are not needed."""

    def __init__(self, root: expressions.Node) -> None:
        self._steps: list[tuple[str, list[Any], int]] = []
        logical: list[bool] = []

        def step(word: str, arguments: list[Any]) -> int:
            self._steps.append((word, arguments, len(logical)))
            logical.append(word in expressions.COMPARISONS)
            return len(logical) - 1

        # Values are numbered from 0; x is None, and a constant itself, in a list so that it is no number of a value.
        self._root = expressions.emit(root, lambda leaf: None if leaf[0] == "x" else [float(leaf[1])], step)
        self._allocate(logical)

    def _allocate(self, logical: list[bool]) -> None:
        last = {
            value: at for at, (_, arguments, _) in enumerate(self._steps) for value in arguments if type(value) is int
        }
        free: dict[bool, list[int]] = {False: [], True: []}
        place: dict[int, int] = {}
        self._kinds: list[bool] = []
        for at, (word, arguments, value) in enumerate(self._steps):
            dying = [v for v in dict.fromkeys(a for a in arguments if type(a) is int) if last[v] == at]
            # A selection writes its result before it has read all that it needs.
            if word != "where":
                for v in dying:
                    free[logical[v]].append(place[v])
            kind = logical[value]
            if free[kind]:
                place[value] = free[kind].pop()
            else:
                place[value] = len(self._kinds)
                self._kinds.append(kind)
            if word == "where":
                for v in dying:
                    free[logical[v]].append(place[v])
        self._place = place

    def over(self, x: Array, out: Array) -> Callable[[], None]:
        working = x.dtype if x.dtype.itemsize > 2 else np.dtype(np.float32)
        narrow = x.dtype != working
        block = min(BLOCK, x.size)
        buffers = [empty(block, bool if kind else working) for kind in self._kinds]
        copy, to = (empty(block, working), empty(block, working)) if narrow else (None, None)

        # Each distinct length of a block has its calls prepared on views of the buffers.
        def prepare(n: int) -> list[tuple[Any, list[Any], Any]]:
            calls = []
            for word, arguments, value in self._steps:
                given = [
                    a if a is None else working.type(a[0]) if type(a) is list else buffers[self._place[a]][:n]
                    for a in arguments
                ]
                target = None if value == self._root else buffers[self._place[value]][:n]
                calls.append((None if word == "where" else _function(word), given, target))
            return calls

        prepared = {n: prepare(n) for n in {block, x.size % block or block}}

        def run() -> None:
            with np.errstate(all="ignore"):
                for at in range(0, x.size, block):
                    source, target = x[at : at + block], out[at : at + block]
                    calls = prepared[source.size]
                    result = target
                    if narrow:
                        assert copy is not None and to is not None
                        np.copyto(copy[: source.size], source)
                        source, result = copy[: source.size], to[: source.size]
                    if not calls:
                        np.copyto(result, source)
                    for function, arguments, where in calls:
                        given = [source if a is None else a for a in arguments]
                        into = result if where is None else where
                        if function is None:
                            condition, yes, no = given
                            if yes is into:
                                np.copyto(into, no, where=~condition)
                            else:
                                np.copyto(into, no)
                                np.copyto(into, yes, where=condition)
                        else:
                            function(*given, out=into)
                    if narrow:
                        np.copyto(target, result, casting="unsafe")

        return run


def _softmax(x: Array, out: Array, column: Array) -> None:
    np.max(x, axis=1, keepdims=True, out=column)
    np.subtract(x, column, out=out)
    np.exp(out, out=out)
    np.sum(out, axis=1, keepdims=True, out=column)
    np.divide(out, column, out=out)


def _log_softmax(x: Array, out: Array, column: Array) -> None:
    np.max(x, axis=1, keepdims=True, out=column)
    np.subtract(x, column, out=out)
    np.sum(np.exp(out), axis=1, keepdims=True, out=column)
    np.log(column, out=column)
    np.subtract(out, column, out=out)


def _softmax_vjp(x: Array, g: Array, out: Array, column: Array) -> None:
    _softmax(x, out, column)
    np.einsum("ij,ij->i", out, g, out=column[:, 0])
    np.multiply(out, g - column, out=out)


def _log_softmax_vjp(x: Array, g: Array, out: Array, column: Array) -> None:
    _softmax(x, out, column)
    np.sum(g, axis=1, keepdims=True, out=column)
    np.multiply(out, column, out=out)
    np.subtract(g, out, out=out)


_ROWS: dict[str, dict[str, Callable[..., None]]] = {
    "softmax": {"forward": _softmax, "vjp": _softmax_vjp},
    "log_softmax": {"forward": _log_softmax, "vjp": _log_softmax_vjp},
}


def _rows(
    function: Callable[..., None], inputs: Sequence[Array], out: Array, piece: slice, rows: int
) -> Callable[[], None]:
    working = out.dtype if out.dtype.itemsize > 2 else np.dtype(np.float32)
    narrow = out.dtype != working

    def run() -> None:
        column = np.empty((rows, 1), working)
        to = np.empty((rows, out.shape[1]), working) if narrow else None
        for at in range(piece.start, piece.stop, rows):
            block = slice(at, min(at + rows, piece.stop))
            n = block.stop - at
            if to is not None:
                function(*(array[block].astype(working) for array in inputs), to[:n], column[:n])
                np.copyto(out[block], to[:n], casting="unsafe")
            else:
                function(*(array[block] for array in inputs), out[block], column[:n])

    return run
