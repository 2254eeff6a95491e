"""The second derivative of an elementwise activation, from the formula of its first.

The formula is differentiated as text, by the rules of school, and what comes out is made a kernel. It is as exact as a naive
evaluation in float64 is: to some ulps of the largest term, and not at all where an intermediate result overflows; the modes
that use it mend that from the first derivative. At a jump of the first derivative, where there is no second, it is that of
the branch to which the point belongs.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import math
import types
from collections.abc import Callable
from typing import Any

from actserve_server.activations.functions import FUNCTIONS
from actserve_server.activations.spec import Activation, Kernel, kernel

__all__ = ["second_derivative"]


# The derivative of each by its argument, as a formula of u.
_RULES = {
    "sqrt": "1 / (2 * sqrt(u))",
    "exp": "exp(u)",
    "expm1": "exp(u)",
    "log": "1 / u",
    "log1p": "1 / (1 + u)",
    "tanh": "1 / cosh(u)**2",
    "cosh": "sinh(u)",
    "sinh": "cosh(u)",
    "sin": "cos(u)",
    "cos": "-sin(u)",
    "atan": "1 / (1 + u**2)",
    "erf": "2 / sqrt(pi) * exp(-u**2)",
    "erfc": "-2 / sqrt(pi) * exp(-u**2)",
    "abs": "sign(u)",
    "sign": "0",
}
_RULE_TREES = {name: ast.parse(rule, mode="eval").body for name, rule in _RULES.items()}

_ZERO, _ONE = ast.Constant(0.0), ast.Constant(1.0)


class _Unknown(Exception):
    """A formula that is not written in what is understood here."""


def _is(node: ast.expr, number: float) -> bool:
    return isinstance(node, ast.Constant) and node.value == number


def _sum(left: ast.expr, right: ast.expr) -> ast.expr:
    if _is(left, 0):
        return right
    return left if _is(right, 0) else ast.BinOp(left, ast.Add(), right)


def _difference(left: ast.expr, right: ast.expr) -> ast.expr:
    if _is(right, 0):
        return left
    return _negative(right) if _is(left, 0) else ast.BinOp(left, ast.Sub(), right)


def _negative(node: ast.expr) -> ast.expr:
    return node if _is(node, 0) else ast.UnaryOp(ast.USub(), node)


def _product(left: ast.expr, right: ast.expr) -> ast.expr:
    if _is(left, 0) or _is(right, 0):
        return _ZERO
    if _is(left, 1):
        return right
    return left if _is(right, 1) else ast.BinOp(left, ast.Mult(), right)


def _quotient(left: ast.expr, right: ast.expr) -> ast.expr:
    return _ZERO if _is(left, 0) else ast.BinOp(left, ast.Div(), right)


def _choice(test: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.expr:
    return then if ast.dump(then) == ast.dump(otherwise) else ast.IfExp(test, then, otherwise)


def _derivative(node: ast.expr) -> ast.expr:
    """By x."""
    match node:
        case ast.Constant():
            return _ZERO
        case ast.Name(id="x"):
            return _ONE
        case ast.Name():
            return _ZERO
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _negative(_derivative(operand))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _sum(_derivative(left), _derivative(right))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _difference(_derivative(left), _derivative(right))
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _sum(_product(_derivative(left), right), _product(left, _derivative(right)))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            # (u/v)' = (u' - (u/v) v')/v, which overflows later than with v squared.
            return _quotient(_difference(_derivative(left), _product(node, _derivative(right))), right)
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int(exponent))) if exponent >= 1:
            lower = base if exponent == 2 else ast.BinOp(base, ast.Pow(), ast.Constant(exponent - 1))
            slope = _ONE if exponent == 1 else _product(ast.Constant(float(exponent)), lower)
            return _product(slope, _derivative(base))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _choice(test, _derivative(body), _derivative(orelse))
        case ast.Call(func=ast.Name(id="max"), args=[left, right]):
            return _choice(ast.Compare(left, [ast.Gt()], [right]), _derivative(left), _derivative(right))
        case ast.Call(func=ast.Name(id="min"), args=[left, right]):
            return _choice(ast.Compare(left, [ast.Lt()], [right]), _derivative(left), _derivative(right))
        case ast.Call(func=ast.Name(id=name), args=[argument]) if name in _RULES:
            inner = _derivative(argument)
            return _product(_Put(argument).visit(_copy(_RULE_TREES[name])), inner) if not _is(inner, 0) else _ZERO
    raise _Unknown(ast.unparse(node))


def _copy(node: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(node), mode="eval").body


class _Put(ast.NodeTransformer):
    """Puts an expression in place of u."""

    def __init__(self, argument: ast.expr) -> None:
        self._argument = argument

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self._argument if node.id == "u" else node


class _AsKernel(ast.NodeTransformer):
    """Turns a formula into what kernels are written in: floats, powers as products, words as their indices."""

    def __init__(self, record: Activation) -> None:
        self._words = {p.name: p.choices for p in record.parameters if p.kind == "word"}
        self._names = {"x", *FUNCTIONS, *(p.name for p in record.parameters if p.kind not in ("axis", "seed"))}

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id == "pi":
            return ast.Constant(math.pi)
        if node.id not in self._names:
            raise _Unknown(node.id)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, bool) or not isinstance(node.value, (int, float)):
            raise _Unknown(repr(node.value))
        return ast.Constant(float(node.value))

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if not isinstance(node.op, ast.Pow):
            return self.generic_visit(node)
        exponent = node.right.value if isinstance(node.right, ast.Constant) else None
        if exponent == 1:
            return self.visit(node.left)  # type: ignore[no-any-return]
        if exponent not in (2, 3, 4):
            raise _Unknown(ast.unparse(node))
        return ast.Call(ast.Name(f"power_{exponent}"), [self.visit(node.left)], [])

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        match node:
            case ast.Compare(left=ast.Name(id=name), comparators=[ast.Constant(value=str(choice))]) if (
                name in self._words
            ):
                index = float(self._words[name].index(choice))
                return ast.Compare(node.left, node.ops, [ast.Constant(index)])
        return self.generic_visit(node)


@functools.lru_cache(1024)
def second_derivative(record: Activation) -> Activation | None:
    """The record with f'' where its f' was, and nothing but that fit for use; None where f' is beyond what is understood here."""
    if record.second is not None:
        return _of(record, record.second)
    try:
        tree = _AsKernel(record).visit(_derivative(ast.parse(record.derivative_formula, mode="eval").body))
    except _Unknown:
        return None
    arguments = ["x", *(["index"] if record.indexed else [])]
    for parameter in record.parameters:
        match parameter.kind:
            case "axis":
                continue
            case "seed":
                arguments += [f"{parameter.name}_high", f"{parameter.name}_low"]
            case _:
                arguments.append(parameter.name)
    source = (
        f"def second_derivative({', '.join(arguments)}):\n    return {ast.unparse(ast.fix_missing_locations(tree))}\n"
    )
    names: dict[str, Any] = {
        name: function for name, function in FUNCTIONS.items() if name not in ("abs", "min", "max")
    }
    exec(compile(source, f"<second derivative of {record.name}>", "exec"), names)  # noqa: S102  # of a record's formula, never of input
    function: Callable[..., Any] = kernel(names["second_derivative"])
    assert isinstance(function, types.FunctionType)
    return _of(record, function)


def _of(record: Activation, second: Kernel) -> Activation:
    return dataclasses.replace(
        record,
        name=f"{record.name}-second",
        derivative=second,
        quick=None,
        gradients=(),
        cancels=(),
    )
