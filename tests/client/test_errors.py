"""Bad input: each mistake has its error, which names the field, and the server keeps serving."""

from __future__ import annotations

from collections.abc import Iterator
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
    ServerUnavailable,
    UnknownActivation,
    _channel,
)
from google.rpc import error_details_pb2, status_pb2

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
