"""Derivatives, rewrites, kernels and bounds of formulas, held to mpmath."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import mpmath as mp
import numpy as np
import pytest
from actserve_server.activations import formula
from actserve_server.activations.catalogue import CATALOGUE
from actserve_server.activations.spec import Activation, Parameter
from actserve_server.formulas import Definition, define
from actserve_server.formulas.differentiate import derivative
from actserve_server.formulas.exact import evaluate
from actserve_server.formulas.intervals import Interval, bounds
from actserve_server.formulas.parse import parse
from actserve_server.formulas.rewrite import rewritten
from actserve_server.formulas.tree import Node, walk
from actserve_server.kernels import compiler
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
PARAMETERS = (Parameter("a", "", 0.75), Parameter("b", "", -1.5))
VALUES = {"a": 0.75, "b": -1.5}
QUICK = settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))

ATOMS = st.sampled_from(["x", "x", "x", "a", "b", "0.5", "2", "-1.25", "pi"])
ONE = [
    "exp",
    "expm1",
    "log",
    "log1p",
    "sqrt",
    "tanh",
    "sinh",
    "cosh",
    "sin",
    "cos",
    "arctan",
    "erf",
    "erfc",
    "abs",
    "sign",
]
ONE += ["sigmoid", "gelu", "softplus", "elu", "silu"]


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(st.sampled_from("+-*/"), inner, inner).map(lambda t: f"({t[1]} {t[0]} {t[2]})"),
        st.tuples(st.sampled_from(ONE), inner).map(lambda t: f"{t[0]}({t[1]})"),
        st.tuples(inner, st.sampled_from([2, 3])).map(lambda t: f"({t[0]})**{t[1]}"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        st.tuples(inner, inner, st.sampled_from("<>"), inner).map(lambda t: f"({t[0]} if x {t[2]} {t[1]} else {t[3]})"),
        st.tuples(inner, st.sampled_from(["a", "b", "0.3", "-2.5", "1.5"])).map(lambda t: f"abs({t[0]})**{t[1]}"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]})**({t[1]})"),
        inner.map(lambda t: f"-{t}"),
        inner.map(lambda t: f"log(1 + exp({t}))"),
        inner.map(lambda t: f"(exp({t}) - 1)"),
        inner.map(lambda t: f"({t} / (1 + exp(-{t})))"),
    )


FORMULAS = st.recursive(ATOMS, grown, max_leaves=6)
PLACES = st.floats(-3, 3).filter(lambda x: abs(x) > 1e-3)


def defined(value: Any) -> bool:
    return not mp.isnan(value) and not mp.isinf(value) and abs(value) < 1e20


@QUICK
@given(text=FORMULAS, x=PLACES)
def test_the_derivative_is_that_of_the_formula(text: str, x: float) -> None:
    tree = parse(text, PARAMETERS)
    with mp.workdps(60):
        at, h = mp.mpf(x), mp.mpf(10) ** -20
        # Where it is smooth: the slopes on both sides agree.
        here, left, right = (evaluate(tree, at + step, VALUES) for step in (0, -h, h))
        assume(all(defined(v) for v in (here, left, right)))
        before, after = (here - left) / h, (right - here) / h
        assume(abs(before - after) <= mp.mpf(10) ** -12 * (1 + abs(before)))
        slope = evaluate(derivative(tree), at, VALUES)
        assume(defined(slope))
        assert abs(slope - (before + after) / 2) <= mp.mpf(10) ** -12 * (1 + abs(slope))


@QUICK
@given(text=FORMULAS, x=PLACES)
def test_a_rewrite_changes_no_meaning(text: str, x: float) -> None:
    tree = parse(text, PARAMETERS)
    with mp.workdps(80):
        before, after = evaluate(tree, x, VALUES), evaluate(rewritten(tree)[0], x, VALUES)
        assume(defined(before))
        assert abs(before - after) <= mp.mpf(10) ** -50 * (1 + abs(before))


@QUICK
@given(text=FORMULAS, x=PLACES, width=st.floats(0, 2), at=st.floats(0, 1))
def test_bounds_hold(text: str, x: float, width: float, at: float) -> None:
    """For the value and the slope, at any place of the interval."""
    tree = parse(text, PARAMETERS)
    place = min(x + at * width, x + width)
    for node in (tree, derivative(tree)):
        found = bounds(node, Interval(x, x + width), VALUES)
        with mp.workdps(40):
            value = evaluate(node, mp.mpf(place), VALUES)
        if mp.isnan(value):
            assert found.undefined
        elif not found.undefined:
            assert found.low <= value <= found.high


FAR = st.one_of(
    st.floats(-1e3, 1e3),
    st.floats(-1e-300, 1e-300),
    st.floats(-1e-3, 1e-3),
    st.floats(-1e300, 1e300),
    st.floats(340, 380),
)
WIDTHS = st.one_of(st.just(0.0), st.floats(0, 1), st.floats(0, 50), st.floats(0, 1e300))


@settings(QUICK, max_examples=600)
@given(function=st.sampled_from([*ONE, "1 / ", "x**2 * ", "x**3 - "]), x=FAR, width=WIDTHS, at=st.floats(0, 1))
def test_bounds_hold_far_out(function: str, x: float, width: float, at: float) -> None:
    """Where float64 overflows or has no digits left, of each function and of its first two slopes."""
    tree = parse(f"{function}(x)", PARAMETERS)
    high = x + width
    place = min(max(x + at * width, x), high)
    slope = derivative(tree)
    for node in (tree, slope, derivative(slope)):
        found = bounds(node, Interval(x, high), VALUES)
        with mp.workdps(60):
            value = evaluate(node, mp.mpf(place), VALUES)
        if mp.isnan(value) or mp.isinf(value):
            assert found.undefined or math.isinf(found.low) or math.isinf(found.high)
        elif not found.undefined:
            assert found.low <= value <= found.high, (node, found)


def run(definition: Definition, operation: str, x: Array, *parameters: float) -> Array:
    out = np.empty_like(x)
    compiler.load(definition.record, operation, np.float64)(x, out, parameters)
    return out


@pytest.mark.parametrize(
    "text",
    [
        "exp(a * x) - 1 if x < b else log(1 + exp(x)) * tanh(x)",
        "erf(x / 2) * cosh(x) - x**5 / (1 + x**4)",
        "sinh(x) + sin(3 * x) * arctan(x) + abs(x)**a + sqrt(x * x + 1)",
        "max(gelu(x), a * x, b) + softplus(x, beta=2) * sign(x) + log1p(x**2)",
        "clip(x, b, a) * (x > 0) + where(x <= 0 or x > 2, cos(x), erfc(x))",
    ],
)
def test_kernels_compute_what_trees_say(text: str) -> None:
    definition = define("team.own", text, PARAMETERS)
    x = np.concatenate([np.linspace(-4, 4, 161), [-30.5, 30.5, 1e-8, -1e-8]])
    for operation, node in (("forward", definition.forward), ("derivative", definition.derivative)):
        got = run(definition, operation, x, 0.75, -1.5)
        for place, value in zip(x.tolist(), got.tolist(), strict=True):
            with mp.workdps(60):
                right = evaluate(node, place, VALUES)
                if mp.isnan(right):
                    assert math.isnan(value)
                    continue
                slack = 64 * math.ulp(float(right)) + 2.0**-46 * largest(node, place, VALUES)
                assert abs(right - value) <= slack, (operation, place)


def largest(node: Node, x: float, values: dict[str, float]) -> float:
    """The largest number on the way: what is cancelled from it is lost to float64."""
    found = [evaluate(part, x, values) for part in walk(node) if part.op not in ("lt", "le", "gt", "ge", "or", "and")]
    return max((abs(float(value)) for value in found if defined(value)), default=1.0)


def amplified(node: Node, x: float, values: dict[str, float]) -> float:
    """By how much a rounded argument changes a function's value, where that is much: a formula is no better conditioned."""
    found = 1.0
    for part in walk(node):
        if part.op == "call" and part.value in ("exp", "erfc", "gaussian", "erf_slope", "sech_squared", "cosh", "sinh"):
            u = abs(float(evaluate(part.args[0], x, values)))
            found = max(found, u if part.value in ("exp", "cosh", "sinh", "sech_squared") else 2 * u * u)
    return found


ELEMENTWISE = [record for record in CATALOGUE if isinstance(record, Activation) and not record.indexed]


@pytest.mark.parametrize("record", ELEMENTWISE, ids=lambda record: record.name)
def test_the_catalogue_by_its_own_formulas(record: Activation) -> None:
    """Within 64 units of the catalogue's own kernels, wherever the formula as it stands can be."""
    own = [p for p in record.parameters if p.kind in ("number", "integer")]
    parameters = [
        dataclasses.replace(p, kind="number", default=float(p.default or 0), aliases=(), per_channel=False) for p in own
    ]
    definition = define(f"own.{record.name}", record.formula, parameters)
    given, full = [float(p.default or 0) for p in parameters], formula.parameters(record)
    values = {p.name: float(p.default or 0) for p in parameters}
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.normal(0, 2, 60), np.linspace(-6, 6, 40) + 1e-3])
    for operation, node in (("forward", definition.forward), ("derivative", definition.derivative)):
        if operation == "derivative" and any(p.kind == "word" for p in record.parameters):
            continue  # a straight-through estimator is not the derivative
        right = np.empty_like(x)
        compiler.load(record, operation, np.float64)(x, right, full)
        got = run(definition, operation, x, *given)
        for place, value, wanted in zip(x.tolist(), got.tolist(), right.tolist(), strict=True):
            error = abs(value - wanted)
            if error <= 64 * math.ulp(wanted):
                continue
            with mp.workdps(40):
                conditioned = amplified(node, place, values)
                slack = 64 * conditioned * math.ulp(wanted) + conditioned * 2.0**-50 * largest(node, place, values)
            assert error <= slack, (operation, place, value, wanted)


def test_the_same_formula_gives_the_same_code() -> None:
    """In any process, so that workers share what is compiled."""
    from actserve_server.kernels.build import unit_of

    one, other = (define("team.own", "x * tanh(a * x) + 1/3", PARAMETERS) for _ in range(2))
    f8 = np.dtype(np.float64)
    assert unit_of(one.record, "forward", f8).digest() == unit_of(other.record, "forward", f8).digest()
    third = define("team.own", "x * tanh(b * x) + 1/3", PARAMETERS)
    assert unit_of(one.record, "forward", f8).digest() != unit_of(third.record, "forward", f8).digest()


@pytest.mark.parametrize("function", ["sin", "cos", "snake", "exp", "expm1", "sinh", "erfc", "gelu", "arctan", "log1p"])
def test_no_number_is_too_large_for_the_truth(function: str) -> None:
    """Numbers like 2**(64**12) are looked at in 16-bit tables, where a server must not be lost in them."""
    tower = "x"
    for _ in range(12):
        tower = f"({tower})**64"
    for argument in (tower, f"-1 / {tower}"):
        node = parse(f"{function}({argument})", ())
        for x in (-65504.0, -0.1, 0.0, 0.1, 65504.0):
            with mp.workdps(40):
                assert isinstance(evaluate(node, x, {}), mp.mpf)


@pytest.mark.parametrize(
    "text", ["sinh(x)", "cosh(x)", "erfc(x)", "x**-3", "2 / x**2", "2**x", "abs(x)**0.3", "abs(x)**-1.7", "abs(x)**2.5"]
)
def test_functions_are_right_to_their_ends(text: str) -> None:
    """Also where they overflow, and where they are lost: no value that is finite and wrong, and no NaN."""
    definition = define("team.own", text)
    ends = [0.1, 1.0, 39.9, 40.1, 88.0, 89.5, 355.0, 709.5, 710.4, 710.5, 720.0, 1e4, 1e100, 1e300, math.inf]
    x = np.array([sign * end for end in ends for sign in (1, -1)])
    for operation, node in (("forward", definition.forward), ("derivative", definition.derivative)):
        for place, value in zip(x.tolist(), run(definition, operation, x).tolist(), strict=True):
            with mp.workdps(60):
                right = evaluate(node, place, {})
            if math.isinf(float(right)):
                assert value == float(right), (operation, place)
            else:
                assert float(abs(right - value)) <= 8 * math.ulp(float(right)), (operation, place)
    out = np.empty(2, np.float32)
    compiler.load(define("team.own", "sinh(x)").record, "forward", np.float32, "fast")(
        np.array([88.0, 95.0], np.float32), out, ()
    )
    assert out[0] == pytest.approx(math.sinh(88.0), rel=1e-5) and math.isinf(out[1])


@pytest.mark.parametrize("text", ["2**x", "abs(x)**0.3", "abs(x)**a", "abs(x)**-b", "x**(a - 0.5)", "x**x"])
def test_powers_lose_no_digits(text: str) -> None:
    """Nor do their slopes: at numbers of all magnitudes whose powers are numbers."""
    definition = define("team.own", text, PARAMETERS)
    rng = np.random.default_rng(3)
    x = np.concatenate([np.exp(rng.uniform(-700, 700, 100)), rng.uniform(0, 140, 60), rng.normal(0, 1000, 40)])
    for operation, node in (("forward", definition.forward), ("derivative", definition.derivative)):
        for place, value in zip(x.tolist(), run(definition, operation, x, 0.75, -1.5).tolist(), strict=True):
            with mp.workdps(60):
                right = evaluate(node, place, VALUES)
                if mp.isnan(right):
                    assert math.isnan(value), (operation, place)
                elif abs(right) > 1e308:
                    assert value > 1e307, (operation, place)
                elif abs(right) > 1e-300:
                    # The slope of x**x has a logarithm and some roundings more.
                    most = 2.0 if operation == "forward" else 4.0
                    assert float(abs(right - value)) <= most * math.ulp(float(right)), (operation, place)


def c_pow(u: float, v: float) -> float:
    """C's pow, of which Python refuses what is infinite or not a number."""
    try:
        return math.pow(u, v)
    except ValueError:
        return math.nan if u else math.copysign(math.inf, u if v % 2 == 1 else 1.0)


def test_a_negative_number_has_whole_powers() -> None:
    definition = define("team.own", "x**a", PARAMETERS)
    x = np.array([-2.0, -0.5, -0.0, 3.0, -math.inf])
    for exponent in (3.0, 2.0, -1.0, 0.5, 2.5):
        for operation, factor, power in (("forward", 1.0, exponent), ("derivative", exponent, exponent - 1.0)):
            got = run(definition, operation, x, exponent, 0.0)
            for place, value in zip(x.tolist(), got.tolist(), strict=True):
                assert value == pytest.approx(factor * c_pow(place, power), rel=4e-16, nan_ok=True), (operation, place)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("abs(x)**a", [0.0]),
        ("abs(x)**0.3", [0.0, -0.0]),
        ("abs(x)**1.5", [0.0]),
        ("sqrt(abs(x))", [0.0]),
        ("sqrt(max(x, 0))", [0.0, -1.0, -1e300]),
        ("relu(x)**0.3", [0.0, -1.0]),
        ("(x if x > 1 else 0)**a", [0.5, 1.0]),
    ],
)
def test_where_a_root_is_taken_of_nothing_the_slope_is_0(text: str, places: list[float]) -> None:
    definition = define("team.own", text, PARAMETERS)
    assert run(definition, "derivative", np.array(places), 0.75, -1.5).tolist() == [0.0] * len(places)
    assert [float(evaluate(definition.derivative, place, VALUES)) for place in places] == [0.0] * len(places)


def test_a_power_below_1_of_x_itself_has_the_slope_to_its_right() -> None:
    definition = define("team.own", "x**0.3")
    assert run(definition, "derivative", np.array([0.0])).tolist() == [math.inf]
