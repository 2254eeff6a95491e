"""Every elementwise kernel of float32 beside that of float64, at many points; `make accuracy` asks at more."""

from __future__ import annotations

import os

import dense
import oracle
import pytest
from actserve_server.activations.spec import Activation, Value
from test_accuracy import CASES

COUNT = int(os.environ.get("DENSE_POINTS", "20000"))
"""How many points are taken of each kind."""


@pytest.mark.parametrize("operation", ["forward", "derivative"])
@pytest.mark.parametrize(("record", "given"), CASES)
def test_float32_is_float64_rounded(record: Activation, given: dict[str, Value], operation: str) -> None:
    for scan in dense.scans(record, operation, oracle.parameters(record, given), COUNT):
        assert not scan.failures, f"{len(scan.failures)} of them: " + "\n".join(scan.failures[:8])
