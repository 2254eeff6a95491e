"""Sums of squares are exact, and neither splits, order nor merging leave a trace in a state."""

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
from actserve.stats import SquareSum, StateError
from actserve_server.kernels import reductions
from actserve_server.kernels.compiler import load_reduction
from actserve_server.kernels.reductions import new_square_sum, square_sum
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


# ---- bytes that are no states --------------------------------------------------------------------------------------


def test_every_truncation_is_refused() -> None:
    data = SquareSum(3, 1, 1, 12345).to_bytes()
    # A shorter total is another total; everything else is missed.
    for size in range(data.index(b"}")):
        with pytest.raises(StateError):
            SquareSum.from_bytes(data[:size])


def changed(state: SquareSum, change: Callable[[dict[str, Any]], Any], payload: bytes = b"") -> bytes:
    """A state's bytes with another header."""
    data = state.to_bytes()
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length])
    text = json.dumps(change(header) or header).encode()
    return data[:8] + len(text).to_bytes(4, "little") + text + data[12 + length :] + payload


@given(st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    for prefix in (b"", b"actstate", b"actstate" + len(data).to_bytes(4, "little")):
        with pytest.raises(StateError):
            SquareSum.from_bytes(prefix + data)


@pytest.mark.parametrize("fields", [(1, 1, 1, 0), (0, 0, 0, -1), (True, 0, 0, 0), (1.0, 0, 0, 0), (1, 0, 0, 1 << 5000)])
def test_sums_that_contradict_themselves_are_refused(fields: tuple[Any, ...]) -> None:
    with pytest.raises(StateError):
        SquareSum(*fields)


def test_a_total_has_one_form_only() -> None:
    with pytest.raises(StateError, match="shortest"):
        SquareSum.from_bytes(changed(SquareSum(1, 0, 0, 1), lambda header: None, payload=b"\0"))
