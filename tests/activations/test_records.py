"""What the records claim: names, bounds, ranges and traits, each checked against the formulas or the kernels."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import mpmath as mp
import oracle
import pytest
from actserve_server.activations.catalogue import CATALOGUE, find, near
from actserve_server.activations.spec import LIBRARIES, Activation, AxisActivation, Record

EVERY = pytest.mark.parametrize("record", CATALOGUE, ids=lambda record: record.name)
ELEMENTWISE = pytest.mark.parametrize(
    "record", [record for record in CATALOGUE if isinstance(record, Activation)], ids=lambda record: record.name
)
LINE = [sign * 2.0**power for sign in (-1, 1) for power in (*range(-12, 10), 40)] + [k / 16 for k in range(-160, 161)]


def bounds(record: Record) -> tuple[float, float]:
    low, high = record.range.strip("[]()").split(", ")
    names = {p.name: p.default for p in record.parameters} | {"inf": math.inf}
    return eval(low, {}, names), eval(high, {}, names)


def test_names_are_unique_once_plain() -> None:
    names = [name for record in CATALOGUE for name in (record.name, *record.aliases)]
    assert max(Counter(name.lower().replace("_", "").replace("-", "") for name in names).values()) == 1


@EVERY
def test_names_are_found_in_any_spelling(record: Record) -> None:
    for name in (record.name, *record.aliases):
        for spelling in (name, name.upper(), name.replace("_", "-"), name.replace("_", "")):
            assert find(spelling) is record


@pytest.mark.parametrize(
    ("name", "expected"),
    [("LeakyReLU", "leaky_relu"), ("swish", "silu"), ("linear", "identity"), ("Log-Softmax", "log_softmax")],
)
def test_well_known_names(name: str, expected: str) -> None:
    record = find(name)
    assert record is not None
    assert record.name == expected


def test_unknown_names() -> None:
    assert find("sigmod") is None
    assert "sigmoid" in near("sigmod")
    assert near("Softmaxx")[0] == "softmax"
    assert near("swich")[0] == "silu"
    assert near("???") == ()


@EVERY
def test_prose_is_a_sentence(record: Record) -> None:
    for text in (record.summary, record.advice, *(parameter.meaning for parameter in record.parameters)):
        assert text.endswith(".")
        assert text == text.strip()
    assert record.reference


@EVERY
def test_defaults_are_allowed(record: Record) -> None:
    for parameter in record.parameters:
        if parameter.default is None:
            continue
        if parameter.kind == "word":
            assert parameter.default in parameter.choices
        elif parameter.kind == "flag":
            assert isinstance(parameter.default, bool)
        else:
            assert parameter.accepts(float(parameter.default))
            assert not parameter.accepts(math.nan)


@EVERY
def test_what_libraries_say_is_about_our_parameters(record: Record) -> None:
    names = {parameter.name for parameter in record.parameters}
    for there in record.libraries:
        assert there.library in LIBRARIES
        assert {name for name, _ in there.defaults} <= names
        assert {ours for _, ours in there.renamed} <= names


def test_a_librarys_name_means_one_activation() -> None:
    meant = [
        (there.library, name.lower().replace("_", "").replace("-", ""))
        for record in CATALOGUE
        for there in record.libraries
        for name in there.names
    ]
    twice = [key for key, count in Counter(meant).items() if count > 1]
    # Two spellings that are one once plain, such as ReLU and relu, belong to one record.
    for library, name in twice:
        owners = {
            record.name
            for record in CATALOGUE
            for there in record.libraries
            if there.library == library and name in {n.lower().replace("_", "").replace("-", "") for n in there.names}
        }
        assert len(owners) == 1, (library, name, owners)


@ELEMENTWISE
def test_range_holds_and_is_tight(record: Activation) -> None:
    low, high = bounds(record)
    values = [oracle.value(record, x, oracle.parameters(record)) for x in LINE]
    lowest, highest = min(values), max(values)
    slack = mp.mpf("1e-6")
    assert lowest >= low - (slack if math.isfinite(low) else 0)
    assert highest <= high
    assert lowest <= (low + 1e-3 if math.isfinite(low) else -1)
    assert highest >= (high - 1e-3 if math.isfinite(high) else 100)


@ELEMENTWISE
def test_monotonic_as_declared(record: Activation) -> None:
    params = oracle.parameters(record)
    slopes = [oracle.value(record, x, params, derivative=True) for x in LINE]
    assert record.traits.monotonic == all(slope >= 0 for slope in slopes)


@ELEMENTWISE
def test_zero_centred_as_declared(record: Activation) -> None:
    values = [oracle.value(record, x, oracle.parameters(record)) for x in LINE]
    assert record.traits.zero_centred == (min(values) < 0 < max(values))


@ELEMENTWISE
def test_saturates_as_declared(record: Activation) -> None:
    params = oracle.parameters(record)
    left, right = (abs(oracle.value(record, x, params, derivative=True)) < 1e-30 for x in (-1e70, 1e70))
    assert record.traits.saturates == {(0, 0): "no", (1, 0): "left", (0, 1): "right", (1, 1): "both"}[(left, right)]


@ELEMENTWISE
def test_smooth_as_declared(record: Activation) -> None:
    """The value or the slope jumps at a kink and nowhere else."""
    params = oracle.parameters(record)
    step = mp.mpf(2) ** -60

    def jumps(x: float) -> bool:
        return any(
            abs(
                oracle.value(record, x + step, params, derivative=derivative)
                - oracle.value(record, x - step, params, derivative=derivative)
            )
            > 1e-6
            for derivative in (False, True)
        )

    assert record.traits.smooth == (not record.kinks)
    with mp.workdps(oracle.DIGITS):
        assert all(map(jumps, record.kinks))
        assert not any(jumps(x) for x in (k / 8 for k in range(-80, 81)) if x not in record.kinks)


@pytest.mark.parametrize(
    "record", [record for record in CATALOGUE if isinstance(record, AxisActivation)], ids=lambda record: record.name
)
def test_traits_along_an_axis(record: AxisActivation) -> None:
    given = {p.name: 2 if p.kind == "integer" else 1 for p in record.parameters if p.default is None}
    params = oracle.parameters(record, given)
    x = [0.3, -1.2, 2.0]

    def own(position: float) -> tuple[float, float]:
        """The first element of the result, and its derivative by the first element of the slice."""
        moved = [position, *x[1:]]
        return (
            float(oracle.slice_values(record, moved, params)[0]),
            float(oracle.slice_jacobian(record, moved, params)[0][0]),
        )

    ends = [own(position) for position in (-90.0, 0.3, 90.0)]
    low, high = bounds(record)
    assert record.traits.monotonic == all(slope >= 0 for _, slope in ends)
    assert record.traits.zero_centred == (min(value for value, _ in ends) < 0 < max(value for value, _ in ends))
    assert all(low <= value <= high for value, _ in ends)
    left, right = (abs(slope) < 1e-30 for _, slope in (ends[0], ends[2]))
    assert record.traits.saturates == {(0, 0): "no", (1, 0): "left", (0, 1): "right", (1, 1): "both"}[(left, right)]
    path = [own(k / 64) for k in range(-256, 257, 1)]
    leap = max(max(abs(a - c), abs(b - d)) for (a, b), (c, d) in itertools.pairwise(path))
    assert record.traits.smooth == (leap < 0.2)
