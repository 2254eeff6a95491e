"""kill -9 of the server at random moments of a stream: every result is bit-identical. `make faults` does it fifty times."""

from __future__ import annotations

import hashlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from actserve_client import Client, Retry

Array = np.ndarray[Any, Any]
BLOCK = np.random.default_rng(3).standard_normal((512, 1024)).astype(np.float32)
PATIENT = Retry(attempts=100, reconnect_s=120)
"""A kill may fall before the call has begun, while its input is made: then it counts as a call that found no server."""


class Mortal:
    """A server process that can be killed, and comes back at the same address."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and return without waiting for it."""
        command = [sys.executable, "-m", "actserve_server", "serve", "--address", self.address, "--log-level", "error"]
        self._process = subprocess.Popen(command)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def end(self) -> None:
        """For good."""
        self.kill()


@pytest.fixture
def mortal(unused_port: int) -> Iterator[Mortal]:
    server = Mortal(f"127.0.0.1:{unused_port}")
    server.start()
    yield server
    server.end()


def blocks(count: int) -> Iterator[Array]:
    """Different ones, from memory that is used again."""
    block = np.empty_like(BLOCK)
    for index in range(count):
        np.multiply(BLOCK, np.float32(1 + index % 7), out=block)
        yield block


def hashed(results: Iterator[Array]) -> str:
    sha = hashlib.sha256()
    for result in results:
        sha.update(result.data)
    return sha.hexdigest()


def array(count: int) -> Array:
    return np.concatenate([block.copy() for block in blocks(count)])


WORK: dict[str, Callable[[Client, int], Any]] = {
    "stream": lambda client, count: hashed(client.stream("silu", blocks(count))),
    "slices": lambda client, count: hashed(client.stream("softmax", blocks(count))),
    "products": lambda client, count: hashed(
        client.stream("tanh", blocks(count), mode="derivative", upstream=blocks(count))
    ),
    "map": lambda client, count: hashed(client.map("gelu", (block[:64] for block in blocks(8 * count)))),
    "statistics": lambda client, count: hashlib.sha256(client.neuron_stats("relu", blocks(count)).state).hexdigest(),
    "penalty": lambda client, count: client.regularization("relu", blocks(count), "l2").penalty,
    "array": lambda client, count: hashed(iter([client.forward("sigmoid", array(min(count, 256)))])),
}


def test_every_result_is_bit_identical(mortal: Mortal, kills: int, kill_bytes: int) -> None:
    count = kill_bytes // BLOCK.nbytes
    chance = random.Random(1)
    with Client(mortal.address, retry=PATIENT, timeout=600) as client:
        while not client.healthy(timeout=1):
            time.sleep(0.05)
        expected: dict[str, Any] = {}
        took: dict[str, float] = {}
        killed = 0
        for name in [name for _ in range(kills) for name in WORK][: max(kills, len(WORK))]:
            work = WORK[name]
            if name not in expected:
                work(client, 1)  # compiles what it needs
                begin = time.monotonic()
                expected[name] = work(client, count)
                took[name] = time.monotonic() - begin
            result: list[Any] = []
            worker = threading.Thread(target=lambda work=work, result=result: result.append(work(client, count)))
            worker.start()
            worker.join(chance.uniform(0.1, 0.9) * took[name])
            if worker.is_alive():
                killed += 1
                mortal.kill()
                mortal.start()
            worker.join(590)
            assert not worker.is_alive()
            assert result == [expected[name]], name
    assert killed >= min(kills, len(WORK)) // 2
