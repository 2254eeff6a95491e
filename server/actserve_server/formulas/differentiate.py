"""The derivative of a tree by x, a tree again: exact, by the rules of school, each in its stable form.

At a kink it is that of the branch to which the point belongs; where two branches meet in `max`, `min` or `clip`, that of the
constant one, as relu' is 0 at 0; and where a root, or a power below 1, is taken of what has a corner or does not vary at 0, it is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actserve_server.formulas import tree
from actserve_server.formulas.parse import builtin_tree
from actserve_server.formulas.tree import ONE, ZERO, Node

__all__ = ["derivative"]


def _sqrt_slope(u: Node) -> Node:
    return tree.div(tree.number(0.5), tree.call("sqrt", u))


_SLOPES: Mapping[str, Callable[[Node], Node]] = {
    "sqrt": _sqrt_slope,
    "exp": lambda u: tree.call("exp", u),
    "expm1": lambda u: tree.call("exp", u),
    "log": lambda u: tree.div(ONE, u),
    "log1p": lambda u: tree.div(ONE, tree.add(ONE, u)),
    "tanh": lambda u: tree.call("sech_squared", u),
    "sech_squared": lambda u: tree.mul(tree.number(-2), tree.mul(tree.call("tanh", u), tree.call("sech_squared", u))),
    "cosh": lambda u: tree.call("sinh", u),
    "sinh": lambda u: tree.call("cosh", u),
    "sin": lambda u: tree.call("cos", u),
    "cos": lambda u: tree.neg(tree.call("sin", u)),
    "atan": lambda u: tree.div(ONE, tree.add(ONE, tree.power(u, 2))),
    "erf": lambda u: tree.call("erf_slope", u),
    "erfc": lambda u: tree.neg(tree.call("erf_slope", u)),
    "erf_slope": lambda u: tree.mul(tree.number(-2), tree.mul(u, tree.call("erf_slope", u))),
    "gaussian": lambda u: tree.mul(tree.number(-2), tree.mul(u, tree.call("gaussian", u))),
    "abs": lambda u: tree.call("sign", u),
    "sign": lambda u: ZERO,
}
"""The derivative of each function by its argument."""


def derivative(node: Node) -> Node:
    """The derivative.

    >>> derivative(parse("x * sigmoid(x)", ()))
    <sigmoid(x) + x * sigmoid'(x)>
    """
    done: dict[int, Node] = {}
    for current in tree.walk(node):
        done[id(current)] = _slope(current, [done[id(arg)] for arg in current.args]) if current.depends else ZERO
    return done[id(node)]


def _slope(node: Node, slopes: list[Node]) -> Node:
    args = node.args
    match node.op:
        case "x":
            return ONE
        case "add":
            return tree.add(*slopes)
        case "sub":
            return tree.sub(*slopes)
        case "neg":
            return tree.neg(*slopes)
        case "mul":
            return tree.add(tree.mul(slopes[0], args[1]), tree.mul(args[0], slopes[1]))
        case "div" if not args[1].depends:
            return tree.div(slopes[0], args[1])
        case "div" if not args[0].depends and args[1].op == "power":
            # Of c/u^n: -n c/u^(n + 1), where the general rule has 0 * inf far out, and inf * 0 close to 0.
            (u,), n = args[1].args, args[1].value
            inner = derivative(u)
            return tree.neg(tree.mul(tree.div(tree.mul(tree.number(n), args[0]), tree.power(u, n + 1)), inner))
        case "div" if not args[0].depends:
            # -u v'/v^2 as a quotient of quotients, which overflows later.
            return tree.neg(tree.mul(tree.div(node, args[1]), slopes[1]))
        case "div":
            return tree.div(tree.sub(slopes[0], tree.mul(node, slopes[1])), args[1])
        case "power":
            outer = tree.mul(tree.number(node.value), tree.power(args[0], node.value - 1))
            return tree.mul(outer, slopes[0])
        case "where":
            return tree.where(args[0], slopes[1], slopes[2])
        case "builtin":
            return tree.mul(_builtin_slope(node), slopes[0])
        case "call" if node.value in ("min", "max"):
            return _extreme(node.value, args, slopes)
        case "call" if node.value == "lower_power":
            return _power_slope(node, args[0], tree.sub(args[1], ONE), slopes)
        case "call" if node.value == "power":
            return _power_slope(node, args[0], args[1], slopes)
        case "call" if node.value == "sqrt" and _may_stand_still(args[0]):
            return _nothing_where_still(tree.mul(_sqrt_slope(args[0]), slopes[0]), slopes[0])
        case "call":
            return tree.mul(_SLOPES[node.value](args[0]), slopes[0])
    return ZERO  # of conditions, which do not vary but for jumps


def _extreme(name: str, args: tuple[Node, ...], slopes: list[Node]) -> Node:
    op = "gt" if name == "max" else "lt"
    if slopes[0] is ZERO:
        return tree.where(tree.compare(op, args[1], args[0]), slopes[1], slopes[0])
    return tree.where(tree.compare(op, args[0], args[1]), slopes[0], slopes[1])


def _may_stand_still(node: Node) -> bool:
    """Whether it has a corner, or stretches where it does not vary, so that it may be 0 there."""
    return node.op in ("where", "builtin") or (node.op == "call" and node.value in ("abs", "min", "max"))


def _nothing_where_still(product: Node, slope: Node) -> Node:
    """A product with a slope, 0 where that is 0: there the other factor, a root's slope, may be infinite."""
    return tree.where(tree.compare("eq", slope, ZERO), ZERO, product) if slope.depends else product


def _power_slope(node: Node, base: Node, exponent: Node, slopes: list[Node]) -> Node:
    """Of the node, which is a power of a base."""
    by_base = ZERO
    if slopes[0] is not ZERO:
        by_base = tree.mul(tree.mul(exponent, tree.lower_power(base, exponent)), slopes[0])
        if _may_stand_still(base) and not (exponent.op == "number" and exponent.value > 1):
            by_base = _nothing_where_still(by_base, slopes[0])
    by_exponent = tree.mul(tree.mul(node, tree.call("log", base)), slopes[1]) if slopes[1] is not ZERO else ZERO
    return tree.add(by_base, by_exponent)


def _builtin_slope(node: Node) -> Node:
    record, parameters, order = node.value
    if order == 0:
        return tree.builtin(record, parameters, 1, node.args[0])
    return tree.put(derivative(builtin_tree(record, parameters, 1)), node.args[0], {})
