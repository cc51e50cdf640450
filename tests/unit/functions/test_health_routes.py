"""The dead-man's check: 200 while scheduled runs end well, 503 as soon as one is missed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from functions.runs.freshness import CACHE_SECONDS, LastSuccessCache, default_max_age_hours
from shared.errors import DatabaseUnavailableError
from shared.run_repository import EndedRun, LastSuccess
from shared.schedule import Schedule
from tests.unit.clock import ManualClock
from tests.unit.functions.http_function import NOW, Function, problem_in

PATH = "/health/last-run"
RUN = {"scheduled_for": "2026-11-22T02:00:00+00:00", "finished_at": "2026-11-22T02:00:04+00:00", "status": "partial"}


def ended(
    function: Function, *, hours_ago: float, status: str = "success", paused_at: str | None = None
) -> dict[str, Any]:
    """A scheduled run that ended then, by the clock of the database, which is an hour ahead of this machine's."""
    clock = NOW + timedelta(hours=1)
    found = RUN | {"finished_at": (clock - timedelta(hours=hours_ago)).isoformat(), "status": status}
    answer = {"clock": clock.isoformat(), "run": found, "paused_at": paused_at}
    function.sql.answers["scheduler_last_success"] = answer
    return found


@pytest.mark.parametrize("status", ["success", "partial"])
async def test_only_a_run_that_ended_well_is_200(function: Function, status: str) -> None:
    ended(function, hours_ago=25, status=status)
    problem = problem_in(await Function().http.get(PATH), 503, "last_run_missing")
    assert "in the last 26 hours, found none at all" in problem["detail"]
    response = await function.http.get(PATH)
    assert response.status_code == 200
    assert response.json() == {
        "status": "ok",
        "max_age_hours": 26,
        "scheduled_for": "2026-11-22T02:00:00Z",
        "finished_at": "2026-11-22T02:00:30Z",
        "run_status": status,
    }


@pytest.mark.parametrize(
    ("max_age_hours", "hours_ago", "status"),
    [
        *((None, 25.999, 200), (None, 26.001, 503), (None, 2400, 503)),
        *(("1", 5, 503), ("4.9", 5, 503), ("5.1", 5, 200), ("8784", 5, 200), ("0.001", 5, 503), ("1e2", 5, 200)),
    ],
)
async def test_a_run_is_missed_after_the_default_or_requested_age(
    function: Function, max_age_hours: str | None, hours_ago: float, status: int
) -> None:
    found = ended(function, hours_ago=hours_ago)
    params = {} if max_age_hours is None else {"max_age_hours": max_age_hours}
    response = await function.http.get(PATH, params=params)
    assert (await function.http.head(PATH, params=params)).status_code == response.status_code == status
    if status == 200:
        assert response.json()["max_age_hours"] == float(max_age_hours or 26)
    else:
        assert found["finished_at"] in problem_in(response, 503, "last_run_missing")["detail"]


async def test_in_a_pause_the_code_says_so_once_a_run_is_missed() -> None:
    recent, missed = Function(), Function()
    for function, hours_ago in ((recent, 25), (missed, 27)):
        ended(function, hours_ago=hours_ago, paused_at="2026-11-22T02:30:00+00:00")
    assert (await recent.http.get(PATH)).status_code == 200
    problem = problem_in(await missed.http.get(PATH), 503, "paused")
    assert problem["detail"].endswith("T00:00:30+00:00; paused since 2026-11-22T02:30:00+00:00")


@pytest.mark.parametrize(
    ("expression", "zone", "now", "hours"),
    [
        ("0 2 * * *", "UTC", "2026-11-23T02:00:00+00:00", 26),
        ("*/5 * * * *", "UTC", "2026-11-23T12:31:00+00:00", 2 + 5 / 60),
        ("0 2 1 * *", "UTC", "2026-11-25T12:00:00+00:00", 31 * 24 + 2),
        # Workdays. 23 November 2026 is a Monday.
        ("0 2 * * 1-5", "UTC", "2026-11-27T12:00:00+00:00", 3 * 24 + 2),  # Friday: silent until Monday
        ("0 2 * * 1-5", "UTC", "2026-11-23T02:00:01+00:00", 3 * 24 + 2),  # Monday: its own run is still under way
        ("0 2 * * 1-5", "UTC", "2026-11-24T02:00:01+00:00", 26),
        # Berlin's clock changes: days of 25 and of 23 hours.
        ("0 2 * * *", "Europe/Berlin", "2026-10-25T12:00:00+00:00", 27),
        ("0 4 * * *", "Europe/Berlin", "2026-03-29T12:00:00+00:00", 26),
    ],
)
def test_the_default_age_is_the_longer_gap_and_two_hours(expression: str, zone: str, now: str, hours: float) -> None:
    schedule = Schedule(expression, ZoneInfo(zone))
    assert default_max_age_hours(schedule, datetime.fromisoformat(now)) == pytest.approx(hours)


class LastRunInTheDatabase:
    """What the database returns, one step of the event loop later."""

    def __init__(self) -> None:
        self.reads = 0
        self.found: LastSuccess | Exception = LastSuccess(NOW, EndedRun.model_validate(RUN))

    async def read(self) -> LastSuccess:
        self.reads += 1
        await asyncio.sleep(0)
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


async def test_an_answer_or_error_is_cached_for_half_a_minute(clock: ManualClock) -> None:
    """Meanwhile the database's time continues. An error replaces what was known, and its traceback does not grow."""
    database, last_success = LastRunInTheDatabase(), LastSuccessCache(clock)
    for found in (database.found, LastSuccess(NOW + timedelta(minutes=1), None)):
        database.found = found
        assert await last_success.get(database.read) == found
        clock.advance(CACHE_SECONDS - 0.5)
        later = await last_success.get(database.read)
        assert found == replace(later, now=later.now - timedelta(seconds=CACHE_SECONDS - 0.5))
        clock.advance(0.5)
    database.found = DatabaseUnavailableError("away")
    lengths: set[int] = set()
    for _ in range(4):
        with pytest.raises(DatabaseUnavailableError) as caught:
            await last_success.get(database.read)
        lengths.add(len(caught.traceback))
    assert (database.reads, len(lengths)) == (3, 1)
    database.found = found
    clock.advance(CACHE_SECONDS)
    assert await last_success.get(database.read) == found


async def test_of_callers_at_once_only_one_asks_the_database(clock: ManualClock) -> None:
    database, last_success = LastRunInTheDatabase(), LastSuccessCache(clock)
    leaves, *others = (asyncio.create_task(last_success.get(database.read)) for _ in range(50))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await asyncio.gather(*others) == [database.found] * 49
    assert database.reads == 2, "the one that left, and one of the others"
