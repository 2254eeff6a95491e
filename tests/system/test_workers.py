"""Several workers behind one port: spread, restarted, drained, and none left behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from actserve_client import Client, Retry

PATIENT = Retry(reconnect_s=60)


class Supervised:
    """A supervisor with its workers, as a process."""

    def __init__(self, log: Path, *options: str) -> None:
        self._log = log
        command = [sys.executable, "-m", "actserve_server", "serve", "--workers", "2", "--log-format", "text", *options]
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stderr=file)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def workers(self) -> list[psutil.Process]:
        """Those that serve: not what they compile in."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [p for p in psutil.Process(self.process.pid).children() if p.status() != psutil.STATUS_ZOMBIE]
        return []

    def wait_ready(self, times: int) -> None:
        eventually(lambda: self.log.count("is ready") >= times or self.process.poll() is not None)
        assert self.process.poll() is None, self.log

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.wait()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()


def eventually(holds: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def address(unused_port: int) -> str:
    return f"127.0.0.1:{unused_port}"


@pytest.fixture
def supervised(tmp_path: Path, address: str) -> Iterator[Supervised]:
    server = Supervised(tmp_path / "log", "--address", address, "--metrics-address", "127.0.0.1:0", "--grace-s", "20")
    yield server
    server.end()


def test_a_life(supervised: Supervised, address: str) -> None:
    supervised.wait_ready(2)
    # Connections are spread over the workers by the kernel.
    seen = {}
    for _ in range(40):
        with Client(address) as client:
            info = client.server_info()
            seen[info.worker] = info.instance
        if len(seen) == 2:
            break
    assert set(seen) == {0, 1} and len(set(seen.values())) == 2

    # Another server can't have the port.
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", address]
    for more in ([], ["--workers", "2"]):
        refused = subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)
        assert refused.returncode == 2
        assert "can't listen" in refused.stderr and "Traceback" not in refused.stderr

    # One that is killed is started anew, and what it was computing goes on.
    x = np.random.default_rng(0).standard_normal(20_000_000).astype(np.float32)
    with Client(address, retry=PATIENT) as client:
        expected = client.forward("relu", x)
        result: list[Any] = []
        thread = threading.Thread(target=lambda: result.append(client.forward("relu", x)))
        thread.start()
        time.sleep(0.05)
        killed = supervised.workers()
        assert len(killed) == 2
        for worker in killed:
            worker.kill()
        thread.join(120)
        np.testing.assert_array_equal(result[0], expected)
    supervised.wait_ready(4)
    assert re.search(r"worker \d ended \(signal 9\)", supervised.log)

    # The gauges tell of all of them.
    where = re.search(r"metrics_address\W+(127\.0\.0\.1:\d+)", supervised.log)
    assert where is not None, supervised.log
    with Client(address) as client, client.monitor("relu", name="run") as monitor:
        monitor.observe("layer", np.zeros((3, 2)))
        monitor.report()
        with urllib.request.urlopen(f"http://{where[1]}/metrics", timeout=30) as answer:
            gauges = answer.read().decode()
    assert 'actserve_layer_dead_ratio{layer="layer",monitor="run"' in gauges
    assert all(f'actserve_worker_up{{worker="{n}"}} 1.0' in gauges for n in (0, 1))
    assert 'actserve_worker_restarts_total{worker="0"} 1.0' in gauges

    # A drain lets a stream end.
    more = threading.Event()

    def blocks() -> Iterator[Any]:
        yield np.ones(3)
        assert more.wait(20)
        yield np.full(3, 2.0)

    with Client(address, retry=None) as client:
        stream = client.stream("relu", blocks())
        next(stream)
        supervised.process.send_signal(signal.SIGTERM)
        eventually(lambda: "draining" in supervised.log)
        more.set()
        np.testing.assert_array_equal(next(stream), np.full(3, 2.0))
        assert list(stream) == []
    assert supervised.process.wait(60) == 0


def test_none_outlives_the_supervisor(tmp_path: Path, address: str) -> None:
    folder = tmp_path / "s"
    server = Supervised(tmp_path / "log", "--address", f"{address},unix:{folder}", "--grace-s", "1")
    try:
        server.wait_ready(2)
        # A socket's path can't be shared: each worker has its own.
        for worker, path in enumerate((f"unix:{folder}", f"unix:{folder}.1")):
            with Client(path) as client:
                assert client.server_info().worker == worker
        left = psutil.Process(server.process.pid).children(recursive=True)
        assert len(left) >= 2
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        _, alive = psutil.wait_procs(left, timeout=60)
        assert not alive
    finally:
        server.end()


def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options in (["--address", f"127.0.0.1:{port}"], ["--address", f"unix:{tmp_path}/none/s"]):
            server = Supervised(tmp_path / "log", *options)
            try:
                assert server.process.wait(60) == 2
                assert "can't listen on" in server.log and "Traceback" not in server.log
            finally:
                server.end()
