"""The examples of docstrings and of the documentation: they run as they are written, and give what they say."""

from __future__ import annotations

import doctest
import importlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import actserve_client
import numpy as np
import pytest
from actserve_client import Client

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "client",
    "local",
    "network",
    "options",
    "_session.merging",
    "_summaries",
    "cli.following",
    "cli.options",
    "cli.output",
)


@pytest.fixture(autouse=True)
def what_examples_create(client: Client) -> Iterator[None]:
    yield
    if any(record.name == "team.swish" for record in client.activations()):
        client.delete_activation("team.swish")


@pytest.mark.parametrize("module", MODULES)
def test_docstrings(client: Client, module: str, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ACTSERVE_ADDRESS", address)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # where an example says that a private server's socket lies
    found = importlib.import_module(f"actserve_client.{module}")
    names: dict[str, Any] = {**vars(actserve_client), **vars(found), "client": client, "np": np}
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder(exclude_empty=True).find(found, globs=names):
        runner.run(test, out=said.append)
    assert runner.tries
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("page", ["README.md", "docs/custom.md"])
def test_pages(client: Client, page: str, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("ACTSERVE_ADDRESS", address)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), {"client": client, "np": np, "x": np.linspace(-3, 3, 7)})  # ours
