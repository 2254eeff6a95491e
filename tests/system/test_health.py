"""What a prober is told of a server of several processes, over gRPC, over HTTP and by the command, in each state that it may be in."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from actserve_client import AsyncClient, Client
from faults import Breaking
from grpc_health.v1 import health_pb2, health_pb2_grpc
from supervised import Supervised, until

Start = Callable[..., Supervised]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
REFUSED = "refused"


def http(address: str, path: str = "/health") -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def up(address: str) -> list[float]:
    """The gauges that say which workers serve."""
    lines = http(address, "/metrics")[1].splitlines()
    return [float(line.rpartition(" ")[2]) for line in lines if line.startswith("actserve_worker_up{")]


def checked(address: str) -> Any:
    """What a prober with a connection of its own is told."""
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60).status
        except grpc.RpcError as error:
            return REFUSED if error.code() is grpc.StatusCode.UNAVAILABLE else error.code()


def command(address: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "actserve_client.cli", "health", "--server", address],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.strip()


class Watching:
    """A prober that watches over a connection of its own."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self._call = health_pb2_grpc.HealthStub(self._channel).Watch(health_pb2.HealthCheckRequest())
        self.how: Any = grpc.StatusCode.OK
        self.told: list[Any] = [next(self._call).status]
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            for answer in self._call:
                self.told.append(answer.status)
        except grpc.RpcError as error:
            # A server that ends closes the connection, perhaps before it is said how the call ended.
            self.how = error.code()
        self.told.append("ended")

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *_: object) -> None:
        self._call.cancel()
        self._reader.join(60)
        self._channel.close()


@pytest.fixture
def place(socket_folder: Path) -> Iterator[Path]:
    """A folder for sockets: workers can't start while it is away."""
    place = socket_folder / "health"
    place.mkdir()
    yield place
    shutil.rmtree(place, ignore_errors=True)


def held() -> tuple[threading.Event, Iterator[Any]]:
    """Blocks for a stream that goes on until it is let go."""
    more = threading.Event()

    def blocks() -> Iterator[Any]:
        yield np.ones(3)
        assert more.wait(300)

    return more, blocks()


def test_one_dead_all_dead_back_again_and_draining(supervised: Start, place: Path) -> None:
    server = supervised(
        "--workers=2", f"--address=127.0.0.1:0,unix:{place}/s", "--metrics-address=127.0.0.1:0", "--grace-s=300"
    )
    metrics = server.serving["metrics_address"]
    pids = server.serving["workers"]
    assert (http(metrics), up(metrics)) == ((200, "serving\n"), [1, 1])
    assert checked(server.address) == SERVING

    # One is dead, and can't start again: whoever asks at the port is told of the other.
    with Watching(f"unix:{place}/s") as watching, Watching(f"unix:{place}/s.1") as lost:
        shutil.rmtree(place)
        os.kill(pids[1], signal.SIGKILL)
        until(lambda: up(metrics) == [1, 0])
        # Which is not renewed before another serves.
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("renewing workers")
        server.wait_for("worker can't start: " + _REASON.format(place=place, index=1))
        assert (http(metrics), up(metrics)) == ((200, "serving\n"), [1, 0])
        assert {checked(server.address) for _ in range(6)} == {SERVING}
        assert command(server.address) == (0, "serving")
        until(lambda: len(lost.told) == 2)
        assert (lost.told, lost.how) == ([SERVING, "ended"], grpc.StatusCode.UNAVAILABLE)
        assert watching.told == [SERVING]
        assert not server.said("draining")

        # All are dead, with pauses between their starts.
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: http(metrics)[0] == 503)
        assert http(metrics) == (503, "not serving\n")
        assert up(metrics) == [0, 0]
        assert checked(server.address) == REFUSED
        assert command(server.address) == (1, "not serving")
        until(lambda: watching.told == [SERVING, "ended"])

    place.mkdir()
    until(lambda: up(metrics) == [1, 1])
    assert (http(metrics)[0], checked(server.address)) == (200, SERVING)
    assert command(f"unix:{place}/none,unix:{place}/s.1") == (0, "serving")

    # All drain: what runs goes on, and watchers, who hold up nothing, are told.
    more, blocks = held()
    with (
        Client(f"unix:{place}/s") as client,
        Watching(f"unix:{place}/s") as one,
        Watching(f"unix:{place}/s.1") as other,
    ):
        stream = client.stream("relu", blocks)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        until(
            lambda: [one.told[1:], other.told[1:]] == [[NOT_SERVING, "ended"]] * 2, [one.told, other.told, server.log]
        )
        assert (http(metrics), up(metrics)) == ((503, "not serving\n"), [0, 0])
        until(lambda: checked(server.address) == REFUSED)
        assert command(server.address) == (1, "not serving")
        more.set()
        assert list(stream) == []
        assert server.process.wait(120) == 0


_REASON = "--address: can't listen on unix:{place}/s.{index}; is it in use, or not an address of this machine?"


def _of_the_socket(server: Supervised) -> int:
    """The worker that has the Unix socket: the first."""
    return [int(line["pid"]) for line in server.said("worker started") if line["worker"] == 0][-1]


def test_while_one_drains_others_serve_and_nobody_is_told_otherwise(supervised: Start, place: Path) -> None:
    server = supervised(
        "--workers=2", f"--address=127.0.0.1:0,unix:{place}/s", "--metrics-address=127.0.0.1:0", "--grace-s=300"
    )
    metrics = server.serving["metrics_address"]
    # The supervisor renews them, and then somebody drains one of them alone.
    for number, tell in enumerate(
        (
            lambda: server.process.send_signal(signal.SIGHUP),
            lambda: os.kill(_of_the_socket(server), signal.SIGTERM),
        )
    ):
        more, blocks = held()
        ready = len(server.pids()) + (2 if number == 0 else 1)
        with Client(f"unix:{place}/s") as client, Watching(f"unix:{place}/s") as watching:
            stream = client.stream("relu", blocks)
            next(stream)
            tell()
            until(lambda: watching.told[-1] == "ended")
            assert watching.told == ([SERVING, "ended"] if number == 0 else [SERVING, NOT_SERVING, "ended"])
            until(lambda: up(metrics) == [0, 1])
            assert http(metrics) == (200, "serving\n")
            assert {checked(server.address) for _ in range(6)} == {SERVING}
            assert client.healthy() is False
            more.set()
            assert list(stream) == []
        server.wait_for("worker ready", ready)
        until(lambda: up(metrics) == [1, 1])
        assert not server.said("worker died")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(120) == 0


async def test_a_connection_that_breaks_is_no_answer(address: str, socket_folder: Path) -> None:
    for cuts, healthy in (([1], True), ([1] * 200, False)):
        for user in (Client, AsyncClient):
            with Breaking(address, cuts) as breaking:
                if user is Client:
                    with Client(breaking.address) as client:
                        assert client.healthy(timeout=60) is healthy
                else:
                    async with AsyncClient(breaking.address) as other:
                        assert await other.healthy(timeout=60) is healthy
                assert breaking.broken >= 1
    nobody = f"unix:{socket_folder}/nobody"
    for addresses, healthy in ((f"{nobody},{address}", True), (nobody, False)):
        with Client(addresses) as client:
            assert client.healthy() is healthy
        async with AsyncClient(addresses) as other:
            assert await other.healthy() is healthy
