"""Bytes that are no message, or one that makes no sense, sent to a server: refused by name, and nothing else is disturbed."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
from actserve import wire
from actserve.v1 import compute_pb2, tensor_pb2
from actserve_client import Client, _channel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

X = np.array([[-1.0, 2.0, 0.5, np.nan]], np.float32)
REFUSALS = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}


def header(**options: Any) -> compute_pb2.JobHeader:
    spec = tensor_pb2.TensorSpec(data_type=tensor_pb2.DATA_TYPE_FLOAT, shape=X.shape)
    return compute_pb2.JobHeader(activation="relu", mode=compute_pb2.MODE_FORWARD, inputs=[spec], **options)


WHOLE = wire.frame(compute_pb2.ComputeRequest(header=header()), X.tobytes())
PART = wire.frame(compute_pb2.ComputeRequest(header=header(part=compute_pb2.Part(first_element=0))), X.tobytes())
STREAM = [
    compute_pb2.ComputeStreamRequest(job=1, header=header()).SerializeToString(),
    wire.frame(compute_pb2.ComputeStreamRequest(job=1, chunk=compute_pb2.InputChunk()), X.tobytes()),
    wire.frame(compute_pb2.ComputeStreamRequest(job=2, header=header()), X.tobytes()),
    compute_pb2.ComputeStreamRequest(job=3, header=header(open_ended=True)).SerializeToString(),
    compute_pb2.ComputeStreamRequest(job=3, end=compute_pb2.InputEnd()).SerializeToString(),
]


@st.composite
def mangled(draw: st.DrawFn, message: bytes) -> bytes:
    """The message with some bytes changed, removed, repeated or put in."""
    data = bytearray(message)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "cut", "insert", "repeat"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "insert":
                data[at:at] = draw(st.binary(max_size=6))
            case _:
                data[at:at] = data[: draw(st.integers(0, 12))]
    return bytes(data)


MESSAGES = st.one_of(st.binary(max_size=64), mangled(WHOLE), mangled(PART))
FRAMES = st.lists(
    st.one_of(st.sampled_from(STREAM), st.sampled_from(STREAM).flatmap(mangled), st.binary(max_size=16)), max_size=6
)


def refusal(call: Any) -> grpc.RpcError | None:
    """Read to the end: None for an answer."""
    try:
        for raw in call:
            compute_pb2.ComputeResponse.FromString(raw)
    except grpc.RpcError as error:
        return error
    return None


@settings(deadline=None, max_examples=150, suppress_health_check=list(HealthCheck))
@given(message=MESSAGES, frames=FRAMES)
def test_it_is_refused_or_answered(client: Client, message: bytes, frames: list[bytes]) -> None:
    channel = client._pool.pick().channel
    calls: list[Any] = [
        channel.unary_stream(_channel.COMPUTE)(message, timeout=60),
        channel.stream_stream(_channel.COMPUTE_STREAM)(iter(frames), timeout=60),
    ]
    for call in calls:
        error: Any = refusal(call)
        if error is not None:
            assert error.code() in REFUSALS, (error.code(), error.details())
            assert error.details()
    np.testing.assert_array_equal(client.forward("relu", X), [[0, 2, 0.5, np.nan]])
