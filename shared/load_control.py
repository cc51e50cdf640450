"""How many calls may be in flight: as many as the engine bears.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Permit:
    """Leave for one call; `overloaded` is set by whoever learns that the call met an overload."""

    generation: int
    overloaded: bool = False


class ConcurrencyLimiter:
    """Lets at most `limit` holders in at a time, first come first served.

    An overload halves the limit, once for all calls that were in flight together; every `limit` calls that went well
    raise it by one, up to the maximum.

    Args:
        maximum: the limit to start from and to recover to.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._limit = maximum
        self._in_flight = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._generation = 0
        self._went_well = 0

    @property
    def limit(self) -> int:
        """The current limit."""
        return self._limit

    @asynccontextmanager
    async def permit(self) -> AsyncIterator[Permit]:
        """Waits for its turn and holds a place until the block ends."""
        await self._enter()
        permit = Permit(self._generation)
        completed = False
        try:
            yield permit
            completed = True
        finally:
            self._in_flight -= 1
            if permit.overloaded:
                self._slow_down(permit.generation)
            elif completed:
                self._speed_up()
            self._admit()

    async def _enter(self) -> None:
        if self._in_flight < self._limit and not self._waiting:
            self._in_flight += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # The place was given to us just before we were cancelled: hand it on.
                self._in_flight -= 1
                self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._in_flight < self._limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self._in_flight += 1
                turn.set_result(None)

    def _slow_down(self, generation: int) -> None:
        if generation != self._generation:
            return  # it started before the last halving: the same overload, seen again
        self._generation += 1
        self._went_well = 0
        self._limit = max(1, self._limit // 2)

    def _speed_up(self) -> None:
        self._went_well += 1
        if self._went_well >= self._limit:
            self._went_well = 0
            self._limit = min(self._maximum, self._limit + 1)
