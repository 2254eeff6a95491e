"""Streams: any size, any split, any layout of memory give the same bits, in order and in place."""

from __future__ import annotations

import itertools
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from actserve import wire
from actserve.v1 import compute_pb2
from actserve_client import AsyncClient, Client, InvalidRequest, _channel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
SHARED = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def noise(shape: Any, dtype: Any = np.float32) -> Array:
    return (np.random.default_rng(3).standard_normal(shape) * 5).astype(dtype)


def by_hand(client: Client, header: compute_pb2.JobHeader, inputs: list[bytes], cuts: list[int]) -> bytes:
    """A ComputeStream call as another language would make it: chunks cut at these elements, inputs interleaved."""
    call: Any = client._pool.pick().channel.stream_stream(_channel.COMPUTE_STREAM)
    itemsize = wire.dtype_of(header.inputs[0].data_type).itemsize
    edges = [0, *[cut * itemsize for cut in cuts], len(inputs[0])]

    def requests() -> Iterator[bytes]:
        yield compute_pb2.ComputeStreamRequest(job=4, header=header).SerializeToString()
        for (start, stop), index in itertools.product(itertools.pairwise(edges), range(len(inputs))):
            chunk = compute_pb2.InputChunk(input=index, offset_bytes=start)
            data = inputs[index][start:stop]
            yield compute_pb2.ComputeStreamRequest(job=4, chunk=chunk, data=data).SerializeToString()

    parts, done = [], False
    for raw in call(requests()):
        message = compute_pb2.ComputeResponse.FromString(raw)
        assert message.job == 4
        parts.append(message.data)
        done = message.HasField("summary")
    assert done
    return b"".join(parts)


@SHARED
@given(data=st.data())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("operation", ["gelu", "tanh'", "softmax", "softmax'", "log_softmax full"])
def test_any_chunks_give_the_same_bits(client: Client, dtype: Any, operation: str, data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5)))
    x, g = noise(shape, dtype), noise(shape, dtype)[::-1]
    name = operation.split("'")[0].split()[0]
    spec = {"data_type": wire.data_type_of(x.dtype), "shape": shape}
    header = compute_pb2.JobHeader(activation=name, mode=compute_pb2.MODE_FORWARD, inputs=[spec])
    axis = None
    if "softmax" in name:
        axis = header.axis = data.draw(st.integers(0, len(shape) - 1))
    header.chunk_bytes = data.draw(st.integers(1, 200))
    inputs = [x.tobytes()]
    if operation.endswith("'"):
        header.mode = compute_pb2.MODE_DERIVATIVE
        header.inputs.add(**spec)
        inputs.append(np.ascontiguousarray(g).tobytes())
        expected = client.derivative(name, x, upstream=g, axis=axis)
    elif operation.endswith("full"):
        header.mode = compute_pb2.MODE_DERIVATIVE
        header.derivative.jacobian = compute_pb2.JACOBIAN_FULL
        expected = client.derivative(name, x, jacobian="full", axis=axis)
    else:
        expected = client.forward(name, x, axis=axis)
    cuts = data.draw(st.lists(st.integers(0, x.size), max_size=6).map(sorted))
    assert by_hand(client, header, inputs, cuts) == expected.tobytes()


@pytest.mark.parametrize("name", ["gelu", "softmax"])
def test_a_large_array_streams_to_the_bits_of_its_parts(client: Client, name: str) -> None:
    x = noise((1500, 1031))
    parts = [client.forward(name, x[at : at + 100]) for at in range(0, 1500, 100)]
    np.testing.assert_array_equal(client.forward(name, x), np.concatenate(parts))


@pytest.mark.parametrize("rows", [3, 1500])
def test_strides_and_byte_order_make_no_difference(client: Client, rows: int) -> None:
    x = noise((rows, 1030), np.float64)
    expected = client.forward("silu", x)
    for other in (np.asfortranarray(x), x.astype(">f8"), np.repeat(x, 2, axis=1)[:, ::2]):
        y = client.forward("silu", other)
        assert y.dtype.isnative
        np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(client.forward("silu", x[::-1]), expected[::-1])


@pytest.mark.parametrize("rows", [3, 1500])
def test_out_is_filled_whatever_its_layout(client: Client, rows: int) -> None:
    x = noise((rows, 1030))
    expected = client.forward("tanh", x)
    for out in (np.empty_like(x), np.empty_like(x, order="F"), np.empty((rows, 2060), np.float32)[:, ::2]):
        assert client.forward("tanh", x, out=out) is out
        np.testing.assert_array_equal(out, expected)
    swapped = x.copy()
    client.forward("tanh", swapped, out=swapped)
    np.testing.assert_array_equal(swapped, expected)
    backwards = x.copy()
    client.forward("tanh", backwards, out=backwards[::-1])
    np.testing.assert_array_equal(backwards[::-1], expected)


@SHARED
@given(
    st.lists(
        st.tuples(st.sampled_from([np.float32, np.float64]), st.lists(st.integers(0, 3), max_size=3).map(tuple)),
        max_size=6,
    )
)
def test_each_block_has_its_result_in_order(client: Client, kinds: list[tuple[Any, tuple[int, ...]]]) -> None:
    blocks = [noise(shape, dtype) for dtype, shape in kinds]
    results = list(client.stream("gelu", iter(blocks)))
    assert len(results) == len(blocks)
    for block, result in zip(blocks, results, strict=True):
        assert (result.shape, result.dtype) == (block.shape, block.dtype)
        np.testing.assert_array_equal(result, client.forward("gelu", block))


def test_a_result_waits_for_no_later_block(client: Client) -> None:
    """Each block is made from the result of the one before, which only works when nothing is held back."""
    results: list[Array] = [np.zeros(3)]
    seen = threading.Event()

    def blocks() -> Iterator[Array]:
        for _ in range(5):
            yield results[-1] + 1
            assert seen.wait(20)
            seen.clear()

    for result in client.stream("identity", blocks()):
        results.append(result)
        seen.set()
    assert [float(result[0]) for result in results] == [0, 1, 2, 3, 4, 5]


def test_derivatives_stream_with_their_upstream(client: Client) -> None:
    x, g = noise((9, 4), np.float64), noise((9, 4), np.float64)[::-1]
    got = np.concatenate(list(client.stream("softmax", np.split(x, 3), mode="derivative", upstream=np.split(g, 3))))
    np.testing.assert_array_equal(got, client.derivative("softmax", x, upstream=g))
    full = np.concatenate(list(client.stream("softmax", np.split(x, 3), mode="derivative", jacobian="full")))
    np.testing.assert_array_equal(full, client.derivative("softmax", x, jacobian="full"))


def test_what_an_iterable_raises_is_raised_after_the_results_before(client: Client) -> None:
    def blocks() -> Iterator[Array]:
        yield np.ones(2)
        raise LookupError("no more")

    stream = client.stream("relu", blocks())
    np.testing.assert_array_equal(next(stream), [1, 1])
    with pytest.raises(LookupError, match="no more"):
        next(stream)


def test_upstream_must_match_block_by_block(client: Client) -> None:
    ones = np.ones((2, 3))
    for upstream in ([], [ones, ones], [np.ones((2, 2))]):
        with pytest.raises(InvalidRequest) as caught:
            list(client.stream("relu", [ones], mode="derivative", upstream=upstream))
        assert caught.value.field == "upstream"


def test_the_iterable_is_read_no_faster_than_results_are_taken(client: Client) -> None:
    made = 0

    def blocks() -> Iterator[Array]:
        nonlocal made
        for _ in range(200):
            made += 1
            yield np.ones(1 << 18, np.float32)

    stream = client.stream("relu", blocks())
    next(stream)
    threading.Event().wait(1.0)
    assert made < 60, "200 MiB were sent although only 1 MiB was taken"
    stream.close()  # type: ignore[attr-defined]


def test_stopping_early_leaves_the_server_free(client: Client) -> None:
    for _ in range(3):
        for _ in client.stream("relu", (np.ones(1 << 16) for _ in range(1000))):
            break
    np.testing.assert_array_equal(client.forward("relu", np.ones(2)), [1, 1])


async def test_the_async_client_does_the_same(address: str, client: Client) -> None:
    x = noise((600, 1000))

    async def blocks() -> AsyncIterator[Array]:
        for part in np.split(x, 6):
            yield part

    async with AsyncClient(address) as other:
        np.testing.assert_array_equal(await other.forward("gelu", x), client.forward("gelu", x))
        np.testing.assert_array_equal(await other.derivative("tanh", x[:2]), client.derivative("tanh", x[:2]))
        got = [block async for block in other.stream("gelu", blocks())]
        np.testing.assert_array_equal(np.concatenate(got), client.forward("gelu", x))
        got = [block async for block in other.stream("gelu", np.split(x, 6))]
        np.testing.assert_array_equal(np.concatenate(got), client.forward("gelu", x))
        assert (await other.neuron_stats("relu", blocks())).state == client.neuron_stats("relu", x).state
        assert await other.regularization("relu", x) == client.regularization("relu", x)
        assert await other.activations() == client.activations()
        assert await other.describe("swish") == client.describe("silu")
        assert await other.server_info() == client.server_info()
        assert await other.healthy()
        with pytest.raises(InvalidRequest):
            await other.derivative("softmax", x)
