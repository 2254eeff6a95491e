"""The bytes of a penalty's state: one form only, nothing lost, and nothing believed that contradicts itself."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from actserve.penalties import FORMS, PenaltyState, Sums, Undefined, form_of, is_penalty, keywords, known
from actserve.stats import SquareSum, StateError, StateMismatch
from hypothesis import given
from hypothesis import strategies as st

COUNTS = st.integers(0, 1 << 40)
OPTIONS = {
    "l1": 0.5, "l2": 2.0, "p": 1.5, "eps": math.inf, "rho": 0.25, "lag": 1.0, "neuron_axis": 1.0, "penalty_axis": 1.0,
    "distribution": "softmax", "mode": "rows",
}  # fmt: skip


@st.composite
def states(draw: Any, name: str | None = None, width: int | None = None) -> PenaltyState:
    name = name or draw(st.sampled_from([*FORMS]))
    options = {option: OPTIONS[option] for option in FORMS[name].options}
    if name == "group_lasso":
        options["penalty_axis"] = float(draw(st.integers(0, 1)) if width is None else 0)
    form = form_of(name, options)
    width = (draw(st.integers(0, 5)) if width is None else width) if form.terms == "neuron" else 1
    shift = draw(st.integers(0, 60))

    def column(numbers: Any) -> tuple[int, ...]:
        return tuple(draw(st.lists(numbers, min_size=width, max_size=width)))

    totals = st.integers(-(1 << 1200), 1 << 1200).map(lambda n: n << shift)
    return PenaltyState(
        name,
        "relu",
        parameters={"alpha": -0.0, "word": "mean", "top": math.inf},
        options=options,
        strength=draw(st.floats(0, 1e6)),
        reduction=draw(st.sampled_from(["sum", "batch_mean", "mean"])),
        elements=draw(COUNTS),
        rows=draw(COUNTS),
        terms=draw(COUNTS),
        sums=tuple(Sums(column(totals), column(COUNTS), column(COUNTS), column(COUNTS)) for _ in form.quantities),
    )


@given(states())
def test_a_state_survives_its_bytes(state: PenaltyState) -> None:
    data = state.to_bytes()
    assert PenaltyState.from_bytes(data) == state
    assert PenaltyState.from_bytes(data).to_bytes() == data
    assert is_penalty(data)


@given(states("kl_sparsity", 3), states("kl_sparsity", 3), states("kl_sparsity", 3))
def test_merging_is_commutative_and_associative(a: PenaltyState, b: PenaltyState, c: PenaltyState) -> None:
    def like(state: PenaltyState) -> PenaltyState:
        return dataclasses.replace(state, strength=1.0, reduction="sum", terms=3)

    a, b, c = like(a), like(b), like(c)
    assert a.merge(b).to_bytes() == b.merge(a).to_bytes()
    assert a.merge(b).merge(c).to_bytes() == a.merge(b.merge(c)).to_bytes()


@given(states(), st.data())
def test_damaged_bytes_are_refused(state: PenaltyState, data: st.DataObject) -> None:
    whole = state.to_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\0", whole[:cut] + whole[cut + 1 :]):
        with pytest.raises(StateError):
            PenaltyState.from_bytes(wrong)


@given(st.binary(max_size=80))
def test_arbitrary_bytes_are_no_state(data: bytes) -> None:
    for prefix in (b"", b"actstate", b"actstate" + len(data).to_bytes(4, "little")):
        with pytest.raises(StateError):
            PenaltyState.from_bytes(prefix + data)
    assert not is_penalty(SquareSum().to_bytes())


STATE = PenaltyState("l1", "relu", strength=0.5, elements=2, rows=2, terms=2, sums=(Sums((7 << 1074,)),))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "square_sum"},
        {"extra": 1},
        {"regularizer": "l3"},
        {"activation": 1},
        {"of": "middle"},
        {"reduction": "median"},
        {"strength": -1},
        {"strength": "strong"},
        {"strength": 10**400},
        {"elements": -1},
        {"elements": 1.5},
        {"rows": 1 << 63},
        {"whole": 1},
        {"parameters": [1]},
        {"options": {"p": 1}},
        {"options": {"a": None}},
        {"width": 2},
        {"width": -1},
        {"width": 1 << 40},
        {"columns": []},
        {"columns": [["magnitudes", [0, 1]]]},
        {"columns": [["magnitudes", [1 << 40, 1], [0, 0], [0, 0], [0, 0]]]},
        {"columns": [["magnitudes", [0, -1], [0, 0], [0, 0], [0, 0]]]},
        {"columns": 3},
        {"columns": [["squares", [1074, 1], [0, 0], [0, 0], [0, 0]]]},
    ],
)
def test_headers_that_are_not_understood_are_refused(change: dict[str, Any]) -> None:
    data = STATE.to_bytes()
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length]) | change
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    with pytest.raises(StateError):
        PenaltyState.from_bytes(data[:8] + len(text).to_bytes(4, "little") + text + data[12 + length :])


def test_what_differs_is_named_with_both_sides() -> None:
    for name, other in (("activation", "tanh"), ("strength", 0.25), ("reduction", "mean"), ("of", "input")):
        with pytest.raises(StateMismatch) as caught:
            STATE.merge(dataclasses.replace(STATE, **{name: other}))
        assert (caught.value.option, caught.value.right) == (name, other)


def test_penalties_that_are_no_number() -> None:
    def penalty(**counts: Any) -> float:
        return PenaltyState("l1", "relu", elements=3, rows=3, terms=3, sums=(Sums((5,), **counts),)).penalty

    assert math.isnan(penalty(nan=(1,)))
    assert penalty(positive=(1,)) == math.inf
    assert math.isnan(penalty(positive=(1,), negative=(1,)))
    huge = PenaltyState("l2", "relu", strength=1, elements=1, rows=1, terms=1, sums=(Sums((1 << 4250,)),))
    assert huge.penalty == math.inf
    with pytest.raises(Undefined, match="at least 2"):
        PenaltyState("hoyer", "relu", elements=1, rows=1, terms=1, sums=(Sums((1,)), Sums((1,)))).penalty  # noqa: B018


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sums((1,), nan=(-1,)),
        lambda: Sums((1,), nan=(1, 2)),
        lambda: Sums((1 << 5000,)),
        lambda: PenaltyState("l1", "relu", sums=()),
        lambda: PenaltyState("l1l2", "relu", options={"l1": 1, "l2": 1}, sums=(Sums((1,)), Sums((1, 2)))),
        lambda: PenaltyState("lp", "relu", sums=(Sums((1,)),)),
        lambda: PenaltyState("lp", "relu", options={"p": math.nan}, sums=(Sums((1,)),)),
    ],
)
def test_states_that_contradict_themselves_are_refused(make: Any) -> None:
    with pytest.raises(StateError):
        make()


def test_names() -> None:
    assert known("tar") == "temporal"
    assert known("hoyer_sq") == "hoyer_square"
    assert known("l3") is None
    assert keywords("group_lasso") == {"penalty_axis", "group_axis"}
    assert keywords("l3") == frozenset()
