"""What tests of whole processes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from supervised import Supervised


@pytest.fixture
def supervised() -> Iterator[Callable[..., Supervised]]:
    started: list[Supervised] = []

    def start(*arguments: str) -> Supervised:
        started.append(Supervised(*arguments))
        return started[-1]

    yield start
    for server in started:
        server.close()
