"""What a creator is told is true of activations whose properties are known."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from actserve_server.activations.spec import Parameter
from actserve_server.formulas import Report, define, examine
from actserve_server.kernels import compiler

INF = math.inf


def report_of(text: str, **defaults: float) -> Report:
    definition = define("team.own", text, [Parameter(name, "", value) for name, value in defaults.items()])
    return examine(
        definition, functools.cache(lambda operation: compiler.load(definition.record, operation, np.float64))
    )


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("2 * x + 1", {"monotonic": "increasing", "monotonic_proof": "proved", "zeros": (-0.5,), "saturates": "no"}),
        ("x if x > 0 else a * (exp(x) - 1)", {"monotonic": "increasing", "monotonic_proof": "proved", "kinks": (0.0,)}),
        ("-tanh(x)", {"monotonic": "decreasing", "monotonic_proof": "proved", "range": (-1.0, 1.0)}),
        ("a", {"monotonic": "constant", "monotonic_proof": "proved", "lipschitz": 0.0}),
        ("silu(x)", {"monotonic": "neither", "monotonic_proof": "proved", "saturates": "left", "zero_centred": True}),
        ("clip(x, -1, 1)", {"kinks": (-1.0, 1.0), "saturates": "both", "lipschitz": 1.0, "monotonic_proof": "proved"}),
        ("max(x, 0)", {"dead_zone": (-INF, 0.0), "range": (0.0, INF), "range_proof": "proved", "lipschitz": 1.0}),
        ("2 if x > 1 else x", {"kinks": (1.0,), "monotonic": "increasing", "monotonic_proof": "proved"}),
        ("0 if x > 1 else x", {"kinks": (1.0,), "monotonic": "neither"}),
        ("log(x)", {"nan_regions": ((-INF, 0.0),), "monotonic_proof": "sampled", "zeros": (1.0,)}),
        ("x**2", {"monotonic": "neither", "range": (0.0, INF), "zero_centred": False, "lipschitz": INF}),
        ("exp(-x**2)", {"range": (0.0, 1.0), "range_proof": "proved", "saturates": "both", "zeros": ()}),
        ("sin(x)", {"monotonic": "neither", "saturates": "no", "nan_regions": ()}),
        ("x**3 - x", {"zeros": (-1.0, 0.0, 1.0), "monotonic": "neither"}),
    ],
)
def test_what_is_known(text: str, facts: dict[str, Any]) -> None:
    report = report_of(text, a=0.5)
    for name, value in facts.items():
        found = getattr(report, name)
        if name == "lipschitz" and math.isfinite(value):
            assert found == pytest.approx(value, rel=2e-3)
        else:
            assert found == value, name
    assert report.worst_ulp < 400
    assert report.speed_gb_per_s > 0


@pytest.mark.parametrize(
    "fall",
    [
        "0.001 * exp(-(1e7 * (x - 0.123456789))**2)",
        "1e-9 * step(x - 0.123456789)",
        "1e-9 * hard_shrink(x - 0.123456789)",
        "1e-9 * jump_relu(2 * x)",
        "1e-9 * sign(x - 0.123456789)",
        "(1e-9 if x > 0.123456789 else 0)",
        "(1e-9 if 2 * x > 0.5 else 0)",
        "(1e-9 if x == 0.123456789 else 0)",
    ],
)
def test_no_proof_of_what_is_false(fall: str) -> None:
    """A dip so narrow, or a jump so small, that no sample sees it is not proved away."""
    report = report_of(f"x - {fall}")
    assert (report.monotonic, report.monotonic_proof) != ("increasing", "proved")
    assert report.lipschitz_proof == "sampled" or math.isinf(report.lipschitz)


def test_a_jump_has_no_lipschitz_bound() -> None:
    """Though the slope is 0 on both sides of it."""
    assert (report_of("step(x)").lipschitz, report_of("step(x)").monotonic_proof) == (INF, "proved")
    assert report_of("relu(x - 1)").lipschitz_proof == "proved"


def test_steep_is_not_kinked() -> None:
    assert report_of("sin(1e9 * x)").kinks == ()
