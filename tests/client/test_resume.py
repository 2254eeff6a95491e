"""A server that is lost in mid-stream: results have the bits that they would have had, and nothing is asked of the caller twice."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from actserve import wire
from actserve.v1 import compute_pb2
from actserve_client import (
    AsyncClient,
    Client,
    InvalidRequest,
    Retry,
    ServerUnavailable,
    Summary,
    UnknownActivation,
    _blocks,
    _channel,
    _session,
)
from actserve_client.errors import from_call
from actserve_server.app import Server
from actserve_server.config import Config
from actserve_server.service import Servicer
from faults import Breaking
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
QUICK = Retry(attempts=10, initial_s=0.001, longest_s=0.01, reconnect_s=20)
"""More attempts than there are cuts: a connection that breaks before an answer has begun counts as a server that was not found."""
MIB = 1 << 20

rng = np.random.default_rng(5)
LARGE = rng.standard_normal((300, 5000)).astype(np.float32)
LARGE[::7, 3] = np.nan
LARGE[1::7, 4] = np.inf
LARGE[2::7, 5] = -np.inf
UPSTREAM = rng.standard_normal(LARGE.shape).astype(np.float32)


def cuts(*sizes: float) -> list[int]:
    return [round(size * MIB) for size in sizes]


class Once:
    """An iterable that can be read once, and says how often each block was asked for."""

    def __init__(self, blocks: Iterable[Array]) -> None:
        self._blocks = iter(blocks)
        self.given = 0

    def __iter__(self) -> Iterator[Array]:
        for block in self._blocks:
            self.given += 1
            yield block


def rows(x: Array, size: int = 7) -> list[Array]:
    return [x[start : start + size] for start in range(0, len(x), size)]


FORWARDS: list[tuple[str, dict[str, Any]]] = [
    ("gelu", {}),
    ("softmax", {}),
    ("softmax", {"axis": 0}),
    ("glu", {}),
    ("crelu", {}),
    ("maxout", {"num_units": 1000}),
    ("prelu", {"slope": np.linspace(0, 1, 5000)}),
    ("rrelu", {"training": True, "seed": 3}),
    ("gumbel_softmax", {"seed": 3}),
]


@pytest.mark.parametrize(("name", "options"), FORWARDS)
def test_forward_goes_on(client: Client, address: str, name: str, options: dict[str, Any]) -> None:
    expected: list[Summary] = []
    summaries: list[Summary] = []
    wanted = client.forward(name, LARGE, on_summary=expected.append, **options)
    with Breaking(address, cuts(0.4, 0.01, 1.1, 2.5)) as breaking, Client(breaking.address, retry=QUICK) as other:
        result = other.forward(name, LARGE, on_summary=summaries.append, **options)
        assert breaking.broken >= 2
    np.testing.assert_array_equal(result, wanted)
    assert [(s.nonfinite_in, s.nonfinite_out) for s in summaries] == [
        (s.nonfinite_in, s.nonfinite_out) for s in expected
    ]


@pytest.mark.parametrize(("name", "options"), [("silu", {}), ("softmax", {}), ("glu", {}), ("prelu", {})])
def test_products_and_jacobians_go_on(client: Client, address: str, name: str, options: dict[str, Any]) -> None:
    upstream = UPSTREAM[:, :2500] if name == "glu" else UPSTREAM
    gradients = name == "prelu"
    x = np.nan_to_num(LARGE) if gradients else LARGE
    calls = [{"upstream": upstream, **({"parameter_gradients": True} if gradients else {})}]
    if name == "softmax":
        calls.append({"jacobian": "diag"})
    for call in calls:
        wanted: Any = client.derivative(name, x, **call, **options)
        with Breaking(address, cuts(0.4, 1.1)) as breaking, Client(breaking.address, retry=QUICK) as other:
            result: Any = other.derivative(name, x, **call, **options)
            assert breaking.broken == 2
        if gradients:
            np.testing.assert_array_equal(result.input, wanted.input)
            assert {k: v.tolist() for k, v in result.parameters.items()} == {
                k: v.tolist() for k, v in wanted.parameters.items()
            }
        else:
            np.testing.assert_array_equal(result, wanted)


def test_a_result_larger_than_its_request_goes_on(client: Client, address: str) -> None:
    x = rng.standard_normal((6, 500))
    wanted = client.derivative("softmax", x, jacobian="full")
    with Breaking(address, cuts(1.5, 3.3)) as breaking, Client(breaking.address, retry=QUICK) as other:
        np.testing.assert_array_equal(other.derivative("softmax", x, jacobian="full"), wanted)
        assert breaking.broken == 2


def test_in_place_goes_on_where_it_was(client: Client, address: str) -> None:
    wanted = client.forward("gelu", LARGE)
    x = LARGE.copy()
    with Breaking(address, cuts(0.4, 1.1, 2.2)) as breaking, Client(breaking.address, retry=QUICK) as other:
        assert other.forward("gelu", x, out=x) is x
        assert breaking.broken == 3
    np.testing.assert_array_equal(x, wanted)


def test_statistics_and_penalties(client: Client, address: str) -> None:
    x = np.nan_to_num(LARGE)
    stats = client.neuron_stats("relu", x, histogram="layer")
    penalty = client.regularization("gelu", x, "l2", gradient=True)
    with Breaking(address, cuts(0.1, 0.3)) as breaking, Client(breaking.address, retry=QUICK) as other:
        again = other.regularization("gelu", x, "l2", gradient=True)
        assert breaking.broken == 2
        assert again.penalty == penalty.penalty
        assert again.state == penalty.state
        np.testing.assert_array_equal(again.gradient, penalty.gradient)
    with Breaking(address, cuts(0.02, 0.02)) as breaking, Client(breaking.address, retry=QUICK) as other:
        assert other.neuron_stats("relu", x, histogram="layer").state == stats.state
        assert breaking.broken == 2


def test_statistics_of_much_data_are_made_of_parts(client: Client, address: str, monkeypatch: Any) -> None:
    x = np.nan_to_num(LARGE[:, :1000])
    whole = client.neuron_stats("relu", x, first_sample=11)
    penalty = client.regularization("relu", x, "l1", reduction="batch_mean")
    monkeypatch.setattr(_blocks, "_PART_BYTES", 100_000)
    monkeypatch.setattr(_blocks, "_PART_BYTES_A_NEURON", 100)
    with Breaking(address, cuts(0.3, 0.3, 0.3)) as breaking, Client(breaking.address, retry=QUICK) as other:
        assert other.neuron_stats("relu", x, first_sample=11).state == whole.state
        assert breaking.broken == 3
        source = Once(rows(x))
        summaries: list[Summary] = []
        assert other.neuron_stats("relu", source, first_sample=11, on_summary=summaries.append).state == whole.state
        assert source.given == len(rows(x))
        assert len(summaries) == 1
        assert other.regularization("relu", iter(rows(x)), "l1", reduction="batch_mean").state == penalty.state
        assert other.regularization("relu", x, "l1", reduction="batch_mean").penalty == penalty.penalty
        x[200, 3] = np.nan
        for given in (x, iter(rows(x))):
            with pytest.raises(InvalidRequest, match="element 200003 of x"):
                client.neuron_stats("relu", given, nonfinite="reject")
        x[200, 3] = 0
        images = x.reshape(300, 10, 10, 10)
        for axis in (1, -1, (1, 3)):
            assert (
                other.neuron_stats("relu", images, neuron_axis=axis).state
                == client.neuron_stats("relu", iter([images]), neuron_axis=axis).state
                == _in_one_job(client, images, axis)
            )


def _in_one_job(client: Client, x: Array, axis: Any) -> bytes:
    """As one job, whatever the parts."""
    how = _session.How(axis=None, accuracy="exact", preset=None, nonfinite="propagate", parameters=None, keywords={})
    question = _session.neuron_stats(
        "relu",
        how,
        threshold=0.1,
        neuron_axis=axis,
        first_sample=0,
        fired="positive",
        eps=None,
        zero_tolerance=0.0,
        tau=0.0,
        saturation_eps=1e-3,
        dead_after_samples=None,
        input="pre",
        histogram=None,
        sums=True,
    )
    return client._run(_session.Job(question, (x,), _session.stats_answer), None).state


@pytest.fixture
def cut_at_its_end(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A server whose first stream is lost when all is answered and its status is not there yet; how many it has had."""
    streams: list[int] = []
    inner = Servicer.compute_stream

    def compute_stream(self: Servicer, raws: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        streams.append(1)
        yield from inner(self, raws, context)
        if len(streams) == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gone")

    monkeypatch.setattr(Servicer, "compute_stream", compute_stream)
    return streams


@pytest.mark.parametrize("kind", ["stream", "map", "neuron_stats"])
def test_what_is_answered_is_there_though_the_call_is_lost(kind: str, cut_at_its_end: list[int]) -> None:
    server = Server(Config(address="127.0.0.1:0"))
    server.start()
    x = LARGE[:40]
    try:
        with Client(server.addresses[0], retry=QUICK) as client:
            if kind == "neuron_stats":
                assert client.neuron_stats("relu", iter([x])).dead.shape == x.shape[1:]
            else:
                (result,) = getattr(client, kind)("relu", iter([x]))
                np.testing.assert_array_equal(result, np.maximum(x, 0))

        async def main() -> None:
            async with AsyncClient(server.addresses[0], retry=QUICK) as client:
                if kind == "neuron_stats":
                    assert (await client.neuron_stats("relu", iter([x]))).dead.shape == x.shape[1:]
                else:
                    results = [result async for result in getattr(client, kind)("relu", iter([x]))]
                    np.testing.assert_array_equal(results[0], np.maximum(x, 0))

        cut_at_its_end.clear()
        asyncio.run(main())
        assert 1 <= len(cut_at_its_end) <= 2
    finally:
        server.stop(0)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_streams_go_on_wherever_they_are_cut(client: Client, address: str, data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(0, 90_000), min_size=1, max_size=6))
    widths = data.draw(st.lists(st.sampled_from([2, 3]), min_size=len(lengths), max_size=len(lengths)))
    places = data.draw(st.lists(st.integers(100, 1 << 20), max_size=5))
    name = data.draw(st.sampled_from(["gelu", "softmax", "glu" if set(widths) == {2} else "relu"]))
    generator = np.random.default_rng(1)
    blocks = [generator.standard_normal((n, w), np.float32) for n, w in zip(lengths, widths, strict=True)]
    for block in blocks:
        if block.size:
            block.flat[::1013] = np.nan
    upstream = [np.cos(block) for block in blocks] if name != "glu" else None
    calls: list[dict[str, Any]] = [{"mode": "forward"}]
    if upstream is not None:
        calls.append({"mode": "derivative", "upstream": upstream})
    for call in calls:
        expected: list[Summary] = []
        summaries: list[Summary] = []
        wanted = list(client.stream(name, blocks, on_summary=expected.append, **call))
        with Breaking(address, list(places)) as breaking, Client(breaking.address, retry=QUICK) as other:
            source = Once(blocks)
            results = list(other.stream(name, source, on_summary=summaries.append, **call))
            assert source.given == len(blocks)
        for result, right in zip(results, wanted, strict=True):
            np.testing.assert_array_equal(result, right)
        assert [s.nonfinite_in for s in summaries] == [s.nonfinite_in for s in expected]
        assert [s.nonfinite_out for s in summaries] == [s.nonfinite_out for s in expected]


def test_a_caller_may_reuse_the_memory_of_a_block(client: Client, address: str) -> None:
    buffer = np.empty((40, 5000), np.float32)

    def blocks() -> Iterator[Array]:
        for start in range(0, 280, 40):
            buffer[:] = LARGE[start : start + 40]
            yield buffer

    with Breaking(address, cuts(0.4, 0.9, 1.3)) as breaking, Client(breaking.address, retry=QUICK) as other:
        results = [block.copy() for block in other.stream("tanh", blocks())]
        assert breaking.broken == 3
    np.testing.assert_array_equal(np.concatenate(results), client.forward("tanh", LARGE[:280]))


def test_map_goes_on(client: Client, address: str) -> None:
    small = [rng.standard_normal(size) for size in rng.integers(0, 3000, 300)]
    arrays = [*small[:100], LARGE, *small[100:], "not an array"]
    expected = [client.forward("gelu", x) for x in arrays[:-1]]
    with Breaking(address, cuts(0.2, 0.9, 2.1, 3)) as breaking, Client(breaking.address, retry=QUICK) as other:
        source = Once(arrays)
        results = list(other.map("gelu", source, return_exceptions=True))
        assert breaking.broken >= 3
        assert source.given == len(arrays)
    for result, right in zip(results, expected, strict=False):
        np.testing.assert_array_equal(result, right)
    assert len(results) == len(arrays)
    assert isinstance(results[-1], InvalidRequest)


def test_what_the_iterable_raises_is_raised_all_the_same(address: str) -> None:
    def blocks() -> Iterator[Array]:
        yield LARGE[:100]
        yield LARGE[100:200]
        raise KeyError("mine")

    with (
        Breaking(address, cuts(0.5, 1.2)) as breaking,
        Client(breaking.address, retry=QUICK) as other,
        pytest.raises(KeyError, match="mine"),
    ):
        list(other.stream("relu", blocks()))


def test_an_iterable_that_waits_loses_nothing(client: Client, address: str) -> None:
    """The call that is lost was waiting for it, and the next one gets what it brings."""
    broken = threading.Event()

    def blocks() -> Iterator[Array]:
        yield LARGE[:60]
        assert broken.wait(30)
        yield LARGE[60:70]

    with Breaking(address, cuts(0.9)) as breaking, Client(breaking.address, retry=QUICK) as other:
        stream = other.stream("relu", blocks())
        timer = threading.Timer(0.5, broken.set)
        timer.start()
        results = list(stream)
        timer.join()
        assert breaking.broken == 1
    np.testing.assert_array_equal(np.concatenate(results), client.forward("relu", LARGE[:70]))


async def test_the_async_client_goes_on_too(client: Client, address: str) -> None:
    given = 0

    async def blocks() -> AsyncIterator[Array]:
        nonlocal given
        for block in rows(LARGE, 40):
            given += 1
            yield block

    x = np.nan_to_num(LARGE)
    with Breaking(address, cuts(0.4, 1.3, 0.3, 0.2, 0.2)) as breaking:
        async with AsyncClient(breaking.address, retry=QUICK) as other:
            results = [block async for block in other.stream("gelu", blocks())]
            assert given == len(rows(LARGE, 40))
            np.testing.assert_array_equal(np.concatenate(results), client.forward("gelu", LARGE))
            mapped = [y async for y in other.map("gelu", rows(LARGE, 5))]
            np.testing.assert_array_equal(np.concatenate(mapped), client.forward("gelu", LARGE))
            np.testing.assert_array_equal(await other.forward("tanh", LARGE), client.forward("tanh", LARGE))
            stats = await other.neuron_stats("relu", x)
            assert stats.state == client.neuron_stats("relu", x).state
            assert breaking.broken >= 4


def test_no_more_than_is_allowed(address: str) -> None:
    """Never with attempts=1, not for ever when nothing is gained, and not in place where the input is gone."""
    with (
        Breaking(address, cuts(1)) as breaking,
        Client(breaking.address, retry=None) as other,
        pytest.raises(ServerUnavailable),
    ):
        other.forward("gelu", LARGE)
    with Breaking(address, [200] * 1000) as breaking:
        impatient = Retry(initial_s=0.001, longest_s=0.01, reconnect_s=0.3)
        with Client(breaking.address, retry=impatient) as other, pytest.raises(ServerUnavailable):
            other.forward("gelu", LARGE)
        assert 1 < breaking.broken < 1000
    x = LARGE.copy()
    with (
        Breaking(address, cuts(5)) as breaking,
        Client(breaking.address, retry=QUICK) as other,
        pytest.raises(ServerUnavailable),
    ):
        # All of it is one unit, of which a part has been overwritten.
        other.forward("softmax", x, axis=0, out=x)


# ---- parts, as another language asks for them -----------------------------------------------------------------------


def ask(client: Client, name: str, x: Array, part: compute_pb2.Part, **options: Any) -> list[Any]:
    """All messages of the answer to a part of a job, each with its data."""
    spec = _session.Question(compute_pb2.JobHeader(activation=name, mode=compute_pb2.MODE_FORWARD, **options))
    header = spec.header([(x.dtype, x.shape)])
    header.part.CopyFrom(part)
    end = part.first_element + part.elements if part.HasField("elements") else x.size
    data = (
        x.reshape(-1)[part.first_element : max(end, part.first_element)].tobytes() if part.first_element >= 0 else b""
    )
    call: Any = client._pool.pick().channel.unary_stream(_channel.COMPUTE)
    try:
        return [
            wire.unframe(compute_pb2.ComputeResponse, raw)
            for raw in call(wire.frame(compute_pb2.ComputeRequest(header=header), data))
        ]
    except grpc.RpcError as error:
        raise _channel.error_of(error) from None


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edges=st.lists(st.integers(0, 24), max_size=5), name=st.sampled_from(["gelu", "softmax", "rrelu"]))
def test_any_parts_put_together_are_the_whole(client: Client, edges: list[int], name: str) -> None:
    x = np.linspace(-3, 3, 48).reshape(24, 2)
    x[5] = np.nan
    unit = 2 if name == "softmax" else 1
    whole = client.forward(name, x)
    total = 0
    data = b""
    for begin, end in itertools.pairwise([0, *sorted(edges), 24]):
        part = compute_pb2.Part(first_element=begin * 2, elements=(end - begin) * 2)
        answer = ask(client, name, x, part, chunk_bytes=32)
        assert list(answer[0][0].header.unit_bytes) == [8 * unit, 8 * unit]
        for message, piece in answer[1:-1]:
            assert message.chunk.offset_bytes == len(data)
            data += piece
        total += answer[-1][0].summary.output.nan
    np.testing.assert_array_equal(np.frombuffer(data).reshape(24, 2), whole)
    assert total == 2


def test_parts_that_make_no_sense(client: Client) -> None:
    x = np.ones((4, 3))
    for part, words in [
        (compute_pb2.Part(first_element=-1), "begins with element -1"),
        (compute_pb2.Part(first_element=13), "begins with element 13"),
        (compute_pb2.Part(first_element=3, elements=10), "has 10 elements"),
        (compute_pb2.Part(elements=-1), "has -1 elements"),
    ]:
        with pytest.raises(InvalidRequest, match=words):
            ask(client, "relu", x, part)
    with pytest.raises(InvalidRequest, match="multiple of 3"):
        ask(client, "softmax", x, compute_pb2.Part(first_element=1))
    with pytest.raises(ServerUnavailable, match="other bits") as caught:
        ask(client, "relu", x, compute_pb2.Part(bits="of another server"))
    assert caught.value.reason == "OTHER_BITS"
    header = _session.Question(compute_pb2.JobHeader(activation="relu", mode=compute_pb2.MODE_NEURON_STATS)).header(
        [(x.dtype, x.shape)]
    )
    header.part.first_element = 0
    call: Any = client._pool.pick().channel.unary_stream(_channel.COMPUTE)
    with pytest.raises(grpc.RpcError) as refused:
        list(call(wire.frame(compute_pb2.ComputeRequest(header=header), x.tobytes())))
    assert "no part of it can be" in refused.value.details()


def test_an_error_of_other_bits_begins_anew(address: str, monkeypatch: Any) -> None:
    """An array is still there, so its result is computed from the start by whoever answers."""
    question = _session.forward(
        "relu",
        _session.How(axis=None, accuracy="exact", preset=None, nonfinite="propagate", parameters=None, keywords={}),
    )
    job = _session.map_job(question, (LARGE,))
    assembly = job.assembly()
    other_bits = from_call(10, "other bits", None)
    assert isinstance(other_bits, ServerUnavailable)
    other_bits.reason = "OTHER_BITS"
    assert job.again(assembly, other_bits) is not assembly


async def test_a_large_tensor_is_split_over_the_addresses(
    client: Client, address: str, server: Any, make_server: Any
) -> None:
    second = make_server()
    x = rng.standard_normal((3, 2_000_000)).astype(np.float32)
    x[1, 5] = np.inf
    wanted = client.forward("gelu", x)
    summaries: list[Summary] = []
    told: list[tuple[int, int]] = []
    options: dict[str, Any] = {"on_summary": summaries.append, "progress": lambda *done: told.append(done)}
    with Breaking(second.addresses[0], cuts(3, 2)) as breaking:
        with Client(f"{address},{breaking.address}", retry=QUICK) as both:
            np.testing.assert_array_equal(both.forward("gelu", x, **options), wanted)
            assert breaking.broken == 1  # the rest of its shard was computed where the server lives
            assert (summaries[0].nonfinite_in.total, len(summaries)) == (1, 1)
            assert told[-1] == (x.nbytes, x.nbytes)
            out = np.empty_like(x)
            assert both.derivative("gelu", x, upstream=x, out=out) is out
            np.testing.assert_array_equal(out, client.derivative("gelu", x, upstream=x))
            assert (
                both.forward("rrelu", x, training=True, seed=9).tobytes()
                == client.forward("rrelu", x, training=True, seed=9).tobytes()
            )
            np.testing.assert_array_equal(both.forward("softmax", x), client.forward("softmax", x))
            same = x.copy()
            np.testing.assert_array_equal(both.forward("gelu", same, out=same), wanted)
            with pytest.raises(UnknownActivation):
                both.forward("sigmod", x)
            with pytest.raises(InvalidRequest, match="out is"):
                both.forward("gelu", x, out=np.empty(3, np.float32))
        async with AsyncClient(f"{address},{second.addresses[0]}") as both_async:
            np.testing.assert_array_equal(await both_async.forward("gelu", x), wanted)
            assert all(line.used for line in both_async._pool._lines)


def test_several_addresses(client: Client, address: str, make_server: Any) -> None:
    second = make_server()
    with Client(f"{address}, {second.addresses[0]}") as both:
        np.testing.assert_array_equal(both.forward("gelu", LARGE), client.forward("gelu", LARGE))
        for _ in range(3):
            both.forward("relu", np.ones(3))
        assert {line.address for line in both._pool._lines if line.used} == {address, second.addresses[0]}
        second.stop()
        for _ in range(4):
            np.testing.assert_array_equal(both.forward("relu", np.ones(3)), np.ones(3))
    for wrong in ("", ","):
        if wrong:
            with pytest.raises(InvalidRequest, match="names no server"):
                Client(wrong)
    with pytest.raises(InvalidRequest, match="channels"):
        Client(address, channels=0)
