"""The dead-man's check: when did a night last go well? For a monitor outside: the dead do not call for help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from shared.errors import DatabaseError
from shared.slots import MINUTE, Schedule

# Anybody may ask, so the database is asked at most this often, also when it does not answer.
CACHE_SECONDS = 30.0
# How long a night may take before it is missed.
GRACE = timedelta(hours=2)


def default_max_age_hours(schedule: Schedule, now: datetime) -> float:
    """The longer of the gaps before and after the current slot, and two hours: 26 for a nightly schedule.

    Both gaps, because on a Monday morning a schedule of workdays has been silent since Friday.
    """
    current, following = schedule.around(now)
    previous, _ = schedule.around(current - MINUTE)
    return (max(following - current, current - previous) + GRACE) / timedelta(hours=1)


class LastGoodRun:
    """The last good run, remembered for half a minute.

    Args:
        clock: monotonic seconds; replaced in tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read_at: float | None = None
        self._found: dict[str, Any] | None = None
        self._error: DatabaseError | None = None

    async def get(self, read: Callable[[], Awaitable[dict[str, Any] | None]]) -> dict[str, Any] | None:
        """The last good run: `scheduled_for`, `finished_at`, `status`; None: there is none.

        Args:
            read: asks the database.

        Raises:
            DatabaseError: it did not answer, now or less than half a minute ago.
        """
        async with self._reading:
            if self._read_at is None or self._clock() - self._read_at >= CACHE_SECONDS:
                self._found = self._error = None
                try:
                    self._found = await read()
                except DatabaseError as error:
                    self._error = error
                self._read_at = self._clock()
            if self._error is not None:
                raise self._error.with_traceback(None)
            return self._found
