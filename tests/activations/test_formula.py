"""The formulas' evaluation, which a server asks from many threads at once, and with no gmpy2 behind mpmath."""

from __future__ import annotations

import json
import os
import subprocess
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


VALUES = """
import json, sys
from actserve_server.activations import formula
from actserve_server.activations.catalogue import CATALOGUE
from actserve_server.activations.spec import Activation
from mpmath.libmp import BACKEND

values = {
    f"{record.name} {x} {derivative}": [
        int(part) for part in formula.value(record, x, formula.parameters(record), derivative=derivative)._mpf_
    ]
    for record in CATALOGUE
    if isinstance(record, Activation) and not record.indexed
    for x in (-745.25, -1.7, 1e-9, 0.3, 88.5)
    for derivative in (False, True)
}
print(json.dumps([BACKEND, values]))
"""


def test_mpmath_says_the_same_without_gmpy2() -> None:
    """The tests have gmpy2, as they take half the time with it, and a server does not."""
    answers = []
    for more in ({}, {"MPMATH_NOGMPY": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", VALUES], env=os.environ | more, capture_output=True, text=True, check=True
        )
        answers.append(json.loads(done.stdout))
    assert answers[1][0] == "python"
    assert len(answers[0][1]) > 500
    assert answers[0][1] == answers[1][1]
