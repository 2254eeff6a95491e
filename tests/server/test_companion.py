"""A process beside this one: what happens to it, and to the lines it is given, when it dies, lingers, wears out or is closed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from actserve_server import companion
from actserve_server.companion import Companion, CompanionBusy, CompanionEnded, CompanionFailed, CompanionTooSlow

MODULE = """
import os, sys, time
from actserve_server.companion import answer_lines

done = []

def answer(line):
    print("a library that prints")
    what = line.decode()
    if what == "die":
        os._exit(1)
    if what == "linger":
        time.sleep(600)
    if what == "meanwhile":
        return str(len(done)).encode()
    done.append(what)
    return f"{what} {len(done)} {os.getpid()} {sys.argv[3:]}".encode()

def meanwhile():
    done.append("step")
    return len(done) < 3

def main(*arguments):
    answer_lines(answer, idle_s=None, meanwhile=meanwhile if "steps" in arguments else lambda: False, is_worn=lambda: len(done) == 7)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "answers_for_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "answers_for_a_test"


@pytest.fixture
def one(module: str) -> Iterator[Companion]:
    one = Companion(module)
    yield one
    one.close(for_good=True)


def ask(one: Companion, line: str, within_s: float = 120) -> str:
    return one.ask(line.encode(), within_s).decode()


def test_lines_are_answered_in_turn_by_one_process(one: Companion) -> None:
    assert one.pid is None
    assert [ask(one, "a"), ask(one, "b")] == [f"a 1 {one.pid} []", f"b 2 {one.pid} []"]
    long = "x" * 200_000
    assert ask(one, long).startswith(long)


def test_one_that_was_killed_while_it_was_idle_is_replaced_unnoticed(one: Companion) -> None:
    ask(one, "a")
    killed = one.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert ask(one, "b") == f"b 1 {one.pid} []"
    assert one.pid != killed


def test_a_line_that_ends_the_process_fails_and_the_next_finds_another(one: Companion) -> None:
    with pytest.raises(CompanionEnded):
        ask(one, "die")
    assert one.pid is None
    assert ask(one, "a").startswith("a 1 ")


def test_one_that_lingers_is_ended_and_where_it_stays_replaced_at_once(one: Companion) -> None:
    one.start("stays")
    first = one.pid
    assert first is not None
    with pytest.raises(CompanionTooSlow, match=r"0\.05 s"):
        ask(one, "linger", 0.05)
    assert one.pid not in (None, first)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert ask(one, "a") == f"a 1 {one.pid} ['stays']"


def test_who_waits_for_others_too_long_is_told(one: Companion) -> None:
    ask(one, "a")
    failed: list[Exception] = []

    def linger() -> None:
        try:
            ask(one, "linger")
        except CompanionFailed as error:
            failed.append(error)

    thread = threading.Thread(target=linger)
    with one._lock:
        thread.start()
        with pytest.raises(CompanionBusy):
            one.ask(b"b", 1, wait_s=0.01)
    # It is closed under a line, and that fails.
    while not one._lock.locked():
        pass
    one.close(for_good=True)
    thread.join(120)
    assert failed and one.pid is None
    with pytest.raises(CompanionFailed, match="closed"):
        ask(one, "a")


def test_another_is_started_after_one_was_closed_for_now(one: Companion) -> None:
    ask(one, "a")
    one.close()
    assert one.pid is None
    assert ask(one, "a").startswith("a 1 ")


def test_steps_are_done_while_nothing_is_asked(one: Companion) -> None:
    one.start("steps")
    while int(ask(one, "meanwhile")) < 3:
        pass


def test_a_worn_one_becomes_a_fresh_one_and_no_line_is_lost(one: Companion) -> None:
    answers = [ask(one, "a").split()[1:3] for _ in range(20)]
    assert answers == [[str(number % 7 + 1), str(one.pid)] for number in range(20)]


def test_one_that_cannot_start_fails(tmp_path: Path) -> None:
    one = Companion("no_such_module_for_a_test")
    with pytest.raises(CompanionFailed, match="before it began"):
        ask(one, "a")
    assert one.pid is None


def test_it_ends_when_its_parent_is_gone(module: str) -> None:
    command = [sys.executable, "-c", companion._START, json.dumps(sys.path), module]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=300).returncode == 0


def test_it_ends_without_a_word_when_its_parent_is_killed_under_a_line(module: str) -> None:
    command = [sys.executable, "-c", companion._START, json.dumps(sys.path), module]
    pipes: dict[str, int] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.stderr.read() == b""
        assert process.wait(120) == 0
