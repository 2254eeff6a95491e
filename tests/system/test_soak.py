"""A long stream in constant memory: the resident memory of both sides, sampled while gigabytes go through one stream.

`make soak` sends 20 GB; CI sends enough to see memory that grows with the stream.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

MOST_GROWTH_MB = 150
"""Above what each side has when it is idle, having computed once."""

CLIENT = """
import sys
import numpy as np
from actserve_client import Client

BLOCK = np.random.default_rng(5).standard_normal((1024, 1024)).astype(np.float32)
EXPECTED = np.maximum(BLOCK, 0)
address, blocks = sys.argv[1], int(sys.argv[2])


def given(count):
    block = np.empty_like(BLOCK)
    for number in range(count):
        np.multiply(BLOCK, np.float32(1 << number % 5), out=block)
        yield block


def send(client, count):
    number = -1
    for number, result in enumerate(client.stream("relu", given(count))):
        # A power of two scales exactly.
        assert np.array_equal(result, EXPECTED * np.float32(1 << number % 5)), number
    assert number + 1 == count, number


with Client(address) as client:
    send(client, 1)
    print("idle", flush=True)
    sys.stdin.readline()
    send(client, blocks)
    print("done", flush=True)
"""


@pytest.fixture
def server_process() -> Iterator[tuple[psutil.Process, str]]:
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", "127.0.0.1:0", "--log-format", "json"]
    command += ["--log-level", "info", "--allow-create", "false"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        address = json.loads(process.stderr.readline())["addresses"][0]
        yield psutil.Process(process.pid), address
        process.kill()


def test_a_long_stream_needs_no_more_memory_than_a_short_one(
    server_process: tuple[psutil.Process, str], soak_gb: float, record_property: Any
) -> None:
    server, address = server_process
    blocks = round(soak_gb * 1e9 / (4 << 20))
    command = [sys.executable, "-c", CLIENT, address, str(blocks)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == b"idle\n"
        sides = {"server": server, "client": psutil.Process(process.pid)}
        idle = {name: side.memory_info().rss for name, side in sides.items()}
        peak = dict(idle)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        while process.poll() is None:
            for name, side in sides.items():
                # One that has just ended has no memory, and its status says what is to be known.
                if side.is_running() and side.status() != psutil.STATUS_ZOMBIE:
                    peak[name] = max(peak[name], side.memory_info().rss)
            time.sleep(0.05)
        assert process.stdout.read() == b"done\n"
        assert process.returncode == 0
    growth_mb = {name: round((peak[name] - idle[name]) / 1e6, 1) for name in sides}
    print(
        f"{soak_gb:g} GB; resident memory grew by, in MB: {growth_mb}; from { ({n: v >> 20 for n, v in idle.items()}) } MiB"
    )
    record_property("growth_mb", growth_mb)
    assert max(growth_mb.values()) <= MOST_GROWTH_MB, growth_mb
