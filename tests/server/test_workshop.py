"""The process in which added formulas are looked into: asked before it is ready, or when it has grown too large, it answers all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from actserve_server.custom import workshop as module
from actserve_server.custom.entry import Entry
from actserve_server.custom.workshop import TooLong, Workshop, WorkshopFailed
from actserve_server.kernels import compiler


@pytest.fixture
def workshop(server: object) -> Iterator[Workshop]:
    workshop = Workshop(Path(compiler.directory()))
    yield workshop
    workshop.close()


def test_an_entry_that_comes_while_the_process_starts_is_answered(workshop: Workshop) -> None:
    workshop.prepare()
    report = workshop.examine(Entry("team.early", "2 * x"), longest=1000, within_s=300)
    assert report.monotonic == "increasing"


def test_a_formula_that_takes_too_long_costs_its_process_and_the_next_finds_another(workshop: Workshop) -> None:
    workshop.prepare()
    first = workshop.companion.pid
    with pytest.raises(TooLong, match="given up"):
        workshop.examine(Entry("team.early", "tanh(x) * 1.98765"), longest=1000, within_s=0.001)
    assert workshop.companion.pid not in (None, first)
    assert workshop.examine(Entry("team.early", "2 * x"), longest=1000, within_s=300).lipschitz == 2


def test_what_no_process_can_do_fails_with_its_reason(workshop: Workshop) -> None:
    with pytest.raises(WorkshopFailed, match="no function foo"):
        workshop.examine(Entry("team.early", "foo(x)"), longest=1000, within_s=300)
    pid = workshop.companion.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert workshop.examine(Entry("team.early", "2 * x"), longest=1000, within_s=300).lipschitz == 2


@pytest.mark.parametrize("formula", module._USUAL)
def test_what_is_made_ready_is_formulas(formula: str) -> None:
    assert Entry("ready.ready", formula).definition(1000).record.formula == formula
