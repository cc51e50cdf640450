"""Runs steps concurrently, as one step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def side_by_side(steps: Iterable[Awaitable[T]]) -> list[T]:
    """Runs the steps side by side and answers their results in order.

    The first that fails stops the others, and its own error is raised: unlike a TaskGroup's ExceptionGroup it can be
    caught by its type, and unlike after a bare `gather` nothing goes on in the background.
    """
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
