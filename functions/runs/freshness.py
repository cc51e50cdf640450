"""The dead-man's check: when did a night last go well? For a monitor outside: the dead do not call for help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

from shared.errors import DatabaseError
from shared.run_repository import LastSuccess
from shared.schedule import MINUTE, Schedule

# Anybody may ask, so the database is asked at most this often, also when it does not answer.
CACHE_SECONDS = 30.0
# How long a night may take before it is missed.
GRACE = timedelta(hours=2)


def default_max_age_hours(schedule: Schedule, now: datetime) -> float:
    """The longer of the gaps before and after the current slot, and two hours: 26 for a nightly schedule.

    Both gaps, because on a Monday morning a schedule of workdays has been silent since Friday.
    """
    current, following = schedule.current_and_next(now)
    previous, _ = schedule.current_and_next(current - MINUTE)
    return (max(following - current, current - previous) + GRACE) / timedelta(hours=1)


class LastSuccessCache:
    """The last good run, remembered for half a minute.

    Args:
        clock: monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read: tuple[float, LastSuccess | DatabaseError] | None = None

    async def get(self, read: Callable[[], Awaitable[LastSuccess]]) -> LastSuccess:
        """The last good run, and the time: what is remembered of the run does not hold up the clock.

        Args:
            read: asks the database.

        Raises:
            DatabaseError: it did not answer, now or less than half a minute ago.
        """
        async with self._reading:
            if self._read is None or self._clock() - self._read[0] >= CACHE_SECONDS:
                answer: LastSuccess | DatabaseError
                try:
                    answer = await read()
                except DatabaseError as error:
                    answer = error
                self._read = self._clock(), answer
            read_at, answer = self._read
            if isinstance(answer, DatabaseError):
                raise answer.with_traceback(None)
            return replace(answer, now=answer.now + timedelta(seconds=self._clock() - read_at))
