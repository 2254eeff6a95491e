"""The cores that one computation may use: what is worth sharing, and that all of it is done once."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Iterator

import pytest
from actserve_server.kernels import threads
from actserve_server.kernels.threads import Pace, Team, pace_of
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    found = Team(3)
    yield found
    found.close()


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(threads, "time", types.SimpleNamespace(perf_counter=found.perf_counter))
    return found


@given(size=st.integers(0, 1000), unit=st.integers(1, 40), grain=st.integers(1, 400))
@settings(max_examples=200, deadline=None)
def test_every_element_is_done_once_in_whole_units(team: Team, size: int, unit: int, grain: int) -> None:
    parts: list[tuple[int, int]] = []
    team.share(size, unit, lambda begin, end: parts.append((begin, end)), grain=grain)
    assert sorted(place for begin, end in parts for place in range(begin, end)) == list(range(size))
    assert all(begin % unit == 0 for begin, _ in parts)
    assert len(parts) <= max(min(3, size // grain), 1)


def test_the_error_of_a_part_is_raised_and_its_core_is_free_again(team: Team) -> None:
    mine = threading.get_ident()

    def work(begin: int, end: int) -> None:
        if threading.get_ident() != mine:
            raise ValueError(f"part from {begin}")

    for _ in range(5):
        with pytest.raises(ValueError, match="part from"):
            team.share(3, 1, work, grain=1)
    done: list[tuple[int, int]] = []
    team.share(3, 1, lambda *part: done.append(part), grain=1)
    assert len(done) == 3


def test_nothing_is_shared_of_work_that_nobody_has_seen() -> None:
    assert Pace().grain() == sys.maxsize


@pytest.mark.parametrize("elements", [1, 1000])
def test_a_part_is_long_enough_to_be_worth_another_core(clock: Clock, elements: int) -> None:
    pace = Pace()

    def work(begin: int, end: int) -> None:
        clock.now += (end - begin) * elements * 1e-9

    pace.timed(work, elements)(0, 1_000_000 // elements)
    assert pace.grain(elements) == pytest.approx(threads._WORTH_S / (elements * 1e-9), abs=1)


def test_a_pace_follows_what_it_sees_lately(clock: Clock) -> None:
    pace = Pace()
    for seconds in (1e-9, *[4e-9] * 20):

        def work(begin: int, end: int, seconds: float = seconds) -> None:
            clock.now += (end - begin) * seconds

        pace.timed(work)(0, 100_000)
    assert pace.grain() == pytest.approx(threads._WORTH_S / 4e-9, rel=0.02)


def test_a_part_that_was_held_up_is_forgotten_where_all_are_short(clock: Clock) -> None:
    pace = Pace()
    for seconds in (1e-3, *[4e-6] * 40):

        def work(begin: int, end: int, seconds: float = seconds) -> None:
            clock.now += seconds

        pace.timed(work)(0, 16_384)
    assert pace.grain() > 10 * 16_384


def test_a_short_part_says_nothing_of_an_element(clock: Clock) -> None:
    pace = Pace()

    def call(begin: int, end: int) -> None:
        clock.now += 2e-6

    pace.timed(call)(0, 10)
    assert pace.grain() == sys.maxsize


def test_a_loop_has_one_pace_for_as_long_as_there_is_one() -> None:
    def loop() -> None: ...

    assert pace_of(loop) is pace_of(loop)
    before = len(threads._paces)
    del loop
    assert len(threads._paces) == before - 1
