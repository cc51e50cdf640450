"""How many calls may be in flight: as many as the engine bears.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self


class Permit:
    """Leave for one call, for as long as the block runs; `overloaded` is set by the caller whose call met an overload.

    A class, not a generator's context manager: there is one for each call, and that costs a third of this.
    """

    __slots__ = ("_generation", "_limiter", "overloaded")

    def __init__(self, limiter: AdaptiveLimiter) -> None:
        self._limiter = limiter
        self._generation = 0
        self.overloaded = False

    async def __aenter__(self) -> Self:
        limiter = self._limiter
        if not limiter.enter_at_once():
            await limiter.enter_in_turn()
        self._generation = limiter.generation
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        overload_of = self._generation if self.overloaded else None
        self._limiter.leave(overload_of=overload_of, succeeded=kind is None)


class AdaptiveLimiter:
    """Lets at most `limit` holders in at a time, first come first served.

    An overload halves the limit, once for all calls that were in flight together; every `limit` calls that went well
    raise it by one, up to the maximum.

    Args:
        maximum: the limit to start from and to recover to.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.workers = asyncio.Semaphore(maximum)
        """For tasks that make many calls, one after the other."""
        self.limit = maximum
        """The current limit."""
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.generation = 0
        """Counts the halvings: a call that started before the last one says nothing new."""
        self._succeeded = 0

    def permit(self) -> Permit:
        """Returns a place, waited for in turn and held until the block ends."""
        return Permit(self)

    def enter_at_once(self) -> bool:
        """Takes a place if there is one and no other holder waits for it."""
        if self._waiting or self._in_flight >= self.limit:
            return False
        self._in_flight += 1
        return True

    async def enter_in_turn(self) -> None:
        """Waits for a place and takes it."""
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

    def leave(self, *, overload_of: int | None, succeeded: bool) -> None:
        """Gives a place back.

        Args:
            overload_of: the generation of a call that met an overload; None: it met none.
            succeeded: it came to its end.
        """
        self._in_flight -= 1
        if overload_of is not None:
            self._slow_down(overload_of)
        elif succeeded:
            self._speed_up()
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)

    def _slow_down(self, generation: int) -> None:
        if generation != self.generation:
            return  # it started before the last halving: the same overload, seen again
        self.generation += 1
        self._succeeded = 0
        self.limit = max(1, self.limit // 2)

    def _speed_up(self) -> None:
        self._succeeded += 1
        if self._succeeded >= self.limit:
            self._succeeded = 0
            self.limit = min(self.maximum, self.limit + 1)


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
