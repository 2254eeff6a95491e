"""A record's formula as a small expression that NumPy, numexpr, JAX and ONNX can each be given.

What a library has no function for, people write down as a formula; this gives every library the same one, as a person
who knows his floating point would write it: `expm1` and `log1p` where they are meant, common parts computed once,
parameters folded into constants. Nodes are nested tuples: ("x",), ("constant", value), (operation, *nodes).
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

Node = tuple[Any, ...]

X: Node = ("x",)

_BINARY = {ast.Add: "add", ast.Sub: "subtract", ast.Mult: "multiply", ast.Div: "divide", ast.Pow: "power"}
_COMPARE = {
    ast.Gt: "greater",
    ast.GtE: "greater_equal",
    ast.Lt: "less",
    ast.LtE: "less_equal",
    ast.Eq: "equal",
    ast.NotEq: "not_equal",
}
_FUNCTIONS = {"abs": "absolute", "atan": "arctan"}
_NAMED = ("sign", "sqrt", "exp", "expm1", "log", "log1p", "tanh", "sinh", "cosh", "sin", "cos", "erf", "erfc")
COMPARISONS = frozenset([*_COMPARE.values(), "logical_and", "logical_or", "logical_not"])
"""Operations whose result is true or false."""

_FOLD: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": operator.pow,
    "negative": operator.neg,
    "absolute": abs,
    "maximum": max,
    "minimum": min,
    "sign": lambda v: math.copysign(1.0, v) if v else 0.0,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "logical_and": lambda a, b: a and b,
    "logical_or": lambda a, b: a or b,
    "logical_not": operator.not_,
    "arctan": math.atan,
    **{name: getattr(math, name) for name in _NAMED if name != "sign"},
}


class Unsupported(ValueError):
    """The formula says something that has no expression here."""


# How people write what the records' formulas, meant for arithmetic with many digits, say in a naive way.
_WRITTEN = {
    ("softplus", "forward"): "max(x, 0) + log1p(exp(-abs(x)))",
    ("log_sigmoid", "forward"): "min(x, 0) - log1p(exp(-abs(x)))",
    ("sqrt_softplus", "forward"): "sqrt(max(x, 0) + log1p(exp(-abs(x))))",
    ("elu", "forward"): "x if x > 0 else expm1(min(x, 0))",
    ("elu", "derivative"): "1 if x > 0 else exp(min(x, 0))",
    ("celu", "forward"): "x if x > 0 else expm1(min(x, 0))",
    ("celu", "derivative"): "1 if x > 0 else exp(min(x, 0))",
    ("mish", "forward"): "x * tanh(max(x, 0) + log1p(exp(-abs(x))))",
    ("sigmoid", "derivative"): "1 / (1 + exp(-x)) * (1 - 1 / (1 + exp(-x)))",
    ("tanh", "derivative"): "1 - tanh(x) * tanh(x)",
}


def _defaults(record: Any) -> dict[str, float]:
    """The parameters as formulas take them: words by their index, switches as 0 and 1; what is not given is left out."""
    return {
        p.name: float(p.choices.index(p.default) if p.choices else p.default)
        for p in record.parameters
        if p.default is not None
    }


def expression(record: Any, operation: str) -> Node:
    """The forward or derivative formula of an elementwise record at its default parameters.

    Raises Unsupported where it has none.
    """
    formula = record.formula if operation == "forward" else record.derivative_formula
    written = _WRITTEN.get((record.name, operation), formula)
    root = _of(ast.parse(written, mode="eval").body, _defaults(record))
    if root[0] == "constant":  # still as many results as there are elements
        root = ("add", ("multiply", X, ("constant", 0.0)), root)
    return root


def _of(tree: ast.expr, names: dict[str, float]) -> Node:
    match tree:
        case ast.Constant(value=bool() | int() | float()):
            return ("constant", tree.value)
        case ast.Name(id="x"):
            return X
        case ast.Name(id="pi"):
            return ("constant", math.pi)
        case ast.Name(id=name) if isinstance(names.get(name), int | float):
            return ("constant", names[name])
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return node(_BINARY[type(op)], _of(left, names), _of(right, names))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return node("negative", _of(operand, names))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _of(operand, names)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return node("logical_not", _of(operand, names))
        case ast.BoolOp(op=op, values=values):
            word = "logical_and" if isinstance(op, ast.And) else "logical_or"
            return _chain(word, [_of(value, names) for value in values])
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in _COMPARE for op in ops):
            sides = [_of(side, names) for side in (left, *others)]
            pairs = zip(ops, sides, sides[1:], strict=False)
            return _chain("logical_and", [node(_COMPARE[type(op)], a, b) for op, a, b in pairs])
        case ast.IfExp(test=test, body=body, orelse=orelse):
            condition = _of(test, names)
            if condition[0] == "constant":
                return _of(body if condition[1] else orelse, names)
            return node("where", condition, _of(body, names), _of(orelse, names))
        case ast.Call(func=ast.Name(id="max" | "min" as word), args=arguments, keywords=[]):
            return _chain(word + "imum", [_of(argument, names) for argument in arguments])
        case ast.Call(func=ast.Name(id=word), args=arguments, keywords=[]) if word in _FUNCTIONS or word in _NAMED:
            return node(_FUNCTIONS.get(word, word), *(_of(argument, names) for argument in arguments))
    raise Unsupported(ast.unparse(tree))


def _chain(word: str, nodes: list[Node]) -> Node:
    result = nodes[0]
    for other in nodes[1:]:
        result = node(word, result, other)
    return result


def node(word: str, *children: Node) -> Node:
    """A node, in the form in which a person would write it."""
    if all(child[0] == "constant" for child in children):
        try:
            return ("constant", _FOLD[word](*(child[1] for child in children)))
        except (OverflowError, ZeroDivisionError, ValueError) as error:
            raise Unsupported(str(error)) from None
    one = ("constant", 1)
    match word, children:
        case "subtract", (("exp", inner), right) if right == one:
            return ("expm1", inner)
        case "log", (("add", left, right),) if left == one:
            return ("log1p", right)
        case "multiply" | "divide", (left, right) if right == one:
            return left
        case ("multiply", (left, right)) if left == one:
            return right
        case "add" | "subtract", (left, right) if right == ("constant", 0):
            return left
        case ("add", (left, right)) if left == ("constant", 0):
            return right
        case "power", (base, ("constant", 2)):
            return ("multiply", base, base)
        case "power", (base, ("constant", 3)):
            return ("multiply", base, ("multiply", base, base))
        case "power", (base, ("constant", 0.5)):
            return ("sqrt", base)
    return (word, *children)


def emit(root: Node, leaf: Callable[[Node], Any], step: Callable[[str, list[Any]], Any]) -> Any:
    """Walk an expression, each common part once: `leaf` for x and constants, `step` for operations."""
    done: dict[Node, Any] = {}

    def visit(at: Node) -> Any:
        if at not in done:
            if at[0] in ("x", "constant"):
                done[at] = leaf(at)
            else:
                done[at] = step(at[0], [visit(child) for child in at[1:]])
        return done[at]

    return visit(root)


def is_piecewise_linear(record: Any) -> bool:
    """Whether the forward formula is made of straight lines."""

    def degree(word: str, of: list[int]) -> int:
        match word:
            case "where":
                return max(of[1:])
            case "add" | "subtract" | "negative" | "maximum" | "minimum" | "absolute":
                return max(of)
            case "multiply":
                return sum(of)
            case "divide" if of[1] == 0:
                return of[0]
            case "sign":
                return 0
            case _ if word in COMPARISONS:
                return 0
        return 2 if any(of) else 0

    try:
        root = expression(record, "forward")
    except Unsupported:
        return False
    return bool(emit(root, lambda leaf: int(leaf[0] == "x"), degree) <= 1)
