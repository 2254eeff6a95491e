"""Pulling from an iterable of the caller's while something else goes on, and giving what has come by then all at once.

Whoever takes gets everything that there is, and never waits for more; whoever pulls stays a little ahead, and no further. It knows
neither what the items are nor what is done with them, and no call.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Generic, TypeVar

__all__ = ["AsyncPulling", "Pulling", "Room"]

T = TypeVar("T")

_QUICK_S = 1e-3
"""An item that takes longer to come is taken before the next one is asked for.

The next may take as long, and keep the interpreter, or the event loop, from who would take this one.
"""

_TURN_S = 1e-4
"""How long a generator that never waits may keep the event loop from sending what has come."""


@dataclasses.dataclass(frozen=True, slots=True)
class Room:
    """How much there is room for, in whatever items cost."""

    together: int
    """What is taken at once at most, but for one item; and what was pulled and not taken is less than that and one item."""
    alone: int
    """From which cost on nothing is pulled behind an item until whoever took it comes back, so that it need not be copied."""
    ahead: int
    """What is pulled at most and not done, an item counting as no more than `together`, which this is no less than."""


class _Stock(Generic[T]):
    """What was pulled and is not taken yet, and whether more may be pulled. It waits for nothing: that its users do."""

    def __init__(self, cost: Callable[[T], int], room: Room) -> None:
        self._cost = cost
        self._room = room
        self._items: deque[tuple[T, int]] = deque()
        self._total = 0
        self._costs: deque[int] = deque()
        self._ahead = 0
        self._far = False
        self._asked = False
        self._at_once = False
        self._held = False
        self.ended = False
        """Whether nothing more comes, or nobody wants it."""
        self.failure: BaseException | None = None
        """What the iterable raised."""

    def add(self, item: T, seconds: float) -> None:
        """An item has come, after so long."""
        cost = self._cost(item)
        self._items.append((item, cost))
        self._total += cost
        self._at_once = self._asked or seconds > _QUICK_S
        self._held = cost >= self._room.alone
        self._costs.append(min(cost, self._room.together))
        self._ahead += self._costs[-1]
        self._far = self._ahead >= self._room.ahead

    def done(self) -> bool:
        """The result of the oldest is there; says whether that ends a wait."""
        self._ahead -= self._costs.popleft()
        # Later than it might, so that several can be pulled then.
        if not self._far or self._ahead > self._room.ahead - self._room.together:
            return False
        self._far = False
        return True

    @property
    def has_room(self) -> bool:
        """Whether the next item may be asked for.

        Not while somebody waits for the last one, not while one is in use that was not copied, and not too far ahead.
        """
        full = bool(self._items) and (self._at_once or self._total >= self._room.together)
        return self.ended or not (full or self._held or self._far)

    def ask(self) -> None:
        """Whoever takes is done with what was taken before, and waits."""
        self._asked = True
        # The one that is held is the last that was pulled.
        self._held = self._held and bool(self._items)

    @property
    def has_some(self) -> bool:
        """Whether there is something to take, or nothing to wait for."""
        return bool(self._items) or self.ended

    def take(self) -> list[T]:
        """What there is, as much as there is room for; nothing at the end."""
        self._asked = False
        taken: list[T] = []
        size = 0
        while self._items and (not taken or size + self._items[0][1] <= self._room.together):
            item, cost = self._items.popleft()
            taken.append(item)
            size += cost
        self._total -= size
        return taken

    def end(self, failure: BaseException | None) -> None:
        """Nothing more comes."""
        self.ended, self.failure = True, failure

    def give_up(self) -> None:
        """Nobody wants anything any more."""
        self.ended = True
        self._items.clear()


class Pulling(Generic[T]):
    """What a generator yields, pulled in a thread of its own.

    >>> list(Pulling((letter for letter in "abc"), len, Room(together=1, alone=9, ahead=4)).batches())
    [['a'], ['b'], ['c']]

    `cost` says how much room an item takes.
    """

    def __init__(self, items: Generator[T, None, None], cost: Callable[[T], int], room: Room) -> None:
        self._items = items
        self._stock = _Stock(cost, room)
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waits = False
        """Whether the thread is not in the generator, and does what it is told."""

    def batches(self) -> Iterator[list[T]]:
        """All that has come since the last time, as soon as there is something. One thread at a time may ask.

        What the generator raises is raised here, after what came before.
        """
        stock = self._stock
        with self._changed:
            if self._thread is None and not stock.ended:
                self._thread = threading.Thread(target=self._pull, name="actserve-pull", daemon=True)
                self._thread.start()
        while True:
            with self._changed:
                stock.ask()
                self._changed.notify_all()
                self._changed.wait_for(lambda: stock.has_some)
                batch = stock.take()
                self._changed.notify_all()
            if not batch:
                break
            yield batch
        if stock.failure is not None:
            raise stock.failure

    def _pull(self) -> None:
        failure: BaseException | None = None
        try:
            begin = time.monotonic()
            for item in self._items:
                if not self._put(item, time.monotonic() - begin):
                    break
                begin = time.monotonic()
        except BaseException as error:  # noqa: BLE001  # the caller's iterable may raise anything; whoever takes raises it
            failure = error
        try:
            # What this raises is told as anything that a thread ends with: whoever took may be gone.
            self._items.close()
        finally:
            with self._changed:
                self._stock.end(failure)
                self._changed.notify_all()

    def _put(self, item: T, seconds: float) -> bool:
        """Whether to go on."""
        with self._changed:
            self._stock.add(item, seconds)
            self._waits = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._stock.has_room)
            self._waits = self._stock.ended
            return not self._stock.ended

    def done(self) -> None:
        """The result of the oldest item that is not done is there."""
        with self._changed:
            if self._stock.done():
                self._changed.notify_all()

    def close(self) -> None:
        """Pull no more, and close the generator: at once, or where it is in the middle of something, after that."""
        with self._changed:
            self._stock.give_up()
            self._changed.notify_all()
            thread = self._thread if self._waits else None
        if thread is not None:
            thread.join()


class AsyncPulling(Generic[T]):
    """The same of an async generator, in a task of its own."""

    def __init__(self, items: AsyncGenerator[T, None], cost: Callable[[T], int], room: Room) -> None:
        self._items = items
        self._stock = _Stock(cost, room)
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def batches(self) -> AsyncGenerator[list[T], None]:
        """All that has come since the last time, as soon as there is something."""
        stock = self._stock
        if self._task is None and not stock.ended:
            self._task = asyncio.ensure_future(self._pull())
        while True:
            stock.ask()
            self._tell()
            await self._until(lambda: stock.has_some)
            batch = stock.take()
            self._tell()
            if not batch:
                break
            yield batch
        if stock.failure is not None:
            raise stock.failure

    def _tell(self) -> None:
        """Have whoever waits look again."""
        self._changed.set()
        self._changed.clear()

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._changed.wait()

    async def _pull(self) -> None:
        stock = self._stock
        failure: BaseException | None = None
        try:
            async with contextlib.aclosing(self._items) as items:
                begin = turn = time.monotonic()
                async for item in items:
                    now = time.monotonic()
                    stock.add(item, now - begin)
                    self._tell()
                    if not stock.has_room:
                        await self._until(lambda: stock.has_room)
                        turn = time.monotonic()
                    elif now - turn > _TURN_S:
                        await asyncio.sleep(0)
                        turn = time.monotonic()
                    if stock.ended:
                        break
                    begin = time.monotonic()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # as above; and whoever takes is to be cancelled too
            failure = error
        finally:
            stock.end(failure)
            self._tell()

    def done(self) -> None:
        """The result of the oldest item that is not done is there."""
        if self._stock.done():
            self._tell()

    async def aclose(self) -> None:
        """Pull no more, give up what is waited for, and close the generator."""
        self._stock.give_up()
        if self._task is None or self._task.done():
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(self._stock.failure, Exception):
            raise self._stock.failure
