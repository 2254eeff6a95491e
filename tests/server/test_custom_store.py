"""The folder of added activations: of many writers one wins, there are never too many, and what a kill leaves behind goes."""

from __future__ import annotations

import concurrent.futures
import errno
import logging
import os
import time
from pathlib import Path

import pytest
from actserve_server.custom.store import Alike, Full, Store


def text_store(folder: Path | None) -> Store[str]:
    return Store(folder, lambda name, text: text)


def test_of_many_who_put_one_name_at_once_exactly_one_does(tmp_path: Path) -> None:
    stores = [text_store(tmp_path) for _ in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda number: stores[number].put("race", str(number), replace=False), range(8)))
    assert won.count(True) == 1
    assert [store.all(fresh=True) for store in stores] == [{"race": str(won.index(True))}] * 8


@pytest.mark.parametrize("on_disk", [True, False])
def test_there_are_never_more_than_there_may_be(on_disk: bool, tmp_path: Path) -> None:
    first = text_store(tmp_path if on_disk else None)
    stores = [text_store(tmp_path) for _ in range(8)] if on_disk else [first] * 8

    def put(number: int) -> bool:
        try:
            return stores[number].put(f"n{number}", "", replace=False, most=3)
        except Full:
            return False

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(put, range(8))) == 3
    (one, *_) = first.all(fresh=True)
    assert first.put(one, "again", replace=True, most=3)
    assert not first.put(one, "again", replace=False, most=3)
    assert first.remove(one) and first.put("last", "", replace=False, most=3)
    assert len(first.all(fresh=True)) == 3


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    for name in (".new-x1y2", ".hidden.json", "notes.txt", "a.json"):
        (tmp_path / name).write_text("text")
    store = text_store(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden.json", "a.json", "notes.txt"]
    assert store.all() == {"a": "text"}


def test_a_file_that_was_written_into_is_seen_though_the_folder_did_not_change(tmp_path: Path) -> None:
    store = text_store(tmp_path)
    store.put("a", "one", replace=False)
    os.utime(tmp_path, (1, 1))
    assert store.all(fresh=True) == {"a": "one"}
    (tmp_path / "a.json").write_text("another")
    deadline = time.monotonic() + 60
    while store.all() != {"a": "another"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_file_that_cannot_be_read_is_reported_once_for_as_long_as_it_is_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def read(name: str, text: str) -> str:
        if text == "bad":
            raise ValueError("it is bad")
        return text

    (tmp_path / "a.json").write_text("bad")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe")
    (tmp_path / "c.json").mkdir()
    store = Store(tmp_path, read)
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            store.put("d", str(number), replace=True)
            assert store.all(fresh=True) == {"d": str(number)}
    for name in "abc":
        assert sum(f"{name}.json" in record.getMessage() for record in caplog.records) == 1
    store.put("a", "good", replace=True)
    assert store.all(fresh=True) == {"a": "good", "d": "2"}


def test_another_server_sees_each_change_at_once(tmp_path: Path) -> None:
    one, other = text_store(tmp_path), text_store(tmp_path)
    for number in range(50):
        one.put("a", str(number), replace=True)
        assert other.all(fresh=True) == {"a": str(number)}
    one.remove("a")
    assert other.all(fresh=True) == {}


@pytest.mark.parametrize("on_disk", [True, False])
def test_of_two_names_that_differ_by_case_the_second_is_refused(on_disk: bool, tmp_path: Path) -> None:
    store = text_store(tmp_path if on_disk else None)
    assert store.put("Team.Swish", "one", replace=False)
    for replace in (False, True):
        with pytest.raises(Alike) as caught:
            store.put("team.swish", "two", replace=replace)
        assert caught.value.other == "Team.Swish"
    assert not store.remove("team.swish")
    assert store.all(fresh=True) == {"Team.Swish": "one"}
    assert store.remove("Team.Swish") and store.put("team.swish", "two", replace=False)


def test_a_disk_that_takes_nothing_leaves_what_there_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = text_store(tmp_path)
    store.put("a", "one", replace=False)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space left"):
            store.put("a", "two", replace=True)
    assert store.all(fresh=True) == {"a": "one"}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
