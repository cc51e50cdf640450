"""How long a slice may still work, and how often it may call: one value, passed to everything that waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from shared.errors import DeadlineExceededError


class Pace:
    """Has calls begin one after the other, `seconds` apart, and the first of them so long after `now`.

    By that first wait a permit needs no memory: its holder before, killed or not, made its last call before
    `now`. A caller holds `turn` while it waits for `next_at`, and sets that when it calls.
    """

    def __init__(self, seconds: float, now: float) -> None:
        self.seconds = seconds
        self.next_at = now + seconds
        self.turn = asyncio.Lock()
        self.waited = 0.0
        """Seconds in which a call waited for its turn, and for nothing else."""
        self.owed = 0
        """Calls that have to be made, as they belong to users who have begun and cannot be released."""


class Deadline:
    """A span of time that starts when this value is made, by a monotonic clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self._started_at = clock()
        self.pace = Pace(0, self._started_at)

    def space_calls(self, seconds: float) -> None:
        """Has the engine's calls begin so far apart from now on; 0: as they come."""
        self.pace = Pace(seconds, self.clock())

    def may_call(self) -> bool:
        """Returns whether the turn of another call comes before the end."""
        return self.pace.next_at < self._started_at + self.seconds

    def elapsed(self) -> float:
        """Returns the seconds since the start."""
        return self.clock() - self._started_at

    def remaining(self) -> float:
        """Returns the seconds left; never negative."""
        return max(0.0, self.seconds - self.elapsed())

    async def wait_for_turn(self, not_before: float, sleep: Callable[[float], Awaitable[None]]) -> None:
        """Waits for the turn of a call, and until the clock is at `not_before`.

        Raises:
            DeadlineExceededError: that is after the end.
        """
        pace = self.pace
        # One waits, the others for it: calls whose turns were reserved would begin together after a Retry-After.
        async with pace.turn:
            while (pause := max(not_before, pace.next_at) - self.clock()) > 0:
                if pause >= self.remaining():
                    raise DeadlineExceededError("the time budget ends before the engine may be called again")
                if pace.next_at > not_before:
                    pace.waited += pause
                await sleep(pause)
