"""Dead-man's check: when did a scheduled run last end well?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

from shared.errors import DatabaseError
from shared.run_repository import LastSuccess
from shared.schedule import MINUTE, Schedule

# The endpoint is public, so the database is queried at most this often, also while it does not answer.
CACHE_SECONDS = 30.0
# How long a run may take before it counts as missed.
GRACE = timedelta(hours=2)


def default_max_age_hours(schedule: Schedule, now: datetime) -> float:
    """Returns the longer of the gaps before and after the current slot, plus two hours: 26 for a daily schedule.

    Both gaps: on a Monday, a schedule of workdays has been silent since Friday.
    """
    current, following = schedule.current_and_next(now)
    previous, _ = schedule.current_and_next(current - MINUTE)
    return (max(following - current, current - previous) + GRACE) / timedelta(hours=1)


class LastSuccessCache:
    """The last successful run, cached for half a minute.

    Args:
        clock: monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read: tuple[float, LastSuccess | DatabaseError] | None = None

    async def get(self, read: Callable[[], Awaitable[LastSuccess]]) -> LastSuccess:
        """Returns the last successful run and the database's current time.

        Args:
            read: queries the database.

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
