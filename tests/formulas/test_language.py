"""What the language of formulas takes, what it refuses and how it says so, and that nothing sent to it does harm."""

from __future__ import annotations

import contextlib
import gc
import math
import string

import psutil
import pytest
from actserve_server.activations.spec import Parameter
from actserve_server.formulas import FormulaError, define
from actserve_server.formulas.define import example
from actserve_server.formulas.parse import parse
from actserve_server.formulas.tree import Node, text
from hypothesis import HealthCheck, given, settings
from hypothesis import example as example_of
from hypothesis import strategies as st

BETA = (Parameter("beta", "", 1.0),)


@pytest.mark.parametrize(
    ("formula", "means"),
    [
        ("x", "x"),
        ("x*x", "x**2"),
        ("-x + +x", "-x + x"),
        ("2**3 * x**2 - x/beta", "8 * x**2 - x / beta"),
        ("x if x > 0 else beta * (exp(x) - 1)", "x if x > 0 else beta * (exp(x) - 1)"),
        ("where(0 < x <= 1 and not x == beta, 1, 0)", "1 if 0 < x and x <= 1 and not x == beta else 0"),
        ("x * (x > 0)", "x * (1 if x > 0 else 0)"),
        ("clip(x, -1, 1)", "min(max(x, -1), 1)"),
        ("max(x, 0, beta)", "max(max(x, 0), beta)"),
        ("x**0.5 + x**-2 + beta**x + pow(x, 2)", "sqrt(x) + 1 / x**2 + beta**x + x**2"),
        ("arctan(x) + sinh(pi) * e * 0", "arctan(x)"),
        ("gelu(x) + elu(x, alpha=2)", "gelu(x) + elu(x, alpha=2)"),
        ("silu(x, beta=beta)", "silu(x, beta=beta)"),
        ("(\n x\n + 1)", "x + 1"),
        ("1e3 * x + .5", "1000 * x + 0.5"),
    ],
)
def test_what_it_takes(formula: str, means: str) -> None:
    tree = parse(formula, BETA)
    assert text(tree) == means
    # What it says is understood in turn, and means the same.
    assert parse(text(tree), BETA) is tree


@pytest.mark.parametrize(
    ("formula", "column", "words"),
    [
        ("", None, "empty"),
        ("   ", None, "empty"),
        ("x + foo(x)", 5, "no function foo"),
        ("sigmod(x)", 1, "did you mean sigmoid"),
        ("gamma * x", 1, "gamma is not known; there are beta, x, pi, e"),
        ("x.real", 2, "attributes are not allowed"),
        ("x.__class__", 2, "attributes are not allowed"),
        ("__import__('os')", 12, "is not part of formulas"),
        ("__import__(os)", 1, "no function __import__"),
        ("eval(x)", 1, "no function eval"),
        ("x(x)", 1, "x is a number"),
        ("beta(x)", 1, "beta is a number"),
        ("exp(x)(x)", 1, "only functions can be called"),
        ("exp", 1, "wants its argument in parentheses"),
        ("relu", 1, "wants its argument in parentheses"),
        ("exp(x, x)", 1, "takes one argument"),
        ("exp(y=x)", 1, "takes one argument"),
        ("where(x, 1, 2)", 7, "a condition is wanted"),
        ("where(x > 0, 1)", 1, "3 arguments"),
        ("x if x else 1", 6, "a condition is wanted"),
        ("not x", 5, "a condition is wanted"),
        ("x and x", 1, "a condition is wanted"),
        ("softmax(x)", 1, "does not work element by element"),
        ("rrelu(x)", 1, "draws at random"),
        ("elu(x, 2)", 1, "parameters by name"),
        ("elu(x, gamma=2)", 1, "no parameter gamma; it has alpha"),
        ("celu(x, alpha=0)", 15, "must be a number"),
        ("celu(x, alpha=beta)", 15, "and beta may be"),
        ("silu(x, beta=x)", 14, "may be a number or a parameter's name"),
        ("x**65", 4, "may be 64 at most"),
        ("9**9**9", 4, "may be 64 at most"),
        ("x**(2**9)", 5, "may be 64 at most"),
        ("1e999", 1, "larger than any float64"),
        ("9" * 41, 1, "more than 40 characters"),
        ("a" * 41, 1, "more than 40 characters"),
        ("x + ", 4, "not complete"),
        ("x x", None, "not complete"),
        ("(x", 1, "not closed"),
        ("x)", 2, "closes none"),
        (")x(", 1, "closes none"),
        ("x, x", 1, "not part of formulas"),
        ("x[0]", 2, "no indexing"),
        ("x ^ 2", 3, "powers are written **"),
        ("x := 2", 3, "is not part of formulas"),
        ("lambda: x", 7, "is not part of formulas"),
        ("lambda", None, "not complete"),
        ("x is x", 1, "comparisons are"),
        ("x in x", 1, "comparisons are"),
        ("True", 1, "is not part of formulas"),
        ("None", 1, "is not part of formulas"),
        ("x // 2", 1, "not part of formulas"),
        ("x % 2", 3, "is not part of formulas"),
        ("1j * x", None, "part of formulas"),
        ("*x", None, "not complete"),
        ("exp(*x)", 5, "not part of formulas"),
        ("elu(x, **x)", 1, "no parameter None"),
        ("\u0445", 1, "not ASCII"),  # a Cyrillic letter that looks like x
        ("\uff58 + 1", 1, "not ASCII"),  # which Python would take for x
        ("x\u200b", 2, "not ASCII"),
        ("x\x00", 2, "is not part of formulas"),
        ("x # hidden", 3, "is not part of formulas"),
        ("f'{x}'", 2, "is not part of formulas"),
        ("exp(" * 41 + "x" + ")" * 41, 164, "40 parentheses"),
        ("-" * 600 + "x", 501, "more than 500"),
        ("-" * 200 + "x", None, "150 operations"),
        ("(" * 500_000 + ")" * 500_000, None, "1000000 characters, and may have 1000"),
        ("x if " * 1000, None, "characters"),
    ],
)
def test_what_it_refuses_and_where(formula: str, column: int | None, words: str) -> None:
    with pytest.raises(FormulaError, match=None) as caught:
        parse(formula, BETA)
    error = caught.value
    assert words in error.message, error.message
    if column is not None:
        assert error.column == column, error.message
        line, caret = error.pointed.split("\n")
        assert caret == " " * (len(caret) - 1) + "^"
        assert len(caret) <= len(line) + 1


def test_parameters_that_may_not_be() -> None:
    for parameters, words in [
        ((Parameter("x", "", 1.0),), "meaning of its own"),
        ((Parameter("exp", "", 1.0),), "meaning of its own"),
        ((Parameter("if", "", 1.0),), "no name"),
        ((Parameter("__class__", "", 1.0),), "no name"),
        ((Parameter("a b", "", 1.0),), "no name"),
        ((Parameter("", "", 1.0),), "no name"),
        ((Parameter("a", "", float("nan")),), "default"),
        ((Parameter("a", "", 2.0, low=0.0, high=1.0),), "default"),
        ((Parameter("a", "", 1.0), Parameter("a", "", 1.0)), "twice"),
        (tuple(Parameter(f"a{n}", "", 1.0) for n in range(17)), "17 parameters"),
    ]:
        with pytest.raises(FormulaError, match=words):
            define("team.own", "x", parameters)
    # A parameter may have the name of an activation, and then is what it says.
    assert text(parse("relu * x", (Parameter("relu", "", 1.0),))) == "relu * x"


def test_a_derivative_of_ones_own_is_compared() -> None:
    with pytest.raises(FormulaError, match="derivative_formula gives") as caught:
        define("team.own", "x**2", derivative_formula="3 * x")
    assert caught.value.field == "derivative_formula"
    assert define("team.own", "x**2", derivative_formula="x + x").record.derivative_formula == "x + x"
    # At a kink either convention is right.
    define("team.own", "max(x, 0)", derivative_formula="1 if x >= 0 else 0")
    with pytest.raises(FormulaError, match="derivative_formula, column 3"):
        define("team.own", "x", derivative_formula="1 ? 2")


PIECES = [
    *("x", "beta", "(", ")", "+", "-", "*", "/", "**", "<", "<=", "==", " if ", " else ", " and ", " or ", "not ", ","),
    *("exp(", "log(", "where(", "clip(", "gelu(", "elu(x, alpha=", "max(", "1", "0.5", "64", "1e308", "pi", " ", "\n"),
    *(
        ".",
        "__",
        "'",
        "[",
        "]",
        "{",
        "}",
        ":",
        "=",
        "lambda",
        "import",
        "@",
        "\\",
        "\0",
        "é",
        "𝐱",
        "%",
        "&",
        "~",
        ";",
        "#",
    ),
]


@given(
    formula=st.one_of(
        st.lists(st.sampled_from(PIECES), max_size=60).map("".join),
        st.text(string.printable, max_size=80),
        st.text(max_size=40),
    )
)
def any_formula_is_read_or_refused(formula: str) -> None:
    with contextlib.suppress(FormulaError):
        assert isinstance(define("team.own", formula, BETA).forward, Node)


def test_whatever_is_sent_is_read_or_refused(fuzz_examples: int) -> None:
    """No crash, no hang and no more than 100 MB: `make fuzz` tries a million."""
    before = psutil.Process().memory_info().rss
    quick = settings(max_examples=fuzz_examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    quick(any_formula_is_read_or_refused)()
    gc.collect()
    assert psutil.Process().memory_info().rss - before < 100 << 20


@given(low=st.floats(allow_nan=False), high=st.floats(allow_nan=False))
@example_of(low=5e-324, high=5e-324)
def test_a_parameter_without_a_default_is_looked_at_at_a_value_it_may_have(low: float, high: float) -> None:
    """As a file or a caller gives bounds: those that are numbers are included."""
    parameter = Parameter("a", "", None, low=low, high=high, low_open=math.isinf(low), high_open=math.isinf(high))
    if low < high or (low == high and math.isfinite(low)):
        assert parameter.accepts(example(parameter))
        assert example(parameter) == 1.0 or not parameter.accepts(1.0)
        define("team.own", "a * x", [parameter])
    else:
        with pytest.raises(FormulaError, match="there is none"):
            define("team.own", "a * x", [parameter])
