"""Chunks that come and go take no fresh pages, in a process of a caller's own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import textwrap

import pytest
from actserve_server.app import Server

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's thresholds")

CALLS = """
import resource, sys
import numpy as np
from actserve_client import Client

with Client(sys.argv[1]) as client:
    x = np.ones(8 << 20, np.float32)
    out = np.empty_like(x)
    for _ in range(4):
        client.forward("identity", x, out=out)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        client.forward("identity", x, out=out)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 4)
"""


def pages_a_call(address: str, **environment: str) -> int:
    """New pages of a caller for each call with 32 MiB there and back, which are 8,192."""
    run = [sys.executable, "-c", textwrap.dedent(CALLS), address]
    done = subprocess.run(run, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return int(done.stdout)


def test_a_caller_streams_through_pages_that_it_has(server: Server) -> None:
    assert pages_a_call(server.addresses[1]) < 1000


def test_thresholds_of_the_environment_are_left_alone(server: Server) -> None:
    assert pages_a_call(server.addresses[1], MALLOC_TRIM_THRESHOLD_="131072", MALLOC_MMAP_THRESHOLD_="131072") > 8000
