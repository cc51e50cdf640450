"""Which slots no run was opened for: the gaps that a list of runs cannot show by itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

from shared.invocation_records import SpentSlot
from shared.slots import Schedule

MOST_MISSED = 100
# The database's clock looks every minute and the function may have to start: so long a slot is not missed but due.
GRACE = timedelta(minutes=5)


def missed_slots(spent: Sequence[SpentSlot], *, in_force: tuple[str, str], now: datetime | None) -> list[datetime]:
    """The slots between those that were spent, and those since, for which there is no run.

    Each is judged by the schedule of its neighbours. Where theirs differ, somebody changed it in between, nobody knows
    when, and nothing is claimed.

    Args:
        spent: the latest first.
        in_force: the schedule and its time zone now.
        now: also those since the latest of `spent`, up to a few minutes before this aware time; None: not those.

    Returns:
        The missed slots in UTC, the latest first, at most `MOST_MISSED`.
    """
    ends = [*([SpentSlot(now - GRACE, in_force)] if now is not None else []), *spent]
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
