"""Reads the next item while the one before it is worked on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def read_ahead(items: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The same items in the same order, one of them in advance.

    To be closed by whoever stops before the end (`contextlib.aclosing`): an item is then still being read.

    Args:
        items: of which none is needed to make the next.

    Yields:
        The items; an error in reading one is raised in its place.
    """
    ahead = asyncio.ensure_future(_next(items))
    try:
        while (item := await ahead) is not None:
            ahead = asyncio.ensure_future(_next(items))
            yield item[0]
    finally:
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)


async def _next(items: AsyncIterator[T]) -> tuple[T] | None:
    async for item in items:
        return (item,)
    return None
