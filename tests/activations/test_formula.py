"""The formulas' evaluation, which a server asks from many threads at once."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import mpmath as mp
import pytest
from actserve_server.activations import formula
from actserve_server.activations.catalogue import find


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads take turns so often that what they share is seen half changed."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("eager_switches")
def test_threads_do_not_change_each_others_precision() -> None:
    record = find("silu")
    assert record is not None
    before = mp.mp.prec

    def ask(first: int) -> None:
        # Tiny arguments need hundreds of digits, and others few.
        for k in range(250):
            formula.value(record, (first * 1000 + k + 1) * (2.0**-133 if first % 2 else 1e-4), (1.0,))

    threads = [threading.Thread(target=ask, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert mp.mp.prec == before
