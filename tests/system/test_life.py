"""The life of a server: health, reflection, drain, and the private server that dies with its parent."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from actserve_client import Client, ServerUnavailable
from actserve_client.local import LocalServer
from actserve_client.testing import running_server
from actserve_server.config import Config, parse_value
from actserve_server.ports import answers
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def test_health_and_reflection(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "actserve.v1.ActivationService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError, match="no service is called 'other'") as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert "actserve.v1.ActivationService" in services


def test_a_drain_finishes_what_runs_and_tells_the_watchers(make_server: Any) -> None:
    server = make_server(grace_s=20)
    seen: list[int] = []
    more = threading.Event()

    def blocks() -> Iterator[Any]:
        yield np.ones(3)
        assert more.wait(20)
        yield np.full(3, 2.0)

    with grpc.insecure_channel(server.addresses[0]) as channel, Client(server.addresses[0]) as client:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        seen.append(next(watch).status)
        stream = client.stream("relu", blocks())
        np.testing.assert_array_equal(next(stream), np.ones(3))
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        seen.append(next(watch).status)
        watch.cancel()
        more.set()
        np.testing.assert_array_equal(next(stream), np.full(3, 2.0))
        assert list(stream) == []
        stopper.join(20)
        assert not stopper.is_alive()
        with pytest.raises(ServerUnavailable):
            client.forward("relu", np.ones(2))
    assert seen == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]


def test_watchers_hold_up_no_drain(make_server: Any, address: str) -> None:
    """They are told, and then their calls end, as do those of who watches again over the same connection."""
    server = make_server(grace_s=300.0)
    with grpc.insecure_channel(server.addresses[0]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watches = [stub.Watch(health_pb2.HealthCheckRequest(service=service)) for service in ("", "unknown", "")]
        gone = watches.pop()
        told = [[next(watch).status] for watch in watches]
        next(gone)
        gone.cancel()
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        for watch, seen in zip(watches, told, strict=True):
            # How it ends is of no account: the connection may be closed before that is said.
            with contextlib.suppress(grpc.RpcError):
                for answer in watch:
                    seen.append(answer.status)
        stopper.join(120)
        assert not stopper.is_alive()
    answers = health_pb2.HealthCheckResponse
    assert told == [[answers.SERVING, answers.NOT_SERVING], [answers.SERVICE_UNKNOWN]]
    # Another server of the same process goes on.
    with grpc.insecure_channel(address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == answers.SERVING
        watch.cancel()


def test_sigterm_ends_a_server_with_status_0() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "actserve_server", "serve", "--address", "127.0.0.1:0", "--log-format", "json"],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b"serving" in process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    process.stderr.close()


def test_a_handler_may_interrupt_whoever_waits_anywhere() -> None:
    """As one does that comes at every line, and in every function that is called: with a lock held there it would wait for itself."""
    program = """
import sys
from actserve_server.cli import _Stop
stop = _Stop()
def handler(*_):
    stop.ask()
    return handler
sys.settrace(handler)
stop.wait()
stop.ask()
sys.settrace(None)
assert stop.asked
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="threads are looked up in /proc")
def test_a_signal_that_another_thread_is_given_ends_it_too() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "actserve_server", "serve", "--address", "127.0.0.1:0", "--log-format", "json"],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b"serving" in process.stderr.readline()
    threads = {int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()} - {process.pid}
    try:
        assert ctypes.CDLL(None).tgkill(process.pid, max(threads), int(signal.SIGTERM)) == 0
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_wrong_settings_are_one_line() -> None:
    for arguments, text in (
        (["--chunk-bytes", "5MiB"], "--chunk-bytes"),
        (["--address", "nowhere"], "neither HOST:PORT nor unix:PATH"),
        (["--max-tensor-bytes", "many"], "is not a size"),
    ):
        command = [sys.executable, "-m", "actserve_server", "serve", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert text in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unix_socket_that_another_server_listens_on_is_left_to_it(address: str, workers: int) -> None:
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", address, "--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert f"--address: can't listen on {address}; another server does" in done.stderr
    with Client(address, retry=None) as client:
        np.testing.assert_array_equal(client.forward("relu", np.ones(3)), np.ones(3))


def test_a_server_that_drains_leaves_the_socket_of_the_next_one(make_unix: Any) -> None:
    first = make_unix()
    path = first.addresses[0].removeprefix("unix:")
    with Client(first.addresses[0], retry=None) as client:
        going = threading.Event()

        def blocks() -> Iterator[Any]:
            yield np.ones(3)
            going.wait()

        results = client.stream("relu", blocks())
        next(results)
        stopping = threading.Thread(target=first.stop)
        stopping.start()
        while answers(path):
            time.sleep(0.01)
        second = make_unix(first)
        going.set()
        assert list(results) == []
        stopping.join()
    assert Path(path).is_socket()
    with Client(second.addresses[0]) as client:
        assert client.healthy()


def test_help_shows_sizes_as_they_may_be_written() -> None:
    command = [sys.executable, "-m", "actserve_server", "serve", "--help"]
    text = " ".join(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "--max-shared-bytes-per-client BYTES" in text
    for field in dataclasses.fields(Config):
        if "_bytes" in field.name:
            shown = re.search(rf"--{field.name.replace('_', '-')} BYTES .*?\[default: (\S+)\]", text)
            assert shown is not None, field.name
            assert parse_value(field.name, shown[1], "help") == field.default


def _workshops(pid: int) -> list[psutil.Process]:
    """The processes that a server keeps ready for formulas."""
    return [child for child in psutil.Process(pid).children() if "actserve_server.custom.workshop" in child.cmdline()]


def test_a_server_that_stays_keeps_a_process_ready_for_formulas_and_others_do_not(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "actserve_server", "serve", "--log-level", "warning"]
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(
                subprocess.Popen([*command, f"--address=unix:{tmp_path}/{allow}", f"--allow-create={allow}"])
            )
            for allow in ("false", "true")
        ]
        for process in servers:
            stack.callback(process.kill)
        shut, staying = servers
        private = stack.enter_context(LocalServer())
        while not _workshops(staying.pid):
            assert staying.poll() is None
            time.sleep(0.05)
        (ready,) = _workshops(staying.pid)
        ready.kill()
        with Client(f"unix:{tmp_path}/true", timeout=300) as client:
            assert client.create_activation("team.double", "2 * x").name == "team.double"
        (another,) = _workshops(staying.pid)
        assert another.pid != ready.pid
        # However the server ends.
        staying.kill()
        another.wait(60)
        with Client(f"unix:{tmp_path}/false", timeout=300) as client:
            client.forward("relu", 1.0)
        assert not _workshops(shut.pid) and not _workshops(private.pid)


def test_a_private_server_leaves_nothing() -> None:
    with running_server(max_concurrency=3) as address:
        socket = Path(address.removeprefix("unix:"))
        assert socket.exists()
        with Client(address) as client:
            assert client.server_info().max_concurrency == 3
    assert not socket.parent.exists()


def test_a_private_server_dies_with_a_parent_that_was_killed() -> None:
    program = "import os, signal; from actserve_client.local import LocalServer; s = LocalServer(); "
    program += "print(s.address, s.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    address, pid = done.stdout.split()
    deadline = time.monotonic() + 20
    folder = Path(address.removeprefix("unix:")).parent
    while time.monotonic() < deadline and (folder.exists() or _runs(int(pid))):
        time.sleep(0.1)
    assert not folder.exists()
    assert not _runs(int(pid))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_private_server_that_cannot_start_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerUnavailable, match="did not start"):
        LocalServer(chunk_bytes=1)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ServerUnavailable, match="actserve\\[server\\]"):
        LocalServer()


def test_the_client_is_light() -> None:
    """Importing it loads neither Numba nor the server, and little beyond gRPC and NumPy."""
    program = "import sys, actserve_client; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "actserve_client.client" in loaded
    heavy = {"numba", "llvmlite", "actserve_server", "matplotlib", "rich", "sklearn"}
    assert not heavy & {name.partition(".")[0] for name in loaded}


def test_the_environment_names_the_server(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "ACTSERVE_ADDRESS", address)
    with Client() as client:
        assert client.address == address
        assert client.healthy()
