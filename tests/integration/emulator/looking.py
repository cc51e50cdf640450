"""How the emulator's tests look at what happens by itself: again and again, within a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.emulator.project import Project

Found = TypeVar("Found")


async def until(look: Callable[[], Awaitable[Found]], timeout_seconds: float = 20) -> Found:
    """The first true thing that `look` finds."""
    async with asyncio.timeout(timeout_seconds):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.01)


async def rows(project: Project, query: str, *parameters: object) -> list[tuple[object, ...]]:
    async with project.connect(superuser=True) as database:
        cursor = await database.execute(query.encode(), parameters)
        return await cursor.fetchall() if cursor.description else []
