"""The process in which added formulas are looked into: asked before it is ready, it answers all the same."""

from __future__ import annotations

from pathlib import Path

from actserve_server.custom.entry import Entry
from actserve_server.custom.workshop import Workshop
from actserve_server.kernels import compiler


def test_an_entry_that_comes_while_the_process_starts_is_answered(server: object) -> None:
    workshop = Workshop(Path(compiler.directory()))
    try:
        workshop.prepare()
        report = workshop.examine(Entry("team.early", "2 * x"), longest=1000, within_s=300)
        assert report.monotonic == "increasing"
    finally:
        workshop.close()
