"""Reductions: sums and counts are exact, and neither splits, order nor merging leave a trace in a state."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from actserve import stats
from actserve.stats import NeuronCounts, SquareSum, StateError, StateMismatch
from actserve_server.kernels import reductions
from actserve_server.kernels.compiler import load_reduction
from actserve_server.kernels.reductions import COUNT_ROWS, new_counts, new_square_sum, square_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Array = np.ndarray[Any, Any]

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
UNIT = Fraction(1, 1 << -stats.SQUARE_UNIT_EXPONENT)
# Compiling is not part of any example's time.
RELAXED = settings(max_examples=60, deadline=None)


def tally_of(*pieces: Array) -> Array:
    tally = new_square_sum()
    for piece in pieces:
        load_reduction("add_squares", piece.dtype)(piece, tally)
    return tally


def state_of(*pieces: Array) -> SquareSum:
    return SquareSum(**dataclasses.asdict(square_sum(tally_of(*pieces))))


def exact(x: Array) -> Fraction:
    return sum((Fraction(float(v)) ** 2 for v in x if math.isfinite(v)), Fraction())


def cut(data: st.DataObject, size: int) -> list[slice]:
    """Some way to cut an array into pieces, in any order."""
    places = sorted(data.draw(st.lists(st.integers(0, size), max_size=4)))
    pieces = [slice(begin, end) for begin, end in zip([0, *places], [*places, size], strict=True)]
    return data.draw(st.permutations(pieces))


# ---- sums of squares -----------------------------------------------------------------------------------------------


@DTYPES
@RELAXED
@given(data=st.data())
def test_a_sum_of_squares_is_exact_and_any_split_and_order_gives_the_same_state(
    dtype: Any, data: st.DataObject
) -> None:
    x = data.draw(hnp.arrays(dtype, st.integers(0, 40)))
    state = state_of(x)
    assert state.total * UNIT == exact(x)
    assert (state.count, state.nan, state.infinite) == (x.size, np.isnan(x).sum(), np.isinf(x).sum())
    pieces = [x[piece] for piece in cut(data, x.size)]
    assert tally_of(*pieces).tobytes() == tally_of(x).tobytes()
    merged = SquareSum()
    for piece in pieces:
        merged = merged.merge(state_of(piece))
    assert merged.to_bytes() == state.to_bytes()


@DTYPES
@pytest.mark.parametrize("spread", [0, 3, 12, 40], ids=lambda spread: f"{2 * spread} decades")
@pytest.mark.parametrize("size", [4095, 4096, 12289])
def test_blocks_that_go_the_quick_way_and_those_that_do_not_are_exact(dtype: Any, spread: int, size: int) -> None:
    generator = np.random.default_rng([spread, size])
    scale = 10.0 ** generator.uniform(-min(spread, 37), min(spread, 37), size)
    x = (generator.standard_normal(size) * scale).astype(dtype)
    x[generator.random(size) < 0.5] = 0.0
    state = state_of(x)
    assert state.total * UNIT == exact(x)
    assert state.value() == float(exact(x))


@pytest.mark.parametrize("exponent", [-1074, -1000, -430, -401, -398, -1, 0, 497, 499, 500, 1023])
def test_every_exponent_has_its_place(exponent: int) -> None:
    x = np.full(5000, math.ldexp(1.0, exponent)) * np.where(np.arange(5000) % 2, 1, -1)
    x[::7] = np.nextafter(x[::7], 0)
    assert state_of(x).total * UNIT == exact(x)


def test_the_largest_numbers_fill_the_last_limbs_and_overflow_only_as_a_float() -> None:
    x = np.full(4096, np.finfo(np.float64).max)
    state = state_of(x, x)
    assert state.total * UNIT == 8192 * Fraction(float(x[0])) ** 2
    assert state.value() == math.inf
    assert state.scaled(8192 << 1024) == float(Fraction(float(x[0])) ** 2 / 2**1024)


@DTYPES
def test_the_value_agrees_with_fsum_where_squares_round_to_themselves(dtype: Any) -> None:
    x = np.random.default_rng(3).standard_normal(10_000).astype(np.float32).astype(dtype)
    assert state_of(x).value() == math.fsum(float(v) * float(v) for v in x)


def test_received_bytes_are_summed_where_they_lie() -> None:
    x = np.random.default_rng(4).standard_normal(999).astype(np.float32)
    received = np.frombuffer(b"\0" + x.tobytes(), np.float32, x.size, 1)
    assert state_of(received) == state_of(x)


def test_carries_are_passed_on_before_they_could_overflow() -> None:
    largest_deposits_for_an_element = 3 * 3 * 0xFFFFFFFF
    between = reductions._BLOCK * reductions._BLOCKS_BETWEEN_CARRIES
    assert largest_deposits_for_an_element * between < 2**62


def test_both_ends_count_squares_in_the_same_unit() -> None:
    assert reductions.SQUARE_UNIT_EXPONENT == stats.SQUARE_UNIT_EXPONENT == 2 * -1074


@pytest.mark.parametrize(
    ("x", "value"),
    [([], 0.0), ([-0.0], 0.0), ([3, 4], 25.0), ([1, np.inf], np.inf), ([-np.inf, np.nan], np.nan), ([5e-324], 0.0)],
)
def test_the_value_of_a_sum(x: list[float], value: float) -> None:
    np.testing.assert_equal(state_of(np.array(x, np.float64)).value(), value)


@given(total=st.integers(0, 1 << 4250), divisor=st.integers(1, 1 << 70))
def test_a_mean_is_rounded_once(total: int, divisor: int) -> None:
    state = SquareSum(count=1, total=total)
    try:
        expected = float(total * UNIT / divisor)
    except OverflowError:
        expected = math.inf
    assert state.scaled(divisor) == expected


@given(total=st.integers(0, 1 << 4250), rest=st.tuples(*[st.integers(0, 1 << 60)] * 3), other=st.integers(0, 1 << 4250))
def test_a_square_sum_survives_its_bytes_and_merging_commutes(
    total: int, rest: tuple[int, int, int], other: int
) -> None:
    number, nan, infinite = rest
    state = SquareSum(number + nan + infinite, nan, infinite, total)
    assert SquareSum.from_bytes(state.to_bytes()) == state
    assert state.merge(SquareSum()) == state
    assert state.merge(SquareSum(1, 0, 0, other)) == SquareSum(1, 0, 0, other).merge(state)


# ---- counts --------------------------------------------------------------------------------------------------------


def counts_of(pieces: list[tuple[int, Array]], n: int, inner: int) -> Array:
    counts = new_counts(n)
    for start, piece in pieces:
        load_reduction("count_neurons", piece.dtype)(piece, start, n, inner, counts)
    return counts


def expected_counts(a: Array) -> Array:
    """By NumPy, from the array of shape (outer, n, inner)."""
    over = (0, 2)
    rows = {
        "samples": np.full(a.shape[1], a.shape[0] * a.shape[2]),
        "inactive": (a <= 0).sum(over),
        "zero": (a == 0).sum(over),
        "nan": np.isnan(a).sum(over),
    }
    return np.array([rows[name] for name in COUNT_ROWS])


VALUES = np.array([-np.inf, -1.5, -0.0, 0.0, 5e-45, 2.0, np.inf, np.nan])


@DTYPES
@RELAXED
@given(
    shape=st.tuples(st.integers(0, 12), st.integers(1, 9), st.sampled_from([1, 1, 2, 5])),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_counts_are_those_of_numpy_however_the_array_is_cut(
    dtype: Any, shape: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    a = np.random.default_rng(seed).choice(VALUES, shape).astype(dtype)
    flat = a.ravel()
    pieces = [(piece.start, flat[piece]) for piece in cut(data, flat.size)]
    np.testing.assert_array_equal(counts_of(pieces, shape[1], shape[2]), expected_counts(a))


@DTYPES
def test_counts_of_many_rows_outgrow_no_field(dtype: Any) -> None:
    a = np.zeros((5000, 3, 1), dtype)
    a[:, 1] = np.nan
    a[::2, 2] = 1.0
    np.testing.assert_array_equal(counts_of([(0, a.ravel())], 3, 1), expected_counts(a))


@pytest.mark.parametrize(("start", "n", "inner"), [(-1, 2, 1), (0, 3, 1), (0, 2, 0)])
def test_counts_that_make_no_sense_are_refused(start: int, n: int, inner: int) -> None:
    with pytest.raises(ValueError, match="counts must have n columns"):
        load_reduction("count_neurons", np.float32)(np.zeros(4, np.float32), start, n, inner, new_counts(2))


# ---- states of neurons ---------------------------------------------------------------------------------------------


def neuron_state(a: Array, activation: str = "relu", threshold: float = 0.5, **parameters: float | str) -> NeuronCounts:
    table = counts_of([(0, np.ascontiguousarray(a).ravel())], a.shape[1], 1)
    return NeuronCounts(activation, threshold, dict(zip(COUNT_ROWS, table, strict=True)), parameters)


@RELAXED
@given(outer=st.integers(0, 20), n=st.integers(0, 5), seed=st.integers(0, 1000), data=st.data())
def test_merging_the_states_of_any_parts_gives_the_bytes_of_the_whole(
    outer: int, n: int, seed: int, data: st.DataObject
) -> None:
    a = np.random.default_rng(seed).choice(VALUES, (outer, max(n, 1)))[:, :n]
    if n == 0:
        assert NeuronCounts.empty("relu", 0.5, 0).dead_fraction == 0.0
        return
    merged = NeuronCounts.empty("relu", 0.5, n)
    for piece in cut(data, outer):
        merged = merged.merge(NeuronCounts.from_bytes(neuron_state(a[piece]).to_bytes()))
    assert merged.to_bytes() == neuron_state(a).to_bytes()
    assert merged == neuron_state(a)


def test_what_is_derived_from_counts() -> None:
    a = np.array([[-1.0, 0.0, 1.0, np.nan], [-2.0, 1.0, 2.0, np.nan], [0.0, 3.0, -0.0, 1.0], [-1.0, 1.0, 1.0, -1.0]])
    state = neuron_state(a, threshold=0.25)
    assert state.inactive_fraction.tolist() == [1.0, 0.25, 0.25, 0.25]
    assert state.zero_fraction.tolist() == [0.25, 0.25, 0.25, 0.0]
    assert state.dead.tolist() == [True] * 4
    assert state.columns["nan"].tolist() == [0, 0, 0, 2]
    assert (state.neurons, state.dead_fraction) == (4, 1.0)
    assert neuron_state(a, threshold=0.5).dead_fraction == 0.25


def test_without_samples_nothing_is_dead() -> None:
    state = NeuronCounts.empty("relu", 0.0, 3)
    assert np.isnan(state.inactive_fraction).all()
    assert not state.dead.any()
    assert state.dead_fraction == 0.0


@pytest.mark.parametrize(
    ("option", "other"),
    [
        ("activation", {"activation": "elu"}),
        ("threshold", {"threshold": 0.25}),
        ("parameters", {"alpha": 0.1}),
    ],
)
def test_states_of_different_options_do_not_merge_and_the_error_names_both(option: str, other: dict[str, Any]) -> None:
    a = np.ones((2, 3))
    left, right = neuron_state(a, alpha=0.3) if option == "parameters" else neuron_state(a), neuron_state(a, **other)
    with pytest.raises(StateMismatch) as caught:
        left.merge(right)
    assert caught.value.option == option
    assert repr(caught.value.left) in str(caught.value)
    assert repr(caught.value.right) in str(caught.value)
    assert caught.value.left != caught.value.right


def test_states_of_different_widths_do_not_merge() -> None:
    with pytest.raises(StateMismatch, match="neuron count cannot be merged: 3 and 4"):
        neuron_state(np.ones((2, 3))).merge(neuron_state(np.ones((2, 4))))


def test_counts_that_overflow_are_an_error_and_no_nonsense() -> None:
    columns = {"samples": [2**62], "inactive": [0], "zero": [0], "nan": [0]}
    state = NeuronCounts("relu", 0.5, columns)
    with pytest.raises(StateError, match="int64"):
        state.merge(state)


def test_parameters_survive_the_bytes_and_equal_options_give_equal_bytes() -> None:
    a = np.ones((1, 2))
    state = neuron_state(a, "softplus", beta=0.1, threshold_=math.inf, word="zero")
    again = NeuronCounts.from_bytes(state.state)
    assert dict(again.parameters) == {"beta": 0.1, "threshold_": math.inf, "word": "zero"}
    assert again == state
    assert neuron_state(a, x=0.0).to_bytes() == neuron_state(a, x=-0.0).to_bytes()
    assert neuron_state(a, x=1.0, y=2.0).to_bytes() == neuron_state(a, y=2.0, x=1).to_bytes()


def test_a_state_cannot_be_changed() -> None:
    state = neuron_state(np.ones((1, 2)))
    with pytest.raises(ValueError, match="read-only"):
        state.columns["zero"][0] = 1
    with pytest.raises(TypeError):
        state.columns["zero"] = state.columns["nan"]  # type: ignore[index]


# ---- bytes that are no states --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [SquareSum(3, 1, 1, 12345), neuron_state(np.ones((2, 3)), alpha=0.5)])
def test_every_truncation_is_refused(state: SquareSum | NeuronCounts) -> None:
    data = state.to_bytes()
    for size in range(len(data)):
        # A shorter total is another total; everything else is missed.
        if isinstance(state, SquareSum) and size > data.index(b"}"):
            continue
        with pytest.raises(StateError):
            type(state).from_bytes(data[:size])


def changed(state: SquareSum | NeuronCounts, change: Callable[[dict[str, Any]], Any], payload: bytes = b"") -> bytes:
    """A state's bytes with another header."""
    data = state.to_bytes()
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length])
    text = json.dumps(change(header) or header).encode()
    return data[:8] + len(text).to_bytes(4, "little") + text + data[12 + length :] + payload


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(version=2),
        lambda header: header.update(kind="other"),
        lambda header: header.update(extra=1),
        lambda header: header.pop("threshold"),
        lambda header: header.update(threshold="high"),
        lambda header: header.update(threshold=math.nan),
        lambda header: header.update(threshold=10**400),
        lambda header: header.update(threshold=1e999),
        lambda header: header.update(activation=None),
        lambda header: header.update(neurons=2**70),
        lambda header: header.update(neurons=-3),
        lambda header: header.update(neurons=3.0),
        lambda header: header.update(columns=["samples"]),
        lambda header: header.update(parameters=[1]),
        lambda header: header.update(parameters={"alpha": None}),
        lambda header: [header],
    ],
)
def test_headers_that_are_not_understood_are_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(StateError):
        NeuronCounts.from_bytes(changed(neuron_state(np.ones((2, 3))), change))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", b"actstate", b"actstate" + len(data).to_bytes(4, "little")):
        for kind in (SquareSum, NeuronCounts):
            with pytest.raises(StateError):
                kind.from_bytes(prefix + data)


def test_a_state_of_the_other_kind_is_refused() -> None:
    with pytest.raises(StateError, match="neuron_counts"):
        NeuronCounts.from_bytes(SquareSum().to_bytes())


@pytest.mark.parametrize(
    "columns",
    [
        {"samples": [1], "inactive": [2], "zero": [0], "nan": [0]},
        {"samples": [2], "inactive": [1], "zero": [2], "nan": [0]},
        {"samples": [2], "inactive": [1], "zero": [1], "nan": [2]},
        {"samples": [2], "inactive": [-1], "zero": [0], "nan": [0]},
        {"samples": [2, 2], "inactive": [1], "zero": [0], "nan": [0]},
        {"samples": [2], "inactive": [1], "zero": [0]},
    ],
)
def test_counts_that_contradict_each_other_are_refused(columns: dict[str, list[int]]) -> None:
    with pytest.raises(StateError):
        NeuronCounts("relu", 0.1, columns)


@pytest.mark.parametrize("fields", [(1, 1, 1, 0), (0, 0, 0, -1), (True, 0, 0, 0), (1.0, 0, 0, 0), (1, 0, 0, 1 << 5000)])
def test_sums_that_contradict_themselves_are_refused(fields: tuple[Any, ...]) -> None:
    with pytest.raises(StateError):
        SquareSum(*fields)


def test_a_total_has_one_form_only() -> None:
    with pytest.raises(StateError, match="shortest"):
        SquareSum.from_bytes(changed(SquareSum(1, 0, 0, 1), lambda header: None, payload=b"\0"))
