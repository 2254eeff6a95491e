"""Large plain arrays through shared memory, slice by slice: the same bits as by sending the bytes, in bounded memory, through lost servers."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from actserve import shared
from actserve_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    InvalidRequest,
    Retry,
    ServerUnavailable,
    Summary,
    _shards,
    _shared,
)
from actserve_server.app import Server
from faults import Breaking
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.skipif(not shared.SUPPORTED, reason="sealed memfds are Linux's")

Array = np.ndarray[Any, Any]
MakeUnix = Callable[..., Server]
Spans = list[tuple[int, int]]

MIB = 1 << 20
SLICE = 1 << 17
QUICK = Retry(attempts=10, initial_s=0.001, longest_s=0.01, reconnect_s=20)
"""More attempts than there are cuts: a connection that breaks before an answer has begun counts as a server that was not found."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done with hundreds of mebibytes is done with some hundred kilobytes."""
    monkeypatch.setattr(_shared, "LEAST_BYTES", 64)
    monkeypatch.setattr(_shared, "LEAST_COPIED_BYTES", 64)
    monkeypatch.setattr(_shared, "SLICE_BYTES", SLICE)
    monkeypatch.setattr(_shared, "MOST_COPIED_BYTES", 4 * SLICE)
    monkeypatch.setattr(_shared, "PIECE_BYTES", 1 << 15)
    monkeypatch.setattr(_shards, "LEAST_BYTES", 3 * SLICE)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Spans:
    """The bytes of x that each call was asked for which copied."""
    made: Spans = []
    inner = _shared.SharedCall.requests

    def requests(self: _shared.SharedCall, assembly: Any) -> Iterator[bytes]:
        made.append(self._spans[0])
        return inner(self, assembly)

    monkeypatch.setattr(_shared.SharedCall, "requests", requests)
    return made


def numbers(shape: Any, dtype: Any = np.float32, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal(shape) * 3).astype(dtype)


def same(one: Array, other: Array) -> None:
    assert one.dtype == other.dtype and one.shape == other.shape
    assert one.tobytes() == other.tobytes()


def are_all(spans: Spans, nbytes: int) -> None:
    """That calls were asked for all bytes, one after another."""
    assert [spans[0][0], *(end for _, end in spans)] == [*(begin for begin, _ in spans), nbytes]
    assert spans[0][0] == 0


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("gelu", {}),
    ("relu", {"accuracy": "fast"}),
    ("leaky_relu", {"preset": "keras"}),
    ("prelu", {"slope": np.linspace(0, 1, 96)}),
    ("rrelu", {"training": True, "seed": 3}),
    ("softmax", {}),
    ("softmax", {"axis": 1}),
    ("gumbel_softmax", {"seed": 3}),
    ("sparsemax", {"axis": -2}),
]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 200),
    dtype=st.sampled_from([np.float16, ml_dtypes.bfloat16, np.float32, np.float64, ">f4"]),
    way=st.sampled_from(WAYS),
    upstream=st.booleans(),
    slice_bytes=st.integers(1 << 14, 1 << 18),
    out=st.sampled_from(["new", "plain", "itself", "shifted", "reversed", "made", "shared"]),
)
def test_any_array_in_slices_of_any_size(
    client: Client,
    bytes_client: Client,
    monkeypatch: pytest.MonkeyPatch,
    calls: Spans,
    rows: int,
    dtype: Any,
    way: tuple[str, dict[str, Any]],
    upstream: bool,
    slice_bytes: int,
    out: str,
) -> None:
    monkeypatch.setattr(_shared, "SLICE_BYTES", slice_bytes)
    name, options = way
    shape = (rows, 8, 96)
    whole = numbers((rows + 1, 8, 96), dtype)
    whole.flat[::5003] = np.nan
    x = whole[:rows]
    g = numbers(shape, dtype, seed=1)

    def ask(user: Client, x: Array, where: Any, told: list[Any]) -> Array:
        more = {"out": where, "on_summary": told.append, **options}
        if upstream:
            return user.derivative(name, x, upstream=g, **more)
        return user.forward(name, x, **more)

    expected_summaries: list[Summary] = []
    summaries: list[Summary] = []
    expected = ask(bytes_client, x, None, expected_summaries)
    native = x.dtype.newbyteorder("=")
    where: Any = {
        "new": None,
        "plain": np.empty(shape, native),
        "itself": x,
        "shifted": whole[1:],
        "reversed": np.empty(shape, native)[::-1],
        "made": np.empty,
        "shared": client.empty(shape, native),
    }[out]
    calls.clear()
    result = ask(client, x, where, summaries)
    if isinstance(where, np.ndarray):
        assert result is where
    same(np.ascontiguousarray(result).astype(native), expected)
    assert [(s.nonfinite_in, s.nonfinite_out) for s in summaries] == [
        (s.nonfinite_in, s.nonfinite_out) for s in expected_summaries
    ]
    are_all(calls, x.nbytes)
    assert max(end - begin for begin, end in calls) <= slice_bytes // (1 + upstream)


def test_progress_and_errors_are_those_of_any_call(client: Client, calls: Spans) -> None:
    x = numbers((3 * SLICE // 4 + 5,))
    steps: list[tuple[int, int]] = []
    client.forward("relu", x, progress=lambda *step: steps.append(step))
    are_all(calls, x.nbytes)
    assert len(calls) == 4
    assert steps == sorted(steps) and steps[-1] == (x.nbytes, x.nbytes)
    assert all(sent >= received for sent, received in steps)
    place = 2 * SLICE // 4 + 7
    x[place] = np.nan
    with pytest.raises(InvalidRequest, match=f"element {place} of x"):
        client.forward("relu", x, nonfinite="reject")
    for wrong in (np.empty(3, np.float32), np.empty(x.shape)):
        with pytest.raises(InvalidRequest, match="out is"):
            client.forward("relu", x, out=wrong)
    with pytest.raises(InvalidRequest, match="upstream gradient has shape"):
        client.derivative("relu", x, upstream=x[1:])
    with pytest.raises(DeadlineExceeded):
        client.forward("mish", x, timeout=1e-4)


def test_what_cannot_be_cut_goes_whole_or_is_sent(client: Client, bytes_client: Client, calls: Spans) -> None:
    for rows, whole in ((300, True), (3000, False)):
        x = numbers((rows, 96))
        for work in (
            lambda user, x=x: user.forward("softmax", x, axis=0),
            lambda user, x=x: user.forward("glu", x),
            lambda user, x=x: user.derivative("prelu", x, upstream=x, parameter_gradients=True).input,
            lambda user, x=x: user.regularization("relu", x, "l2", gradient=True).gradient,
        ):
            calls.clear()
            same(work(client), work(bytes_client))
            assert calls == ([(0, x.nbytes)] if whole else [])
        calls.clear()
        same(client.forward("softmax", x), bytes_client.forward("softmax", x))
        are_all(calls, x.nbytes)


def test_memory_is_bounded_and_given_back(make_unix: MakeUnix, calls: Spans) -> None:
    server = make_unix()
    peaks: list[int] = []
    x = numbers((16 * MIB // 4,))
    with Client(server.addresses[0], timeout=300) as client:
        for _ in range(3):
            result = client.forward("relu", x, progress=lambda *_: peaks.append(server._regions.total_bytes))
            same(result, np.maximum(x, 0))
        assert len(calls) == 3 * 128
        # One for x and one for the result, for all slices, and each of them counts as a mebibyte.
        assert max(peaks) == 2 * MIB
    del result
    until(lambda: server._regions.total_bytes == 0)


@pytest.mark.parametrize(("most", "slices"), [(0, 0), (MIB, 24), (2 * MIB, 24)])
def test_at_the_limits_the_bytes_are_sent(
    make_unix: MakeUnix, bytes_client: Client, calls: Spans, most: int, slices: int
) -> None:
    server = make_unix(max_shared_bytes=most)
    x = numbers((3 * MIB // 4,))
    with Client(server.addresses[0], timeout=300) as client:
        same(client.forward("relu", x), np.maximum(x, 0))
        # With room for one region it is x that is copied, and the result travels.
        assert len(calls) == slices
        assert server._regions.total_bytes == most
        calls.clear()
        # An upstream gradient has no room beside x then.
        same(client.derivative("relu", x, upstream=x), bytes_client.derivative("relu", x, upstream=x))
        assert len(calls) == (0 if most < 2 * MIB else 48)


def test_of_a_limit_that_is_reached_on_the_way_the_rest_is_sent(make_unix: MakeUnix, calls: Spans) -> None:
    server = make_unix()
    x = numbers((3 * MIB // 4,))

    def reach(sent: int, received: int) -> None:
        if received > MIB:
            server._regions.most_bytes = 0
            for region in client._regions._regions.values():
                region.spoiled = True

    with Client(server.addresses[0], timeout=300) as client:
        same(client.forward("relu", x, progress=reach), np.maximum(x, 0))
        assert 8 <= len(calls) < 16


# ---- lost servers --------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(cuts=[200] * 5, way=("gelu", {}), upstream=False, out="new")
@given(
    cuts=st.lists(st.integers(200, 1200), min_size=1, max_size=5),
    way=st.sampled_from(WAYS),
    upstream=st.booleans(),
    out=st.sampled_from(["new", "itself", "shifted"]),
)
def test_slices_go_on_wherever_they_are_cut(
    client: Client,
    bytes_client: Client,
    socket_folder: Path,
    address: str,
    calls: Spans,
    cuts: list[int],
    way: tuple[str, dict[str, Any]],
    upstream: bool,
    out: str,
) -> None:
    name, options = way
    whole = numbers((201, 8, 96))
    whole.flat[::997] = np.inf
    x, g = whole[:200], numbers((200, 8, 96), seed=1)
    more = {**options, "upstream": g} if upstream else options
    mode = "derivative" if upstream else "forward"
    told: list[Summary] = []
    expected_told: list[Summary] = []
    expected = getattr(bytes_client, mode)(name, x, on_summary=expected_told.append, **more)
    calls.clear()
    with (
        Breaking(address, cuts, at=f"{socket_folder}/breaking") as breaking,
        Client(breaking.address, retry=QUICK, timeout=300) as other,
    ):
        other._known = client._known  # so that what is cut is a computation
        where = {"new": None, "itself": x, "shifted": whole[1:]}[out]
        steps: list[tuple[int, int]] = []
        progress = lambda *step: steps.append(step)
        result = getattr(other, mode)(name, x, out=where, on_summary=told.append, progress=progress, **more)
        same(result, expected)
        assert breaking.broken >= 1
    assert len(calls) >= 5
    assert [(s.nonfinite_in, s.nonfinite_out) for s in told] == [
        (s.nonfinite_in, s.nonfinite_out) for s in expected_told
    ]
    assert steps[-1] == (x.nbytes, x.nbytes)


def test_a_server_that_is_killed_and_comes_back(socket_folder: Path, calls: Spans) -> None:
    """In the middle of a slice; the rest goes through memory of the new one."""
    address = f"unix:{socket_folder}/mortal"
    command = [sys.executable, "-m", "actserve_server", "serve", "--address", address, "--log-level", "error"]
    processes = [subprocess.Popen(command)]
    x = numbers((4 * MIB,))
    expected = np.maximum(x, 0)
    at: list[int] = []

    def kill(sent: int, received: int) -> None:
        if received > 6 * MIB and len(processes) == 1:
            processes[0].kill()
            processes[0].wait()
            at.append(len(calls))
            processes.append(subprocess.Popen(command))

    try:
        with Client(address, timeout=300, retry=Retry(initial_s=0.05, longest_s=0.1, reconnect_s=120)) as client:
            while not client.healthy():
                assert processes[0].poll() is None
            client.forward("relu", x[:10])
            summaries: list[Summary] = []
            same(client.forward("relu", x, out=x, progress=kill, on_summary=summaries.append), expected)
            assert len(processes) == 2 and len(summaries) == 1
            assert at[0] > 40 and len(calls) > at[0] + 2
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_a_region_that_the_server_does_not_know_costs_only_the_sending(client: Client, calls: Spans) -> None:
    x = numbers((SLICE,))

    def rename(sent: int, received: int) -> None:
        for region in client._regions._regions.values():
            region.name = bytes(16)

    same(client.forward("relu", x, progress=rename), np.maximum(x, 0))
    assert 2 <= len(calls) < 4
    client._regions._lost = 0


def test_without_another_try_a_lost_slice_is_an_error(client: Client, address: str, socket_folder: Path) -> None:
    steps: list[int] = []
    with (
        Breaking(address, [], at=f"{socket_folder}/once") as breaking,
        Client(breaking.address, retry=None, timeout=300) as other,
    ):

        def cut(sent: int, received: int) -> None:
            # For good: a connection that ends just between two slices is made anew, and nothing is lost with it.
            steps.append(received)
            breaking.close()

        other._known = {"relu": client.describe("relu")}
        x = numbers((4 * SLICE,))
        with pytest.raises(ServerUnavailable):
            other.forward("relu", x, progress=cut)
        assert 0 < max(steps) < x.nbytes


# ---- several addresses ---------------------------------------------------------------------------------------------


async def test_shards_share_memory_each_where_its_address_allows(
    make_unix: MakeUnix, server: Server, bytes_client: Client, calls: Spans
) -> None:
    one, two = make_unix(), make_unix(max_shared_bytes=0)
    tcp = server.addresses[1]
    x = numbers((3 * SLICE,))
    x[-1] = np.inf
    expected = np.maximum(x, 0)
    shards = x.nbytes // 3
    told: list[Summary] = []
    steps: list[tuple[int, int]] = []
    for addresses in itertools.permutations([one.addresses[0], two.addresses[0], tcp]):
        for record in (calls, told, steps):
            record.clear()
        with Client(",".join(addresses), timeout=300) as several:
            result = several.forward("relu", x, on_summary=told.append, progress=lambda *step: steps.append(step))
            same(result, expected)
            assert told[0].nonfinite_in.positive_infinity == len(told) == 1
            assert steps[-1] == (x.nbytes, x.nbytes)
            # The one that shares memory gets a shard in slices.
            assert sum(end - begin for begin, end in calls) == shards and len(calls) == 4
            assert one._regions.total_bytes > 0
            out = np.empty_like(x)
            assert several.derivative("gelu", x, upstream=x, out=out) is out
            same(out, bytes_client.derivative("gelu", x, upstream=x))
            given = several.empty(x.shape)
            given[:] = x
            same(several.forward("relu", given, out=given), expected)
            same(several.forward("softmax", x.reshape(-1, 64)), bytes_client.forward("softmax", x.reshape(-1, 64)))
    calls.clear()
    async with AsyncClient(f"{one.addresses[0]}, {tcp}", timeout=300) as several_async:
        same(await several_async.forward("relu", x), expected)
        assert sum(end - begin for begin, end in calls) == x.nbytes // 2


async def test_the_async_client_computes_in_slices_too(
    address: str, bytes_client: Client, socket_folder: Path, calls: Spans
) -> None:
    x = numbers((3 * MIB // 4, 2))
    told: list[Summary] = []
    async with AsyncClient(address, timeout=300) as client:
        expected = bytes_client.forward("gelu", x)
        same(await client.forward("gelu", x, on_summary=told.append), expected)
        are_all(calls, x.nbytes)
        assert len(calls) == x.nbytes // SLICE and len(told) == 1
        known = client._known
    calls.clear()
    with Breaking(address, [2000, 700, 300], at=f"{socket_folder}/breaking-too") as breaking:
        async with AsyncClient(breaking.address, timeout=300, retry=QUICK) as client:
            client._known = known
            given = x.copy()
            assert await client.forward("gelu", given, out=given) is given
            same(given, expected)
            assert breaking.broken == 3 and len(calls) > x.nbytes // SLICE
