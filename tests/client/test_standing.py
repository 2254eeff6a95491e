"""Small calls that are made again and again go over streams that stand open; nobody notices, whatever happens to those."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from actserve_client import AsyncClient, Client, _pool, _standing
from actserve_client.errors import DeadlineExceeded, InvalidRequest, UnknownActivation
from actserve_server.app import Server
from actserve_server.config import Config
from actserve_server.gate import MOST_IDLE

X = np.linspace(-3, 3, 100, dtype=np.float32)


class Calls(grpc.ServerInterceptor):
    """Counts the calls of each method."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        self.made.append(handler_call_details.method.rpartition("/")[2])
        return continuation(handler_call_details)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What calls a server of this test is asked for."""
    calls, make = Calls(), grpc.server

    def server(*arguments: Any, interceptors: list[Any], **more: Any) -> grpc.Server:
        return make(*arguments, interceptors=[calls, *interceptors], **more)

    monkeypatch.setattr(grpc, "server", server)
    return calls


@pytest.fixture
def server(calls: Calls) -> Iterator[Server]:
    """A server of this test's own."""
    server = Server(Config(address="127.0.0.1:0", grace_s=10))
    server.start()
    with Client(
        server.addresses[0]
    ) as warm:  # for a kernel that must be compiled first, calls do not follow one another
        for name in ("relu", "tanh"):
            warm.forward(name, X)
    calls.made.clear()
    yield server
    server.stop(0)


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    """A client of it, whose calls time out before a test would."""
    with Client(server.addresses[0], timeout=30) as client:
        yield client


def test_calls_in_a_row_become_messages(client: Client, calls: Calls) -> None:
    wanted = np.maximum(X, 0)
    for _ in range(10):
        assert np.array_equal(client.forward("relu", X), wanted)
    assert calls.made == ["Compute", "Compute", "ComputeStream"]


def test_all_modes_and_types_go_over_one(client: Client, calls: Calls) -> None:
    for _ in range(3):
        client.forward("relu", X)
    out = np.empty_like(X)
    seen: list[Any] = []
    for _ in range(3):
        assert client.forward("relu", X, out=out, on_summary=seen.append) is out
        assert client.derivative("softmax", X[:4], jacobian="full").shape == (4, 4)
        assert client.derivative("tanh", X, upstream=X).dtype == X.dtype
        assert client.forward("gelu", X.astype(np.float16)).dtype == np.float16
        assert client.neuron_stats("relu", X.reshape(10, 10)).dead.shape == (10,)
        found = client.regularization("relu", X, gradient=True)
        assert found.gradient is not None
        assert found.gradient.shape == X.shape
        in_place = X.copy()
        assert np.array_equal(client.forward("relu", in_place, out=in_place), np.maximum(X, 0))
    assert len(seen) == 3
    assert calls.made == ["Compute", "Compute", "ComputeStream"]


def test_what_is_large_empty_or_added_by_callers_does_not(client: Client, calls: Calls) -> None:
    client.create_activation("mine.twice", "2 * x")
    for _ in range(5):
        client.forward("relu", np.zeros(_standing.MOST_BYTES // 4 + 1, np.float32))
        client.forward("relu", np.zeros((0, 3)))
        client.forward("mine.twice", X)
    client.create_activation("mine.twice", "3 * x", replace=True)
    assert np.array_equal(client.forward("mine.twice", np.ones(1)), [3.0])
    assert "ComputeStream" not in calls.made


def test_a_job_that_is_refused_leaves_the_stream_as_it_is(client: Client, calls: Calls) -> None:
    for _ in range(4):
        client.forward("relu", X)
    with pytest.raises(UnknownActivation, match="rely"):
        client.forward("rely", X)
    with pytest.raises(InvalidRequest, match="nan"):
        client.forward("relu", np.array([np.nan]), nonfinite="reject")
    assert client.forward("relu", X).max() == 3
    assert calls.made.count("ComputeStream") == 1
    assert calls.made.count("Compute") == 2


def test_a_callback_that_raises_ends_only_its_call(client: Client) -> None:
    def fail(_: object) -> None:
        raise KeyError("mine")

    for _ in range(4):
        client.forward("relu", X)
    with pytest.raises(KeyError, match="mine"):
        client.forward("relu", X, on_summary=fail)
    for _ in range(5):
        assert client.forward("relu", X).max() == 3


def test_threads_have_a_stream_each(client: Client, calls: Calls) -> None:
    wanted = client.forward("tanh", X)
    begin = threading.Barrier(4)

    def work(sign: int) -> bool:
        begin.wait()
        return all(np.array_equal(client.forward("tanh", sign * X), sign * wanted) for _ in range(50))

    with futures.ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, [1, -1, 1, -1]))
    assert 1 <= calls.made.count("ComputeStream") <= 4 * 4


def test_one_that_is_idle_ends_by_itself(client: Client, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_standing, "_IDLE_S", 0.1)
    for _ in range(2):
        for _ in range(4):
            client.forward("relu", X)
        _until_it_ends(client)
        time.sleep(0.15)
    assert calls.made.count("ComputeStream") == 2


def test_a_timeout_ends_a_job_and_the_next_one_works(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        client.forward("relu", X)
    pause = threading.Event()
    _paused(monkeypatch, pause)
    with pytest.raises(DeadlineExceeded):
        client.forward("relu", X, timeout=0.2)
    pause.set()
    assert client.forward("relu", X, timeout=5).max() == 3


def test_a_timeout_covers_a_stream_that_was_lost_too(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        client.forward("relu", X)
    left: list[float | None] = []

    def lost(self: Any, job: Any, assembly: Any, seconds: float | None) -> None:
        left.append(seconds)
        time.sleep(0.5)
        raise _standing._Lost

    def compute(self: Any, kind: str, name: str) -> Any:
        def call(*_: Any, timeout: float, **__: Any) -> Any:
            left.append(timeout)
            raise KeyError(name)

        return call

    monkeypatch.setattr(_standing._BlockingStream, "ask", lost)
    monkeypatch.setattr(_pool.Line, "method", compute)
    with pytest.raises(KeyError, match="Compute"):
        client.forward("relu", X, timeout=5)
    assert left[0] is not None
    assert left[1] is not None
    assert left[1] <= left[0] - 0.5


def test_it_outlives_its_server(calls: Calls) -> None:
    server = Server(Config(address="127.0.0.1:0"))
    server.start()
    address = server.addresses[0]
    with Client(address, timeout=30) as client:
        for _ in range(4):
            client.forward("relu", X)
        server.stop(5)
        again = Server(Config(address=address))
        again.start()
        try:
            for _ in range(6):
                assert client.forward("relu", X).max() == 3
        finally:
            again.stop(0)
    assert calls.made.count("ComputeStream") >= 2


def test_a_server_that_drains_waits_for_no_idle_stream(
    server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_standing, "_IDLE_S", 86_400.0)
    for _ in range(4):
        client.forward("relu", X)
    # A day: were it waited for, this test would end by its time limit.
    server.stop(86_400)


def test_idle_streams_keep_no_place_of_those_that_compute(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_standing, "_IDLE_S", 86_400.0)
    server = Server(Config(address="127.0.0.1:0", max_concurrency=1))
    server.start()
    try:
        clients = [Client(server.addresses[0], timeout=30, retry=None) for _ in range(4)]
        for client in clients:
            for _ in range(4):
                client.forward("relu", X)
        assert calls.made.count("ComputeStream") == 4
        for client in clients:
            client.close()
    finally:
        server.stop(0)


def test_of_too_many_idle_streams_the_one_that_waited_longest_ends(calls: Calls) -> None:
    server = Server(Config(address="127.0.0.1:0"))
    server.start()
    channel = grpc.insecure_channel(server.addresses[0])
    try:
        method = channel.stream_stream("/actserve.v1.ActivationService/ComputeStream")
        done = threading.Event()

        def wait() -> Iterator[bytes]:
            done.wait(60)
            yield from ()

        streams = [method(wait(), timeout=60) for _ in range(MOST_IDLE + 8)]
        _until(lambda: sum(stream.done() for stream in streams) == 8)
        with Client(server.addresses[0], timeout=30) as client:
            for _ in range(5):
                assert client.forward("relu", X).max() == 3
        done.set()
    finally:
        channel.close()
        server.stop(0)


def test_async_calls_in_a_row_become_messages(server: Server, calls: Calls) -> None:
    async def main() -> None:
        async with AsyncClient(server.addresses[0], timeout=30) as client:
            for _ in range(10):
                assert np.array_equal(await client.forward("relu", X), np.maximum(X, 0))
            assert calls.made == ["Compute", "Compute", "ComputeStream"]
            with pytest.raises(UnknownActivation):
                await client.forward("rely", X)
            await asyncio.gather(*(client.forward("relu", X) for _ in range(20)))
            results = await asyncio.gather(*(client.forward("tanh", n * X) for n in range(20)))
            assert [result[-1] > 0 for result in results] == [n > 0 for n in range(20)]
            assert calls.made.count("Compute") <= 2 + 4 * 3

    asyncio.run(main())


def test_async_ones_end_in_time(server: Server, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_standing, "_IDLE_S", 0.1)
    pause = threading.Event()

    async def main() -> None:
        async with AsyncClient(server.addresses[0], timeout=30) as client:
            for _ in range(4):
                await client.forward("relu", X)
            await asyncio.sleep(0.5)
            assert not any(kept.idle for kept in client._standing._streams._kept.values())
            for _ in range(4):
                await client.forward("relu", X)
            _paused(monkeypatch, pause)
            with pytest.raises(DeadlineExceeded):
                await client.forward("relu", X, timeout=0.2)
            task = asyncio.ensure_future(client.forward("relu", X))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            pause.set()
            for _ in range(4):
                assert (await client.forward("relu", X)).max() == 3

    asyncio.run(main())
    assert calls.made.count("ComputeStream") >= 2


def _only(client: Client) -> Any:
    (line,) = client._standing._streams._kept
    return line


def _until_it_ends(client: Client) -> None:
    """Wait for the end of a stream that is idle, and of gRPC's thread that asks for its messages."""
    threads = threading.active_count()
    _until(lambda: not client._standing._streams._kept[_only(client)].idle)
    _until(lambda: threading.active_count() < threads)


def _paused(monkeypatch: pytest.MonkeyPatch, pause: threading.Event) -> None:
    """Let a server compute nothing until something happens."""
    from actserve_server.engine.run import Run

    pieces = Run.pieces

    def wait(self: Run, chunks: Any) -> Any:
        pause.wait(30)
        yield from pieces(self, chunks)

    monkeypatch.setattr(Run, "pieces", wait)


def _until(condition: Any) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
