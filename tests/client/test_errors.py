"""Bad input: each mistake has its error, which names the field, and the server keeps serving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from actserve.v1 import compute_pb2, tensor_pb2
from actserve_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    LimitExceeded,
    Retry,
    ServerError,
    ServerUnavailable,
    Tls,
    UnknownActivation,
    _channel,
    merge,
)
from google.rpc import error_details_pb2, status_pb2

MakeServer = Callable[..., Any]
FLOAT = tensor_pb2.DATA_TYPE_FLOAT
X = np.ones((2, 3), np.float32)


@pytest.fixture(autouse=True)
def serving_afterwards(client: Client) -> Iterator[None]:
    yield
    np.testing.assert_array_equal(client.forward("relu", X), X)


@pytest.mark.parametrize(
    ("arguments", "keywords", "field", "text"),
    [
        (("relu", np.ones(3, np.int64)), {}, "x", "int64"),
        (("relu", [1, 2]), {}, "x", "int64"),
        (("relu", np.ones(3, complex)), {}, "x", "complex128"),
        (("relu", np.ones(3, np.longdouble)), {}, "x", np.dtype(np.longdouble).name),
        (("relu", X), {"slope": 1}, "slope", "no parameter 'slope'"),
        (("leaky_relu", X), {"negative_slop": 1}, "negative_slop", "negative_slope"),
        (("leaky_relu", X), {"alpha": 0.1, "negative_slope": 0.1}, "negative_slope", "one parameter"),
        (("leaky_relu", X), {"alpha": 0.1, "parameters": {"alpha": 0.1}}, "alpha", "twice"),
        (("leaky_relu", X), {"negative_slope": float("nan")}, "negative_slope", "must be a number"),
        (("leaky_relu", X), {"negative_slope": "steep"}, "negative_slope", "must be a number"),
        (("leaky_relu", X), {"negative_slope": True}, "negative_slope", "must be a number"),
        (("softplus", X), {"beta": 0}, "beta", "other than 0"),
        (("softmax", X), {"temperature": 0.0}, "temperature", "(0, inf)"),
        (("softmax", X), {"all_masked": "one"}, "all_masked", '"nan", "zero"'),
        (("softmax", X), {"axis": 2}, "axis", "[-2, 1]"),
        (("relu", X), {"axis": 0}, "axis", "no axis"),
        (("relu", X), {"out": np.ones(3, np.float32)}, "out", "shape"),
        (("relu", X), {"out": np.ones((2, 3))}, "out", "float32"),
    ],
)
def test_wrong_arguments_of_forward(client: Client, arguments: Any, keywords: Any, field: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.forward(*arguments, **keywords)
    assert field in caught.value.field
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("name", "keywords", "field"),
    [
        ("softmax", {}, "jacobian"),
        ("softmax", {"jacobian": "half"}, "jacobian"),
        ("softmax", {"jacobian": "full", "upstream": X}, "jacobian"),
        ("relu", {"jacobian": "diag"}, "jacobian"),
        ("relu", {"upstream": X[:1]}, "upstream"),
        ("relu", {"upstream": X.astype(np.float64)}, "upstream"),
    ],
)
def test_wrong_options_of_derivative(client: Client, name: str, keywords: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.derivative(name, X, **keywords)
    assert caught.value.field == field


def test_wrong_options_of_the_reductions(client: Client) -> None:
    for strength in (-1, float("nan"), float("inf")):
        with pytest.raises(InvalidRequest, match="strength"):
            client.regularization("relu", X, strength=strength)
    with pytest.raises(InvalidRequest, match="l2"):
        client.regularization("relu", X, "l3")
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidRequest, match="threshold"):
            client.neuron_stats("relu", X, threshold=threshold)
    with pytest.raises(InvalidRequest, match="neuron_axis"):
        client.neuron_stats("relu", X, neuron_axis=2)
    with pytest.raises(InvalidRequest, match="rows of shape"):
        client.neuron_stats("relu", [X, X[:, :2]])
    with pytest.raises(InvalidRequest, match="axis 0"):
        list(client.stream("softmax", [X], axis=0))


def test_an_unknown_activation_names_near_ones(client: Client) -> None:
    for call in (client.forward, client.derivative, client.neuron_stats, client.regularization):
        with pytest.raises(UnknownActivation, match="did you mean sigmoid"):
            call("sigmod", X)  # type: ignore[operator]
    with pytest.raises(UnknownActivation, match="did you mean gelu"):
        client.describe("gelo")
    with pytest.raises(UnknownActivation):
        client.forward("x" * 100_000, X)


# ---- what a client in another language may do wrong ----------------------------------------------------------------


def header(**fields: Any) -> compute_pb2.JobHeader:
    inputs = [tensor_pb2.TensorSpec(data_type=FLOAT, shape=[2, 3])]
    return compute_pb2.JobHeader(**{"activation": "relu", "mode": compute_pb2.MODE_FORWARD, "inputs": inputs, **fields})


def status_of(error: grpc.RpcError) -> status_pb2.Status:
    trailing: Any = error.trailing_metadata()  # type: ignore[attr-defined]
    return status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])


def details(status: status_pb2.Status) -> tuple[str, str]:
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for packed in status.details:
        packed.Unpack(info)
        packed.Unpack(bad)
    assert info.domain == "actserve"
    return info.reason, bad.field_violations[0].field if bad.field_violations else ""


@pytest.mark.parametrize(
    ("request_", "reason", "field"),
    [
        ({"header": header(), "data": bytes(23)}, "DATA_SIZE_MISMATCH", "data"),
        ({"header": header(), "data": bytes(28)}, "DATA_SIZE_MISMATCH", "data"),
        ({}, "INVALID_OPTION", "header.mode"),
        ({"header": header(mode=77)}, "INVALID_OPTION", "header.mode"),
        ({"header": header(inputs=[])}, "INVALID_OPTION", "header.inputs"),
        ({"header": header(inputs=[{"data_type": FLOAT, "shape": [-1]}])}, "INVALID_SHAPE", "header.inputs[0].shape"),
        (
            {"header": header(inputs=[{"data_type": FLOAT, "shape": [2**40] * 3}])},
            "INVALID_SHAPE",
            "header.inputs[0].shape",
        ),
        (
            {"header": header(inputs=[{"data_type": FLOAT, "shape": [1] * 65}])},
            "INVALID_SHAPE",
            "header.inputs[0].shape",
        ),
        (
            {"header": header(inputs=[{"data_type": 6, "shape": [1]}])},
            "UNSUPPORTED_DATA_TYPE",
            "header.inputs[0].data_type",
        ),
        (
            {"header": header(inputs=[{"data_type": 99, "shape": [1]}])},
            "UNSUPPORTED_DATA_TYPE",
            "header.inputs[0].data_type",
        ),
        ({"header": header(open_ended=True)}, "INVALID_OPTION", "header.open_ended"),
        ({"header": header(chunk_bytes=-1), "data": bytes(24)}, "INVALID_OPTION", "header.chunk_bytes"),
        (
            {"header": header(regularization={"regularizer": 1}), "data": bytes(24)},
            "INVALID_OPTION",
            "header.regularization",
        ),
    ],
)
def test_a_wrong_compute_request(client: Client, request_: Any, reason: str, field: str) -> None:
    call: Any = client._pool.pick().channel.unary_stream(_channel.COMPUTE)
    with pytest.raises(grpc.RpcError) as caught:
        list(call(compute_pb2.ComputeRequest(**request_).SerializeToString()))
    status = status_of(caught.value)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(status) == (reason, field)
    assert status.ByteSize() < 8192


def stream(client: Client, *frames: Any) -> list[compute_pb2.ComputeResponse]:
    call: Any = client._pool.pick().channel.stream_stream(_channel.COMPUTE_STREAM)
    raws = [f if isinstance(f, bytes) else compute_pb2.ComputeStreamRequest(**f).SerializeToString() for f in frames]
    return [compute_pb2.ComputeResponse.FromString(raw) for raw in call(iter(raws), timeout=120)]


CHUNK = {"job": 1, "chunk": {"offset_bytes": 0}, "data": bytes(8)}
HEADER = {"job": 1, "header": header()}


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ((), "STREAM_ENDED_EARLY"),
        ((HEADER,), "STREAM_ENDED_EARLY"),
        ((HEADER, CHUNK), "STREAM_ENDED_EARLY"),
        ((CHUNK,), "UNEXPECTED_FRAME"),
        ((HEADER, CHUNK, HEADER), "UNEXPECTED_FRAME"),
        ((HEADER, CHUNK, {"job": 2, "header": header()}), "UNEXPECTED_FRAME"),
        ((HEADER, {"job": 1, "end": {}}), "UNEXPECTED_FRAME"),
        ((HEADER, {"job": 1}), "UNEXPECTED_FRAME"),
        ((HEADER, {**CHUNK, "job": 2}), "UNEXPECTED_FRAME"),
        ((b"\xff\xff\xff",), "MALFORMED_MESSAGE"),
    ],
)
def test_what_breaks_a_stream_ends_it(client: Client, frames: Any, reason: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stream(client, *frames)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(status_of(caught.value))[0] == reason


@pytest.mark.parametrize(
    ("chunk", "reason"),
    [
        ({**CHUNK, "chunk": {"offset_bytes": 4}}, "CHUNK_OUT_OF_PLACE"),
        ({**CHUNK, "chunk": {"input": 1}}, "CHUNK_OUT_OF_PLACE"),
        ({**CHUNK, "data": bytes(28)}, "CHUNK_OUT_OF_PLACE"),
        ({**CHUNK, "data": bytes(7)}, "CHUNK_OUT_OF_PLACE"),
    ],
)
def test_a_job_that_fails_leaves_the_next_one_alone(client: Client, chunk: Any, reason: str) -> None:
    data = np.arange(6, dtype=np.float32).tobytes()
    later = ({"job": 2, "header": header()}, {"job": 2, "chunk": {}, "data": data})
    answers = stream(client, HEADER, chunk, CHUNK, *later)
    (failed,) = [answer.error for answer in answers if answer.HasField("error")]
    assert details(failed)[0] == reason
    assert b"".join(answer.data for answer in answers if answer.job == 2) == data
    assert answers[-1].HasField("summary")


# ---- limits --------------------------------------------------------------------------------------------------------


def test_limits_are_named(make_server: Any) -> None:
    server = make_server(max_tensor_bytes=4096, max_slice_bytes=1024, max_dimensions=3, max_request_bytes=4096)
    with Client(server.addresses[0]) as client:
        for call in (
            lambda: client.forward("relu", np.ones(1025, np.float32)),
            lambda: client.forward("relu", np.ones(1 << 20, np.float32)),
            lambda: client.forward("softmax", np.ones((2, 300), np.float32), axis=0),
            lambda: client.derivative("softmax", np.ones((8, 32), np.float32), jacobian="full"),
            lambda: list(client.stream("relu", [np.ones(600, np.float32)] * 2)),
        ):
            with pytest.raises(LimitExceeded):
                call()
        with pytest.raises(InvalidRequest, match="dimensions"):
            client.forward("relu", np.ones((1, 1, 1, 1), np.float32))
        np.testing.assert_array_equal(client.forward("relu", np.ones(1000, np.float32)), np.ones(1000))


def test_a_busy_server_says_so_and_stays_healthy(make_server: Any) -> None:
    server = make_server(max_concurrency=1)
    with Client(server.addresses[0], retry=Retry(attempts=2, initial_s=0)) as client:
        stream_ = client.stream("relu", (np.ones(4) for _ in range(100_000)))
        next(stream_)
        with pytest.raises(ServerUnavailable, match="1 computations are running") as caught:
            client.forward("relu", X)
        assert caught.value.retry_after_s
        assert client.healthy()
        stream_.close()  # type: ignore[attr-defined]
    with Client(server.addresses[0], retry=Retry(attempts=20)) as client:
        np.testing.assert_array_equal(client.forward("relu", X), X)


def test_no_server_and_no_time() -> None:
    with Client("127.0.0.1:1", retry=None) as client, pytest.raises(ServerUnavailable):
        client.forward("relu", X)
    with Client("127.0.0.1:1") as client, pytest.raises((DeadlineExceeded, ServerUnavailable)):
        client.forward("relu", X, timeout=0.05)


def test_a_deadline_ends_a_stream(client: Client) -> None:
    with pytest.raises(DeadlineExceeded):
        for _ in client.stream("relu", (np.ones(1 << 16) for _ in range(10**6)), timeout=0.5):
            pass


async def test_a_client_that_is_closed(address: str) -> None:
    client = Client(address)
    client.close()
    client.close()
    with pytest.raises(InvalidRequest, match="client is closed"):
        client.forward("relu", np.ones(2))
    async with AsyncClient(address) as asynchronous:
        pass
    with pytest.raises(InvalidRequest, match="client is closed"):
        await asynchronous.forward("relu", np.ones(2))


@pytest.mark.parametrize(
    ("keywords", "field"),
    [
        ({"address": 50051}, "address"),
        ({"address": ("localhost", 50051)}, "address"),
        ({"address": "localhost"}, "address"),
        ({"address": "http://localhost:50051"}, "address"),
        ({"address": "/run/actserve.sock"}, "address"),
        ({"address": "unix:"}, "address"),
        ({"address": "localhost:99999"}, "address"),
        ({"address": "[::1]"}, "address"),
        ({"retry": 3}, "retry"),
        ({"tls": True}, "tls"),
        ({"tls": Tls(roots="/nowhere/roots.pem")}, "tls"),
        ({"timeout": "3"}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"token": 7}, "token"),
        ({"token": "two\nlines"}, "token"),
        ({"channels": 0}, "channels"),
    ],
)
async def test_wrong_options_of_a_client(keywords: Any, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Client(**{"address": "127.0.0.1:1", **keywords})
    assert caught.value.field == field
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidRequest) as caught:
        async with AsyncClient(**{"address": "127.0.0.1:1", **keywords}):
            pass
    assert caught.value.field == field


@pytest.mark.parametrize("place", ["dns:///localhost:1", "ipv4:127.0.0.1:1", "[::1]:1", "unix:///nowhere/a b"])
def test_addresses_of_every_form_are_tried(place: str) -> None:
    with Client(place, retry=None) as client, pytest.raises(ServerUnavailable):
        client.forward("relu", X)


@pytest.mark.parametrize(
    ("make", "field", "text"),
    [
        (lambda c: c.forward("relu", X, timeout="soon"), "timeout", "'soon'"),
        (lambda c: c.forward("relu", X, timeout=True), "timeout", "number of seconds"),
        (lambda c: c.describe("relu", timeout=float("nan")), "timeout", "nan"),
        (lambda c: c.forward("leaky_relu", X, parameters=[0.1]), "parameters", "mapping"),
        (lambda c: c.forward("leaky_relu", X, parameters={1: 0.1}), "parameters", "name 1"),
        (lambda c: c.forward("relu", np.ma.masked_less(X, 0)), "x", "masked"),
        (lambda c: c.derivative("relu", X, upstream=np.ma.masked_less(X, 0)), "upstream", "masked"),
        (lambda c: c.forward("relu", _Unwilling()), "x", "can't be made an array: on another device"),
        (lambda c: list(c.stream("relu", 3)), "blocks", "iterable"),
        (lambda c: list(c.stream("relu", np.float32(3))), "blocks", "iterable"),
        (lambda c: list(c.map("relu", None)), "arrays", "iterable"),
        (lambda c: list(c.map("relu", np.array(1.0))), "arrays", "iterable"),
        (lambda c: list(c.map("relu", [X], mode="derivative", upstream=1)), "upstream", "iterable"),
        (lambda c: c.empty(3, "float31"), "dtype", "'float31'"),
        (lambda c: c.empty(3.5), "shape", "3.5"),
        (lambda c: c.regularization("relu", X, state=b""), "state", "gradient=True"),
        (lambda c: c.regularization("relu", X, "group_lasso", penalty_axis=5), "penalty_axis", "penalty_axis is 5"),
        (lambda c: c.create_activation("team.steep", "b * x", b=20.0, bounds={"b": (0, 10)}), "b", "[0, 10]"),
        (lambda c: merge(None), "states", "None"),
        (lambda c: merge([1]), "states", "states[0]"),
        (lambda c: merge(c.neuron_stats("relu", X).state), "states", "iterable of states"),
        (lambda c: merge(c.neuron_stats("relu", X)), "states", "iterable of states"),
    ],
)
def test_mistakes_have_an_error_that_names_them(client: Client, make: Any, field: str, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        make(client)
    assert caught.value.field == field
    assert text in str(caught.value)


class _Unwilling:
    """As tensors of PyTorch are that lie on a GPU."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("on another device")


@pytest.mark.parametrize("timeout", [0, -1.0, 1e-9])
async def test_a_timeout_that_has_passed(client: Client, address: str, timeout: float) -> None:
    for _ in range(4):  # small calls in a row take another way than the first ones
        client.forward("relu", X)
    with pytest.raises(DeadlineExceeded, match="timeout passed"):
        client.forward("relu", X, timeout=timeout)
    with pytest.raises(DeadlineExceeded, match="timeout passed"):
        client.describe("relu", timeout=timeout)
    async with AsyncClient(address) as other:
        with pytest.raises(DeadlineExceeded, match="timeout passed"):
            await other.forward("relu", X, timeout=timeout)


def test_a_timeout_without_end(client: Client) -> None:
    for timeout in (float("inf"), 1e300, 10**400):
        np.testing.assert_array_equal(client.forward("relu", X, timeout=timeout), X)


def test_a_server_of_something_else() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            for ask in (
                lambda: client.forward("relu", X),
                lambda: list(client.stream("relu", [X])),
                client.activations,
            ):
                with pytest.raises(ServerError, match="no actserve server"):
                    ask()
    finally:
        server.stop(0).wait()


def test_a_client_that_is_closed_in_the_middle_of_a_call(address: str) -> None:
    client = Client(address)
    # Through shared memory it goes in slices of 64 MiB, each a call: closed at the end of one, there is none for the next.
    x = np.zeros((68 << 20) // 4, np.float32)

    def progress(sent: int, received: int) -> None:
        if received >= 64 << 20:
            client.close()

    try:
        with pytest.raises(InvalidRequest, match="the client is closed") as caught:
            client.forward("relu", x, progress=progress)
        assert caught.value.field == "client"
    finally:
        client.close()


async def test_an_async_client_is_closed_before_it_is_used(address: str) -> None:
    client = AsyncClient(address)
    await client.close()
    with pytest.raises(InvalidRequest, match="the client is closed"):
        await client.forward("relu", X)


def test_an_async_client_on_another_event_loop(address: str) -> None:
    client = AsyncClient(address)

    async def twice_elsewhere() -> None:
        await client.forward("relu", X)
        other = asyncio.new_event_loop()
        try:
            with pytest.raises(InvalidRequest, match="another event loop"):
                await asyncio.to_thread(other.run_until_complete, client.forward("relu", X))
        finally:
            other.close()
        await client.forward("relu", X)
        await client.close()

    asyncio.run(twice_elsewhere())


@pytest.mark.parametrize("name", ["progress", "on_summary"])
def test_what_can_not_be_called_is_refused_by_name(client: Client, name: str) -> None:
    wrong: dict[str, Any] = {name: 3}
    calls: list[Callable[[], Any]] = [
        lambda: client.forward("relu", X, **wrong),
        lambda: client.derivative("relu", X, **wrong),
        lambda: client.regularization("relu", X, **wrong),
        lambda: client.neuron_stats("relu", iter([X]), **wrong),
    ]
    if name == "on_summary":
        calls += [lambda: next(client.stream("relu", [X], **wrong)), lambda: next(client.map("relu", [X], **wrong))]
    for call in calls:
        with pytest.raises(InvalidRequest, match=f"{name} is 3, and must be a function") as caught:
            call()
        assert caught.value.field == name


@pytest.mark.parametrize("name", ["progress", "on_summary"])
def test_what_can_not_be_called_is_refused_for_shards_too(make_server: MakeServer, name: str) -> None:
    addresses = [make_server().addresses[0] for _ in range(2)]
    wrong: dict[str, Any] = {name: 3}
    refused = pytest.raises(InvalidRequest, match=f"{name} is 3, and must be a function")
    with Client(",".join(addresses)) as client, refused:
        client.forward("relu", np.ones(1 << 23, np.float32), **wrong)


async def test_what_can_not_be_called_is_refused_by_the_async_client(address: str) -> None:
    wrong: dict[str, Any] = {"on_summary": 3}
    async with AsyncClient(address) as client:
        for call in (client.stream, client.map):
            with pytest.raises(InvalidRequest, match="on_summary is 3, and must be a function"):
                async for _ in call("relu", [X], **wrong):
                    pass
