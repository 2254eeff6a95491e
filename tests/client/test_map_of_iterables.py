"""`map` of what comes bit by bit: what has come goes together, and nothing waits for what has not, may be lost, or is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from typing import Any

import numpy as np
import pytest
from actserve_client import AsyncClient, Client, InvalidRequest, Retry, _tensors
from actserve_client._pulling import AsyncPulling, Pulling, Room
from actserve_client._tensors import PACK_BYTES, Inputs, Tensors
from faults import Breaking
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

Array = np.ndarray[Any, Any]
SHARED = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
WAIT_S = 60
WRONG = np.array(["no number"])
PULLER = "actserve-pull"


def within_reason(holds: Callable[[], Any]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def no_thread_left() -> bool:
    return not any(thread.name == PULLER for thread in threading.enumerate())


def take_all(results: Iterator[Any], into: list[Any]) -> None:
    for result in results:
        into.append(result)  # one by one, so that what came before an error is there


@st.composite
def tensors(draw: st.DrawFn) -> list[tuple[Array, str]]:
    """Arrays of any type, from none to more than go together, and wrong ones; and what the iterable does after each."""
    sizes = st.one_of(st.integers(0, 40), st.sampled_from([0, 1000, 4000, 9000, 70_000]))
    kinds = st.sampled_from(["f2", "f4", ">f4", "f8"])
    pauses = st.sampled_from(["nothing", "nothing", "nothing", "sleeps", "waits for its result"])
    generator = np.random.default_rng(7)
    drawn: list[tuple[Array, str]] = []
    for wrong in draw(st.lists(st.sampled_from([False] * 7 + [True]), max_size=40)):
        size, kind, pause = draw(sizes), draw(kinds), draw(pauses)
        x = generator.standard_normal(size).astype(kind)
        if draw(st.booleans()):
            x = x.reshape(-1, 1)
        drawn.append((WRONG if wrong else x, pause))
    return drawn


def expected(client: Client, arrays: list[Array], upstream: bool) -> list[Any]:
    wanted: list[Any] = []
    for x in arrays:
        if x is WRONG:
            wanted.append(InvalidRequest)
        else:
            wanted.append(client.derivative("gelu", x, upstream=-x) if upstream else client.forward("gelu", x))
    return wanted


def compare(results: list[Any], wanted: list[Any]) -> None:
    assert len(results) == len(wanted)
    for result, right in zip(results, wanted, strict=True):
        if isinstance(right, type):
            assert isinstance(result, right)
            continue
        assert result.dtype == right.dtype
        assert result.flags.writeable
        np.testing.assert_array_equal(result, right)


@SHARED
@given(drawn=tensors(), upstream=st.booleans())
def test_at_any_pace_each_gets_what_a_call_of_its_own_gives(
    client: Client, drawn: list[tuple[Array, str]], upstream: bool
) -> None:
    arrays = [x for x, _ in drawn]
    wanted = expected(client, arrays, upstream)
    results: list[Any] = []
    came = threading.Condition()

    def source() -> Iterator[Array]:
        # All in the same memory, as readers of files do.
        for place, (x, pause) in enumerate(drawn):
            memory = x.copy()
            yield memory
            if memory is not WRONG:
                memory[...] = np.zeros((), memory.dtype)
            if pause == "sleeps":
                time.sleep(0.002)
            elif pause != "nothing":
                with came:
                    assert came.wait_for(lambda place=place: len(results) > place, WAIT_S)

    options: dict[str, Any] = {"mode": "derivative", "upstream": (-x if x is not WRONG else x for x in arrays)}
    for result in client.map("gelu", source(), return_exceptions=True, **(options if upstream else {})):
        with came:
            results.append(result)
            came.notify_all()
    compare(results, wanted)
    within_reason(no_thread_left)


@SHARED
@given(drawn=tensors(), plain=st.booleans())
def test_the_asynchronous_twin_does_the_same(
    address: str, client: Client, drawn: list[tuple[Array, str]], plain: bool
) -> None:
    arrays = [x for x, _ in drawn]
    wanted = expected(client, arrays, upstream=True)
    results: list[Any] = []

    async def main() -> None:
        came = asyncio.Condition()

        async def source() -> AsyncIterator[Array]:
            for place, (x, pause) in enumerate(drawn):
                memory = x.copy()
                yield memory
                memory[...] = np.zeros((), memory.dtype)
                if pause == "sleeps":
                    await asyncio.sleep(0.002)
                elif pause != "nothing":
                    async with came, asyncio.timeout(WAIT_S):
                        await came.wait_for(lambda place=place: len(results) > place)

        async with AsyncClient(address) as twin:
            upstream = (-x if x is not WRONG else x for x in arrays)
            options: dict[str, Any] = {"mode": "derivative", "upstream": upstream, "return_exceptions": True}
            async for result in twin.map("gelu", iter(arrays) if plain else source(), **options):
                async with came:
                    results.append(result)
                    came.notify_all()

    asyncio.run(main())
    compare(results, wanted)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tensors went together, each time."""
    counts: list[int] = []
    inner = Tensors.encode_together

    def encode_together(self: Tensors, tensors: Any) -> Any:
        given: list[Inputs] = list(tensors)
        counts.append(len(given))
        return inner(self, given)

    monkeypatch.setattr(Tensors, "encode_together", encode_together)
    return counts


def test_what_comes_fast_shares_messages_and_what_waits_does_not(client: Client, batches: list[int]) -> None:
    x = np.ones(1024, np.float32)
    assert len(list(client.map("relu", itertools.repeat(x, 1000)))) == 1000
    assert sum(batches) == 1000
    assert len(batches) < 500
    assert max(batches) == PACK_BYTES // x.nbytes

    batches.clear()
    came = threading.Semaphore(0)

    def source() -> Iterator[Array]:
        for _ in range(20):
            yield x
            assert came.acquire(timeout=WAIT_S)

    for _ in client.map("relu", source()):
        came.release()
    assert batches == [1] * 20


@pytest.mark.parametrize(
    ("name", "options"),
    [("softmax", {}), ("rrelu", {"seed": 3}), ("relu", {"nonfinite": "reject"}), ("prelu", {"slope": np.ones(3)})],
)
def test_others_go_alone(client: Client, batches: list[int], name: str, options: dict[str, Any]) -> None:
    results = list(client.map(name, (np.ones(3) for _ in range(20)), **options))
    assert len(results) == 20
    assert batches == []


@pytest.mark.parametrize("name", ["relu", "softmax", "glu"])
def test_an_error_comes_though_nothing_else_does(client: Client, name: str) -> None:
    """The iterable waits for the error before it goes on, so that no answer of the server's could bring it along."""
    x = np.ones(4)
    arrays = [WRONG, x, WRONG, WRONG, [[1.0], [1.0, 2.0]], x]
    came = threading.Semaphore(0)

    def source() -> Iterator[Any]:
        for array in arrays:
            yield array
            assert came.acquire(timeout=WAIT_S)

    results = []
    for result in client.map(name, source(), return_exceptions=True):
        results.append(result)
        came.release()
    assert [isinstance(result, InvalidRequest) for result in results] == [array is not x for array in arrays]
    assert all("x " in str(result) for result in results if isinstance(result, InvalidRequest))


def test_it_is_read_in_one_thread_that_is_not_the_callers(client: Client) -> None:
    threads = set()

    def source() -> Iterator[Array]:
        for size in [10] * 300 + [PACK_BYTES // 8, 3, PACK_BYTES]:
            threads.add(threading.get_ident())
            yield np.ones(size)

    assert len(list(client.map("relu", source()))) == 303
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


@pytest.mark.parametrize("size", [0, 1024])
def test_it_is_read_no_further_ahead_than_is_said(client: Client, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensors, "AHEAD_BYTES", 10 * PACK_BYTES)
    x = np.ones(size, np.float32)
    most = 10 * PACK_BYTES // max(x.nbytes, 64)
    made = 0

    def source() -> Iterator[Array]:
        nonlocal made
        # Without a bound this ends, and fails.
        for made in range(1, 3 * most):  # noqa: B007
            yield x

    results = client.map("relu", source())
    next(results)
    seen = 0
    while seen != made:
        seen = made
        threading.Event().wait(0.5)
    assert made <= most + 2
    # And goes on from there.
    for _ in range(most + 100):
        next(results)
    assert made > seen
    results.close()  # type: ignore[attr-defined]
    within_reason(no_thread_left)


class Source:
    """A generator that says where it is."""

    def __init__(self) -> None:
        self.closed = threading.Event()
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def arrays(self, blocks_at: int) -> Iterator[Array]:
        try:
            for place in itertools.count():
                if place == blocks_at:
                    self.entered.set()
                    assert self.go_on.wait(WAIT_S)
                yield np.ones(100)
        finally:
            self.closed.set()


@pytest.mark.parametrize("name", ["relu", "softmax"])
def test_leaving_early_closes_the_generator(client: Client, name: str) -> None:
    source = Source()
    # Held on to here, so that nobody but the client closes it.
    arrays = source.arrays(-1)
    upstream = Source()
    gradients = upstream.arrays(-1)
    results = client.map(name, arrays, mode="derivative", upstream=gradients)
    for _, _result in zip(range(10), results, strict=False):
        pass
    results.close()  # type: ignore[attr-defined]
    assert source.closed.wait(WAIT_S)
    assert upstream.closed.wait(WAIT_S)
    within_reason(no_thread_left)
    np.testing.assert_array_equal(client.forward("relu", np.ones(2)), [1, 1])


@pytest.mark.parametrize("name", ["relu", "softmax"])
def test_one_that_is_left_while_it_waits_is_closed_after_that(client: Client, name: str) -> None:
    source = Source()
    arrays = source.arrays(3)
    results = client.map(name, arrays)
    for _ in range(3):
        next(results)
    assert source.entered.wait(WAIT_S)
    results.close()  # type: ignore[attr-defined]
    assert not source.closed.is_set()
    source.go_on.set()
    assert source.closed.wait(WAIT_S)
    within_reason(no_thread_left)


def test_what_it_does_wrong_when_it_is_closed_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: told.append(args.exc_value))

    def arrays() -> Iterator[Array]:
        try:
            yield from itertools.repeat(np.ones(3))
        finally:
            raise OSError("the disk is full")

    results = client.map("relu", arrays())
    next(results)
    results.close()  # type: ignore[attr-defined]
    within_reason(no_thread_left)
    assert list(map(str, told)) == ["the disk is full"]


@pytest.mark.parametrize("error", [RuntimeError("the disk is gone"), SystemExit("enough"), KeyboardInterrupt()])
def test_what_it_raises_is_raised_after_the_results_before(client: Client, error: BaseException) -> None:
    def arrays() -> Iterator[Array]:
        yield from itertools.repeat(np.ones(100), 90)
        raise error

    upstream = Source()
    gradients = upstream.arrays(-1)
    seen: list[Array] = []
    with pytest.raises(type(error)) as caught:
        take_all(client.map("relu", arrays(), mode="derivative", upstream=gradients), seen)
    assert caught.value is error
    assert len(seen) == 90
    assert upstream.closed.is_set()
    within_reason(no_thread_left)


@pytest.mark.parametrize("more", [-1, 1])
def test_as_many_gradients_as_arrays(client: Client, more: int) -> None:
    xs, gradients = (itertools.repeat(np.ones(3), count) for count in (50, 50 + more))
    seen: list[Array] = []
    with pytest.raises(InvalidRequest, match="fewer" if more < 0 else "more"):
        take_all(client.map("relu", xs, mode="derivative", upstream=gradients), seen)
    assert len(seen) == min(50, 50 + more)
    with pytest.raises(InvalidRequest, match="iterable") as caught:
        list(client.map("relu", 5))  # type: ignore[arg-type]
    assert caught.value.field == "arrays"


def test_nothing_is_lost_with_a_server(client: Client, address: str) -> None:
    generator = np.random.default_rng(3)
    arrays = [generator.standard_normal(size) for size in generator.integers(0, 1000, 1500)]
    waited = threading.Event()
    places = [round(size * (1 << 20)) for size in (0.1, 0.5, 1.7, 2.2)]
    with Breaking(address, places) as breaking:

        def source() -> Iterator[Array]:
            for place, x in enumerate(arrays):
                yield x
                if place == 1000:
                    # As long as the call that waits for the next one is lost, and another takes its place.
                    waited.wait(0.3)

        retry = Retry(initial_s=0.001, longest_s=0.01, reconnect_s=20)
        with Client(breaking.address, retry=retry) as other:
            results = list(other.map("gelu", source()))
        assert breaking.broken >= 3
    compare(results, [client.forward("gelu", x) for x in arrays])
    within_reason(no_thread_left)


async def test_the_asynchronous_twin_leaves_nothing_behind(address: str) -> None:
    closed: list[str] = []

    async def arrays(waits: bool) -> AsyncIterator[Array]:
        try:
            while True:
                yield np.ones(100)
                if waits:
                    await asyncio.sleep(3600)
        finally:
            closed.append("async")

    def plain() -> Iterator[Array]:
        try:
            while True:
                yield np.ones(100)
        finally:
            closed.append("plain")

    async with AsyncClient(address) as twin:
        for name in ("relu", "softmax"):
            for waits in (False, True):
                before = asyncio.all_tasks()
                source = arrays(waits)
                gradients = plain()
                results = twin.map(name, source, mode="derivative", upstream=gradients)
                async with contextlib.aclosing(results):  # type: ignore[type-var]
                    async for result in results:
                        assert result.shape == (100,)
                        break
                assert sorted(closed) == ["async", "plain"]
                closed.clear()
                async with asyncio.timeout(WAIT_S):
                    while asyncio.all_tasks() - before:
                        await asyncio.sleep(0.005)


async def test_what_an_async_one_raises(address: str) -> None:
    async def arrays() -> AsyncIterator[Array]:
        for _ in range(100):
            yield np.ones(2)
        raise LookupError("no more")

    seen = []

    async def take() -> None:
        async with AsyncClient(address) as twin:
            async for result in twin.map("relu", arrays()):
                seen.append(result)

    with pytest.raises(LookupError, match="no more"):
        await take()
    assert len(seen) == 100


# ---- pulling by itself -----------------------------------------------------------------------------------------------


@SHARED
@given(
    costs=st.lists(st.integers(0, 12), max_size=60),
    room=st.builds(
        lambda together, alone, more: Room(together, alone, together + more),
        *(st.integers(0, most) for most in (10, 12, 20)),
    ),
)
def test_batches_are_all_in_order_and_no_larger_than_there_is_room_for(costs: list[int], room: Room) -> None:
    def check(batches: list[list[int]]) -> None:
        assert list(itertools.chain.from_iterable(batches)) == costs
        assert all(len(batch) == 1 or sum(batch) <= room.together for batch in batches)

    pulling = Pulling((cost for cost in costs), int, room)
    taken: list[list[int]] = []
    for batch in pulling.batches():
        taken.append(batch)
        for _ in batch:
            pulling.done()
    check(taken)

    async def main() -> None:
        async def items() -> AsyncGenerator[int, None]:
            for cost in costs:
                yield cost

        taken.clear()
        pulling: AsyncPulling[int] = AsyncPulling(items(), int, room)
        async for batch in pulling.batches():
            taken.append(batch)
            for _ in batch:
                pulling.done()
        check(taken)

    asyncio.run(main())


def test_what_has_come_is_taken_together() -> None:
    pulling = Pulling((number for number in range(30)), lambda _: 1, Room(4, 9, 100))
    batches = []
    for batch in pulling.batches():
        batches.append(batch)
        left = 30 - sum(map(len, batches))
        # Until there is no room for more, or no more.
        within_reason(lambda left=left: len(pulling._stock._items) == min(left, 4))
    # Of those that were there before the first was taken, there may be fewer.
    assert [len(batch) for batch in batches[1:-1]] == [4] * len(batches[1:-1])


def test_behind_one_that_is_not_copied_nothing_is_pulled_while_it_is_used() -> None:
    pulled = 0

    def numbers() -> Generator[int, None, None]:
        nonlocal pulled
        for number in range(10):
            pulled += 1
            yield number

    for taken, batch in enumerate(Pulling(numbers(), lambda _: 4, Room(9, 4, 100)).batches()):
        assert batch == [taken]
        threading.Event().wait(0.01)
        assert pulled == taken + 1
