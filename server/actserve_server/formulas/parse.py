"""From text to a tree. The text comes from anyone, and is never executed.

It is looked at character by character first, and refused for its length, its depth or a sign that formulas do not have, before
Python's parser sees it; what that makes of the rest is copied, operation by operation, into a tree of our own (`tree`).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping

from actserve_server.activations import catalogue
from actserve_server.activations.spec import Activation, Parameter
from actserve_server.formulas import tree
from actserve_server.formulas.errors import FormulaError
from actserve_server.formulas.tree import Node

__all__ = ["LONGEST", "NAMES", "builtin_tree", "parse"]

LONGEST = 1000
"""Of a formula, in characters."""
_MOST_TOKENS = 500
_MOST_PARENTHESES = 40
"""How many may lie within one another."""
_DEEPEST = 150
"""How many operations may lie within one another: a sum is as deep as it has terms."""
_LONGEST_NAME = 40

_TOKEN = re.compile(
    r"[ \t\r\n]+|(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<sign>\*\*|<=|>=|==|!=|[-+*/<>(),=])"
)
_WORDS = ("if", "else", "and", "or", "not")

_ONE_ARGUMENT: Mapping[str, str] = {
    name: name
    for name in (
        *(
            "abs",
            "sign",
            "sqrt",
            "exp",
            "expm1",
            "log",
            "log1p",
            "tanh",
            "sinh",
            "cosh",
            "sin",
            "cos",
            "atan",
            "erf",
            "erfc",
        ),
    )
} | {"arctan": "atan"}
_OTHERS = ("min", "max", "clip", "where", "pow")
_ACTIVATIONS = tuple(r.name for r in catalogue.CATALOGUE if isinstance(r, Activation) and not r.indexed)
_CONSTANTS = {"pi": math.pi, "e": math.e}
NAMES = frozenset({"x", *_ONE_ARGUMENT, *_OTHERS, *_CONSTANTS, *_WORDS})
"""The names that mean something in every formula, so that no parameter may have them."""

_SIGNS: Mapping[type[ast.AST], Callable[[Node, Node], Node]] = {
    ast.Add: tree.add,
    ast.Sub: tree.sub,
    ast.Mult: tree.mul,
    ast.Div: tree.div,
}
_COMPARED: Mapping[type[ast.AST], str] = {
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}


def parse(text: str, parameters: Iterable[Parameter], *, field: str = "formula", longest: int = LONGEST) -> Node:
    """The tree of a formula of x and of parameters.

    >>> parse("x if x > 0 else alpha * (exp(x) - 1)", (Parameter("alpha", "", 1.0),))
    <x if x > 0 else alpha * (exp(x) - 1)>

    Raises FormulaError, which says what is wrong, where, and what is allowed.
    """
    _look_over(text, field, longest)
    reader = _Reader(text, {parameter.name: parameter for parameter in parameters}, field)
    try:
        # In parentheses, a formula may have several lines.
        body = ast.parse(f"({text})", mode="eval").body
    except SyntaxError as error:
        column = min(max((error.offset or 2) - 1, 1), len(text)) if error.lineno == 1 else None
        raise FormulaError(
            f"{field} is not complete, or has a sign too many", field=field, text=text, column=column
        ) from None
    except (MemoryError, RecursionError, ValueError):
        raise FormulaError(f"{field} is nested too deeply", field=field) from None
    return reader.number(body)


@functools.lru_cache(256)
def builtin_tree(record: Activation, parameters: tuple[float | str, ...], order: int) -> Node:
    """The formula of an activation of the catalogue, or of its derivative, with parameters put in."""
    text = record.derivative_formula if order else record.formula
    own = [parameter for parameter in record.parameters if parameter.kind != "axis"]
    words: dict[str, str] = {}
    values: dict[str, Node] = {}
    for parameter, value in zip(own, parameters, strict=True):
        if parameter.kind == "word":
            assert isinstance(value, float)
            words[parameter.name] = parameter.choices[int(value)]
        else:
            values[parameter.name] = tree.parameter(value) if isinstance(value, str) else tree.number(value)
    reader = _Reader(text, {parameter.name: parameter for parameter in own}, "formula", words)
    return tree.put(reader.number(ast.parse(text, mode="eval").body), tree.X, values)


def _look_over(text: str, field: str, longest: int) -> None:
    """Refuse what Python's parser should not be given."""
    if not text.strip():
        raise FormulaError(f"{field} is empty", field=field)
    if len(text) > longest:
        raise FormulaError(f"{field} has {len(text)} characters, and may have {longest}", field=field)

    def refuse(message: str, at: int) -> FormulaError:
        return FormulaError(f"{field}, column {at + 1}: {message}", field=field, text=text, column=at + 1)

    place = depth = count = 0
    while place < len(text):
        token = _TOKEN.match(text, place)
        if token is None:
            raise refuse(f"{_shown(text[place])} is not part of formulas{_hint(text, place)}", place)
        if len(token.group()) > _LONGEST_NAME and (token["name"] or token["number"]):
            raise refuse(f"a name or a number of more than {_LONGEST_NAME} characters", place)
        count += token.lastgroup is not None
        if count > _MOST_TOKENS:
            raise refuse(f"more than {_MOST_TOKENS} names, numbers and signs", place)
        depth += (token.group() == "(") - (token.group() == ")")
        if depth < 0:
            raise refuse("this parenthesis closes none", place)
        if depth > _MOST_PARENTHESES:
            raise refuse(f"more than {_MOST_PARENTHESES} parentheses within one another", place)
        place = token.end()
    if depth:
        raise refuse("a parenthesis is not closed", text.rindex("("))


def _shown(character: str) -> str:
    return repr(character) if character.isascii() else f"{character!a} (not ASCII)"


def _hint(text: str, place: int) -> str:
    hints = {
        ".": "; attributes are not allowed",
        "^": "; powers are written **",
        "[": "; there is no indexing",
        "%": "",
    }
    return hints.get(text[place], "")


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Copies what Python's parser found."""

    text: str
    parameters: Mapping[str, Parameter]
    field: str
    words: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of the catalogue's own formulas: parameters that are words, and the words that they are."""

    def refuse(self, message: str, node: ast.AST) -> FormulaError:
        """The error of something at a node's place."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 1)
        begin = sum(len(before) + 1 for before in self.text.split("\n")[: line - 1])
        column = max(begin + offset + (0 if line == 1 else 1), 1)
        return FormulaError(
            f"{self.field}, column {column}: {message}", field=self.field, text=self.text, column=column
        )

    def number(self, node: ast.expr, depth: int = 0) -> Node:
        """The tree of an expression; a condition counts 1 where it holds and else 0."""
        found = self.any(node, depth)
        return tree.where(found, tree.ONE, tree.ZERO) if found.op in tree.CONDITIONS else found

    def condition(self, node: ast.expr, depth: int) -> Node:
        """The tree of a condition."""
        found = self.any(node, depth)
        if found.op not in tree.CONDITIONS:
            raise self.refuse("a condition is wanted here, such as x > 0, and this is a number", node)
        return found

    def any(self, node: ast.expr, depth: int) -> Node:
        """The tree of a number or a condition."""
        if depth > _DEEPEST:
            raise self.refuse(f"more than {_DEEPEST} operations within one another", node)
        inner = depth + 1
        match node:
            case ast.Constant(value=bool()) | ast.Constant(value=None | str()):
                raise self.refuse(f"{node.value!r} is not part of formulas", node)
            case ast.Constant(value=int() | float()):
                return self._literal(node)
            case ast.Name(id=name):
                return self._name(name, node)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return tree.neg(self.number(operand, inner))
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return self.number(operand, inner)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return tree.compare("not", self.condition(operand, inner))
            case ast.BinOp(op=ast.Pow(), left=base, right=exponent):
                return self._power(self.number(base, inner), self.number(exponent, inner), exponent)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _SIGNS:
                return _SIGNS[type(op)](self.number(left, inner), self.number(right, inner))
            case ast.BoolOp(op=op, values=values):
                name = "and" if isinstance(op, ast.And) else "or"
                return tree.compare(name, *(self.condition(value, inner) for value in values))
            case ast.Compare():
                return self._compare(node, inner)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return tree.where(self.condition(test, inner), self.number(body, inner), self.number(orelse, inner))
            case ast.Call():
                return self._call(node, inner)
        raise self.refuse(
            "this is not part of formulas: they are made of numbers, x, parameters, operators and functions", node
        )

    def _literal(self, node: ast.Constant) -> Node:
        try:
            value = float(node.value)  # type: ignore[arg-type]
        except OverflowError:
            value = math.inf
        if math.isinf(value):
            raise self.refuse("this number is larger than any float64", node)
        return tree.number(value)

    def _name(self, name: str, node: ast.AST) -> Node:
        if name == "x":
            return tree.X
        if name in self.parameters:
            return tree.parameter(name)
        if name in _CONSTANTS:
            return tree.number(_CONSTANTS[name])
        known = [*self.parameters, "x", *_CONSTANTS]
        if name in NAMES or catalogue.find(name) is not None:
            raise self.refuse(f"{name} is a function, and wants its argument in parentheses", node)
        raise self.refuse(
            f"{name} is not known; there are {', '.join(known)}, and functions{self._near(name, known)}", node
        )

    def _near(self, name: str, known: Iterable[str]) -> str:
        near = difflib.get_close_matches(name, [*known, *_ONE_ARGUMENT, *_OTHERS, *_ACTIVATIONS])
        return f"; did you mean {' or '.join(near[:3])}?" if near else ""

    def _power(self, base: Node, exponent: Node, node: ast.AST) -> Node:
        if exponent.op == "number" and abs(exponent.value) > tree.LARGEST_EXPONENT:
            raise self.refuse(f"an exponent of {exponent.value:g}; it may be {tree.LARGEST_EXPONENT} at most", node)
        return tree.real_power(base, exponent)

    def _compare(self, node: ast.Compare, depth: int) -> Node:
        match node:
            case ast.Compare(left=ast.Name(id=name), ops=[ast.Eq()], comparators=[ast.Constant(value=str(word))]) if (
                name in self.words
            ):
                return tree.truth(self.words[name] == word)
        sides = [self.number(side, depth) for side in (node.left, *node.comparators)]
        found = [
            _decided(_COMPARED[type(op)], left, right)
            for op, left, right in zip(node.ops, sides, sides[1:], strict=False)
            if type(op) in _COMPARED
        ]
        if len(found) != len(node.ops):
            raise self.refuse("comparisons are <, <=, >, >=, == and !=", node)
        return tree.compare("and", *found)

    def _call(self, node: ast.Call, depth: int) -> Node:
        if not isinstance(node.func, ast.Name):
            raise self.refuse("only functions can be called, by their names", node)
        name = node.func.id
        if name in self.parameters or name == "x":
            raise self.refuse(f"{name} is a number and cannot be called", node)
        if name in _ONE_ARGUMENT and not (len(node.args) == 1 and not node.keywords):
            raise self.refuse(f"{name} takes one argument", node)
        if name in _ONE_ARGUMENT:
            return tree.call(_ONE_ARGUMENT[name], self.number(node.args[0], depth))
        if name in _OTHERS:
            if node.keywords:
                raise self.refuse(f"{name} takes no argument by name", node)
            return self._other(name, node, depth)
        record = catalogue.find(name)
        if record is None:
            raise self.refuse(f"there is no function {name}{self._near(name, ())}", node)
        if not isinstance(record, Activation):
            raise self.refuse(f"{name} does not work element by element, and formulas do", node)
        if record.indexed:
            raise self.refuse(f"{name} draws at random, and formulas do not", node)
        if len(node.args) != 1:
            raise self.refuse(f"{name} takes one argument, and its parameters by name", node)
        return tree.builtin(record, self._parameters(record, node), 0, self.number(node.args[0], depth))

    def _other(self, name: str, node: ast.Call, depth: int) -> Node:
        arity = {"clip": 3, "where": 3, "pow": 2}.get(name)
        if (arity is not None and len(node.args) != arity) or len(node.args) < 2:
            wanted = "two arguments or more" if arity is None else f"{arity} arguments"
            raise self.refuse(f"{name} takes {wanted}", node)
        if name == "where":
            condition, then, otherwise = node.args
            return tree.where(self.condition(condition, depth), self.number(then, depth), self.number(otherwise, depth))
        args = [self.number(arg, depth) for arg in node.args]
        if name == "pow":
            return self._power(args[0], args[1], node.args[1])
        if name == "clip":
            return tree.call("min", tree.call("max", args[0], args[1]), args[2])
        found = args[0]
        for arg in args[1:]:
            found = tree.call(name, found, arg)
        return found

    def _parameters(self, record: Activation, node: ast.Call) -> tuple[float | str, ...]:
        """What a built-in's kernel is given: its defaults, and what the formula says instead."""
        own = {parameter.name: parameter for parameter in record.parameters if parameter.kind != "axis"}
        values: dict[str, float | str] = {}
        for keyword in node.keywords:
            parameter = own.get(keyword.arg or "")
            if parameter is None or parameter.kind not in ("number", "integer"):
                raise self.refuse(
                    f"{record.name} has no parameter {keyword.arg}; it has {', '.join(own) or 'none'}", node
                )
            value = self.number(keyword.value)
            if value.op == "parameter":
                given = self.parameters[value.value]
                inside = parameter.low <= given.low and given.high <= parameter.high and not parameter.nonzero
                if not inside or (parameter.low_open and not given.low_open and given.low == parameter.low):
                    raise self.refuse(
                        f"{parameter.name} of {record.name} must be {parameter.allowed()}, and {given.name} may be {given.allowed()}",
                        keyword.value,
                    )
                values[parameter.name] = value.value
            elif value.op == "number":
                if not parameter.accepts(value.value):
                    raise self.refuse(f"{parameter.name} of {record.name} must be {parameter.allowed()}", keyword.value)
                values[parameter.name] = value.value
            else:
                raise self.refuse(
                    f"{parameter.name} of {record.name} may be a number or a parameter's name here", keyword.value
                )
        return tuple(values.get(name, _default(parameter)) for name, parameter in own.items())


def _default(parameter: Parameter) -> float:
    if parameter.kind == "word":
        return 0.0
    return math.nan if parameter.default is None else float(parameter.default)


def _decided(op: str, left: Node, right: Node) -> Node:
    """A comparison, or what it comes to where both sides are numbers."""
    if left.op == right.op == "number":
        a, b = left.value, right.value
        return tree.truth({"lt": a < b, "le": a <= b, "gt": a > b, "ge": a >= b, "eq": a == b, "ne": a != b}[op])
    return tree.compare(op, left, right)
