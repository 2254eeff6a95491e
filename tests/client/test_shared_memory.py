"""Shared memory on one host: the same answers as by sending the bytes, and a client that misbehaves harms only itself."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import itertools
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import ml_dtypes
import numpy as np
import pytest
from actserve import shared
from actserve.v1 import compute_pb2, tensor_pb2
from actserve_client import AsyncClient, Client, InvalidRequest, ServerUnavailable, _channel
from actserve_client.errors import ActserveError
from actserve_server.app import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unmannerly import Raw

pytestmark = pytest.mark.skipif(not shared.SUPPORTED, reason="sealed memfds are Linux's")

MIB = 1 << 20
N = 3 * MIB // 4 + 5
"""Elements of float32: several pieces, the last one not whole."""

MakeUnix = Callable[..., Server]


def filled(client: Client, array: Any) -> Any:
    found = client.empty(array.shape, array.dtype)
    found[...] = array
    assert client._regions.find(found) is not None
    return found


def numbers(dtype: Any = np.float32, shape: Any = (N,), seed: int = 0) -> Any:
    return (np.random.default_rng(seed).standard_normal(shape) * 3).astype(dtype)


def in_region(client: Client, array: Any) -> bool:
    return client._regions.find(array) is not None


def same(one: Any, other: Any) -> None:
    assert one.dtype == other.dtype and one.shape == other.shape
    assert one.tobytes() == other.tobytes()


DTYPES = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
GRID = (64, 3072)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("gelu", {}),
        ("leaky_relu", {"negative_slope": 0.3}),
        ("softmax", {}),
        ("softmax", {"axis": 0}),
        ("sparsemax", {}),
        ("glu", {}),
        ("crelu", {}),
        ("rrelu", {"training": True, "seed": 3}),
    ],
)
def test_forward_has_the_same_bits(client: Client, bytes_client: Client, name: str, keywords: Any, dtype: Any) -> None:
    x = numbers(dtype, GRID)
    shared_x = filled(client, x)
    expected = bytes_client.forward(name, x, **keywords)
    result = client.forward(name, shared_x, **keywords)
    same(result, expected)
    # A result that is larger than its input is sent.
    assert in_region(client, result) == (expected.nbytes <= x.nbytes)
    same(client.forward(name, x, **keywords), expected)
    same(shared_x, x)


@pytest.mark.parametrize("where", ["shared", "plain", "mixed"])
@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("tanh", {}),
        ("softmax", {}),
        ("glu", {}),
        ("prelu", {"parameter_gradients": True}),
        ("prelu", {"parameter_gradients": True, "slope": np.linspace(0, 1, GRID[1]), "channel_axis": 1}),
    ],
)
def test_gradients_have_the_same_bits(
    client: Client, bytes_client: Client, name: str, keywords: Any, where: str
) -> None:
    x = numbers(np.float32, GRID)
    g = numbers(np.float32, GRID if name != "glu" else (GRID[0], GRID[1] // 2), seed=1)
    expected = bytes_client.derivative(name, x, upstream=g, **keywords)
    given_x = x if where == "plain" else filled(client, x)
    given_g = filled(client, g) if where == "shared" else g
    result = client.derivative(name, given_x, upstream=given_g, **keywords)
    if keywords.get("parameter_gradients"):
        assert result.parameters.keys() == expected.parameters.keys()
        for parameter in result.parameters:
            same(result.parameters[parameter], expected.parameters[parameter])
        result, expected = result.input, expected.input
    same(result, expected)
    assert in_region(client, result) == (where == "shared")


def test_jacobians_penalties_and_statistics_have_the_same_bits(client: Client, bytes_client: Client) -> None:
    x = numbers(np.float32, GRID)
    small = numbers(np.float32, (4096, 32))
    for array, made in ((x, filled(client, x)), (np.concatenate([x, x]), None)):
        given_x = array if made is None else made
        same(
            client.derivative("softmax", given_x, jacobian="diag"),
            bytes_client.derivative("softmax", array, jacobian="diag"),
        )
        for regularizer in ("l2", "hoyer", "kl_sparsity"):
            one = client.regularization("sigmoid", given_x, regularizer, gradient=True)
            other = bytes_client.regularization("sigmoid", array, regularizer, gradient=True)
            assert (one.penalty, one.state) == (other.penalty, other.state)
            assert one.gradient is not None and other.gradient is not None
            same(one.gradient, other.gradient)
        assert client.neuron_stats("relu", given_x).state == bytes_client.neuron_stats("relu", array).state
    same(
        client.derivative("softmax", filled(client, small), jacobian="full"),
        bytes_client.derivative("softmax", small, jacobian="full"),
    )


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 700_000),
    begin=st.integers(0, 5000),
    where=st.sampled_from(["new", "shared", "plain", "itself", "shifted", "reversed", "made"]),
)
def test_any_part_of_a_region_to_any_place(client: Client, size: int, begin: int, where: str) -> None:
    whole = client.empty(size + begin + 8)
    whole[...] = numbers(shape=whole.shape)
    x = whole[begin : begin + size]
    before = x.copy()
    out: Any = {
        "new": None,
        "shared": client.empty(size),
        "plain": np.empty(size, np.float32),
        "itself": x,
        "shifted": whole[begin + 3 : begin + 3 + size],
        "reversed": np.empty(size, np.float32)[::-1],
        "made": np.empty,
    }[where]
    result = client.forward("relu", x, out=out)
    if isinstance(out, np.ndarray):
        assert result is out
    same(np.ascontiguousarray(result), np.maximum(before, 0))
    if where not in ("itself", "shifted"):
        same(x, before)


def test_softmax_and_gradients_in_place(client: Client, bytes_client: Client) -> None:
    x, g = numbers(shape=GRID), numbers(shape=GRID, seed=1)
    shared_x = filled(client, x)
    same(client.forward("softmax", shared_x, axis=0, out=shared_x), bytes_client.forward("softmax", x, axis=0))
    for over in (0, 1):
        inputs = [filled(client, x), filled(client, g)]
        expected = bytes_client.derivative("prelu", x, upstream=g, parameter_gradients=True)
        found = client.derivative("prelu", inputs[0], upstream=inputs[1], parameter_gradients=True, out=inputs[over])
        assert found.input is inputs[over]
        same(found.input, expected.input)
        same(found.parameters["slope"], expected.parameters["slope"])


@pytest.mark.parametrize("place", ["shared", "plain"])
def test_the_summary_and_the_progress_are_those_of_any_call(client: Client, place: str) -> None:
    x = numbers()
    x[[5, 70_000, N - 1]] = np.nan, np.inf, -np.inf
    given_x = filled(client, x) if place == "shared" else x
    said: list[Any] = []
    steps: list[tuple[int, int]] = []
    client.forward("identity", given_x, on_summary=said.append, progress=lambda *step: steps.append(step))
    for counts in (said[0].nonfinite_in, said[0].nonfinite_out):
        assert (counts.nan, counts.positive_infinity, counts.negative_infinity) == (1, 1, 1)
    assert steps[-1] == (x.nbytes, x.nbytes)
    with pytest.raises(InvalidRequest, match="element 5 of x"):
        client.forward("identity", given_x, nonfinite="reject")


def test_mistakes_are_those_of_any_call(client: Client) -> None:
    x = filled(client, numbers())
    with pytest.raises(InvalidRequest) as caught:
        client.forward("relu", x, out=client.empty(N + 1))
    assert caught.value.field == "out"
    with pytest.raises(ActserveError, match="no activation is called"):
        client.forward("reluu", x)
    for shape, dtype, field in ((-1, "f4", "shape"), ((2, True), "f4", "shape"), (2, np.int32, "dtype")):
        with pytest.raises(InvalidRequest) as caught:
            client.empty(shape, dtype)
        assert caught.value.field == field


# ---- where there is none -------------------------------------------------------------------------------------------


def test_over_tcp_and_for_small_arrays_empty_is_an_array_like_any_other(server: Server, client: Client) -> None:
    with Client(server.addresses[1], timeout=300) as tcp:
        for user, size in ((tcp, N), (client, 16)):
            x = user.empty((size, 1), np.float64)
            assert x.flags.writeable and x.shape == (size, 1) and x.__array_interface__["data"][0] % 64 == 0
            assert not in_region(user, x)
            x[:] = -1
            assert not user.forward("relu", x).any()
        assert client.empty((3, 0)).shape == (3, 0)


def test_a_mapped_file_is_sent_in_constant_memory(make_unix: MakeUnix, tmp_path: Path) -> None:
    server = make_unix()
    np.save(tmp_path / "x.npy", numbers(shape=(4 * MIB,)))
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    with Client(server.addresses[0], timeout=300) as client:
        same(client.forward("relu", x), np.maximum(x, 0))
        assert server._regions.total_bytes == 0
        client.forward("relu", np.array(x))
        assert server._regions.total_bytes > 0


def test_a_server_may_give_none(make_unix: MakeUnix) -> None:
    server = make_unix(max_shared_bytes=0)
    with Client(server.addresses[0], timeout=300) as client:
        x = client.empty(N)
        x[:] = 2
        assert not in_region(client, x)
        same(client.forward("relu", x), x)


def test_at_the_limits_the_bytes_are_sent(make_unix: MakeUnix) -> None:
    server = make_unix(max_shared_bytes=8 * MIB, max_shared_bytes_per_client=5 * MIB)
    with Client(server.addresses[0], timeout=300) as client:
        arrays = [filled_or_not(client, number) for number in range(6)]
        assert sum(in_region(client, array) for array in arrays) == 2
        assert server._regions.total_bytes <= 5 * MIB
        for number, array in enumerate(arrays):
            assert (client.forward("relu", array) == number).all()
        del arrays, array
        # What is no longer used makes room again, also for another size.
        other = client.empty(MIB)
        assert in_region(client, other)


def filled_or_not(client: Client, number: int) -> Any:
    array = client.empty(2 * MIB // 4)
    array[:] = number
    return array


def test_something_else_that_listens_there_is_left_alone(make_unix: MakeUnix) -> None:
    server = make_unix(max_shared_bytes=0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.bind(server.addresses[0].removeprefix("unix:") + shared.SUFFIX)
        other.listen()
        answered = threading.Thread(target=lambda: other.accept()[0].sendall(b"SSH-2.0-OpenSSH"))
        answered.start()
        with Client(server.addresses[0], timeout=300) as client:
            x = client.empty(N)
            x[:] = 1
            assert not in_region(client, x)
            same(client.forward("relu", x), x)
        answered.join()
        os.unlink(other.getsockname())


# ---- lives ---------------------------------------------------------------------------------------------------------


def test_regions_are_used_again_and_given_back(make_unix: MakeUnix) -> None:
    server = make_unix()
    before = len(os.listdir("/proc/self/fd"))
    with Client(server.addresses[0], timeout=300) as client:
        x = filled(client, numbers())
        for _ in range(20):
            client.forward("relu", x)
            client.forward("relu", numbers())
        assert server._regions.total_bytes <= 6 * x.nbytes
        during = len(os.listdir("/proc/self/fd"))
    _wait_until(lambda: server._regions.total_bytes == 0)
    # One connection and its other end here; no descriptor for a region.
    assert during - before < 16
    assert x[0] == numbers()[0], "an array outlives the client"
    gc.collect()


def test_a_server_that_starts_again_gives_new_regions(make_unix: MakeUnix) -> None:
    server = make_unix()
    with Client(server.addresses[0], timeout=300) as client:
        x = filled(client, numbers())
        expected = client.forward("gelu", x).copy()
        server.stop()
        server = make_unix(server)
        same(client.forward("gelu", x), expected)
        assert not in_region(client, x)
        again = filled(client, x)
        result = client.forward("gelu", again)
        same(result, expected)
        assert in_region(client, result)


def test_a_region_that_the_server_does_not_know_costs_only_the_sending(client: Client) -> None:
    x = filled(client, numbers())
    region = next(region for region in client._regions._regions.values() if region.name == _spot(client, x).region)
    region.name = bytes(16)
    expected = np.maximum(x, 0)
    same(client.forward("relu", x, out=x), expected)
    assert not in_region(client, x)
    assert in_region(client, client.forward("relu", filled(client, numbers())))
    client._regions._lost = 0


def _spot(client: Client, array: Any) -> Any:
    return client._regions.find(array)


async def test_the_async_client_shares_memory_too(address: str) -> None:
    async with AsyncClient(address, timeout=300) as client:
        x = await client.empty(N)
        x[:] = numbers()
        result = await client.forward("relu", x)
        same(result, np.maximum(x, 0))
        assert client._regions.find(result) is not None
        same(await client.forward("relu", numbers()), result)


def test_threads_share_a_client(client: Client) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        for turn in range(6):
            x = numbers(seed=seed)
            given_x = filled(client, x) if turn % 2 else x
            if not np.array_equal(client.forward("relu", given_x), np.maximum(x, 0)):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_child_after_a_fork_has_no_regions(tmp_path: Path, address: str) -> None:
    program = f"""
import os, sys
from actserve_client._regions import Regions
regions = Regions({address.removeprefix("unix:")!r})
loan = regions.lend(1 << 20)
array = loan.bytes()
array[:] = 7
pid = os.fork()
if pid == 0:
    ok = regions.find(array) is None and regions.lend(1 << 20) is None and array[0] == 7
    del array, loan
    os._exit(0 if ok else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert regions.find(array) is not None and array[-1] == 7
assert regions.lend(1 << 20) is not None
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_call_that_is_given_up_leaves_its_memory_to_nobody(client: Client) -> None:
    x = filled(client, numbers(shape=(4 * MIB,)))
    with pytest.raises(ActserveError):
        client.forward("mish", x, timeout=0.002)
    spoiled = [region for region in client._regions._regions.values() if region.spoiled]
    y = client.forward("relu", x)
    same(y, np.maximum(x, 0))
    assert all(not (r.mapping.address <= y.__array_interface__["data"][0] < r.mapping.address + 1) for r in spoiled)


# ---- a client that misbehaves --------------------------------------------------------------------------------------


@pytest.fixture
def raw(server: Server) -> Iterator[Raw]:
    raw = Raw(server)
    yield raw
    raw.close()


@pytest.fixture(autouse=True)
def serving_afterwards(client: Client) -> Iterator[None]:
    yield
    x = np.ones(N, np.float32)
    same(client.forward("relu", x), x)


def job(size: int, name: bytes, offset: int = 0, **result: Any) -> Any:
    spec = tensor_pb2.TensorSpec(
        data_type=tensor_pb2.DATA_TYPE_FLOAT,
        shape=[size],
        shared=tensor_pb2.SharedMemory(region=name, offset_bytes=offset),
    )
    place = tensor_pb2.SharedMemory(**result) if result else None
    return compute_pb2.JobHeader(activation="relu", mode=compute_pb2.MODE_FORWARD, inputs=[spec], result=place)


def test_a_region_can_be_neither_truncated_nor_grown_nor_unsealed(raw: Raw) -> None:
    answer, descriptor = raw.ask(MIB)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        for size in (0, MIB // 2, 2 * MIB):
            with pytest.raises(PermissionError):
                os.ftruncate(file.fileno(), size)
        with pytest.raises(PermissionError):
            fcntl.fcntl(file.fileno(), 1033, 8)  # another seal, against writing
        with mmap.mmap(file.fileno(), MIB) as memory:
            memory[:4] = np.float32(3).tobytes()
        # Unmapped here, it is there for the server all the same.
        (response,) = raw.call(
            job(MIB // 8, answer.region, region=answer.region, offset_bytes=MIB // 2, size_bytes=MIB // 2)
        )
        assert response.whole.summary.tensors[0].shared.offset_bytes == MIB // 2
        with mmap.mmap(file.fileno(), MIB) as memory:
            assert np.frombuffer(memory[MIB // 2 : MIB // 2 + 4], np.float32)[0] == 3


@pytest.mark.parametrize(
    ("offset", "result", "field"),
    [
        (4, {}, "header.inputs[0].shared.offset_bytes"),
        (-4, {}, "header.inputs[0].shared.offset_bytes"),
        (MIB, {}, "header.inputs[0].shared.offset_bytes"),
        (1 << 62, {}, "header.inputs[0].shared.offset_bytes"),
        (0, {"offset_bytes": 0, "size_bytes": MIB + 4}, "header.result.offset_bytes"),
        (0, {"offset_bytes": 2, "size_bytes": 8}, "header.result.offset_bytes"),
        (0, {"offset_bytes": 0, "size_bytes": -1}, "header.result.size_bytes"),
    ],
)
def test_places_outside_a_region_are_refused(raw: Raw, offset: int, result: Any, field: str) -> None:
    answer, descriptor = raw.ask(MIB)
    os.close(descriptor)
    if result:
        result = {**result, "region": answer.region}
    with pytest.raises(grpc.RpcError) as caught:
        raw.call(job(MIB // 4, answer.region, offset, **result))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _channel.error_of(caught.value).field == field.rpartition(".")[2]


def test_a_result_may_not_overlap_its_input_but_in_its_very_place(raw: Raw) -> None:
    answer, descriptor = raw.ask(MIB)
    os.close(descriptor)
    for offset, allowed in ((0, True), (4, False), (MIB // 8, False), (MIB // 4, True)):
        header = job(MIB // 16, answer.region, region=answer.region, offset_bytes=offset, size_bytes=MIB // 4)
        if allowed:
            raw.call(header)
        else:
            with pytest.raises(grpc.RpcError, match="overlaps"):
                raw.call(header)


LARGE = 1 << 30
"""Elements of a tensor that lies nowhere as a whole."""


def part_job(name: bytes, begin: int, size: int, first: int, room_first: int) -> Any:
    """Elements of a large tensor, which lies at the region's start from element `first` on; the result at its middle."""
    header = job(LARGE, name, region=name, offset_bytes=MIB // 2, size_bytes=MIB // 2, first_byte=4 * room_first)
    header.inputs[0].shared.first_byte = 4 * first
    header.part.first_element, header.part.elements = begin, size
    return header


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    begin=st.integers(0, LARGE - 3000),
    size=st.integers(0, 3000),
    skipped=st.integers(0, 1000),
    room_skipped=st.integers(0, 1000),
    chunks=st.booleans(),
)
def test_a_region_holds_a_part_of_a_tensor_that_is_far_larger(
    raw: Raw, begin: int, size: int, skipped: int, room_skipped: int, chunks: bool
) -> None:
    answer, descriptor = raw.ask(MIB)
    memory = np.asarray(shared.Mapping(descriptor, MIB)).view(np.float32)
    os.close(descriptor)
    skipped, room_skipped = min(skipped, begin), min(room_skipped, begin)
    memory[:] = -7
    memory[skipped : skipped + size] = np.arange(size) - 1000
    header = part_job(answer.region, begin, size, begin - skipped, begin - room_skipped)
    if chunks:
        edges = [0, size // 3, size]
        frames = [compute_pb2.ComputeStreamRequest(job=1, header=header)]
        frames += [
            compute_pb2.ComputeStreamRequest(
                job=1, chunk=compute_pb2.InputChunk(offset_bytes=4 * (begin + a), shared_bytes=4 * (b - a))
            )
            for a, b in itertools.pairwise(edges)
        ]
        raws = raw.compute_stream((frame.SerializeToString() for frame in frames), timeout=300)
        responses = [compute_pb2.ComputeResponse.FromString(data) for data in raws]
    else:
        responses = raw.call(header)
    assert responses[0].header.tensors[0].shared == header.result
    assert sum(response.chunk.shared_bytes for response in responses) == 4 * size
    assert responses[-1].HasField("summary")
    room = memory[MIB // 8 :]
    same(room[room_skipped : room_skipped + size], np.maximum(np.arange(size, dtype=np.float32) - 1000, 0))
    assert (room[:room_skipped] == -7).all() and (room[room_skipped + size :] == -7).all()
    raw.socket.sendall(shared.Request(shared.RELEASE, region=answer.region).pack())


@pytest.mark.parametrize(
    ("begin", "first", "room_first", "size", "field"),
    [
        (10, 11, 0, 5, "header.inputs[0].shared.first_byte"),
        (10, -1, 0, 5, "header.inputs[0].shared.first_byte"),
        (0, 1, 0, 5, "header.inputs[0].shared.first_byte"),
        (10, 0.5, 0, 5, "header.inputs[0].shared.first_byte"),
        (10, 0, 11, 5, "header.result.first_byte"),
        (10, 0, -1, 5, "header.result.first_byte"),
        (10, 0, 0, MIB, "header.inputs[0].shared.offset_bytes"),
        (MIB, 0, 0, 5, "header.inputs[0].shared.offset_bytes"),
    ],
)
def test_a_place_must_hold_what_is_needed(
    raw: Raw, begin: int, first: Any, room_first: int, size: int, field: str
) -> None:
    answer, descriptor = raw.ask(MIB)
    os.close(descriptor)
    header = part_job(answer.region, begin, size, 0, room_first)
    header.inputs[0].shared.first_byte = int(4 * first)
    with pytest.raises(grpc.RpcError) as caught:
        raw.call(header)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert _channel.error_of(caught.value).field == field.rpartition(".")[2]


def test_a_part_that_has_no_room_travels(raw: Raw) -> None:
    answer, descriptor = raw.ask(MIB)
    memory = np.asarray(shared.Mapping(descriptor, MIB)).view(np.float32)
    os.close(descriptor)
    memory[:] = 3
    header = part_job(answer.region, 1000, 100, 1000, 1000)
    header.result.size_bytes = 396
    responses = raw.call(header)
    assert not responses[0].header.tensors[0].HasField("shared")
    assert b"".join(response.data for response in responses) == np.full(100, 3, np.float32).tobytes()


def test_a_region_is_known_only_to_who_was_given_it_and_as_long(raw: Raw, server: Server) -> None:
    answer, descriptor = raw.ask(MIB)
    os.close(descriptor)
    for name in (bytes(16), b"", answer.region[:-1], answer.region[:-1] + bytes([answer.region[-1] ^ 1])):
        with pytest.raises(grpc.RpcError) as caught:
            raw.call(job(4, name))
        assert caught.value.code() is grpc.StatusCode.ABORTED
        assert _channel.error_of(caught.value).reason == "UNKNOWN_REGION"
    # Another one's RELEASE does not reach it, and that of its own connection does.
    other = Raw(server)
    other.socket.sendall(shared.Request(shared.RELEASE, region=answer.region).pack())
    other.ask(MIB)
    other.close()
    raw.call(job(4, answer.region))
    raw.socket.sendall(shared.Request(shared.RELEASE, region=answer.region).pack())
    raw.ask(MIB)
    with pytest.raises(grpc.RpcError, match="no such region"):
        raw.call(job(4, answer.region))


def test_asking_without_end_ends_at_the_limit_and_leaves_others_alone(make_unix: MakeUnix) -> None:
    server = make_unix(max_shared_bytes=24 * MIB, max_shared_bytes_per_client=16 * MIB)
    raw = Raw(server)
    assert raw.hello.most_bytes == 16 * MIB
    outcomes = []
    for _ in range(40):
        answer, descriptor = raw.ask(4096)
        outcomes.append(answer.outcome)
        if descriptor >= 0:
            os.close(descriptor)
    # However small, a region counts as a mebibyte.
    assert outcomes == [shared.GRANTED] * 16 + [shared.LIMIT_REACHED] * 24
    assert raw.ask(1 << 61)[0].outcome == shared.LIMIT_REACHED
    assert raw.ask(0)[0].outcome == raw.ask((1 << 64) - 1)[0].outcome == shared.REFUSED
    with Client(server.addresses[0], timeout=300) as client:
        x = np.ones(N, np.float32)
        same(client.forward("relu", x), x)
    raw.close()
    _wait_until(lambda: server._regions.total_bytes == 0)


@pytest.mark.parametrize("message", [b"x", b"y" * 200, shared.Request(99).pack()])
def test_nonsense_ends_or_is_refused_on_its_own_connection(raw: Raw, server: Server, message: bytes) -> None:
    raw.socket.sendall(message)
    answered = raw.socket.recv(100)
    assert answered == b"" or shared.Answer.unpack(answered).outcome == shared.REFUSED


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("gelu", tensor_pb2.DATA_TYPE_FLOAT),
        ("gelu", tensor_pb2.DATA_TYPE_FLOAT16),
        ("softmax", tensor_pb2.DATA_TYPE_FLOAT),
        ("sparsemax", tensor_pb2.DATA_TYPE_FLOAT16),
    ],
)
def test_scribbling_while_the_server_computes_is_survived(raw: Raw, name: str, dtype: Any) -> None:
    answer, descriptor = raw.ask(2 * MIB)
    memory = np.asarray(shared.Mapping(descriptor, 2 * MIB)).view(np.uint32)
    os.close(descriptor)
    header = job(0, answer.region, region=answer.region, offset_bytes=MIB, size_bytes=MIB)
    header.activation = name
    header.inputs[0].data_type = dtype
    header.inputs[0].shape[:] = [8, MIB // 8 // (4 if dtype == tensor_pb2.DATA_TYPE_FLOAT else 2)]
    stats = compute_pb2.JobHeader(activation="relu", mode=compute_pb2.MODE_NEURON_STATS, inputs=header.inputs)
    stats.neuron_stats.histogram = compute_pb2.STATS_HISTOGRAM_LAYER
    reject = compute_pb2.JobHeader()
    reject.CopyFrom(header)
    reject.nonfinite = compute_pb2.NONFINITE_REJECT
    over = threading.Event()
    codes: set[Any] = set()

    def scribble() -> None:
        random = np.random.default_rng(0)
        while not over.is_set():
            memory[...] = random.integers(0, 1 << 32, memory.size, np.uint32)
            memory[...] = 0

    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    try:
        for _ in range(3):
            assert raw.call(header)[-1].HasField("whole")
            assert raw.call(stats)[-1].HasField("summary")
            # Whether something is not finite when it is looked at is chance; that the server fails is not.
            codes.add(_code(raw, reject))
    finally:
        over.set()
        scribbler.join()
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}


def _code(raw: Raw, header: Any) -> grpc.StatusCode:
    call = raw.compute(compute_pb2.ComputeRequest(header=header).SerializeToString(), timeout=300)
    with contextlib.suppress(grpc.RpcError):
        list(call)
    return call.code()


def test_a_client_that_is_killed_loses_its_regions(make_unix: MakeUnix) -> None:
    server = make_unix()
    program = f"""
import sys, time, numpy as np
from actserve_client import Client
client = Client({server.addresses[0]!r})
x = client.empty(8 << 20); x[:] = 1
print("holds", flush=True)
while True:
    client.forward("mish", x)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"holds\n"
        assert server._regions.total_bytes >= 32 * MIB
        child.send_signal(signal.SIGKILL)
    _wait_until(lambda: server._regions.total_bytes == 0)


@pytest.mark.parametrize(
    ("chunk", "data"),
    [
        ({"shared_bytes": MIB + 4}, b""),
        ({"shared_bytes": -4}, b""),
        ({"shared_bytes": 4}, b"1234"),
        ({"shared_bytes": 3}, b""),
        ({"shared_bytes": 4, "offset_bytes": 8}, b""),
        ({"shared_bytes": 4, "input": 1}, b""),
        ({}, b"1234"),
    ],
)
def test_chunks_that_make_no_sense_are_refused(raw: Raw, chunk: Any, data: bytes) -> None:
    answer, descriptor = raw.ask(MIB)
    os.close(descriptor)
    frames = [
        compute_pb2.ComputeStreamRequest(job=1, header=job(MIB // 4, answer.region)),
        compute_pb2.ComputeStreamRequest(job=1, chunk=compute_pb2.InputChunk(**chunk), data=data),
    ]
    *_, last = raw.compute_stream((frame.SerializeToString() for frame in frames), timeout=300)
    error = compute_pb2.ComputeResponse.FromString(last).error
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_open_ended_jobs_and_jobs_in_one_message_of_a_stream_have_no_place(raw: Raw) -> None:
    answer, descriptor = raw.ask(MIB)
    os.close(descriptor)
    header = job(4, answer.region)
    header.open_ended = True
    header.inputs[0].shape[:] = [-1]
    for head, data in ((header, b""), (job(4, answer.region), b"0123456789abcdef")):
        frame = compute_pb2.ComputeStreamRequest(job=1, header=head, data=data).SerializeToString()
        *_, last = raw.compute_stream(iter([frame]), timeout=300)
        assert compute_pb2.ComputeResponse.FromString(last).error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def test_stopping_takes_the_socket_along(make_unix: MakeUnix) -> None:
    server = make_unix()
    path = Path(server.addresses[0].removeprefix("unix:") + shared.SUFFIX)
    assert path.is_socket()
    with Client(server.addresses[0], timeout=300) as client:
        x = filled(client, numbers())
        server.stop()
        assert not path.exists()
        assert x[0] == numbers()[0]
        with pytest.raises(ServerUnavailable):
            Client(server.addresses[0], retry=None).forward("relu", x)


def _wait_until(done: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(600):
        if done():
            return
        waiting.wait(0.1)
    raise AssertionError("it did not come about within a minute")
