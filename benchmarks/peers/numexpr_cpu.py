"""numexpr, given the formula as one expression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numexpr
import numpy as np
from numexpr.necompiler import getType

from peers import expressions
from peers.bound import Bound, empty

NAME = "numexpr"

_SIGNS = {
    "add": "({} + {})",
    "subtract": "({} - {})",
    "multiply": "({} * {})",
    "divide": "({} / {})",
    "power": "({} ** {})",
    "negative": "(-{})",
    "greater": "({} > {})",
    "greater_equal": "({} >= {})",
    "less": "({} < {})",
    "less_equal": "({} <= {})",
    "equal": "({} == {})",
    "not_equal": "({} != {})",
    "logical_and": "({} & {})",
    "logical_or": "({} | {})",
    "logical_not": "(~{})",
    "absolute": "abs({})",
}


def version() -> str:
    """The version that is timed."""
    return str(numexpr.__version__)


def bind(record: Any, operation: str, inputs: Sequence[np.ndarray[Any, Any]], threads: int) -> Bound | None:
    """See `peers`."""
    (x, *others) = inputs
    if others or x.ndim != 1 or x.dtype not in (np.float32, np.float64):
        return None
    numexpr.set_num_threads(threads)
    names: dict[str, Any] = {"x": x}

    # A constant written into the expression would make everything float64.
    def leaf(node: expressions.Node) -> str:
        if node[0] == "x":
            return "x"
        name = f"c{len(names)}"
        names[name] = x.dtype.type(node[1])
        return name

    def step(word: str, arguments: list[str]) -> str:
        if word in _SIGNS:
            return _SIGNS[word].format(*arguments)
        if word not in numexpr.expressions.functions:
            raise expressions.Unsupported(word)
        return f"{word}({', '.join(arguments)})"

    try:
        text = expressions.emit(expressions.expression(record, operation), leaf, step)
    except expressions.Unsupported:
        return None
    out = empty(x.shape, x.dtype)
    compiled = numexpr.NumExpr(text, signature=[(name, getType(np.asarray(value))) for name, value in names.items()])
    ordered = [names[name] for name in compiled.input_names]

    def run() -> None:
        compiled(*ordered, out=out, casting="same_kind", order="K", ex_uses_vml=False)

    def result() -> np.ndarray[Any, Any]:
        run()
        return out

    return Bound(run, result)
