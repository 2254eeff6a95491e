"""The messages of calls that go on one after another with the same input: pulled from it once, by whichever call needs them first.

gRPC takes a call's requests in a thread, or a task, of its own, and one that belongs to a call that is lost may still wait for the
caller's iterable. What it gets in the end is kept for the next call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

from actserve_client._resume import Course, Frame, Window

_TAKEN = 2
"""gRPC asks for the next message when one is on its way, and only then."""


class Sending:
    """Messages made from an iterable of the caller's, which may raise anything: that is `failure`, and ends the messages."""

    def __init__(self, frames: Generator[Frame, None, None], window: Window) -> None:
        self._frames = frames
        self._window = window
        self._pulling = threading.Lock()
        self._ended = False
        self.sent = 0
        """How many messages the latest call has taken."""
        self.failure: BaseException | None = None

    @property
    def begun(self) -> bool:
        """Whether the latest call's server has taken more than a connection to none would have."""
        return self.sent > _TAKEN

    def messages(self, course: Course) -> Iterator[bytes]:
        """What a call sends."""
        self.sent = 0
        yield from course.first
        place = self._window.begin
        while (frame := self._frame(place)) is not None:
            place += 1
            message = course.message(frame)
            if message is not None:
                self.sent += 1
                yield message

    def _frame(self, place: int) -> Frame | None:
        frame = self._window.at(place)
        if frame is None:
            with self._pulling:
                frame = self._window.at(place)
                if frame is None and not self._ended and place >= self._window.begin:
                    frame = self._pull()
            if self._ended:
                self._let_go()
        return frame

    def _pull(self) -> Frame | None:
        try:
            frame = next(self._frames)
        except StopIteration:
            self._ended = True
            return None
        except BaseException as error:  # noqa: BLE001  # the caller's iterable may raise anything; the call raises it
            self._ended = True
            self.failure = error
            return None
        self._window.add(frame)
        return frame

    def close(self) -> None:
        """Pull no more, and close where the messages come from: at once, or where one is being waited for, when it is there."""
        self._ended = True
        self._let_go()

    def _let_go(self) -> None:
        # Whoever is at it does this after it.
        if self._pulling.acquire(blocking=False):
            try:
                self._frames.close()
            finally:
                self._pulling.release()


class AsyncSending:
    """The same, of an async iterable."""

    def __init__(self, frames: AsyncGenerator[Frame, None], window: Window) -> None:
        self._frames = frames
        self._window = window
        self._pulling: asyncio.Task[None] | None = None
        self._ended = False
        self.sent = 0
        """How many messages the latest call has taken."""
        self.failure: Exception | None = None

    @property
    def begun(self) -> bool:
        """Whether the latest call's server has taken more than a connection to none would have."""
        return self.sent > _TAKEN

    async def messages(self, course: Course) -> AsyncIterator[bytes]:
        """What a call sends."""
        self.sent = 0
        for first in course.first:
            yield first
        place = self._window.begin
        while (frame := await self._frame(place)) is not None:
            place += 1
            message = course.message(frame)
            if message is not None:
                self.sent += 1
                yield message

    async def _frame(self, place: int) -> Frame | None:
        while (frame := self._window.at(place)) is None and not self._ended and place >= self._window.begin:
            if self._pulling is None:
                self._pulling = asyncio.ensure_future(self._pull())
            # A call that ends cancels whoever waits here, and the next one wants what is waited for.
            await asyncio.shield(self._pulling)
        return frame

    async def _pull(self) -> None:
        try:
            self._window.add(await anext(self._frames))
        except StopAsyncIteration:
            self._ended = True
        except Exception as error:  # noqa: BLE001  # the caller's iterable may raise anything; the call raises it
            self._ended = True
            self.failure = error
        finally:
            self._pulling = None

    async def aclose(self) -> None:
        """Give up what is waited for, and close where the messages come from."""
        self._ended = True
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)
        await self._frames.aclose()


__all__ = ["AsyncSending", "Sending"]
