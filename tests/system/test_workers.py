"""Several processes behind one port: spread, restarted, renewed, drained, shown together, and gone with their supervisor."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from actserve_client import Client, ServerUnavailable
from actserve_client.local import LocalServer
from actserve_server.config import Config, ConfigError
from actserve_server.ports import Held
from hypothesis import given
from hypothesis import strategies as st
from supervised import COMMAND, Supervised, runs, until


def test_calls_are_spread_and_a_dead_worker_comes_back(
    supervised: Callable[..., Supervised], socket_folder: Path
) -> None:
    path = f"unix:{socket_folder}/spread"
    server = supervised(
        "--workers",
        "2",
        "--address",
        f"127.0.0.1:0,{path}",
        "--metrics-address",
        "127.0.0.1:0",
        "--max-create-s",
        "300",
    )
    assert len(server.serving["workers"]) == 2

    def gauges() -> dict[str, float]:
        url = f"http://{server.serving['metrics_address']}/metrics"
        with urllib.request.urlopen(url, timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

    # Each has a socket of its own; behind the port are both.
    ones = [server.instances(address, 1) for address in (path, f"{path}.1")]
    assert ones[0] != ones[1]
    for worker, address in enumerate((path, f"{path}.1")):
        with Client(address) as client:
            assert client.server_info().worker == worker
    seen: set[str] = set()
    until(lambda: bool(seen.update(server.instances()) or len(seen) == 2))
    assert seen == ones[0] | ones[1]

    with (
        Client(path) as one,
        Client(f"{path}.1") as other,
        one.monitor(name="run") as a,
        other.monitor(name="run") as b,
    ):
        # An activation that one was told of is known to both.
        one.create_activation("team.twice", "2 * x")
        until(lambda: "team.twice" in [found.name for found in other.activations()])
        np.testing.assert_array_equal(other.forward("team.twice", np.ones(3)), np.full(3, 2.0))
        # And gauges are of both.
        for number, monitor in enumerate((a, b), 1):
            monitor.observe("layer", np.ones((number, 4)))
            monitor.report()
        found = gauges()
        assert sorted(value for name, value in found.items() if name.startswith("actserve_layer_samples")) == [1.0, 2.0]
        assert [found[f'actserve_worker_up{{worker="{index}"}}'] for index in (0, 1)] == [1.0, 1.0]
        assert found['actserve_worker_restarts_total{worker="1"}'] == 0

        os.kill(server.serving["workers"][1], signal.SIGKILL)
        np.testing.assert_array_equal(one.forward("relu", np.ones(3)), np.ones(3))
        died = server.wait_for("worker died")
        assert (died["worker"], died["status"], died["pid"]) == (1, "killed by SIGKILL", server.serving["workers"][1])
        assert 0 < died["pause_s"] <= 0.2
        server.wait_for("worker ready", 3)
        until(other.healthy)
        np.testing.assert_array_equal(other.forward("relu", np.ones(3)), np.ones(3))
        found = gauges()
        assert found['actserve_worker_up{worker="1"}'] == 1.0
        assert [found[f'actserve_worker_restarts_total{{worker="{index}"}}'] for index in (0, 1)] == [0.0, 1.0]

    # Whoever does not belong to them is refused the port, with workers or without.
    for workers in ("1", "2"):
        command = [*COMMAND, "--workers", workers, "--address", server.address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, "is it in use" in done.stderr) == (2, True)

    # Two signals: it does not wait. Nothing is left, not even of who was killed.
    folders = {Path(argument) for pid in server.pids()[-1:] for argument in temporary(pid)}
    assert all(folder.is_dir() for folder in folders) and len(folders) == 1
    with Client(path) as client:
        stream = client.stream("relu", endless())
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining")
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 1
        del stream
    assert not any(map(runs, server.pids()))
    assert not list(socket_folder.glob("spread*"))
    assert not any(folder.exists() for folder in folders)


def temporary(pid: int) -> list[str]:
    """The folder that a worker's command line names."""
    arguments = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return [argument.partition("=")[2] for argument in arguments if argument.startswith("--temporary=")]


def endless() -> Iterator[Any]:
    while True:
        yield np.ones(3)
        time.sleep(0.01)


def test_workers_are_renewed_and_drained(supervised: Callable[..., Supervised], socket_folder: Path) -> None:
    paths = [f"unix:{socket_folder}/renewed", f"unix:{socket_folder}/renewed.1"]
    server = supervised("--workers", "2", "--address", paths[0], "--grace-s", "20")
    before = [server.instances(path, 1) for path in paths]
    server.process.send_signal(signal.SIGHUP)
    server.wait_for("worker ready", 4)
    after = [server.instances(path, 1) for path in paths]
    assert not set.union(*before) & set.union(*after)
    assert not server.said("worker died")

    # Both finish what runs; a service manager's own signal to a worker, beside the supervisor's, changes nothing.
    more = threading.Event()

    def blocks() -> Iterator[Any]:
        yield np.ones(3)
        assert more.wait(120)
        yield np.full(3, 2.0)

    with Client(paths[0]) as one, Client(paths[1]) as other:
        streams = [client.stream("relu", blocks()) for client in (one, other)]
        for stream in streams:
            np.testing.assert_array_equal(next(stream), np.ones(3))
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("draining", 3)
        for pid in server.pids()[-2:]:
            os.kill(pid, signal.SIGTERM)
        assert server.process.poll() is None
        more.set()
        for stream in streams:
            assert [list(block) for block in stream] == [[2.0] * 3]
    assert server.process.wait(60) == 0
    assert not any(map(runs, server.pids()))


def test_workers_end_with_a_supervisor_that_was_killed(supervised: Callable[..., Supervised]) -> None:
    server = supervised("--workers", "2", "--address", "127.0.0.1:0", "--log-level", "info")
    folders = {Path(argument) for pid in server.pids() for argument in temporary(pid)}
    assert all(folder.is_dir() for folder in folders) and folders
    server.process.kill()
    until(lambda: not any(map(runs, server.pids())))
    assert not any(folder.exists() for folder in folders)
    # And the port is free.
    Held(server.address).close()


def test_settings_with_which_no_worker_can_start_are_one_line(socket_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        used = f"127.0.0.1:{taken.getsockname()[1]}"
        for arguments, text in (
            (["--address", f"unix:{socket_folder}/none/s"], "--address: can't listen on unix:"),
            (["--address", used], f"--address: can't listen on {used}"),
            (["--address", "127.0.0.1:0", "--metrics-address", used], "--metrics-address: can't listen"),
            (["--address", "192.0.2.1:0"], "not an address of this machine"),
            (["--address", "unix:/" + "x" * 105], "longer than the 107 bytes"),
            (["--private", "--address", "127.0.0.1:0"], "a private server has 1"),
            (["--worker", "1"], "--worker: is for the supervisor"),
        ):
            command = [*COMMAND, "--workers", "2", "--log-level", "error", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            assert done.returncode == 2
            # gRPC says what it thinks of a socket beside it.
            ours = [line for line in done.stderr.splitlines() if line.startswith("actserve: ")]
            assert len(ours) == 1 and text in ours[0]
            assert "Traceback" not in done.stderr


def test_a_private_server_has_one_worker_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTSERVE_WORKERS", "3")
    with LocalServer() as server, Client(server.address) as client:
        np.testing.assert_array_equal(client.forward("relu", np.ones(2)), np.ones(2))
    with pytest.raises(ServerUnavailable, match="did not start"):
        LocalServer(workers=2)


@given(st.integers(257, 10_000) | st.integers(-10_000, 0))
def test_how_many_workers_there_may_be(workers: int) -> None:
    with pytest.raises(ConfigError, match=f"--workers: {workers} is not between 1 and 256"):
        Config(workers=workers)


def test_a_port_is_held_for_those_who_share_it() -> None:
    with Held("localhost:0") as held:
        port = int(held.address.rpartition(":")[2])
        assert held.address == f"localhost:{port}"
        with pytest.raises(ConfigError, match="in use"):
            Held(f"127.0.0.1:{port}")
        for options, allowed in (
            ([], False),
            ([socket.SO_REUSEADDR], False),
            ([socket.SO_REUSEADDR, socket.SO_REUSEPORT], True),
        ):
            with socket.socket() as listener:
                for option in options:
                    listener.setsockopt(socket.SOL_SOCKET, option, 1)
                if allowed:
                    listener.bind(("127.0.0.1", port))
                    listener.listen()
                    # Nobody but the listener takes connections.
                    with socket.create_connection(("127.0.0.1", port)), listener.accept()[0]:
                        pass
                else:
                    with pytest.raises(OSError, match="in use"):
                        listener.bind(("127.0.0.1", port))
    # The connection above lingers, and takes the port from nobody.
    Held(f"localhost:{port}").close()
