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

from cronsim import CronSim, CronSimError

MINUTE = timedelta(minutes=1)
MOST_MISSED = 100
# The database's clock looks every minute and the function may have to start: so long a slot is not missed but due.
MISSED_AFTER = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron expression of five fields in a time zone; raises `CronSimError` for a text that is none."""

    expression: str
    timezone: ZoneInfo

    def __post_init__(self) -> None:
        CronSim(self.expression, datetime.now(self.timezone))

    def __str__(self) -> str:
        return " ".join([*self.expression.split(), self.timezone.key])

    def current_and_next(self, now: datetime) -> tuple[datetime, datetime]:
        """Returns the latest fire time at or before an aware time and the earliest one after it, both in UTC."""
        return _current_and_next(self, to_slot(now))

    def between(self, after: datetime, before: datetime) -> Iterator[datetime]:
        """Yields the fire times between two aware times, both excluded, in UTC, the latest first."""
        slot = self.current_and_next(before - MINUTE if before == to_slot(before) else before)[0]
        while slot > after:
            yield slot
            slot = self.current_and_next(slot - MINUTE)[0]

    def starting_at(self, moment: datetime) -> Iterator[datetime]:
        """Yields the fire times at or after an aware time, in UTC, the earliest first."""
        slot = moment - timedelta(microseconds=1)
        while True:
            slot = self.current_and_next(slot)[1]
            yield slot


# Many rows have the same schedule, and are shown at the same time.
@lru_cache(maxsize=4096)
def _current_and_next(schedule: Schedule, slot: datetime) -> tuple[datetime, datetime]:
    # In steps of UTC: adding to a local time would be wrong in the hour that occurs twice.
    just_after = (slot + MINUTE).astimezone(schedule.timezone)
    current = next(CronSim(schedule.expression, just_after, reverse=True))
    following = next(CronSim(schedule.expression, current))
    while following <= slot:
        current, following = following, next(CronSim(schedule.expression, following))
    return current.astimezone(UTC), following.astimezone(UTC)


def cron_expression(text: str) -> str:
    """Returns the text if it is a cron expression that fires; raises ValueError with what was expected and found."""
    problem = ""
    try:
        if len(text.split()) == 5:
            Schedule(text, ZoneInfo("UTC")).current_and_next(datetime.now(UTC))
            return text
    except CronSimError as error:
        problem = f": {error}"
    except StopIteration:
        # In 50 years before or after now, which is how far the parser looks.
        problem = ": it never fires"
    raise ValueError(f"expected a cron expression of five fields, found {text!r}{problem}")


def to_slot(moment: datetime) -> datetime:
    """Cuts an aware time to its UTC minute."""
    return moment.astimezone(UTC).replace(second=0, microsecond=0)


@dataclass(frozen=True, slots=True)
class UsedSlot:
    """A slot that an invocation was opened for, deleted or not; with the schedule and zone in force if recorded."""

    scheduled_for: datetime
    schedule: tuple[str, str] | None


def missed_slots(used: Sequence[UsedSlot], *, current: tuple[str, str], now: datetime | None) -> list[datetime]:
    """Returns the slots between the used ones for which there is no run, in UTC, the latest first as in `used`.

    Each is computed by the schedule of its neighbours; where theirs differ, no slot is returned.

    Args:
        current: the schedule and its time zone now.
        now: also those since the latest of `used`, up to a few minutes before this aware time; None: not those.
    """
    ends = [*([UsedSlot(now - MISSED_AFTER, current)] if now is not None else []), *used]
    found: list[datetime] = []
    for newer, older in pairwise(ends):
        if older.schedule is not None and older.schedule == newer.schedule:
            schedule = Schedule(older.schedule[0], ZoneInfo(older.schedule[1]))
            slots = schedule.between(older.scheduled_for, newer.scheduled_for)
            found += islice(slots, MOST_MISSED - len(found))
    return found
