"""How many calls may be in flight: as many as the engine bears.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Permit:
    """Leave for one call; `overloaded` is set by whoever learns that the call met an overload."""

    generation: int
    overloaded: bool = False


class _Turn(NamedTuple):
    came: asyncio.Future[None]
    alone: bool


class ConcurrencyLimiter:
    """Lets at most `limit` holders in at a time, first come first served; one who asks for it is let in alone.

    An overload halves the limit, once for all calls that were in flight together; every `limit` calls that went well
    raise it by one, up to the maximum.

    Args:
        maximum: the limit to start from and to recover to.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._limit = maximum
        self._in_flight = 0
        self._is_taken_alone = False
        self._waiting: deque[_Turn] = deque()
        self._generation = 0
        self._went_well = 0

    @property
    def limit(self) -> int:
        """The current limit."""
        return self._limit

    @asynccontextmanager
    async def permit(self, *, alone: bool = False) -> AsyncIterator[Permit]:
        """Waits for its turn and holds a place until the block ends; `alone`: all the places there are."""
        await self._enter(alone)
        permit = Permit(self._generation)
        completed = False
        try:
            yield permit
            completed = True
        finally:
            self._leave()
            if permit.overloaded:
                self._slow_down(permit.generation)
            elif completed:
                self._speed_up()
            self._admit()

    async def _enter(self, alone: bool) -> None:
        if not self._waiting and self._has_room(alone):
            self._take(alone)
            return
        turn = _Turn(asyncio.get_running_loop().create_future(), alone)
        self._waiting.append(turn)
        try:
            await turn.came
        except asyncio.CancelledError:
            if turn.came.done() and not turn.came.cancelled():
                # The place was given to us just before we were cancelled.
                self._leave()
            # Hand it on; and whoever waited for one who was to be alone waits no longer.
            self._admit()
            raise

    def _has_room(self, alone: bool) -> bool:
        return self._in_flight < (1 if alone else self._limit) and not self._is_taken_alone

    def _take(self, alone: bool) -> None:
        self._in_flight += 1
        self._is_taken_alone = alone

    def _leave(self) -> None:
        self._in_flight -= 1
        self._is_taken_alone = False

    def _admit(self) -> None:
        # The first in the queue keeps those behind it waiting: else one who is to be alone would never have its turn.
        while self._waiting and (self._waiting[0].came.done() or self._has_room(self._waiting[0].alone)):
            turn = self._waiting.popleft()
            if not turn.came.done():
                self._take(turn.alone)
                turn.came.set_result(None)

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
