"""From a formula to a record that the engine runs like any of the catalogue's. Takes milliseconds, and compiles nothing."""

from __future__ import annotations

import dataclasses
import keyword
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import mpmath as mp

from actserve_server.activations.spec import Activation, Parameter, Traits
from actserve_server.formulas import tree
from actserve_server.formulas.compile import kernel_of, quick_of
from actserve_server.formulas.differentiate import derivative
from actserve_server.formulas.errors import FormulaError
from actserve_server.formulas.exact import evaluate
from actserve_server.formulas.parse import LONGEST, NAMES, parse
from actserve_server.formulas.rewrite import Rewrite, rewritten
from actserve_server.formulas.tree import Node

__all__ = ["MOST_PARAMETERS", "Definition", "define", "example"]

MOST_PARAMETERS = 16
_MOST_NODES = 2000
"""Of a formula and of its derivatives: what Numba compiles in a second or two."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Definition:
    """An activation of a user's own."""

    name: str
    description: str
    formula: str
    """As it was written."""
    derivative_formula: str
    """The user's own; empty where it is ours."""
    parameters: tuple[Parameter, ...]
    record: Activation
    """What the engine runs."""
    rewrites: tuple[Rewrite, ...]
    forward: Node
    """The formula in its most exact form."""
    derivative: Node
    """The derivative that is computed, likewise."""


def define(
    name: str,
    formula: str,
    parameters: Sequence[Parameter] = (),
    *,
    derivative_formula: str = "",
    description: str = "",
    longest: int = LONGEST,
) -> Definition:
    """An activation by a formula of x and of parameters, which have defaults.

    >>> define("team.swish", "x / (1 + exp(-beta * x))", [Parameter("beta", "", 1.0)]).rewrites[0].after
    'silu(x, beta=beta)'

    A derivative of one's own is compared with ours at many numbers. Raises FormulaError.
    """
    _check_parameters(parameters)
    names = [parameter.name for parameter in parameters]
    written = parse(formula, parameters, longest=longest)
    forward, notes = rewritten(written)
    slope = rewritten(derivative(forward))[0]
    if derivative_formula:
        own, more = rewritten(parse(derivative_formula, parameters, field="derivative_formula", longest=longest))
        _compare(own, slope, parameters, derivative_formula)
        slope, notes = own, (*notes, *more)
    curvature = derivative(slope)
    for what, node in (("formula", forward), ("derivative", slope), ("second derivative", curvature)):
        if (count := tree.size(node)) > _MOST_NODES:
            raise FormulaError(f"the {what} takes {count} operations, and may take {_MOST_NODES}")

    def truth(x: Any, values: Sequence[float], slopes: bool) -> Any:
        return evaluate(slope if slopes else forward, x, dict(zip(names, values, strict=True)))

    record = Activation(
        name=name,
        summary=description or f"f(x) = {formula.strip()}",
        reference="an activation of a user's own",
        formula=formula.strip(),
        derivative_formula=derivative_formula.strip() or tree.text(slope),
        forward=kernel_of(forward, names, "forward"),
        derivative=kernel_of(slope, names, "derivative"),
        range="",
        # `examine` finds them out.
        traits=Traits(monotonic=False, zero_centred=False, saturates="no", smooth=False),
        limits=(math.nan, math.nan, math.nan, math.nan),
        advice="",
        parameters=tuple(parameters),
        cancels=_cancels(forward, slope),
        quick=quick_of(forward, names) if not derivative_formula else None,
        truth=truth,
        second=kernel_of(curvature, names, "second"),
    )
    return Definition(name, description, formula, derivative_formula, tuple(parameters), record, notes, forward, slope)


def _cancels(forward: Node, slope: Node) -> tuple[Literal["forward", "derivative"], ...]:
    """Whatever a formula says may cancel; of the catalogue's own activations it is known."""
    if forward.op == "builtin" and forward.args[0] is tree.X:
        cancels: tuple[Literal["forward", "derivative"], ...] = forward.value[0].cancels
        return cancels
    return (*(("forward",) if _may_cancel(forward) else ()), *(("derivative",) if _may_cancel(slope) else ()))


_POSITIVE = ("exp", "sqrt", "abs", "cosh", "erfc", "gaussian", "erf_slope", "sech_squared")


def _may_cancel(node: Node) -> bool:
    """Whether something is subtracted that varies, or what is added may have another sign."""
    return any(
        part.depends and (part.op == "sub" or (part.op == "add" and not all(map(_is_positive, part.args))))
        for part in tree.walk(node)
    )


def _is_positive(node: Node) -> bool:
    match node.op:
        case "number":
            return bool(node.value >= 0)
        case "call" if node.value in ("power", "lower_power"):
            return _is_positive(node.args[0])
        case "call":
            return str(node.value) in _POSITIVE
        case "power":
            return bool(node.value % 2 == 0)
        case "add" | "mul" | "div":
            return all(map(_is_positive, node.args))
    return False


def example(parameter: Parameter) -> float:
    """The value at which a parameter is looked at: its default, or without one 1, or within bounds that exclude 1 their middle.

    >>> example(Parameter("beta", "", None, low=2.0, high=4.0))
    3.0
    """
    if parameter.default is not None:
        return float(parameter.default)
    if parameter.accepts(1.0):
        return 1.0
    low, high = parameter.low, parameter.high
    if math.isinf(low) or math.isinf(high):
        # The bounds exclude 1, so one of them is a number beside it.
        end = low if math.isfinite(low) else high
        beyond = end + math.copysign(max(1.0, abs(end) / 2), 1.0 if end == low else -1.0)
        return end if parameter.accepts(end) else beyond
    return low + (high / 2 - low / 2)


def _check_parameters(parameters: Iterable[Parameter]) -> None:
    seen: set[str] = set()
    for parameter in parameters:
        name = parameter.name
        field = f"parameters[{name[:40]!r}]"
        if not _NAME.fullmatch(name) or keyword.iskeyword(name):
            raise FormulaError(
                f"{name[:60]!r} is no name for a parameter: it takes a letter, and then up to 39 letters, digits and _",
                field=field,
            )
        if name in NAMES:
            raise FormulaError(
                f"{name} has a meaning of its own in formulas; call the parameter otherwise", field=field
            )
        if name in seen:
            raise FormulaError(f"the parameter {name} is there twice", field=field)
        seen.add(name)
        default = parameter.default
        if default is None and not parameter.accepts(example(parameter)):
            raise FormulaError(f"{name} must be {parameter.allowed()}, and there is none", field=field)
        if default is not None and not (
            isinstance(default, float) and parameter.low <= parameter.high and parameter.accepts(default)
        ):
            raise FormulaError(f"the default of {name} is {default}, and must be {parameter.allowed()}", field=field)
    if len(seen) > MOST_PARAMETERS:
        raise FormulaError(f"there are {len(seen)} parameters, and may be {MOST_PARAMETERS}", field="parameters")


_TRIED = (0.0, 1e-9, 0.03125, 0.1, 0.3, 0.5, 0.75, 1.0, 1.0625, 1.5, 2.0, 2.7, 3.3, 5.0, 6.1, 8.0, 13.0, 30.0)
_DIGITS = 40
_AGREE = 1e-9


def _compare(own: Node, ours: Node, parameters: Sequence[Parameter], text: str) -> None:
    """That a user's derivative is ours, at the parameters' defaults, but for single points such as kinks."""
    values: Mapping[str, Any] = {parameter.name: example(parameter) for parameter in parameters}
    wrong: list[tuple[float, float, float]] = []
    with mp.workdps(_DIGITS):
        for x in sorted({sign * number for number in _TRIED for sign in (-1, 1)}):
            here, there = (evaluate(node, x, values) for node in (own, ours))
            if mp.isnan(here) and mp.isnan(there):
                continue
            if mp.isnan(here) or mp.isnan(there) or abs(here - there) > _AGREE * (1 + abs(there)):
                wrong.append((x, float(here), float(there)))
    # At a kink each convention is as good as the other, and there the numbers beside it agree.
    if len(wrong) > 1 or (wrong and wrong[0][0] != round(wrong[0][0])):
        x, here, there = wrong[0]
        raise FormulaError(
            f"derivative_formula gives {here:.6g} at x = {x:g}, and the derivative of formula is {there:.6g} there",
            field="derivative_formula",
            text=text,
        )
