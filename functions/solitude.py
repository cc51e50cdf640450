"""Who shares this process with whom: what may kill it is worked on alone, and nobody else is charged with its death."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from shared.errors import OutOfTimeError
from shared.time_budget import TimeBudget


class Solitude:
    """Lets many in together, or one alone. Whoever waits to be alone goes before those who come to be together.

    One for a process: requests that are served at the same time die together as well.
    """

    def __init__(self) -> None:
        self._together = 0
        self._is_alone = False
        self._wishes = 0
        self._news = asyncio.Event()

    @property
    def is_wished_for(self) -> bool:
        """Whether somebody waits to be alone."""
        return self._wishes > 0

    @asynccontextmanager
    async def together(self, budget: TimeBudget) -> AsyncIterator[None]:
        """In company, once nobody is alone or waits to be.

        Raises:
            OutOfTimeError: the time budget ended before its turn.
        """
        await self._wait(lambda: not self._is_alone and not self._wishes, budget)
        self._together += 1
        try:
            yield
        finally:
            self._together -= 1
            self._tell()

    @asynccontextmanager
    async def alone(self, budget: TimeBudget) -> AsyncIterator[None]:
        """Alone, once all others are through.

        Raises:
            OutOfTimeError: the time budget ended before its turn.
        """
        self._wishes += 1
        try:
            await self._wait(lambda: not self._is_alone and not self._together, budget)
            self._is_alone = True
        finally:
            self._wishes -= 1
            self._tell()
        try:
            yield
        finally:
            self._is_alone = False
            self._tell()

    async def _wait(self, may_enter: Callable[[], bool], budget: TimeBudget) -> None:
        try:
            async with asyncio.timeout(budget.remaining()):
                while not may_enter():
                    await self._news.wait()
        except TimeoutError as error:
            raise OutOfTimeError("the time budget ended before this process was free") from error

    def _tell(self) -> None:
        """Whoever waits looks again."""
        self._news.set()
        self._news = asyncio.Event()
