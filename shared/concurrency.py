"""How many calls may be in flight: as many as the engine bears.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Permit:
    """A place for one call; the caller sets `overloaded` if its call met an overload."""

    overloaded: bool = False


class AdaptiveLimiter:
    """Lets at most `limit` holders in at a time, first come first served.

    An overload halves the limit, once for all calls that were in flight together; every `limit` calls that went well
    raise it by one, up to the maximum from which it started.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.limit = maximum
        self.workers = asyncio.Semaphore(maximum)
        """For tasks that make many calls, one after the other."""
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._halvings = 0
        self._succeeded = 0

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[Permit]:
        """Waits for a place in turn, and holds it until the block ends."""
        if self._in_flight >= self.limit:
            await self._wait_for_turn()
        else:
            self._in_flight += 1
        permit = Permit()
        halvings = self._halvings
        try:
            yield permit
            if not permit.overloaded:
                self._succeeded += 1
                if self._succeeded >= self.limit:
                    self._succeeded = 0
                    self.limit = min(self.maximum, self.limit + 1)
        finally:
            self._in_flight -= 1
            # A call that started before the last halving met the same overload.
            if permit.overloaded and halvings == self._halvings:
                self._halvings += 1
                self._succeeded = 0
                self.limit = max(1, self.limit // 2)
            self._admit()

    async def _wait_for_turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The place was given just before the cancellation: hand it on.
                self._in_flight -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Yields a TaskGroup that raises its first error as it is, not as an ExceptionGroup: to be caught by type."""
    first: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as failures:
        first = failures.exceptions[0]
    if first is not None:
        raise first


async def gather_or_cancel(steps: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs the steps as tasks; the first that fails cancels the others, and its error is raised."""
    async with task_group() as tasks:
        for step in steps:
            tasks.create_task(step)
