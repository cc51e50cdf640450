"""How many calls may be in flight: as many as the engine bears.

Additive increase, multiplicative decrease (Chiu and Jain, 1989), as TCP does it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import NamedTuple, Self


class Permit:
    """Leave for one call, for as long as the block runs; `overloaded` is set by whoever learns that it met an overload.

    A class, not a generator's context manager: there is one for each call, and that costs a third of this.
    """

    __slots__ = ("_alone", "_generation", "_limiter", "overloaded")

    def __init__(self, limiter: ConcurrencyLimiter, alone: bool) -> None:
        self._limiter = limiter
        self._alone = alone
        self._generation = 0
        self.overloaded = False

    async def __aenter__(self) -> Self:
        if not self._limiter.enter_at_once(self._alone):
            await self._limiter.enter_in_turn(self._alone)
        self._generation = self._limiter.generation
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        overload_of = self._generation if self.overloaded else None
        self._limiter.leave(overload_of=overload_of, went_well=kind is None)


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
        self.maximum = maximum
        self._limit = maximum
        self._in_flight = 0
        self._is_taken_alone = False
        self._waiting: deque[_Turn] = deque()
        self.generation = 0
        """Counts the halvings: a call that started before the last one tells nothing new."""
        self._went_well = 0

    @property
    def limit(self) -> int:
        """The current limit."""
        return self._limit

    def permit(self, *, alone: bool = False) -> Permit:
        """A place, waited for in turn and held until the block ends; `alone`: all the places there are."""
        return Permit(self, alone)

    def enter_at_once(self, alone: bool) -> bool:
        """Takes a place if there is one and nobody waits for it."""
        if self._waiting or not self._has_room(alone):
            return False
        self._take(alone)
        return True

    async def enter_in_turn(self, alone: bool) -> None:
        """Waits for a place and takes it."""
        turn = _Turn(asyncio.get_running_loop().create_future(), alone)
        self._waiting.append(turn)
        try:
            await turn.came
        except asyncio.CancelledError:
            if turn.came.done() and not turn.came.cancelled():
                # The place was given to us just before we were cancelled.
                self._give_up_place()
            # Hand it on; and whoever waited for one who was to be alone waits no longer.
            self._admit()
            raise

    def leave(self, *, overload_of: int | None, went_well: bool) -> None:
        """Gives a place back.

        Args:
            overload_of: the generation of a call that met an overload; None: it met none.
            went_well: it came to its end.
        """
        self._give_up_place()
        if overload_of is not None:
            self._slow_down(overload_of)
        elif went_well:
            self._speed_up()
        self._admit()

    def _has_room(self, alone: bool) -> bool:
        return self._in_flight < (1 if alone else self._limit) and not self._is_taken_alone

    def _take(self, alone: bool) -> None:
        self._in_flight += 1
        self._is_taken_alone = alone

    def _give_up_place(self) -> None:
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
        if generation != self.generation:
            return  # it started before the last halving: the same overload, seen again
        self.generation += 1
        self._went_well = 0
        self._limit = max(1, self._limit // 2)

    def _speed_up(self) -> None:
        self._went_well += 1
        if self._went_well >= self._limit:
            self._went_well = 0
            self._limit = min(self.maximum, self._limit + 1)
