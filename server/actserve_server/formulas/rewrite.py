"""Says the same more exactly: formulas that lose digits, or overflow, in forms that do not, where they are equal for every number."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from actserve_server.activations.gated_by_softplus import MISH
from actserve_server.activations.gated_by_x import GELU, SILU
from actserve_server.activations.sigmoids import SIGMOID
from actserve_server.activations.soft_rectifiers import SOFTPLUS
from actserve_server.activations.spec import Activation
from actserve_server.activations.trigonometric import COS, SIN
from actserve_server.formulas import tree
from actserve_server.formulas.tree import ONE, Node

__all__ = ["Rewrite", "rewritten"]


@dataclasses.dataclass(frozen=True, slots=True)
class Rewrite:
    """What was said otherwise than it was written."""

    before: str
    after: str
    reason: str


def _plain(record: Activation, argument: Node) -> Node:
    """An activation of the catalogue with its defaults."""
    parameters = tuple(float(p.default) for p in record.parameters if p.kind != "axis" and p.default is not None)
    return tree.builtin(record, parameters, 0, argument)


def _is(node: Node, name: str) -> bool:
    return node.op == "call" and node.value == name


def _is_plain(node: Node, record: Activation) -> bool:
    return node.op == "builtin" and node is _plain(record, node.args[0])


def _log(node: Node) -> Node | None:
    """log(1 + y) is log1p(y)."""
    if not _is(node, "log"):
        return None
    (inner,) = node.args
    if inner.op == "add" and ONE in inner.args:
        return tree.call("log1p", inner.args[1] if inner.args[0] is ONE else inner.args[0])
    return tree.call("log1p", tree.neg(inner.args[1])) if inner.op == "sub" and inner.args[0] is ONE else None


def _expm1(node: Node) -> Node | None:
    """exp(y) - 1 is expm1(y)."""
    match node:
        case Node(op="sub", args=(left, right)) if right is ONE and _is(left, "exp"):
            return tree.call("expm1", left.args[0])
        case Node(op="sub", args=(left, right)) if left is ONE and _is(right, "exp"):
            return tree.neg(tree.call("expm1", right.args[0]))
        case Node(op="add", args=(left, right)) if left is tree.number(-1) and _is(right, "exp"):
            return tree.call("expm1", right.args[0])
    return None


def _one_and_exp(node: Node) -> Node | None:
    """y, where the node is 1 + exp(y)."""
    if node.op != "add" or ONE not in node.args:
        return None
    other = node.args[1] if node.args[0] is ONE else node.args[0]
    return other.args[0] if _is(other, "exp") else None


def _sigmoid(node: Node) -> Node | None:
    """1/(1 + exp(-y)) is sigmoid(y), z/(1 + exp(-y)) is z times that, and z/(1 + exp(-z)) is silu(z)."""
    if node.op != "div":
        return None
    over, under = node.args
    y = _one_and_exp(under)
    if y is None:
        return None
    if over is ONE:
        return _plain(SIGMOID, tree.neg(y))
    if over.op == "call" and over.value == "exp" and over.args[0] is y:
        return _plain(SIGMOID, y)
    if tree.neg(y) is over:
        return _plain(SILU, over)
    return tree.mul(over, _plain(SIGMOID, tree.neg(y)))


def _softplus(node: Node) -> Node | None:
    """log(1 + exp(y)) is softplus(y)."""
    if _is(node, "log1p") and _is(node.args[0], "exp"):
        return _plain(SOFTPLUS, node.args[0].args[0])
    return None


def _silu(node: Node) -> Node | None:
    """y sigmoid(y) is silu(y), and y tanh(softplus(y)) is mish(y)."""
    if node.op != "mul":
        return None
    for y, other in (node.args, node.args[::-1]):
        if _is_plain(other, SIGMOID) and other.args[0] is y:
            return _plain(SILU, y)
        if _is(other, "tanh") and _is_plain(other.args[0], SOFTPLUS) and other.args[0].args[0] is y:
            return _plain(MISH, y)
    return None


def _swish(node: Node) -> Node | None:
    """y sigmoid(b y) is silu(y) with beta = b, where b is a number or a parameter."""
    if node.op != "mul":
        return None
    for y, other in (node.args, node.args[::-1]):
        if not _is_plain(other, SIGMOID):
            continue
        (inner,) = other.args
        for beta, factor in (inner.args, inner.args[::-1]) if inner.op == "mul" else ():
            if factor is y and beta.op in ("number", "parameter"):
                return tree.builtin(SILU, (beta.value,), 0, y)
    return None


def _tanh(node: Node) -> Node | None:
    """(exp(y) - exp(-y))/(exp(y) + exp(-y)) is tanh(y)."""
    match node:
        case Node(op="div", args=(Node(op="sub", args=(a, b)), Node(op="add", args=(c, d)))) if a is c and b is d:
            if _is(a, "exp") and _is(b, "exp") and tree.neg(a.args[0]) is b.args[0]:
                return tree.call("tanh", a.args[0])
    return None


def _erfc(node: Node) -> Node | None:
    """1 + erf(y) is erfc(-y), and 1 - erf(y) is erfc(y)."""
    if node.op not in ("add", "sub") or ONE not in node.args or (node.op == "sub" and node.args[0] is not ONE):
        return None
    other = node.args[1] if node.args[0] is ONE else node.args[0]
    if not _is(other, "erf"):
        return None
    return tree.call("erfc", other.args[0] if node.op == "sub" else tree.neg(other.args[0]))


def _factors(node: Node) -> tuple[float, list[Node]]:
    """A product as a number and all else."""
    match node:
        case Node(op="number", value=value):
            return value, []
        case Node(op="neg", args=(inner,)):
            number, rest = _factors(inner)
            return -number, rest
        case Node(op="mul", args=(left, right)):
            (a, some), (b, others) = _factors(left), _factors(right)
            return a * b, some + others
        case Node(op="div", args=(left, right)):
            (a, some), (b, others) = _factors(left), _factors(right)
            if b and not others:
                return a / b, some
        case Node(op="call", value="sqrt", args=(Node(op="number", value=value),)) if value > 0:
            return math.sqrt(value), []
    return 1.0, [node]


def _gelu(node: Node) -> Node | None:
    """y erfc(-y/sqrt(2))/2 is gelu(y)."""
    if node.op not in ("mul", "div"):
        return None
    half, factors = _factors(node)
    if half != 0.5 or len(factors) != 2:
        return None
    for y, other in (factors, factors[::-1]):
        if _is(other, "erfc"):
            scale, inner = _factors(other.args[0])
            if inner == [y] and abs(scale + math.sqrt(0.5)) <= 2.0**-52:
                return _plain(GELU, y)
    return None


def _gaussian(node: Node) -> Node | None:
    """exp(-u^2) with what rounding takes from u^2."""
    match node:
        case Node(op="call", value="exp", args=(Node(op="neg", args=(Node(op="power", value=2, args=(u,)),)),)):
            return tree.call("gaussian", u)
    return None


def _wave(node: Node) -> Node | None:
    """sin(b y), or of y, as the catalogue's, which knows the product exactly."""
    if not (_is(node, "sin") or _is(node, "cos")):
        return None
    record, (inner,) = (SIN if node.value == "sin" else COS), node.args
    if inner.op == "mul":
        for factor, y in (inner.args, inner.args[::-1]):
            if factor.op in ("number", "parameter"):
                return tree.builtin(record, (factor.value,), 0, y)
    return tree.builtin(record, (1.0,), 0, inner)


_RULES: tuple[tuple[Callable[[Node], Node | None], str], ...] = (
    (_tanh, "the quotient is NaN where the exponentials overflow"),
    (_log, "1 + y rounds y away where it is small"),
    (_expm1, "the difference cancels where y is small"),
    (_sigmoid, "the quotient loses digits on the left"),
    (_softplus, "the exponential overflows, and is rounded away on the left"),
    (_silu, "it keeps its digits far to the left"),
    (_swish, "it keeps its digits far to the left"),
    (_erfc, "the sum cancels where erf is near to 1 or -1"),
    (_gelu, "it keeps its digits far to the left"),
    (_gaussian, "the square is rounded, and far out that is many units of the result"),
    (_wave, "the product is rounded, and for large numbers that is many units of the result"),
)


def rewritten(node: Node) -> tuple[Node, tuple[Rewrite, ...]]:
    """The tree in its most exact form, and what was changed.

    >>> rewritten(parse("log(1 + exp(x))", ()))[0]
    <softplus(x)>
    """
    notes: list[Rewrite] = []

    def change(current: Node) -> Node:
        while True:
            for rule, reason in _RULES:
                after = rule(current)
                if after is not None and after is not current:
                    notes.append(Rewrite(tree.text(current, 200), tree.text(after, 200), reason))
                    current = after
                    break
            else:
                return current

    return tree.map_tree(node, change), tuple(dict.fromkeys(notes))
