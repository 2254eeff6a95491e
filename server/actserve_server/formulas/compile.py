"""From trees to kernels: plain functions in the compiler's part of Python, each node computed once.

The source is written here, operation by operation, from a tree; nothing of a formula's text is in it but the names of parameters,
which are looked up in a list.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

from actserve_server import elementary
from actserve_server.activations.functions import FUNCTIONS
from actserve_server.activations.spec import Exact, Kernel, Quick, kernel
from actserve_server.elementary import working
from actserve_server.formulas import tree
from actserve_server.formulas.tree import Node

__all__ = ["kernel_of", "quick_of"]

_BINARY = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
}


def _literal(value: float) -> str:
    """A number as Python reads it; infinity and NaN, which the catalogue's formulas may have for parameters, have no sign of their own."""
    if math.isnan(value):
        return "(1e999 - 1e999)"
    return repr(value).replace("inf", "1e999")


class _Source:
    """The lines of a function, and what its names mean."""

    def __init__(self, parameters: Sequence[str]) -> None:
        self._arguments = {name: f"p{index}" for index, name in enumerate(parameters)}
        self.names: dict[str, Any] = {"working": working}
        self.lines: list[str] = []

    def _constant(self, value: float) -> str:
        """A parameter of a built-in, which keeps its digits in every precision."""
        name = f"c{len(self.names)}"
        self.names[name] = Exact(value)
        return name

    def _function(self, name: str, function: Any) -> str:
        if name in ("min", "max", "abs"):
            return name
        if function is not getattr(elementary, name, None):
            name = f"f_{name}"  # a name of its own, as what is called like a primitive is bound to that
        self.names[name] = function
        return name

    def expression(self, node: Node, args: list[str]) -> str:
        """One node, given the names of its operands."""
        match node.op:
            case "number":
                return _literal(node.value)
            case "x":
                return "x"
            case "parameter":
                return f"working({self._arguments[node.value]})"
            case "neg":
                return f"-{args[0]}"
            case "not":
                return f"({args[0]} == False)"
            case "true" | "false":
                return "(0.0 == 0.0)" if node.op == "true" else "(0.0 == 1.0)"
            case "where":
                return f"{args[1]} if {args[0]} else {args[2]}"
            case "power":
                return self._power(args[0], node.value)
            case "call":
                return f"{self._function(node.value, FUNCTIONS[node.value])}({', '.join(args)})"
            case "builtin":
                return self._builtin(node, args[0])
            case _:
                return f" {_BINARY[node.op]} ".join(args)

    def _power(self, base: str, exponent: int) -> str:
        """By squaring; each square is a line."""
        name, factors = base, []
        while exponent:
            if exponent & 1:
                factors.append(name)
            exponent >>= 1
            if exponent:
                square = f"t{len(self.lines)}"
                self.lines.append(f"{square} = {name} * {name}")
                name = square
        return " * ".join(factors)

    def _builtin(self, node: Node, argument: str) -> str:
        record, parameters, order = node.value
        function = record.derivative if order else record.forward
        return self.called(f"{record.name}_{order}", function, parameters, argument)

    def called(self, name: str, function: Kernel, parameters: tuple[float | str, ...], *arguments: str) -> str:
        """A call of an activation's kernel."""
        given = [self._arguments[p] if isinstance(p, str) else self._constant(p) for p in parameters]
        return f"{self._function(name, function)}({', '.join([*arguments, *given])})"

    def add(self, node: Node, args: list[str]) -> str:
        """Another line; returns its name."""
        said = self.expression(node, args)
        name = f"t{len(self.lines)}"
        self.lines.append(f"{name} = {said}")
        return name


def kernel_of(node: Node, parameters: Sequence[str], name: str) -> Kernel:
    """A kernel (x, *parameters) that computes a tree; equal trees give equal kernels, wherever and whenever.

    >>> kernel_of(parse("x * x + 1", ()), (), "square")
    <function square at ...>
    """
    source = _Source(parameters)
    named: dict[int, str] = {}
    for current in tree.walk(node):
        args = [named[id(arg)] for arg in current.args]
        atom = current.op in ("number", "x")
        named[id(current)] = source.expression(current, args) if atom else source.add(current, args)
    arguments = ", ".join(["x", *(f"p{index}" for index in range(len(parameters)))])
    body = "".join(f"    {line}\n" for line in source.lines)
    # A number must be one of the tensor's precision, also where it does not depend on x.
    text = (
        f"def kernel({arguments}):\n{body}    return working({named[id(node)]})\n"
        if not node.depends
        else (f"def kernel({arguments}):\n{body}    return {named[id(node)]}\n")
    )
    return _function(text, source.names, name)


def _function(text: str, names: dict[str, Any], name: str) -> Callable[..., Any]:
    exec(compile(text, f"<{name}>", "exec"), names)  # noqa: S102  # written above, from a tree of our own
    function = names["kernel"]
    assert isinstance(function, types.FunctionType)
    function.__name__ = function.__qualname__ = name
    return kernel(function)


def quick_of(node: Node, parameters: Sequence[str]) -> Quick | None:
    """The shorter kernels of a formula that is an activation of the catalogue of x itself; of others there are none."""
    if node.op != "builtin" or node.args[0] is not tree.X or node.value[2] != 0:
        return None
    record, given, _ = node.value
    quick: Quick | None = record.quick
    if quick is None:
        return None

    def passed_on(function: Kernel, *of: str) -> Kernel:
        source = _Source(parameters)
        arguments = ", ".join([*of, *(f"p{index}" for index in range(len(parameters)))])
        text = f"def kernel({arguments}):\n    return {source.called('inner', function, given, *of)}\n"
        return _function(text, source.names, function.__name__)

    return Quick(
        passed_on(quick.reach),
        None if quick.forward is None else passed_on(quick.forward, "x"),
        None if quick.derivative is None else passed_on(quick.derivative, "x"),
    )
