"""`map`: many tensors over one stream, each by itself, in order; one that is wrong fails alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from actserve import wire
from actserve.v1 import compute_pb2
from actserve_client import (
    ActserveError,
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    ServerError,
    UnknownActivation,
    _channel,
    _session,
)
from actserve_client._blocks import Blocks
from actserve_client._session import Assembly
from actserve_client._tensors import PACK_BYTES, Tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Array = np.ndarray[Any, Any]
SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
TENSORS = st.sampled_from([np.float16, np.float32, np.float64]).flatmap(
    lambda dtype: hnp.arrays(dtype, SHAPES, elements=st.floats(-4, 4, width=16))
)


def same(results: list[Any], expected: list[Array]) -> None:
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        assert result.dtype == wanted.dtype
        np.testing.assert_array_equal(result, wanted)
        assert result.flags.writeable


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arrays=st.lists(TENSORS, max_size=8))
def test_each_tensor_gets_what_a_call_of_its_own_gives(client: Client, arrays: list[Array]) -> None:
    same(list(client.map("gelu", arrays)), [client.forward("gelu", x) for x in arrays])
    slopes = [client.derivative("gelu", x, upstream=-x) for x in arrays]
    same(list(client.map("gelu", arrays, mode="derivative", upstream=[-x for x in arrays])), slopes)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    arrays=st.lists(TENSORS, max_size=12),
    name=st.sampled_from(["gelu", "softmax", "rrelu", "prelu"]),
    bad=st.lists(st.integers(0, 12), max_size=2),
)
def test_those_that_go_together_get_what_those_of_an_iterable_do(
    client: Client, arrays: list[Array], name: str, bad: list[int]
) -> None:
    keywords: dict[str, Any] = {"seed": 3, "training": True} if name == "rrelu" else {}
    for place in bad:
        arrays.insert(place, np.array(["no number"]))
    summaries: list[Any] = []
    together, apart = (
        list(client.map(name, given, return_exceptions=True, on_summary=summaries.append, **keywords))
        for given in (arrays, iter(arrays))
    )
    assert list(map(str, together)) == list(map(str, apart))
    same(*([result for result in results if isinstance(result, np.ndarray)] for results in (together, apart)))
    assert summaries[0].nonfinite_in == summaries[1].nonfinite_in


def test_small_ones_of_a_list_share_messages_and_nothing_else(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    header = _session.Question.header

    def seen(self: _session.Question, inputs: Any, **more: Any) -> Any:
        inputs = list(inputs)
        shapes.append(inputs[0][1])
        return header(self, inputs, **more)

    monkeypatch.setattr(_session.Question, "header", seen)
    arrays = [np.full((10, 10), n, np.float32) for n in range(-200, 200)]
    results = list(client.map("relu", arrays))
    same(results, [np.maximum(x, 0) for x in arrays])
    assert all(len(shape) == 1 and shape[0] * 4 <= PACK_BYTES for shape in shapes)
    results[0][:] = 7
    assert results[1].max() == 0
    # A mistake that all of them share is said of each.
    answers = list(client.map("relu", arrays[:5], return_exceptions=True, slope=1.0))
    assert [type(answer) for answer in answers] == [InvalidRequest] * 5
    # As is one that there is for some.
    answers = list(client.map("relu", [*arrays[:2], np.array([np.nan])], nonfinite="reject", return_exceptions=True))
    assert [isinstance(answer, InvalidRequest) for answer in answers] == [False, False, True]


def test_large_and_small_ones_axes_and_jacobians(client: Client) -> None:
    large = np.random.default_rng(1).standard_normal((3, 500_000))
    arrays = [large, large[:, :3], large[:, :0], large]
    same(list(client.map("tanh", arrays)), [client.forward("tanh", x) for x in arrays])
    same(list(client.map("softmax", arrays, axis=0)), [client.forward("softmax", x, axis=0) for x in arrays])
    # Each in one message, and a result that does not fit in one.
    wide = [np.linspace(-1, 1, 900), np.linspace(-1, 1, 5)]
    expected = [client.derivative("softmax", x, jacobian="full") for x in wide]
    same(list(client.map("softmax", wide, mode="derivative", jacobian="full")), expected)


@pytest.mark.parametrize("call", ["map", "stream"])
def test_no_gradient_among_gradients_is_refused(client: Client, call: str) -> None:
    x = np.ones(3)
    with pytest.raises(InvalidRequest, match="upstream is an array of object"):
        list(getattr(client, call)("relu", [x, x], mode="derivative", upstream=[x, None]))


def test_a_wrong_one_fails_alone(client: Client) -> None:
    good = np.array([-1.0, 2.0])
    nan = np.array([np.nan])
    arrays = [good, [1, 2], nan, good, np.ones(2, complex)]
    results = list(client.map("relu", arrays, nonfinite="reject", return_exceptions=True))
    same([results[0], results[3]], [np.array([0.0, 2.0])] * 2)
    for index, text in ((1, "int64"), (2, "is nan"), (4, "complex128")):
        assert isinstance(results[index], InvalidRequest)
        assert text in str(results[index])

    seen: list[Array] = []
    with pytest.raises(InvalidRequest, match="int64"):
        seen.extend(client.map("relu", arrays, nonfinite="reject"))
    same(seen, [np.array([0.0, 2.0])])


def test_mistakes_that_concern_all(client: Client) -> None:
    x = np.ones(3)
    with pytest.raises(UnknownActivation, match="relu"):
        list(client.map("rellu", [x, x]))
    assert [type(error) for error in client.map("rellu", [x, x], return_exceptions=True)] == [UnknownActivation] * 2
    with pytest.raises(InvalidRequest, match="fewer blocks of upstream"):
        list(client.map("relu", [x, x], mode="derivative", upstream=[x]))
    with pytest.raises(InvalidRequest, match="mode"):
        list(client.map("relu", [x], mode="sideways"))
    with pytest.raises(DeadlineExceeded):
        list(client.map("relu", itertools.repeat(x), timeout=0.3))
    assert list(client.map("relu", [])) == []
    assert [str(error) for error in client.map("relu", [[1]], return_exceptions=True)]


def test_what_the_iterable_raises_is_raised_after_the_results_before(client: Client) -> None:
    def arrays() -> Iterator[Array]:
        yield np.ones(2)
        raise RuntimeError("the disk is gone")

    seen: list[Array] = []
    with pytest.raises(RuntimeError, match="the disk is gone"):
        seen.extend(client.map("relu", arrays()))
    same(seen, [np.ones(2)])


def test_an_endless_one_may_be_left(client: Client) -> None:
    counts = []
    for count, result in enumerate(client.map("relu", itertools.repeat(np.ones(4)), on_summary=counts.append), 1):
        np.testing.assert_array_equal(result, np.ones(4))
        if count == 50:
            break
    assert counts == []
    list(client.map("relu", [np.array([np.nan, 1]), np.array([np.inf])], on_summary=counts.append))
    (summary,) = counts
    assert (summary.nonfinite_in.nan, summary.nonfinite_in.positive_infinity) == (1, 1)


async def test_the_asynchronous_twin(address: str, client: Client) -> None:
    arrays = [np.float32(3), np.array([-1.0, 2.0]), [1, 2]]
    async with AsyncClient(address) as twin:
        results = [result async for result in twin.map("silu", arrays, return_exceptions=True)]
        same(results[:2], [client.forward("silu", x) for x in arrays[:2]])
        assert isinstance(results[2], InvalidRequest)
        with pytest.raises(ActserveError, match="int64"):
            async for _ in twin.map("silu", arrays):
                pass


def test_a_small_call_takes_one_message_each_way(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = []
    feed = Assembly.feed

    def counted(assembly: Assembly, raw: bytes, *job: int) -> bool:
        frames.append(compute_pb2.ComputeResponse.FromString(raw).WhichOneof("frame"))
        return feed(assembly, raw, *job)

    monkeypatch.setattr(Assembly, "feed", counted)
    seen: list[tuple[int, int]] = []
    x = np.ones(3)
    client.forward("relu", x, progress=lambda *done: seen.append(done))
    assert frames == ["whole"]
    assert seen[-1][1] == x.nbytes
    list(client.map("relu", iter([x, x])))
    assert frames == ["whole"] * 3
    question = _session.map_mode("forward", "relu", HOW, jacobian=None, upstream=False)
    assert len(list(Tensors(question).encode(x))) == 1


HOW = _session.How(axis=None, accuracy="exact", preset=None, nonfinite="propagate", parameters=None, keywords={})


def answer(job: int, shape: list[int], data: bytes) -> bytes:
    summary = compute_pb2.ResultSummary(tensors=[{"data_type": 11, "shape": shape}])
    whole = compute_pb2.WholeResult(activation="relu", summary=summary)
    return compute_pb2.ComputeResponse(job=job, whole=whole, data=data).SerializeToString()


@pytest.mark.parametrize(
    ("responses", "text"),
    [
        ([answer(2, [1], bytes(8))], "answered job 2 where job 1 is due"),
        ([answer(1, [1], bytes(16))], "more bytes than its summary"),
        ([answer(1, [2], bytes(8))], "8 bytes of a tensor of shape"),
        ([answer(1, [-1], b"")], "tensor of shape"),
        ([answer(1, [1], bytes(8)), answer(2, [1], bytes(8))], "more than was asked for"),
        ([], "before it was complete"),
        ([b"\xff"], "no ComputeResponse"),
    ],
)
def test_answers_that_make_no_sense(responses: list[bytes], text: str) -> None:
    """What no server of ours sends, so that no result is ever taken for another's."""
    tensors = Tensors(_session.map_mode("forward", "relu", HOW, jacobian=None, upstream=False))
    assert list(tensors.encode(np.ones(1)))

    def results() -> Iterator[Any]:
        for raw in responses:
            yield from tensors.decode(raw)
        yield from tensors.finish()

    with pytest.raises(ServerError, match=text):
        list(results())


def test_a_stream_that_ends_before_its_blocks_is_no_success() -> None:
    blocks = Blocks(_session.map_mode("forward", "relu", HOW, jacobian=None, upstream=False))
    assert list(blocks.encode(np.ones(1)))
    with pytest.raises(ServerError, match="before it was complete"):
        list(blocks.finish())


def test_a_job_in_one_message_in_another_language(client: Client) -> None:
    """What anyone may send, with generated classes: the answer comes in one message too, and mistakes have their reasons."""
    spec = {"data_type": 1, "shape": [2]}
    header = compute_pb2.JobHeader(activation="relu", mode=compute_pb2.MODE_FORWARD, inputs=[spec])
    data = np.array([-1, 2], np.float32).tobytes()
    open_ended = compute_pb2.JobHeader(
        activation="relu", mode=compute_pb2.MODE_FORWARD, inputs=[{"data_type": 1, "shape": [-1]}], open_ended=True
    )
    stats = compute_pb2.JobHeader(activation="relu", mode=compute_pb2.MODE_NEURON_STATS, inputs=[spec])
    requests = [
        compute_pb2.ComputeStreamRequest(job=1, header=header, data=data),
        compute_pb2.ComputeStreamRequest(job=2, header=header, data=data[:4]),
        compute_pb2.ComputeStreamRequest(job=3, header=open_ended, data=data),
        compute_pb2.ComputeStreamRequest(job=4, header=stats, data=data),
        compute_pb2.ComputeStreamRequest(job=5, header=header, data=data),
    ]
    call: Any = client._pool.pick().channel.stream_stream(_channel.COMPUTE_STREAM)
    answers = [
        compute_pb2.ComputeResponse.FromString(raw) for raw in call(request.SerializeToString() for request in requests)
    ]
    by_job = {number: [answer for answer in answers if answer.job == number] for number in range(1, 6)}
    for number in (1, 5):
        (answer,) = by_job[number]
        assert answer.whole.activation == "relu"
        assert [list(tensor.shape) for tensor in answer.whole.summary.tensors] == [[2]]
        np.testing.assert_array_equal(np.frombuffer(answer.data, wire.dtype_of(1)), [0, 2])
    assert "4 bytes of data" in by_job[2][-1].error.message
    assert "open_ended" in by_job[3][-1].error.message
    # The length of a state is known at its end only, so that result comes in pieces.
    assert by_job[4][0].HasField("header")
    assert by_job[4][-1].HasField("summary")


def test_compute_answers_in_one_message_only_where_it_is_asked_to(client: Client) -> None:
    header = compute_pb2.JobHeader(
        activation="relu", mode=compute_pb2.MODE_FORWARD, inputs=[{"data_type": 1, "shape": [2]}]
    )
    data = np.array([-1, 2], np.float32).tobytes()
    call: Any = client._pool.pick().channel.unary_stream(_channel.COMPUTE)
    frames = {}
    for header.whole_result in (False, True):
        raws = call(compute_pb2.ComputeRequest(header=header, data=data).SerializeToString())
        answers = [compute_pb2.ComputeResponse.FromString(raw) for raw in raws]
        frames[header.whole_result] = [answer.WhichOneof("frame") for answer in answers]
        assert np.frombuffer(b"".join(answer.data for answer in answers), "<f4").tolist() == [0, 2]
    assert frames == {False: ["header", "chunk", "summary"], True: ["whole"]}
    # No more than the caller wants in a chunk.
    header.chunk_bytes = 4
    raws = call(compute_pb2.ComputeRequest(header=header, data=data).SerializeToString())
    frames[True] = [compute_pb2.ComputeResponse.FromString(raw).WhichOneof("frame") for raw in raws]
    assert frames[True] == ["header", "chunk", "chunk", "summary"]
