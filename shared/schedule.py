"""Slots: the fire times of the schedule, in UTC, whole minutes.

A slot names an invocation, so every process computes the same one at any time. Daylight saving follows Debian's cron,
which `cronsim` implements: a job at a fixed local time runs once on a day on which the clock changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from cronsim import CronSim

MINUTE = timedelta(minutes=1)
MOST_MISSED = 100
# The database's clock looks every minute and the function may have to start: so long a slot is not missed but due.
MISSED_AFTER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression of five fields in a time zone.

    Args:
        expression: minute, hour, day of month, month, day of week.
        timezone: the zone in which the expression is meant.

    Raises:
        cronsim.CronSimError: the expression is not one.
    """

    expression: str
    timezone: ZoneInfo

    def __post_init__(self) -> None:
        CronSim(self.expression, datetime.now(self.timezone))

    def current_and_next(self, now: datetime) -> tuple[datetime, datetime]:
        """Returns the current slot and the one after it.

        Args:
            now: an aware time.

        Returns:
            The latest fire time at or before `now` and the earliest one after it, both in UTC.
        """
        minute = now.astimezone(self.timezone).replace(second=0, microsecond=0)
        # Iterated in UTC steps: adding to a local time would be wrong in the hour that occurs twice.
        just_after = (minute.astimezone(UTC) + MINUTE).astimezone(self.timezone)
        current = next(CronSim(self.expression, just_after, reverse=True))
        following = next(CronSim(self.expression, current))
        while following <= now:
            current, following = following, next(CronSim(self.expression, following))
        return current.astimezone(UTC), following.astimezone(UTC)

    def between(self, after: datetime, before: datetime) -> Iterator[datetime]:
        """Yields the fire times between two aware times, both excluded, in UTC, the latest first."""
        slot = self.current_and_next(before - MINUTE if before == to_slot(before) else before)[0]
        while slot > after:
            yield slot
            slot = self.current_and_next(slot - MINUTE)[0]


def to_slot(moment: datetime) -> datetime:
    """Cuts an aware time to its UTC minute."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class UsedSlot:
    """A slot that an invocation was opened for, deleted or not.

    Args:
        scheduled_for: the slot.
        schedule: the schedule and its time zone that were in force; None where that was not recorded.
    """

    scheduled_for: datetime
    schedule: tuple[str, str] | None


def missed_slots(used: Sequence[UsedSlot], *, current: tuple[str, str], now: datetime | None) -> list[datetime]:
    """Returns the slots between the used ones, and those since, for which there is no run.

    Each is computed by the schedule of its neighbours; where theirs differ, no slot is returned.

    Args:
        used: the latest first.
        current: the schedule and its time zone now.
        now: also those since the latest of `used`, up to a few minutes before this aware time; None: not those.

    Returns:
        The missed slots in UTC, the latest first, at most `MOST_MISSED`.
    """
    ends = [*([UsedSlot(now - MISSED_AFTER, current)] if now is not None else []), *used]
    found = (
        slot
        for newer, older in pairwise(ends)
        if older.schedule is not None and older.schedule == newer.schedule
        for slot in _schedule(*older.schedule).between(older.scheduled_for, newer.scheduled_for)
    )
    return list(islice(found, MOST_MISSED))


@lru_cache(maxsize=16)
def _schedule(expression: str, timezone: str) -> Schedule:
    return Schedule(expression, ZoneInfo(timezone))
