"""How long a night may be missing, and how often that is asked."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from functions.last_run import CACHE_SECONDS, LastGoodRun, default_max_age_hours
from shared.errors import DatabaseUnavailableError
from shared.invocation_records import GoodRun
from shared.slots import Schedule
from tests.unit.clock import ManualClock

RUN = {"scheduled_for": "2026-11-23T02:00:00+00:00", "finished_at": "2026-11-23T02:00:04+00:00", "status": "partial"}
NOW = datetime(2026, 11, 23, 2, 10, tzinfo=UTC)
FOUND = GoodRun(NOW, RUN)


class LastRunInTheDatabase:
    """What the database answers: `asked` tells that it was asked, and each answer waits for `may_answer`."""

    def __init__(self) -> None:
        self.reads = 0
        self.found = FOUND
        self.error: Exception | None = None
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def read(self) -> GoodRun:
        self.reads += 1
        self.asked.set()
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return self.found


@pytest.fixture
def database() -> LastRunInTheDatabase:
    return LastRunInTheDatabase()


@pytest.fixture
def last_good_run(clock: ManualClock) -> LastGoodRun:
    return LastGoodRun(clock)


# How long it may be missing


@pytest.mark.parametrize(
    ("expression", "zone", "now", "hours"),
    [
        ("0 2 * * *", "UTC", "2026-11-23T12:00:00+00:00", 26),
        ("0 2 * * *", "UTC", "2026-11-23T02:00:00+00:00", 26),
        ("0 * * * *", "UTC", "2026-11-23T12:30:00+00:00", 3),
        ("*/5 * * * *", "UTC", "2026-11-23T12:31:00+00:00", 2 + 5 / 60),
        ("0 2 * * 1", "UTC", "2026-11-25T12:00:00+00:00", 7 * 24 + 2),
        ("0 2 1 * *", "UTC", "2026-11-25T12:00:00+00:00", 31 * 24 + 2),
        # Workdays. 23 November 2026 is a Monday.
        ("0 2 * * 1-5", "UTC", "2026-11-25T12:00:00+00:00", 26),
        ("0 2 * * 1-5", "UTC", "2026-11-27T12:00:00+00:00", 3 * 24 + 2),  # Friday: silent until Monday
        ("0 2 * * 1-5", "UTC", "2026-11-29T12:00:00+00:00", 3 * 24 + 2),
        ("0 2 * * 1-5", "UTC", "2026-11-23T02:00:01+00:00", 3 * 24 + 2),  # Monday: its own run is still under way
        ("0 2 * * 1-5", "UTC", "2026-11-24T02:00:01+00:00", 26),
        # The nights in which Berlin's clock changes have 25 and 23 hours.
        ("0 2 * * *", "Europe/Berlin", "2026-10-25T12:00:00+00:00", 27),
        ("0 4 * * *", "Europe/Berlin", "2026-03-29T12:00:00+00:00", 26),
    ],
)
def test_a_night_may_be_missing_for_the_longer_gap_around_now_and_two_hours(
    expression: str, zone: str, now: str, hours: float
) -> None:
    schedule = Schedule(expression, ZoneInfo(zone))
    assert default_max_age_hours(schedule, datetime.fromisoformat(now)) == pytest.approx(hours)


# How often it is asked


@pytest.mark.parametrize("run", [RUN, None])
async def test_what_was_found_is_remembered_for_half_a_minute(
    database: LastRunInTheDatabase, last_good_run: LastGoodRun, clock: ManualClock, run: dict[str, Any] | None
) -> None:
    database.found = GoodRun(NOW, run)
    assert (await last_good_run.get(database.read)).run == run
    database.found = GoodRun(NOW, {"status": "succeeded"})
    clock.advance(CACHE_SECONDS - 0.1)
    assert (await last_good_run.get(database.read)).run == run
    assert database.reads == 1
    clock.advance(0.1)
    assert (await last_good_run.get(database.read)).run == {"status": "succeeded"}
    assert database.reads == 2


async def test_time_goes_on_from_what_the_database_said_while_the_run_is_remembered(
    database: LastRunInTheDatabase, last_good_run: LastGoodRun, clock: ManualClock
) -> None:
    times: list[datetime] = []
    for _ in range(4):
        times.append((await last_good_run.get(database.read)).now)
        clock.advance(9.5)
    assert [(at - NOW).total_seconds() for at in times] == [0, 9.5, 19, 28.5]
    assert database.reads == 1
    database.found = GoodRun(NOW + timedelta(seconds=60), RUN)
    assert (await last_good_run.get(database.read)).now == NOW + timedelta(seconds=60)


async def test_a_database_that_is_away_is_asked_no_more_often(
    database: LastRunInTheDatabase, last_good_run: LastGoodRun, clock: ManualClock
) -> None:
    database.error = DatabaseUnavailableError("away")
    for _ in range(5):
        with pytest.raises(DatabaseUnavailableError):
            await last_good_run.get(database.read)
    assert database.reads == 1
    database.error = None
    clock.advance(CACHE_SECONDS)
    assert await last_good_run.get(database.read) == FOUND


async def test_what_was_known_before_an_outage_is_not_told_during_it(
    database: LastRunInTheDatabase, last_good_run: LastGoodRun, clock: ManualClock
) -> None:
    await last_good_run.get(database.read)
    clock.advance(CACHE_SECONDS)
    database.error = DatabaseUnavailableError("away")
    with pytest.raises(DatabaseUnavailableError):
        await last_good_run.get(database.read)


async def test_an_error_told_again_and_again_does_not_grow(
    database: LastRunInTheDatabase, last_good_run: LastGoodRun
) -> None:
    database.error = DatabaseUnavailableError("away")
    lengths: list[int] = []
    for _ in range(4):
        with pytest.raises(DatabaseUnavailableError) as caught:
            await last_good_run.get(database.read)
        lengths.append(len(caught.traceback))
    assert len(set(lengths)) == 1


async def test_a_defect_of_ours_is_not_remembered(database: LastRunInTheDatabase, last_good_run: LastGoodRun) -> None:
    database.error = LookupError("ours")
    with pytest.raises(LookupError):
        await last_good_run.get(database.read)
    database.error = None
    assert await last_good_run.get(database.read) == FOUND


async def test_however_many_ask_at_once_the_database_is_asked_once(
    database: LastRunInTheDatabase, last_good_run: LastGoodRun
) -> None:
    database.may_answer.clear()
    asking = [asyncio.create_task(last_good_run.get(database.read)) for _ in range(50)]
    await database.asked.wait()
    database.may_answer.set()
    assert await asyncio.gather(*asking) == [FOUND] * 50
    assert database.reads == 1


async def test_whoever_leaves_while_asking_keeps_nobody_waiting(
    database: LastRunInTheDatabase, last_good_run: LastGoodRun
) -> None:
    database.may_answer.clear()
    first, second = (asyncio.create_task(last_good_run.get(database.read)) for _ in range(2))
    await database.asked.wait()
    first.cancel()
    database.may_answer.set()
    assert await second == FOUND
