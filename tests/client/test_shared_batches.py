"""Batches of monitors in shared memory: the same states as by sending the bytes, nothing lost with the server, and hostile uses."""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from actserve import shared
from actserve.stats import NeuronStats
from actserve.v1 import compute_pb2, monitor_pb2, tensor_pb2
from actserve_client import AsyncClient, Client, InvalidRequest, _channel
from actserve_client.monitor import Monitor
from actserve_client.watching import Watch
from actserve_server.app import Server
from google.rpc import error_details_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unmannerly import Raw

pytestmark = pytest.mark.skipif(not shared.SUPPORTED, reason="sealed memfds are Linux's")

MIB = 1 << 20
MakeServer = Callable[..., Server]
Request = monitor_pb2.MonitorRequest


@pytest.fixture
def place(socket_folder: Path) -> str:
    """An address at which servers come and go."""
    return f"unix:{socket_folder}/{secrets.token_hex(4)}"


def numbers(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) * 3).astype(dtype)


def lies_in_region(monitor: Monitor) -> list[bool]:
    """Of each batch that no snapshot holds yet."""
    return [sent.array is not None for sent in monitor._core._sent if sent.layer]


# ---- what it is for ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("histogram", [None, "layer", "neuron"])
@pytest.mark.parametrize("of", ["pre", "post"])
def test_the_state_is_that_of_one_pass_over_the_bytes(client: Client, dtype: Any, histogram: Any, of: str) -> None:
    x = numbers(300, 70, dtype=dtype)
    options = {"input": of, "histogram": histogram}
    with client.monitor("gelu", **options) as monitor:
        for part in np.array_split(x, 3):
            monitor.observe("a", part)
        assert lies_in_region(monitor) == [True] * 3
        assert monitor.report()["a"].state == client.neuron_stats("gelu", x, **options).state


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.integers(0, 400), min_size=1, max_size=6), together=st.booleans())
def test_batches_of_any_size_one_by_one_or_together(client: Client, rows: list[int], together: bool) -> None:
    # Some are too small for shared memory, and go between the others as bytes.
    x = numbers(sum(rows), 25)
    parts = np.split(x, np.cumsum(rows)[:-1])
    with client.monitor("relu") as monitor:
        if together:
            monitor.observe_all([(layer, part) for part in parts for layer in "ab"])
        else:
            for part in parts:
                monitor.observe("a", part)
                monitor.observe("b", part)
        report = monitor.report()
    expected = client.neuron_stats("relu", x, input="post")
    assert report["a"].state == report["b"].state == expected.state


@pytest.mark.parametrize("view", [lambda x: x.T, lambda x: x[::2, ::3], lambda x: x.astype(">f4")])
def test_arrays_that_do_not_lie_as_they_travel(client: Client, view: Any) -> None:
    x = view(numbers(200, 300))
    with client.monitor("relu") as monitor:
        monitor.observe("a", x)
        assert lies_in_region(monitor) == [True]
        assert monitor.report()["a"].state == client.neuron_stats("relu", x, input="post").state


def test_the_caller_may_write_to_an_array_that_was_copied(client: Client) -> None:
    x = client.empty((256, 256))
    with client.monitor("relu") as monitor:
        for _ in range(10):
            x[...] = 1
            monitor.observe("a", x)
            x[...] = -1
        report = monitor.report()["a"]
    assert report.samples[0] == 2560 and not report.inactive_fraction.any()


def test_what_is_given_away_is_not_copied(client: Client) -> None:
    with client.monitor("relu") as monitor:
        monitor.observe("a", numbers(100, 100))  # the first one has the server asked for memory
        x = monitor.empty((100, 100))
        x[...] = numbers(100, 100, seed=1)
        monitor.observe("a", x, copy=False)
        assert monitor._core._sent[-1].array is x
        plain = numbers(100, 100, seed=2)
        monitor.observe("a", plain, copy=False)
        assert monitor._core._sent[-1].array is not plain
        whole = np.concatenate([numbers(100, 100, seed=seed) for seed in range(3)])
        assert monitor.report()["a"].state == client.neuron_stats("relu", whole, input="post").state


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(0, 600_000), min_size=1, max_size=30))
def test_arrays_for_batches_lie_apart(client: Client, sizes: list[int]) -> None:
    with client.monitor("relu") as monitor:
        monitor.observe("a", numbers(64, 64))
        arrays = [monitor.empty(size) for size in sizes]
        for number, array in enumerate(arrays):
            array[...] = number
        for number, array in enumerate(arrays):
            assert array.shape == (sizes[number],) and array.dtype == np.float32
            assert (array == number).all()


def test_arrays_of_other_types_are_refused_as_by_the_client(client: Client) -> None:
    with client.monitor() as monitor:
        with pytest.raises(InvalidRequest, match="dtype is int64"):
            monitor.empty((3, 4), np.int64)
        with pytest.raises(InvalidRequest, match="no negative dimension"):
            monitor.empty([3, -4])


def test_memory_is_used_again_once_a_snapshot_holds_it(make_server: MakeServer, place: str) -> None:
    server = make_server(address=place)
    x = numbers(256, 1000)
    with Client(place, timeout=300) as client, client.monitor("relu", max_unacknowledged_bytes=8 * MIB) as monitor:
        for _ in range(100):
            monitor.observe("a", x)
        assert monitor.report()["a"].samples[0] == 25_600
        assert server._regions.total_bytes <= 16 * MIB


def test_a_large_batch_has_a_region_of_its_own(client: Client) -> None:
    x = numbers(3000, 500)
    with client.monitor("relu") as monitor:
        monitor.observe("a", x)
        assert lies_in_region(monitor) == [True]
        assert monitor.report()["a"].state == client.neuron_stats("relu", x, input="post").state


def test_several_in_one_message_up_to_the_one_that_is_wrong(client: Client) -> None:
    x = numbers(100, 100)
    with client.monitor("relu") as monitor:
        with pytest.raises(InvalidRequest, match="width 7, and the ones before it 100"):
            monitor.observe_all([("a", x), ("b", x), ("a", x[:, :7]), ("c", x)])
        report = monitor.report()
    assert {layer: int(stats.samples[0]) for layer, stats in report.items()} == {"a": 100, "b": 100}


def test_more_batches_than_one_message_has(client: Client) -> None:
    x = numbers(10, 110)
    with client.monitor("relu") as monitor:
        monitor.observe_all(("ab"[number % 2], x) for number in range(600))
        assert lies_in_region(monitor) == [True] * 600
        report = monitor.report()
    assert report["a"].samples[0] == report["b"].samples[0] == 3000


async def test_from_asyncio(address: str, client: Client) -> None:
    x = numbers(600, 100)
    first, second, third = np.split(x, 3)
    async with AsyncClient(address, timeout=300) as other, other.monitor("relu") as monitor:
        await monitor.observe("a", first)
        await monitor.observe_all([("a", second), ("b", second)])
        mine = monitor.empty((200, 100))
        mine[...] = third
        await monitor.observe("a", mine, copy=False)
        assert [sent.array is not None for sent in monitor._core._sent if sent.layer] == [True] * 4
        report = await monitor.report()
    assert report["a"].state == client.neuron_stats("relu", x, input="post").state
    assert report["b"].state == client.neuron_stats("relu", second, input="post").state


def test_a_batch_larger_than_what_is_left_waits_for_as_many_snapshots_as_it_takes(client: Client) -> None:
    """The snapshot that is under way when a caller begins to wait may leave too little room."""
    held, heard = threading.Event(), threading.Event()

    def hold(alert: Any) -> None:
        heard.set()
        held.wait(60)

    def batch(units: int) -> Any:
        x = np.ones((units * 10, 100), np.float32)
        x[0, 0] = np.nan
        return x

    with client.monitor(alerts={"nan_count": 1}, on_alert=hold, max_unacknowledged_bytes=10 * 4300) as monitor:
        monitor.observe("a", batch(1))
        assert heard.wait(60)  # from now on no snapshot is heard of
        monitor.observe("a", batch(5))
        monitor.observe("a", batch(4))
        waiting = threading.Thread(target=monitor.observe, args=("a", batch(7)))
        waiting.start()
        while not monitor._changed._waiters:  # type: ignore[attr-defined]
            heard.wait(0.01)
        held.set()
        waiting.join(60)
        assert not waiting.is_alive()
        assert monitor.report()["a"].samples[0] == 170


# ---- where there is none -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"max_shared_bytes": 0}, {"max_shared_bytes": 6 * MIB}])
def test_at_the_servers_limit_the_bytes_are_sent(make_server: MakeServer, place: str, limits: Any) -> None:
    make_server(address=place, **limits)
    x = numbers(8192, 100)
    with Client(place, timeout=300) as client, client.monitor("relu") as monitor:
        for part in np.array_split(x, 8) * 4:
            monitor.observe("a", part)
        assert False in lies_in_region(monitor)
        report = monitor.report()["a"]
        whole = client.neuron_stats("relu", np.concatenate([x] * 4), input="post")
    assert report.state == whole.state


def test_over_tcp_an_array_for_a_batch_is_one_like_any_other(server: Server) -> None:
    with Client(server.addresses[1], timeout=300) as client, client.monitor("relu") as monitor:
        x = monitor.empty((100, 100), np.float64)
        x[...] = 1
        monitor.observe("a", x, copy=False)
        assert lies_in_region(monitor) == [False]
        assert monitor.report()["a"].mean[0] == 1


@pytest.mark.parametrize("lose", [(3,), (0, 1, 4, 7)])
def test_another_server_is_sent_what_lay_in_the_memory_of_the_first(
    make_server: MakeServer, place: str, lose: tuple[int, ...]
) -> None:
    x = numbers(800, 100)
    server = make_server(address=place)
    with Client(place, timeout=300) as client:
        with client.monitor("relu", histogram="layer") as monitor:
            for index, part in enumerate(np.array_split(x, 8)):
                monitor.observe_all([("a", part), ("b", part[:, :70])])
                if index % 3 == 1:
                    monitor.snapshot()
                if index in lose:
                    server.stop()
                    server = make_server(address=place)
            report = monitor.report()
        for layer, values in {"a": x, "b": x[:, :70]}.items():
            stats = client.neuron_stats("relu", values, input="post", histogram="layer")
            assert report[layer].state == stats.state


def test_a_server_that_does_not_know_the_region_is_sent_the_bytes(make_server: MakeServer, place: str) -> None:
    server = make_server(address=place)
    x = numbers(500, 100)
    with Client(place, timeout=300) as client:
        with client.monitor("relu") as monitor:
            for part in np.split(x, 5):
                monitor.observe("a", part)
                monitor.snapshot()
                # As when the broker's socket is another server's than gRPC's.
                server._regions._regions.clear()
            report = monitor.report()
        assert report["a"].state == client.neuron_stats("relu", x, input="post").state


# ---- a training that must not wait -------------------------------------------------------------------------------------


def test_a_watch_does_not_wait_for_memory(client: Client) -> None:
    x = numbers(100, 100)
    with Watch(client, "relu", queue=400) as watch:
        watch.observe("a", x)
        watch.report()
        # As by a thread that asks a server which does not answer.
        with client._regions._lock:
            for _ in range(300):
                assert watch.observe("a", x)
        assert watch.report()["a"].samples[0] == 30_100
    assert watch.dropped == 0


def test_a_watch_copies_once_and_where_the_server_reads_it(client: Client) -> None:
    x = numbers(100, 100)
    with Watch(client, "relu") as watch:
        watch.observe("a", x)
        watch.report()
        mine = watch.empty((100, 100))
        mine[...] = x
        assert client._regions.find(mine) is not None
        assert watch.offer("a", lambda: mine)
        watch.observe("a", x.T)
        report = watch.report()["a"]
        whole = client.neuron_stats("relu", np.concatenate([x, x, x.T]), input="post")
    assert report.state == whole.state


# ---- hostile uses ------------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    raw = Raw(server)
    yield raw
    raw.close()


def region(raw: Raw, nbytes: int = MIB) -> tuple[bytes, Any]:
    answer, descriptor = raw.ask(nbytes)
    memory = np.asarray(shared.Mapping(descriptor, nbytes))
    os.close(descriptor)
    return answer.region, memory


def layer(name: str = "a", **options: Any) -> Request:
    header = compute_pb2.JobHeader(
        activation="relu",
        mode=compute_pb2.MODE_NEURON_STATS,
        inputs=[tensor_pb2.TensorSpec(data_type=tensor_pb2.DATA_TYPE_FLOAT)],
        neuron_stats=compute_pb2.NeuronStatsOptions(**options),
    )
    return Request(layer=monitor_pb2.MonitorLayer(layer=name, header=header))


def batch(name: bytes, *shape: int, offset: int = 0, of: str = "a") -> monitor_pb2.MonitorBatch:
    spot = tensor_pb2.SharedMemory(region=name, offset_bytes=offset)
    return monitor_pb2.MonitorBatch(layer=of, shape=shape, shared=spot)


def batches(number: int, *given: monitor_pb2.MonitorBatch) -> Request:
    return Request(number=number, batches=monitor_pb2.MonitorBatches(batches=given))


def snapshot(number: int) -> Request:
    return Request(number=number, snapshot=monitor_pb2.MonitorSnapshotRequest())


def answers(raw: Raw, *requests: Request) -> list[monitor_pb2.MonitorResponse]:
    call = raw.monitor((request.SerializeToString() for request in requests), timeout=300)
    return [monitor_pb2.MonitorResponse.FromString(found) for found in call]


def refused(raw: Raw, *requests: Request) -> tuple[grpc.StatusCode, str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        answers(raw, *requests)
    error = _channel.error_of(caught.value)
    return caught.value.code(), error.reason, str(error)


def field(response: monitor_pb2.MonitorResponse) -> tuple[int, str]:
    info = error_details_pb2.ErrorInfo()
    assert response.failure.error.details[0].Unpack(info)
    return response.number, info.metadata["field"]


def test_a_place_that_does_not_lie_in_the_region_is_refused_and_the_others_are_taken(raw: Raw) -> None:
    name, memory = region(raw)
    memory.view(np.float32)[...] = 1
    found = answers(
        raw,
        layer(),
        batches(
            1,
            batch(name, 4, 8),
            batch(name, 4, 8, offset=MIB - 124),
            batch(name, 4, 8, offset=MIB - 128),
            batch(name, 4, 8, offset=-4),
            batch(name, 4, 8, offset=2),
            batch(name, 4, 8, offset=1 << 62),
            batch(name, 4, 9),
            batch(name, -4, 8),
            batch(name, MIB, 8),
            batch(name, 4, 8, of="nobody"),
            batch(name, 0, 8),
            batch(name, 4, 8),
        ),
        Request(number=13, batch=batch(name, 4, 8, offset=1)),
        Request(number=14, batch=batch(name, 4, 8)),
        snapshot(15),
    )
    place = "batch.shared.offset_bytes"
    assert [field(one) for one in found[:-2]] == [
        (2, place),
        (4, place),
        (5, place),
        (6, place),
        (7, "batch.shape"),
        (8, "batch.shape"),
        (9, place),
        (10, "batch.layer"),
        (13, place),
    ]
    assert NeuronStats.from_bytes(found[-2].data).samples[0] == 16
    assert found[-1].snapshot.through == 15


def test_a_batch_that_is_refused_for_its_place_decides_nothing(raw: Raw) -> None:
    name, _ = region(raw)
    found = answers(raw, layer(), batches(1, batch(name, 4, 8, offset=2), batch(name, 4, 9)), snapshot(3))
    assert field(found[0]) == (1, "batch.shared.offset_bytes")
    assert NeuronStats.from_bytes(found[1].data).neurons == 9


def test_a_region_that_is_not_the_servers_ends_the_call(raw: Raw, server: Server) -> None:
    name, _ = region(raw)
    other = Raw(server)
    theirs, _ = region(other)
    other.close()
    answers(raw, layer(), batches(1, batch(name, 4, 8)))
    for wrong in (b"", bytes(16), name[:-1], name[:-1] + bytes([name[-1] ^ 1])):
        for request in (batches(1, batch(name, 4, 8), batch(wrong, 4, 8)), Request(number=1, batch=batch(wrong, 4, 8))):
            code, reason, words = refused(raw, layer(), request)
            assert (code, reason) == (grpc.StatusCode.ABORTED, "UNKNOWN_REGION") and "batch.shared" in words
    # Those of a connection that is closed are gone, as soon as the server has seen it.
    while theirs in server._regions._regions:
        raw.ask(4096)
    assert refused(raw, layer(), batches(1, batch(theirs, 4, 8)))[1] == "UNKNOWN_REGION"


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([batches(1)], "at least one"),
        ([batches(1, monitor_pb2.MonitorBatch(layer="a", shape=[1, 8]))], "all lie in shared memory"),
        ([Request(number=3, snapshot=monitor_pb2.MonitorSnapshotRequest()), batches(2)], "numbers must grow"),
    ],
)
def test_batches_that_make_no_sense_end_the_call(raw: Raw, requests: list[Request], words: str) -> None:
    code, reason, text = refused(raw, layer(), *requests)
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNEXPECTED_FRAME")
    assert words in text


def test_each_batch_of_a_message_takes_a_number(raw: Raw) -> None:
    name, _ = region(raw)
    three = batches(1, *[batch(name, 1, 8)] * 3)
    assert "numbers must grow" in refused(raw, layer(), three, snapshot(3))[2]
    assert answers(raw, layer(), three, snapshot(4))[-1].snapshot.through == 4


def test_chunks_after_a_batch_that_lies_in_a_region_end_the_call(raw: Raw) -> None:
    name, _ = region(raw)
    more = Request(number=1, chunk=monitor_pb2.MonitorChunk(), data=b"abcd")
    assert "no bytes are lacking" in refused(raw, layer(), Request(number=1, batch=batch(name, 1, 8)), more)[2]


def test_a_layer_has_no_place_itself(raw: Raw) -> None:
    name, _ = region(raw)
    wrong = layer()
    wrong.layer.header.inputs[0].shared.region = name
    (found,) = answers(raw, wrong)
    assert found.failure.of_layer and field(found) == (0, "layer.header.inputs[0].shared")


@pytest.mark.parametrize("histogram", compute_pb2.StatsHistogram.values())
@pytest.mark.parametrize("post", [True, False])
def test_scribbling_spoils_figures_and_no_more(raw: Raw, histogram: Any, post: bool) -> None:
    """Whatever was seen, counts add up: a state that contradicts itself would be refused here."""
    name, memory = region(raw, 2 * MIB)
    words = memory.view(np.uint32)
    over = threading.Event()

    def scribble() -> None:
        random = np.random.default_rng(0)
        noise = random.integers(0, 1 << 32, words.size, np.uint32)
        while not over.is_set():
            words[...] = noise
            words[...] = 0

    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    input_ = compute_pb2.STATS_INPUT_POST_ACTIVATION if post else compute_pb2.STATS_INPUT_PRE_ACTIVATION
    try:
        found = answers(
            raw,
            layer(histogram=histogram, input=input_),
            batches(1, *[batch(name, 512, 512)] * 4),
            batches(5, *[batch(name, 512, 512, offset=MIB)] * 4),
            snapshot(9),
        )
    finally:
        over.set()
        scribbler.join()
    state = b"".join(one.data for one in found if one.HasField("state"))
    stats = NeuronStats.from_bytes(state)
    assert stats.samples[0] == 4096
    if stats.histogram is not None:
        assert stats.histogram.total == 4096 * 512 - stats.nan.sum()
    assert found[-1].snapshot.through == 9


def test_a_region_that_is_let_go_while_batches_lie_in_it(raw: Raw, server: Server) -> None:
    name, memory = region(raw)
    memory.view(np.float32)[...] = 1
    gate = threading.Event()

    def requests() -> Iterator[bytes]:
        yield layer().SerializeToString()
        yield batches(1, *[batch(name, 512, 512)] * 8).SerializeToString()
        gate.wait(60)
        yield batches(9, batch(name, 512, 512)).SerializeToString()

    call = raw.monitor(requests(), timeout=300)
    raw.socket.sendall(shared.Request(shared.RELEASE, region=name).pack())
    raw.ask(4096)
    assert name not in server._regions._regions
    gate.set()
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    assert _channel.error_of(caught.value).reason == "UNKNOWN_REGION"
