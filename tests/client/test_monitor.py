"""Monitors through the front door: against one pass over the same data, through lost servers, and through their own mistakes."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from actserve.v1 import compute_pb2, monitor_pb2, service_pb2_grpc, tensor_pb2
from actserve_client import (
    Alert,
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    LimitExceeded,
    ServerUnavailable,
    UnknownActivation,
    merge,
)
from google.rpc import error_details_pb2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MakeServer = Callable[..., Any]
Array = np.ndarray[Any, Any]
Request = monitor_pb2.MonitorRequest
SHARED = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def data(rows: int = 40, width: int = 6, seed: int = 0, dtype: Any = np.float32) -> Array:
    x = np.random.default_rng(seed).standard_normal((rows, width)) * 3
    x[:, 0] = -1
    x[rows // 2, -1] = np.nan
    return x.astype(dtype)


# ---- the same as one pass --------------------------------------------------------------------------------------------


def test_the_plainest_use(client: Client) -> None:
    x = data()
    with client.monitor() as monitor:
        monitor.observe("encoder.0", x)
        report = monitor.report()
    assert report["encoder.0"].state == client.neuron_stats("identity", x, input="post").state
    assert monitor.alerts == []


@SHARED
@given(
    cuts=st.lists(st.integers(0, 40), max_size=6),
    asked=st.integers(0, 6),
    options=st.sampled_from(
        [
            {},
            {"input": "pre", "histogram": "layer", "tau": 0.1},
            {"activation": "tanh", "input": "pre", "histogram": "neuron", "sums": False},
            {"activation": "softmax", "input": "pre"},
            {"activation": "glu", "input": "pre"},
            {"activation": "prelu", "input": "pre", "slope": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
            {"activation": "sin", "input": "pre", "first_sample": 1000},
            {"activation": "relu", "fired": "abs>0.5", "zero_tolerance": 0.25, "dead_after_samples": 7},
        ]
    ),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
)
def test_batches_add_up_to_one_pass_to_the_byte(
    client: Client, cuts: list[int], asked: int, options: dict[str, Any], dtype: Any
) -> None:
    x = data(dtype=dtype)
    edges = [0, *sorted(cuts), len(x)]
    given = {"activation": "relu", "input": "post", **options}
    with client.monitor(**given) as monitor:
        for index, (begin, end) in enumerate(itertools.pairwise(edges)):
            monitor.observe("a", x[begin:end])
            if index == asked:
                monitor.snapshot()
        found = monitor.report()["a"]
    name = given.pop("activation")
    assert found.state == client.neuron_stats(name, x, **given).state


def test_batches_whose_other_dimensions_change(client: Client) -> None:
    random = np.random.default_rng(3)
    batches = [random.standard_normal(shape) for shape in ((2, 5, 4, 4), (3, 5, 2, 7), (1, 5, 2, 7), (2, 5, 4, 4))]
    with client.monitor("relu", input="pre", neuron_axis=1) as monitor:
        for batch in batches:
            monitor.observe("conv", batch)
        found = monitor.report()["conv"]
    rows = [np.moveaxis(batch, 1, -1).reshape(-1, 5) for batch in batches]
    whole = client.neuron_stats("relu", np.concatenate(rows), neuron_axis=1)
    assert found.state == whole.state


def test_neurons_on_the_first_axis(client: Client) -> None:
    x = data(12, 30)
    with client.monitor("relu", neuron_axis=0) as monitor:
        for part in (x[:, :10], x[:, 10:20], x[:, 20:20], x[:, 20:]):
            monitor.observe("a", part)
        found = monitor.report()["a"]
    assert found.state == client.neuron_stats("relu", x, input="post", neuron_axis=0).state


def test_large_batches_go_in_chunks(client: Client) -> None:
    x = np.random.default_rng(1).standard_normal((3000, 700)).astype(np.float32)
    assert x.nbytes > 4 << 20
    with client.monitor() as monitor:
        monitor.observe("a", np.asfortranarray(x).astype(">f4"))
        monitor.observe("a", x)
        found = monitor.report()["a"]
    assert found.state == client.neuron_stats("identity", np.concatenate([x, x]), input="post").state


def test_layers_with_options_of_their_own(client: Client) -> None:
    x = data()
    layers = {"head": {"activation": "gelu", "input": "pre", "neuron_axis": 0}}
    with client.monitor("relu", threshold=0.9, layers=layers) as monitor:
        monitor.layer("tail", "leaky_relu", negative_slope=0.2, input="pre")
        for layer in ("body", "head", "tail"):
            monitor.observe(layer, x)
        report = monitor.report()
        with pytest.raises(InvalidRequest, match="'tail' has batches already"):
            monitor.layer("tail", "relu")
    expected = {
        "body": client.neuron_stats("relu", x, threshold=0.9, input="post"),
        "head": client.neuron_stats("gelu", x, threshold=0.9, neuron_axis=0),
        "tail": client.neuron_stats("leaky_relu", x, threshold=0.9, negative_slope=0.2),
    }
    assert {name: stats.state for name, stats in report.items()} == {n: s.state for n, s in expected.items()}


def test_an_empty_batch_is_neutral(client: Client) -> None:
    x = data()
    with client.monitor() as monitor:
        monitor.observe("a", x[:0])
        assert monitor.report()["a"].samples.tolist() == [0] * 6
        monitor.observe("a", x)
        monitor.observe("a", x[:0])
        found = monitor.report()["a"]
    assert found.state == client.neuron_stats("identity", x, input="post").state
    assert found.state == merge([found, client.neuron_stats("identity", x[:0], input="post")]).state


def test_the_caller_may_write_to_a_batch_at_once(client: Client) -> None:
    x = data(2000, 300)
    with client.monitor() as monitor:
        part = x.copy()
        monitor.observe("a", part)
        part[:] = 0
        found = monitor.report()["a"]
    assert found.state == client.neuron_stats("identity", x, input="post").state


# ---- memory, snapshots, alerts ---------------------------------------------------------------------------------------


def test_what_is_not_acknowledged_stays_within_its_bound(client: Client) -> None:
    x = data(64, 64)
    with client.monitor(max_unacknowledged_bytes=4 * x.nbytes) as monitor:
        for _ in range(50):
            monitor.observe("a", x)
            assert monitor._core._kept_bytes <= 4 * x.nbytes + 4096
        monitor.observe("b", np.tile(x, (8, 1)))  # larger than the bound: it goes alone
        report = monitor.report()
        assert monitor._core.acknowledged
    assert report["a"].samples[0] == 50 * 64
    assert report["b"].samples[0] == 8 * 64


def test_snapshots_by_themselves(client: Client) -> None:
    x = data()
    came = threading.Event()
    with client.monitor(snapshot_every_samples=100) as monitor:
        receive = monitor._core.receive

        def watching(raw: bytes) -> list[Alert]:
            if monitor_pb2.MonitorResponse.FromString(raw).HasField("snapshot"):
                came.set()
            return receive(raw)

        monitor._core.receive = watching  # type: ignore[method-assign]
        for _ in range(3):
            monitor.observe("a", x)
        assert came.wait(60)
        assert monitor._core.report()["a"].samples[0] == 120


def test_alerts_when_a_threshold_is_reached_and_again_after_it_was_not(client: Client) -> None:
    told: list[Alert] = []
    dead, alive = np.zeros((10, 4), np.float32), np.ones((10, 4), np.float32)
    with client.monitor(
        "relu", threshold=0.5, alerts={"dead_fraction": 0.5, "nan_count": 1}, on_alert=told.append
    ) as monitor:
        for batch in (alive, dead, dead, alive, alive, alive, dead, dead, dead):
            monitor.observe("a", batch)
        monitor.observe("a", np.full((1, 4), np.nan, np.float32))
        monitor.report()
        found = monitor.alerts
    assert [(alert.figure, alert.samples, alert.value) for alert in found] == [
        ("dead_fraction", 20, 1.0),
        ("dead_fraction", 80, 1.0),
        ("nan_count", 91, 4.0),
    ]
    assert found[0] == Alert("a", "dead_fraction", 1.0, 0.5, 20)
    assert told == found


def test_alerts_of_dormancy_and_saturation_looked_at_now_and_then(client: Client) -> None:
    x = np.tile(np.array([[20.0, -20.0, 0.1, 0.0]]), (10, 1))
    alerts = {"dormant_fraction": 0.25, "saturated_fraction": 0.5}
    with client.monitor("tanh", input="pre", alerts=alerts, alert_every_samples=25) as monitor:
        for _ in range(3):
            monitor.observe("a", x)
        monitor.report()
        assert [(alert.figure, alert.samples) for alert in monitor.alerts] == [
            ("dormant_fraction", 30),
            ("saturated_fraction", 30),
        ]


def test_an_error_of_the_callback_is_the_callers(client: Client) -> None:
    def fail(alert: Alert) -> None:
        raise RuntimeError(f"told of {alert.layer}")

    x = np.zeros((2, 2))
    with client.monitor(alerts={"dead_fraction": 0}, on_alert=fail) as monitor:
        monitor.observe("a", x)
        with pytest.raises(RuntimeError, match="told of a"):
            monitor.report()
        assert monitor.report()["a"].samples.tolist() == [2, 2]


# ---- servers that are lost -------------------------------------------------------------------------------------------


@pytest.fixture
def place(socket_folder: Path) -> str:
    """An address at which servers come and go."""
    return f"unix:{socket_folder}/{secrets.token_hex(4)}"


@pytest.mark.parametrize("lose", [(3,), (0, 1, 4, 7), ()])
def test_another_server_goes_on_to_the_same_bytes(make_server: MakeServer, place: str, lose: tuple[int, ...]) -> None:
    x = data(80, 50)
    parts = np.array_split(x, 8)
    server = make_server(address=place)
    alerts = {"dead_fraction": 0.01, "nan_count": 1}
    with Client(place, timeout=300) as client:
        with client.monitor("relu", histogram="layer", alerts=alerts, alert_every_samples=0) as monitor:
            for index, part in enumerate(parts):
                monitor.observe("a", part)
                monitor.observe("b", part[:, :7])
                if index % 3 == 1:
                    monitor.snapshot()
                if index in lose:
                    server.stop()
                    server = make_server(address=place)
            report = monitor.report()
            seen = [(alert.layer, alert.figure) for alert in monitor.alerts]
        whole = {"a": x, "b": x[:, :7]}
        for layer, values in whole.items():
            stats = client.neuron_stats("relu", values, input="post", histogram="layer")
            assert report[layer].state == stats.state
    assert sorted(seen) == [("a", "dead_fraction"), ("a", "nan_count"), ("b", "dead_fraction")]


def test_a_server_that_is_away_while_batches_come(make_server: MakeServer, place: str) -> None:
    x = data()
    with Client(place, timeout=300) as client, client.monitor() as monitor:
        monitor.observe("a", x)
        monitor.observe("a", x)
        server = make_server(address=place)
        assert monitor.report()["a"].samples[0] == 80
        server.stop()
        monitor.observe("a", x)
        make_server(address=place)
        assert monitor.report()["a"].samples[0] == 120


def test_no_server_for_good(place: str) -> None:
    with Client(place) as client:
        monitor = client.monitor(reconnect_s=0)
        with pytest.raises(ServerUnavailable):
            monitor.report()
        with pytest.raises(ServerUnavailable):
            monitor.report()
        with pytest.raises(ServerUnavailable):
            monitor.close()


def test_a_server_stops_without_waiting_for_monitors(make_server: MakeServer) -> None:
    server = make_server(grace_s=100)
    with Client(server.addresses[0], timeout=300) as client:
        monitor = client.monitor(reconnect_s=0)
        monitor.observe("a", data())
        monitor.report()
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        stopping.join(30)
        assert not stopping.is_alive()
        with pytest.raises(ServerUnavailable):
            monitor.report()
        with pytest.raises(ServerUnavailable):
            monitor.close()


def test_a_snapshot_is_where_another_monitor_goes_on(client: Client, make_server: MakeServer) -> None:
    x = data()
    with client.monitor("tanh", input="pre") as monitor:
        monitor.observe("a", x[:17])
        monitor.observe("idle", x)
        states = monitor.snapshot()
    assert merge([states["a"]]).samples[0] == 17
    with (
        Client(make_server().addresses[0], timeout=300) as other,
        other.monitor("tanh", input="pre", resume=states) as monitor,
    ):
        monitor.observe("a", x[17:])
        report = monitor.report()
    assert report["a"].state == client.neuron_stats("tanh", x).state
    assert report["idle"].state == states["idle"]


def test_a_state_of_something_else(client: Client) -> None:
    x = data()
    states = {"a": client.neuron_stats("relu", x, input="post").state}
    for options, words in (
        ({"activation": "tanh"}, "'tanh' and 'relu'"),
        ({"threshold": 0.5}, r"threshold.*0\.5 and 0\.1"),
        ({}, None),
    ):
        with client.monitor(**{"activation": "relu", **options}, resume=states) as monitor:
            monitor.observe("a", x)
            if words is None:
                assert monitor.report()["a"].samples[0] == 80
            else:
                with pytest.raises(InvalidRequest, match=words):
                    monitor.report()
    with client.monitor("relu", resume=states) as monitor:
        monitor.observe("a", x[:, :5])
        with pytest.raises(InvalidRequest, match=r"\[5\].*\[6\]"):
            monitor.report()
    with client.monitor("relu", resume={"a": b"nonsense"}) as monitor:
        monitor.observe("a", x)
        with pytest.raises(InvalidRequest, match="no state"):
            monitor.report()


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_mistakes_of_a_batch_leave_the_monitor_usable(client: Client) -> None:
    x = data()
    with client.monitor() as monitor:
        monitor.observe("a", x)
        with pytest.raises(InvalidRequest, match="width 5, and the ones before it 6") as caught:
            monitor.observe("a", x[:, :5])
        assert caught.value.field == "x"
        with pytest.raises(InvalidRequest, match="float64, and the ones before it were float32"):
            monitor.observe("a", x.astype(np.float64))
        with pytest.raises(InvalidRequest, match="int64"):
            monitor.observe("a", np.arange(3))
        with pytest.raises(InvalidRequest, match="layer is 3"):
            monitor.observe(3, x)  # type: ignore[arg-type]
        monitor.observe("a", x)
        assert monitor.report()["a"].samples[0] == 80
    with pytest.raises(InvalidRequest, match="closed"):
        monitor.observe("a", x)


def test_what_only_the_server_knows_to_be_wrong(client: Client) -> None:
    x = data()
    with client.monitor(layers={"b": {"activation": "reluu"}, "c": {"neuron_axis": 2}}) as monitor:
        monitor.observe("a", x)
        monitor.observe("b", x)
        with pytest.raises(UnknownActivation, match="relu"):
            monitor.report()
        with pytest.raises(UnknownActivation, match="relu"):
            monitor.observe("b", x)
        monitor.layer("b", "relu")
        monitor.observe("b", x)
        monitor.observe("c", x)
        with pytest.raises(InvalidRequest, match="neuron_axis is 2"):
            monitor.report()
        monitor.observe("c", x[np.newaxis])
        report = monitor.report()
    assert {name: int(stats.samples.max()) for name, stats in report.items()} == {"a": 40, "b": 40, "c": 40}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": "x"}, "threshold is 'x'"),
        ({"alerts": {"deadness": 1}}, "dead_fraction, dormant_fraction"),
        ({"alerts": [1]}, "alerts is"),
        ({"alerts": {"nan_count": 0.5}}, "nan_count is 0.5"),
        ({"max_unacknowledged_bytes": 0}, "at least 1"),
        ({"snapshot_every_samples": 1.5}, "snapshot_every_samples is 1.5"),
        ({"reconnect_s": -1}, "reconnect_s is -1"),
        ({"fired": "often"}, "fired is 'often'"),
    ],
)
def test_mistakes_that_show_at_once(client: Client, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        client.monitor(**options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 2.0}, "threshold is 2.0"),
        ({"alerts": {"dead_fraction": 1.5}}, r"dead_fraction is 1.5, and must be in \[0, 1\]"),
        ({"alerts": {"nan_count": 0}}, "at least 1"),
        ({"alerts": {"dead_fraction": 1}, "alert_every_samples": -1}, "every_samples is -1"),
        ({"snapshot_every_samples": -3}, "snapshot_every_samples is -3"),
        ({"nonfinite": "reject"}, "nonfinite"),
        ({"nosuch": 1.0}, "nosuch"),
    ],
)
def test_mistakes_that_the_server_finds(client: Client, options: dict[str, Any], words: str) -> None:
    with client.monitor(**options) as monitor:
        monitor.observe("a", data())
        with pytest.raises(InvalidRequest, match=words):
            monitor.report()
        monitor.layer("b", threshold=0.5, alerts=None, alert_every_samples=0, nonfinite="propagate", nosuch=None,
                      snapshot_every_samples=0)  # fmt: skip
        monitor.observe("b", data())
        assert list(monitor.report()) == ["b"]


def test_histograms_beyond_the_servers_bound_end_the_monitor(make_server: MakeServer) -> None:
    server = make_server(max_slice_bytes=1 << 18)
    with Client(server.addresses[0], timeout=300) as client:
        x = np.random.default_rng(0).standard_normal((3000, 64))
        monitor = client.monitor(histogram="neuron")
        monitor.observe("a", x)
        with pytest.raises(LimitExceeded, match="max_slice_bytes"):
            monitor.report()
        with pytest.raises(LimitExceeded):
            monitor.close()
        with client.monitor() as monitor:
            monitor.observe("a", x)
            assert monitor.report()["a"].samples[0] == 3000


# ---- asyncio ---------------------------------------------------------------------------------------------------------


async def test_the_async_twin(make_server: MakeServer, place: str, client: Client) -> None:
    x = data(60, 20)
    server = make_server(address=place)
    told: list[Alert] = []
    async with AsyncClient(place, timeout=300) as other:
        async with other.monitor("relu", alerts={"nan_count": 1}, on_alert=told.append) as monitor:
            await monitor.observe("a", x[:20])
            states = await monitor.snapshot()
            await monitor.observe("a", x[20:35])
            server.stop()
            make_server(address=place)
            await monitor.observe("a", x[35:])
            report = await monitor.report()
            with pytest.raises(InvalidRequest, match="width 3, and the ones before it 20"):
                await monitor.observe("a", x[:, :3])
        async with other.monitor("relu", resume=states, max_unacknowledged_bytes=2000) as monitor:
            for row in x[20:]:
                await monitor.observe("a", row[np.newaxis])
            resumed = await monitor.report()
    expected = client.neuron_stats("relu", x, input="post").state
    assert report["a"].state == resumed["a"].state == expected
    assert [alert.figure for alert in told] == ["nan_count"]


async def test_the_async_twin_without_a_server(place: str) -> None:
    async with AsyncClient(place) as client:
        monitor = client.monitor(reconnect_s=0)
        with pytest.raises(ServerUnavailable):
            await monitor.report()
        with pytest.raises(ServerUnavailable):
            await monitor.close()


# ---- other languages -------------------------------------------------------------------------------------------------


def layer(name: str = "a", **fields: Any) -> monitor_pb2.MonitorLayer:
    header = compute_pb2.JobHeader(
        activation="relu",
        mode=compute_pb2.MODE_NEURON_STATS,
        inputs=[tensor_pb2.TensorSpec(data_type=tensor_pb2.DATA_TYPE_FLOAT)],
    )
    return monitor_pb2.MonitorLayer(layer=name, header=header, **fields)


def batch(number: int, x: Array, name: str = "a") -> list[Request]:
    head = Request(number=number, batch=monitor_pb2.MonitorBatch(layer=name, shape=x.shape))
    return [head, *([chunk(number, 0, x.tobytes())] if x.size else [])]


def chunk(number: int, offset: int, raw: bytes) -> Request:
    return Request(number=number, chunk=monitor_pb2.MonitorChunk(offset_bytes=offset), data=raw)


def snapshot(number: int) -> Request:
    return Request(number=number, snapshot=monitor_pb2.MonitorSnapshotRequest())


@pytest.fixture
def call(address: str) -> Iterator[Callable[..., list[monitor_pb2.MonitorResponse]]]:
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.ActivationServiceStub(channel)
        yield lambda *requests: list(stub.Monitor(iter(requests), timeout=300))


def test_generated_stubs_alone_suffice(call: Any, client: Client) -> None:
    x, wide = data(), data(width=7)
    answers = call(
        Request(number=0, layer=layer()),
        *batch(1, x[:10]),
        *batch(2, wide),
        Request(number=3, batch=monitor_pb2.MonitorBatch(layer="a", shape=[30, 6])),
        *(chunk(3, begin, x[10:].tobytes()[begin : begin + 100]) for begin in range(0, 30 * 24, 100)),
        *batch(4, x, "nobody"),
        snapshot(5),
        snapshot(6),
    )
    kinds = [(answer.WhichOneof("frame"), answer.number) for answer in answers]
    assert kinds == [("failure", 2), ("failure", 4), ("state", 5), ("snapshot", 5), ("snapshot", 6)]
    width, nobody, state, end, _ = answers
    assert "[7]" in width.failure.error.message and "[6]" in width.failure.error.message
    request = error_details_pb2.BadRequest()
    assert width.failure.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert width.failure.error.details[1].Unpack(request) and request.field_violations[0].field == "batch.shape"
    assert not width.failure.of_layer and "no layer 'nobody'" in nobody.failure.error.message
    assert end.snapshot.through == 5
    assert state.data == client.neuron_stats("relu", x).state


def test_layers_that_are_refused_by_field(call: Any) -> None:
    wrong = layer("b")
    wrong.header.mode = compute_pb2.MODE_FORWARD
    open_ended = layer("c")
    open_ended.header.open_ended = True
    answers = call(
        Request(number=1, layer=layer()),
        Request(number=1, layer=layer()),
        Request(number=2, layer=layer("")),
        Request(number=2, layer=layer("x" * 300)),
        Request(number=3, layer=wrong),
        Request(number=4, layer=open_ended),
        Request(number=5, layer=layer("d", state_bytes=5)),
        chunk(5, 0, b"wrong"),
        Request(number=6, layer=layer("e", state_bytes=1 << 40)),
        chunk(6, 0, b"much"),
        snapshot(7),
    )
    fields = []
    for answer in answers[:-1]:
        info = error_details_pb2.ErrorInfo()
        assert answer.failure.of_layer and answer.failure.error.details[0].Unpack(info)
        fields.append((answer.number, info.metadata["field"]))
    assert fields == [
        (1, "layer.layer"),
        (2, "layer.layer"),
        (2, "layer.layer"),
        (3, "layer.header.mode"),
        (4, "layer.header.open_ended"),
        (5, "layer.state_bytes"),
        (6, "layer.state_bytes"),
    ]
    assert answers[-1].snapshot.through == 7


X = np.ones((2, 6), np.float32)


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([Request(number=1)], "with nothing"),
        ([chunk(1, 0, b"abcd")], "no bytes are lacking"),
        ([Request(number=1, layer=layer()), *batch(1, X)], "numbers must grow"),
        ([Request(number=1, layer=layer()), *batch(2, X), Request(number=1, layer=layer("b"))], "numbers must grow"),
        ([Request(number=1, layer=layer()), batch(2, X)[0]], "ended in the middle of number 2"),
        ([Request(number=1, layer=layer()), batch(2, X)[0], snapshot(3)], "lacks 48 bytes"),
        ([Request(number=1, layer=layer()), batch(2, X)[0], chunk(2, 4, b"abcd")], "begins at byte 4"),
        ([Request(number=1, layer=layer()), batch(2, X)[0], chunk(2, 0, b"abc")], "cuts an element"),
        ([Request(number=1, layer=layer()), batch(2, X)[0], chunk(2, 0, bytes(52))], "beyond the tensor's 48"),
        ([Request(number=1, layer=layer("b", state_bytes=4)), chunk(1, 4, b"abcd")], "must begin at 0"),
    ],
)
def test_frames_that_make_no_sense_end_the_call(call: Any, requests: list[Request], words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        call(*requests)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in caught.value.details()


def test_a_report_that_does_not_come_in_time(place: str) -> None:
    with Client(place) as client:
        monitor = client.monitor()
        with pytest.raises(DeadlineExceeded, match="before the snapshot came"):
            monitor.report(timeout=0.1)
        monitor.__exit__(KeyError, KeyError(), None)


async def test_nor_does_it_where_it_is_awaited(place: str) -> None:
    async with AsyncClient(place) as client:
        monitor = client.monitor()
        with pytest.raises(DeadlineExceeded, match="before the snapshot came"):
            await monitor.report(timeout=0.1)
        await monitor.__aexit__(KeyError, KeyError(), None)


def test_a_monitor_of_a_client_that_is_closed(address: str) -> None:
    client = Client(address)
    client.close()
    with pytest.raises(InvalidRequest, match="client is closed"):
        client.monitor().report()
