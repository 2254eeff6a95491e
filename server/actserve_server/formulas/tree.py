"""Formulas as trees: what they are made of, how they are put together without what does nothing, and how they are written.

A node is made by the functions here and is the only one of its kind: equal trees are the same object, so that what a formula
says twice is computed once, and a derivative takes no more room than a few times its formula. Nothing here knows where a tree
comes from or what it is for.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from actserve_server.activations.spec import Activation

__all__ = [
    "CONDITIONS",
    "LARGEST_EXPONENT",
    "NO",
    "ONE",
    "X",
    "YES",
    "ZERO",
    "Node",
    "add",
    "builtin",
    "call",
    "compare",
    "div",
    "lower_power",
    "map_tree",
    "mul",
    "neg",
    "number",
    "parameter",
    "power",
    "put",
    "real_power",
    "size",
    "sub",
    "text",
    "truth",
    "walk",
    "where",
]


class Node:
    """An operation, its operands, and what it is about.

    ============  ==========================================================================
    number        `value` is the number
    x             the element
    parameter     `value` is its name
    add … div     of two operands; neg of one
    power         of one; `value` is the exponent, a whole number of at least 2
    call          of one or two; `value` is a name of `activations.functions.FUNCTIONS`
    builtin       of one; `value` is (record, the kernel's parameters: numbers and names of parameters, 0 for f and 1 for f')
    where         condition, then, otherwise
    lt … ne       conditions of two numbers; and, or, not: of conditions; `true` and `false`
    ============  ==========================================================================
    """

    __slots__ = ("__weakref__", "args", "depends", "op", "value")

    def __init__(self, op: str, args: tuple[Node, ...], value: Any) -> None:
        self.depends: bool
        """Whether it varies with x."""
        self.op = op
        self.args = args
        self.value = value
        self.depends = op == "x" or any(arg.depends for arg in args)

    def __repr__(self) -> str:
        return f"<{text(self)}>"


_nodes: weakref.WeakValueDictionary[Any, Node] = weakref.WeakValueDictionary()
_guard = threading.Lock()

LARGEST_EXPONENT = 64
"""Of a power that is multiplied out."""

CONDITIONS = ("lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "true", "false")


def _node(op: str, *args: Node, value: Any = None) -> Node:
    # -0.0 equals 0.0, and is another number.
    key = (op, args, value if not isinstance(value, float) else (value, math.copysign(1.0, value)))
    with _guard:
        found = _nodes.get(key)
        if found is None:
            found = _nodes[key] = Node(op, args, value)
        return found


def number(value: float) -> Node:
    """A number."""
    return _node("number", value=float(value))


ZERO, ONE, X = number(0.0), number(1.0), _node("x")
YES, NO = _node("true"), _node("false")


def parameter(name: str) -> Node:
    """A parameter."""
    return _node("parameter", value=name)


def _both(left: Node, right: Node) -> tuple[float, float] | None:
    return (left.value, right.value) if left.op == right.op == "number" else None


def _folded(value: float) -> Node | None:
    """A number that was computed, if it is an ordinary one: others are left to the kernel."""
    return number(value) if math.isfinite(value) else None


def add(left: Node, right: Node) -> Node:
    """left + right."""
    if (pair := _both(left, right)) and (folded := _folded(pair[0] + pair[1])):
        return folded
    if left is ZERO:
        return right
    if right is ZERO:
        return left
    if right.op == "neg":
        return sub(left, right.args[0])
    return _node("add", left, right)


def sub(left: Node, right: Node) -> Node:
    """left - right."""
    if (pair := _both(left, right)) and (folded := _folded(pair[0] - pair[1])):
        return folded
    if left is ZERO:
        return neg(right)
    if right is ZERO:
        return left
    if right.op == "neg":
        return add(left, right.args[0])
    return _node("sub", left, right)


def neg(node: Node) -> Node:
    """-node."""
    if node.op == "number":
        return number(-node.value) if node.value else ZERO
    if node.op == "neg":
        return node.args[0]
    if node.op == "mul" and node.args[0].op == "number" and node.args[0].value < 0:
        return mul(number(-node.args[0].value), node.args[1])
    return _node("neg", node)


def mul(left: Node, right: Node) -> Node:
    """left * right; nothing times anything is nothing, as in the derivative of what does not vary."""
    if (pair := _both(left, right)) and (folded := _folded(pair[0] * pair[1])):
        return folded
    if left is ZERO or right is ZERO:
        return ZERO
    if left is ONE:
        return right
    if right is ONE:
        return left
    if left.op == "neg" and right.op == "neg":
        return mul(left.args[0], right.args[0])
    if left.op == "neg":
        return neg(mul(left.args[0], right))
    if right.op == "neg":
        return neg(mul(left, right.args[0]))
    if left is right:
        return power(left, 2)
    return _node("mul", left, right)


def div(left: Node, right: Node) -> Node:
    """left / right."""
    pair = _both(left, right)
    if pair and pair[1] and (folded := _folded(pair[0] / pair[1])) and folded.value * pair[1] == pair[0]:
        return folded
    if left is ZERO and right.op == "number" and right.value:
        return ZERO
    if right is ONE:
        return left
    if left.op == "neg":
        return neg(div(left.args[0], right))
    return _node("div", left, right)


def power(base: Node, exponent: int) -> Node:
    """base to a whole number."""
    if exponent < 0:
        return div(ONE, power(base, -exponent))
    if exponent == 0:
        return ONE
    if exponent == 1:
        return base
    if base.op == "number" and abs(math.log2(abs(base.value) or 1.0)) * exponent < 1000:
        return number(base.value**exponent)
    return _node("power", base, value=exponent)


def real_power(base: Node, exponent: Node) -> Node:
    """base to any number, as C99's pow; NaN where base is negative and the exponent no whole number."""
    if exponent.op != "number":
        return call("power", base, exponent)
    value = exponent.value
    if value == int(value) and abs(value) <= LARGEST_EXPONENT:
        return power(base, int(value))
    if abs(value) == 0.5:
        root = call("sqrt", base)
        return root if value > 0 else div(ONE, root)
    return call("power", base, exponent)


def lower_power(base: Node, exponent: Node) -> Node:
    """base to one less than the exponent, which is not rounded: far out that would be many units of the result."""
    if exponent.op == "number" and Fraction(exponent.value) - 1 == Fraction(exponent.value - 1.0):
        return real_power(base, number(exponent.value - 1.0))
    return call("lower_power", base, exponent)


def call(name: str, *args: Node) -> Node:
    """A function of one or two numbers."""
    return _node("call", *args, value=name)


def builtin(record: Activation, parameters: tuple[float | str, ...], order: int, argument: Node) -> Node:
    """An activation of the catalogue, or its derivative."""
    return _node("builtin", argument, value=(record, parameters, order))


def compare(op: str, *args: Node) -> Node:
    """A condition."""
    if op == "not" and args[0] in (YES, NO):
        return truth(args[0] is NO)
    if op in ("and", "or"):
        neutral, final = (YES, NO) if op == "and" else (NO, YES)
        flat = [inner for arg in args for inner in (arg.args if arg.op == op else (arg,))]
        rest = [arg for arg in flat if arg is not neutral]
        if final in rest:
            return final
        if len(rest) < 2:
            return rest[0] if rest else neutral
        return _node(op, *rest)
    return _node(op, *args)


def truth(value: bool) -> Node:
    """A condition that holds always, or never."""
    return YES if value else NO


def where(condition: Node, then: Node, otherwise: Node) -> Node:
    """then where the condition holds, else otherwise."""
    if condition is YES or then is otherwise:
        return then
    if condition is NO:
        return otherwise
    return _node("where", condition, then, otherwise)


_MAKE: Mapping[str, Callable[..., Node]] = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": div,
    "neg": neg,
    "where": where,
}


def made(node: Node, args: tuple[Node, ...]) -> Node:
    """The same operation of other operands."""
    if all(one is other for one, other in zip(args, node.args, strict=True)):
        return node
    if node.op in _MAKE:
        return _MAKE[node.op](*args)
    if node.op == "power":
        return power(args[0], node.value)
    if node.op == "builtin":
        record, parameters, order = node.value
        return builtin(record, parameters, order, args[0])
    if node.op in CONDITIONS:
        return compare(node.op, *args)
    return _node(node.op, *args, value=node.value)


def walk(node: Node) -> Iterator[Node]:
    """Every node once, operands before what is made of them."""
    seen: set[int] = set()
    stack = [(node, False)]
    while stack:
        current, ready = stack.pop()
        if ready:
            yield current
        elif id(current) not in seen:
            seen.add(id(current))
            stack.append((current, True))
            stack.extend((arg, False) for arg in reversed(current.args))


def map_tree(node: Node, change: Callable[[Node], Node]) -> Node:
    """The tree with each node changed, its operands first."""
    done: dict[int, Node] = {}
    for current in walk(node):
        done[id(current)] = change(made(current, tuple(done[id(arg)] for arg in current.args)))
    return done[id(node)]


def put(node: Node, x: Node, parameters: Mapping[str, Node]) -> Node:
    """The tree with other trees in place of x and of parameters."""

    def change(current: Node) -> Node:
        if current.op == "x":
            return x
        return parameters.get(current.value, current) if current.op == "parameter" else current

    return map_tree(node, change)


def size(node: Node) -> int:
    """How many different nodes there are."""
    return sum(1 for _ in walk(node))


# ---- text ------------------------------------------------------------------------------------------------------------

_SIGNS = {
    "or": (1, " or "),
    "and": (2, " and "),
    "lt": (4, " < "),
    "le": (4, " <= "),
    "gt": (4, " > "),
    "ge": (4, " >= "),
    "eq": (4, " == "),
    "ne": (4, " != "),
    "add": (5, " + "),
    "sub": (5, " - "),
    "mul": (6, " * "),
    "div": (6, " / "),
}
_NAMES = {"atan": "arctan"}
_LONGEST_TEXT = 4000


def text(node: Node, longest: int = _LONGEST_TEXT) -> str:
    """The formula as Python writes it; the beginning of one that is longer."""
    done: dict[int, tuple[int, str]] = {}
    for current in walk(node):
        rank, said = _text(current, [done[id(arg)] for arg in current.args])
        if len(said) > longest:
            said = said[: longest - 1] + "…"
        done[id(current)] = rank, said
    return done[id(node)][1]


def _text(node: Node, args: list[tuple[int, str]]) -> tuple[int, str]:
    def within(index: int, rank: int) -> str:
        inner, said = args[index]
        return said if inner >= rank else f"({said})"

    match node.op:
        case "number":
            said = repr(node.value).removesuffix(".0")
            return (10 if node.value >= 0 else 7), said
        case "x":
            return 10, "x"
        case "parameter":
            return 10, node.value
        case "true" | "false":
            return 4, "1 > 0" if node.op == "true" else "1 < 0"
        case "neg":
            return 7, f"-{within(0, 7)}"
        case "not":
            return 3, f"not {within(0, 3)}"
        case "power":
            return 8, f"{within(0, 9)}**{node.value}"
        case "where":
            return 0, f"{within(1, 1)} if {within(0, 1)} else {within(2, 0)}"
        case "call" if node.value == "power":
            return 8, f"{within(0, 9)}**{within(1, 8)}"
        case "call" if node.value == "lower_power":
            return 8, f"{within(0, 9)}**({within(1, 5)} - 1)"
        case "call" if node.value == "sech_squared":
            return 6, f"1 / cosh({args[0][1]})**2"
        case "call" if node.value == "gaussian":
            return 10, f"exp(-({args[0][1]})**2)"
        case "call" if node.value == "erf_slope":
            return 6, f"2 / sqrt(pi) * exp(-({args[0][1]})**2)"
        case "call":
            return 10, f"{_NAMES.get(node.value, node.value)}({', '.join(said for _, said in args)})"
        case "builtin":
            return 10, _builtin_text(node, args[0][1])
        case _:
            rank, sign = _SIGNS[node.op]
            if node.op in ("and", "or"):
                return rank, sign.join(within(index, rank + 1) for index in range(len(args)))
            return rank, f"{within(0, rank)}{sign}{within(1, rank + 1)}"


def _builtin_text(node: Node, argument: str) -> str:
    record, parameters, order = node.value
    given = [
        f"{p.name}={value:g}" if isinstance(value, float) else f"{p.name}={value}"
        for p, value in zip((p for p in record.parameters if p.kind != "axis"), parameters, strict=True)
        if p.kind != "word" and value != p.default
    ]
    return f"{record.name}{chr(39) * order}({', '.join([argument, *given])})"
