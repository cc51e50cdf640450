"""Dead-man's check: when did a scheduled run last end well?"""

from __future__ import annotations

import asyncio
import math
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
    """The last successful run, or the error of reading it, cached for half a minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read_at = -math.inf
        self._answer: LastSuccess | DatabaseError

    async def get(self, read: Callable[[], Awaitable[LastSuccess]]) -> LastSuccess:
        """Returns the last successful run and the database's current time; raises DatabaseError where `read` did."""
        async with self._reading:
            if self._clock() - self._read_at >= CACHE_SECONDS:
                try:
                    self._answer = await read()
                except DatabaseError as error:
                    self._answer = error
                self._read_at = self._clock()
            if isinstance(self._answer, DatabaseError):
                raise self._answer.with_traceback(None)
            return replace(self._answer, now=self._answer.now + timedelta(seconds=self._clock() - self._read_at))
