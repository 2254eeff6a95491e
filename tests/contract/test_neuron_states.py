"""The state of neurons without a server: its bytes, what is refused, and the arithmetic of merging."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from actserve.stats import (
    BINS,
    COLUMNS,
    ExactSums,
    Histogram,
    NeuronOptions,
    NeuronStats,
    SquareSum,
    StateError,
    StateMismatch,
)
from actserve.stats.format import read_varints, varints
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

RELAXED = settings(max_examples=60, deadline=None)


def stats_of(samples: int = 4, neurons: int = 3, **changed: Any) -> NeuronStats:
    """Of neurons of which one never fired, one always, and one was NaN once."""
    count = np.zeros(neurons, np.int64)
    columns = dict.fromkeys(COLUMNS, count) | {"samples": count + samples, "last_fired": count - 1}
    columns["inactive"] = np.array([samples, 0, samples - 2][:neurons])
    columns["zero"] = columns["inactive"]
    columns["positive"] = np.array([0, samples, 1][:neurons])
    columns["nan"] = np.array([0, 0, 1][:neurons])
    columns["last_fired"] = np.array([-1, samples - 1, 0][:neurons])
    fields: dict[str, Any] = {
        "activation": "relu",
        "options": NeuronOptions(sums=False),
        "shape": (neurons,),
        "columns": columns,
        "least": np.zeros(neurons),
        "largest": np.array([0.0, 2.0, 1.0])[:neurons],
        "end": samples,
    }
    fields["columns"] = columns | changed.pop("columns", {})
    return NeuronStats(**(fields | changed))


# ---- numbers as bytes ------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.int64, st.integers(0, 50), elements=st.integers(0, 2**63 - 1)))
def test_varints_come_back(values: Any) -> None:
    assert read_varints(varints(values)).tolist() == values.tolist()


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\x80\x00", b"\x81\x80\x00", b"\xff" * 9 + b"\x01"])
def test_numbers_that_are_cut_or_not_shortest_are_refused(data: bytes) -> None:
    with pytest.raises(StateError):
        read_varints(data)


@RELAXED
@given(
    st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3), min_size=1, max_size=6), st.integers(1, 50)
)
def test_exact_sums_have_one_form_whatever_their_limbs_hold(rows: list[list[int]], first: int) -> None:
    limbs = np.array(rows, np.int64)
    limbs[:, 2] = abs(limbs[:, 2])  # so that no total is negative
    limbs[:, :2] //= 2
    limbs[:, 2] += 2**31
    totals = [sum(int(v) << 32 * k for k, v in enumerate(row)) << 32 * first for row in limbs]
    sums = ExactSums.of(limbs, first)
    assert [value << 32 * sums.first for value in sums.integers()] == totals
    twice = sums.merge(sums)
    assert [value << 32 * twice.first for value in twice.integers()] == [2 * total for total in totals]
    assert (
        ExactSums.from_bytes(sums.first, sums.digits.shape[1], len(totals), sums.to_bytes()).integers()
        == sums.integers()
    )
    none = ExactSums.none(len(totals))
    assert sums.merge(none).to_bytes() == none.merge(sums).to_bytes() == sums.to_bytes()


@RELAXED
@given(hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(width=32, allow_nan=False)))
def test_bins_hold_the_numbers_that_are_counted_in_them(values: Any) -> None:
    keys = values.view(np.uint32).astype(np.int64) >> 16
    histogram = Histogram.of(keys, np.ones(keys.size, np.int64))
    low, high, counts = histogram.bins()
    assert counts.sum() == values.size
    assert (np.diff(low) >= 0).all()
    for value in values.tolist():
        assert ((low <= value) & (value <= high)).any()
    assert Histogram.from_bytes(1, histogram.to_bytes()).to_bytes() == histogram.to_bytes()
    assert histogram.merge(histogram).counts.tolist() == (2 * histogram.counts).tolist()


@pytest.mark.parametrize(
    ("keys", "counts"),
    [([BINS], [1]), ([0x7F81], [1]), ([0xFFFF], [1]), ([1, 1], [1, 1]), ([1], [0]), ([3, 2], [1, 1])],
)
def test_histograms_that_no_data_makes_are_refused(keys: list[int], counts: list[int]) -> None:
    steps = np.diff(np.array(keys), prepend=0)
    if (steps < 0).any():
        steps = np.array([3, 2**63 - 1])
    with pytest.raises(StateError):
        Histogram.from_bytes(1, varints(np.concatenate([steps, counts])))
    with pytest.raises(StateError):
        Histogram.from_bytes(1, varints(np.array([1, 2, 3])))


# ---- merging ---------------------------------------------------------------------------------------------------------


def test_the_empty_state_is_neutral_and_merging_commutes() -> None:
    one, other = stats_of(4), stats_of(7, begin=4, end=11, columns={"last_fired": [-1, 10, 5]})
    empty = NeuronStats.empty("relu", one.options, one.shape)
    assert one.merge(empty) == empty.merge(one) == one
    assert one.merge(other) == other.merge(one)
    assert hash(one.merge(other)) == hash(other.merge(one))
    both = one.merge(other)
    assert both.samples.tolist() == [11, 11, 11]
    assert both.last_fired.tolist() == [-1, 10, 5]
    assert (both.begin, both.end) == (0, 11)
    assert empty.merge(empty) == empty


def test_states_of_other_options_shapes_and_parameters_do_not_merge() -> None:
    one = stats_of()
    for option, other in (
        ("activation", stats_of(activation="elu")),
        ("parameters", stats_of(parameters={"alpha": 1.0})),
        ("threshold", stats_of(options=NeuronOptions(sums=False, threshold=0.5))),
        ("slopes", stats_of(options=NeuronOptions(sums=False, slopes="none"))),
        ("neuron count", stats_of(neurons=2)),
    ):
        with pytest.raises(StateMismatch) as caught:
            one.merge(other)
        assert caught.value.option == option
        assert repr(caught.value.left) in str(caught.value)
        assert repr(caught.value.right) in str(caught.value)


def test_counts_that_overflow_are_an_error_and_no_nonsense() -> None:
    many = 2**62
    columns = {name: [many, many, many] for name in ("samples", "inactive", "zero")}
    columns |= {"positive": [0] * 3, "nan": [0] * 3, "last_fired": [-1] * 3}
    with pytest.raises(StateError):
        stats_of(columns=columns).merge(stats_of(columns=columns))


def test_not_fired_within_counts_from_the_end() -> None:
    stats = stats_of(10, columns={"last_fired": [-1, 9, 4]})
    assert stats.not_fired_within(1).tolist() == [True, False, True]
    assert stats.not_fired_within(5).tolist() == [True, False, True]
    assert stats.not_fired_within(6).tolist() == [True, False, False]
    assert stats.not_fired_within(11).tolist() == [False, False, False]
    with pytest.raises(StateError, match="at least 1"):
        stats.not_fired_within(0)


def test_a_mean_is_rounded_once_and_infinities_are_as_ieee_has_them() -> None:
    third = ExactSums.of(np.array([[1], [1], [0]]), 34)  # 1, as 34 * 32 = VALUE_OFFSET
    none = ExactSums.none(3)
    options = NeuronOptions()
    stats = stats_of(3, options=options, sums=(third, none, none), columns={"inactive": [3, 0, 1], "zero": [3, 0, 1]})
    assert stats.mean.tolist() == [1 / 3, 1 / 3, 0.0]
    assert stats.variance.tolist()[2] == 0.0
    assert stats.layer.mean == float(Fraction(2, 9))
    up = stats_of(
        3, options=options, sums=(third, none, none), columns={"positive_infinity": [0, 1, 0], "inactive": [3, 0, 1]}
    )
    assert up.mean.tolist() == [1 / 3, math.inf, 0.0]
    assert np.isnan(up.variance[1])
    assert up.layer.mean == math.inf


def test_without_sums_their_figures_are_nan() -> None:
    stats = stats_of()
    assert np.isnan(stats.mean).all()
    assert not stats.dormant.any()
    assert math.isnan(stats.layer.dormant_fraction)


def test_a_state_cannot_be_changed() -> None:
    stats = stats_of()
    with pytest.raises(ValueError, match="read-only"):
        stats.columns["zero"][0] = 1
    with pytest.raises(ValueError, match="read-only"):
        stats.least[0] = 1
    with pytest.raises(TypeError):
        stats.columns["zero"] = stats.columns["nan"]  # type: ignore[index]


# ---- bytes that are no states ----------------------------------------------------------------------------------------


def full() -> NeuronStats:
    sums = ExactSums.of(np.array([[5], [6], [0]]), 30)
    options = NeuronOptions(histogram="neuron", fired="abs>eps", eps=0.5)
    histogram = Histogram.of(np.array([5, BINS + 7]), np.array([2, 300]))
    return stats_of(
        options=options, sums=(sums, ExactSums.none(3), sums), histogram=histogram, parameters={"a": math.inf}
    )


@pytest.mark.parametrize("make", [stats_of, full])
def test_bytes_come_back_and_every_truncation_is_refused(make: Callable[[], NeuronStats]) -> None:
    data = make().to_bytes()
    assert NeuronStats.from_bytes(data) == make()
    assert dict(NeuronStats.from_bytes(data).parameters) == dict(make().parameters)
    for size in range(len(data)):
        with pytest.raises(StateError):
            NeuronStats.from_bytes(data[:size])
    with pytest.raises(StateError):
        NeuronStats.from_bytes(data + b"\0")


def changed(state: NeuronStats, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A state's bytes with another header."""
    data = state.to_bytes()
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length])
    text = json.dumps(change(header) or header).encode()
    return data[:8] + len(text).to_bytes(4, "little") + text + data[12 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(version=1),
        lambda header: header.update(kind="other"),
        lambda header: header.update(extra=1),
        lambda header: header.pop("options"),
        lambda header: header["options"].update(threshold="high"),
        lambda header: header["options"].update(threshold=10**400),
        lambda header: header["options"].update(fired="often"),
        lambda header: header["options"].update(neuron_axis=[]),
        lambda header: header["options"].update(neuron_axis=[True]),
        lambda header: header["options"].update(sums=1),
        lambda header: header["options"].update(sums=False),
        lambda header: header["options"].update(histogram=None),
        lambda header: header["options"].update(other=None),
        lambda header: header.update(options=[]),
        lambda header: header.update(activation=None),
        lambda header: header.update(shape=[2**62]),
        lambda header: header.update(shape=[-3]),
        lambda header: header.update(shape=[3.0]),
        lambda header: header.update(shape=[1] * 70),
        lambda header: header.update(shape=3),
        lambda header: header.update(columns=["samples"]),
        lambda header: header.update(parameters=[1]),
        lambda header: header.update(parameters={"alpha": None}),
        lambda header: header.update(begin=-1),
        lambda header: header.update(begin=9),
        lambda header: header.update(end=0),
        lambda header: header.update(end=1.5),
        lambda header: header.update(sums=[[30, 1]]),
        lambda header: header.update(sums=[[30, 1], [0, 0], [2**40, 1]]),
        lambda header: header.update(sums=[[30, 10**9], [0, 0], [30, 1]]),
        lambda header: header.update(sums=None),
        lambda header: header.update(histogram=10**9),
        lambda header: header.update(histogram=-1),
        lambda header: [header],
    ],
)
def test_headers_that_are_not_understood_are_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(StateError):
        NeuronStats.from_bytes(changed(full(), change))


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", b"actstate", b"actstate" + len(data).to_bytes(4, "little")):
        with pytest.raises(StateError):
            NeuronStats.from_bytes(prefix + data)


def test_a_state_of_another_kind_is_named() -> None:
    with pytest.raises(StateError, match="'square_sum', and no state of the kind neuron_stats"):
        NeuronStats.from_bytes(SquareSum().to_bytes())


@pytest.mark.parametrize(
    "columns",
    [
        {"inactive": [5, 0, 2]},
        {"inactive": [-1, 0, 2]},
        {"zero": [5, 0, 0]},
        {"nan": [1, 0, 1]},
        {"positive": [1, 4, 4]},
        {"positive": [0, 4, 1], "negative": [0, 1, 0]},
        {"positive_infinity": [1, 0, 0]},
        {"negative_infinity": [0, 1, 0]},
        {"saturated_low": [5, 0, 0]},
        {"zero_gradient": [0, 9, 0]},
        {"last_fired": [0, 3, 0]},
        {"last_fired": [-1, 4, 0]},
        {"last_fired": [-2, 3, 0]},
        {"samples": [4, 4]},
    ],
)
def test_counts_that_contradict_each_other_are_refused(columns: dict[str, list[int]]) -> None:
    with pytest.raises(StateError):
        stats_of(columns=columns)


def test_extremes_that_contradict_the_counts_are_refused() -> None:
    with pytest.raises(StateError):
        stats_of(least=np.array([0.0, math.nan, 0.0]))
    with pytest.raises(StateError):
        stats_of(least=np.array([0.0, 3.0, 0.0]))


def test_equal_options_give_equal_bytes() -> None:
    one = stats_of(parameters={"x": 1.0, "y": -0.0})
    assert one.to_bytes() == stats_of(parameters={"y": 0.0, "x": 1}).to_bytes()
    assert stats_of(least=np.array([-0.0, 0.0, -0.0])).to_bytes() == stats_of().to_bytes()
