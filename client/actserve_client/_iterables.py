"""What a caller's iterables become before they are sent: pairs with their gradients, tensors that are kept, messages. Each way twice, for
iterables and async ones.

It pulls, and says when generators are closed; when anything is pulled is its users' affair, and it knows no calls.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable, Iterator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, TypeVar

from actserve_client import _tensors
from actserve_client._resume import Frame
from actserve_client.errors import InvalidRequest

__all__ = [
    "Blocks",
    "async_closed_with",
    "async_each",
    "async_each_kept",
    "async_encoded",
    "async_paired",
    "closed_with",
    "each_kept",
    "encoded",
    "paired",
]

T = TypeVar("T")
Blocks = Iterable[Any] | AsyncIterable[Any]
"""What the asyncio client takes blocks from."""


def paired(blocks: Iterable[Any], upstream: Iterable[Any] | None) -> Generator[tuple[Any, ...], None, None]:
    """Each block, with its gradient where there are some."""
    gradients = iter(upstream) if upstream is not None else None
    for block in blocks:
        yield (block,) if gradients is None else (block, _next_upstream(gradients))
    if gradients is not None and next(gradients, None) is not None:
        raise InvalidRequest("there are more blocks of upstream than of x", field="upstream")


def _next_upstream(gradients: Iterator[Any]) -> Any:
    try:
        return next(gradients)
    except StopIteration:
        raise InvalidRequest("there are fewer blocks of upstream than of x", field="upstream") from None


def closed_with(items: Iterable[T], *iterables: Any) -> Generator[T, None, None]:
    """The items, made of iterables; those that are generators are closed with this one."""
    with contextlib.ExitStack() as stack:
        for iterable in iterables:
            if isinstance(iterable, GeneratorType):
                stack.enter_context(contextlib.closing(iterable))
        yield from items


def each_kept(given: Generator[tuple[Any, ...], None, None]) -> Generator[_tensors.Inputs, None, None]:
    """Tensors that can be sent, whose memory the caller may use again."""
    with contextlib.closing(given):
        for tensor in given:
            yield _tensors.kept(tensor)


def encoded(coder: _tensors.Tensors, batches: Iterable[Iterable[_tensors.Inputs]]) -> Generator[Frame, None, None]:
    """The messages of tensors, of which those of a batch are there at the same time."""
    for batch in batches:
        yield from coder.encode_together(batch)
    yield from coder.end()


# ---- the same of async iterables ----------------------------------------------------------------------------------------


async def async_each(items: Blocks) -> AsyncGenerator[Any, None]:
    """The items of an iterable of either kind."""
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def async_paired(blocks: Blocks, upstream: Blocks | None) -> AsyncGenerator[tuple[Any, ...], None]:
    """Each block, with its gradient where there are some."""
    async with (
        contextlib.aclosing(async_each(blocks)) as each,
        contextlib.aclosing(async_each(() if upstream is None else upstream)) as gradients,
    ):
        async for block in each:
            if upstream is None:
                yield (block,)
                continue
            try:
                gradient = await anext(gradients)
            except StopAsyncIteration:
                raise InvalidRequest("there are fewer blocks of upstream than of x", field="upstream") from None
            yield block, gradient
        if await anext(gradients, None) is not None:
            raise InvalidRequest("there are more blocks of upstream than of x", field="upstream")


async def async_closed_with(items: AsyncGenerator[T, None], *iterables: Any) -> AsyncGenerator[T, None]:
    """The items, made of iterables; those that are generators are closed with this one."""
    async with contextlib.AsyncExitStack() as stack:
        for iterable in iterables:
            if isinstance(iterable, AsyncGeneratorType):
                await stack.enter_async_context(contextlib.aclosing(iterable))
            elif isinstance(iterable, GeneratorType):
                stack.enter_context(contextlib.closing(iterable))
        async for item in await stack.enter_async_context(contextlib.aclosing(items)):
            yield item


async def async_each_kept(given: AsyncGenerator[tuple[Any, ...], None]) -> AsyncGenerator[_tensors.Inputs, None]:
    """Tensors that can be sent, whose memory the caller may use again."""
    async with contextlib.aclosing(given):
        async for tensor in given:
            yield _tensors.kept(tensor)


async def async_encoded(
    coder: _tensors.Tensors, batches: AsyncGenerator[Iterable[_tensors.Inputs], None]
) -> AsyncGenerator[Frame, None]:
    """The messages of tensors, of which those of a batch are there at the same time."""
    async with contextlib.aclosing(batches):
        async for batch in batches:
            for frame in coder.encode_together(batch):
                yield frame
    for frame in coder.end():
        yield frame
