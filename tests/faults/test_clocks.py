"""The function's clock is an hour off, or is set in mid-work: what counts is the database's clock.

The function runs as deployed, with wall_clock.c between it and the wall clock. The monotonic clock is left alone.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path

import pytest

from tests.emulator.function import FunctionProcess
from tests.faults.oracle import check_success
from tests.faults.settings import batches_of
from tests.faults.system_packages import wall_clock_library
from tests.integration.scheduled_runs.harness import Harness, eventually, slot_minutes_ago
from tests.scripted_engine import Call, Proceed, Reply, rules

DAY = timedelta(days=1)
SMALL = batches_of(10, engine_max_concurrency=1, engine_timeout_seconds=20)


class WallClock:
    """A wall clock that is so many hours ahead, for a function that is started with its `env`."""

    def __init__(self, offset: Path, hours: int) -> None:
        self.env = {"LD_PRELOAD": str(wall_clock_library()), "WALL_CLOCK_OFFSET": str(offset)}
        self._offset = offset
        offset.write_bytes(_seconds(hours))

    def set(self, hours: int) -> None:
        # in place: the function has mapped the file
        with self._offset.open("r+b", buffering=0) as file:
            file.write(_seconds(hours))


def _seconds(hours: int) -> bytes:
    return struct.pack("q", hours * 3600)


async def until_hours_ahead(harness: Harness, function: FunctionProcess, hours: int) -> None:
    """Until answers are dated so. Never, where the library was not loaded."""

    async def look() -> bool:
        answer = await harness.http.get(f"{function.url}/health")
        return round((parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)) / timedelta(hours=1)) == hours

    await eventually(look, within=20)


@pytest.mark.parametrize(
    ("hours", "minutes_after"), [(1, -30), (-1, 30)], ids=["ahead before the slot", "behind after the slot"]
)
async def test_the_databases_clock_says_what_is_due(
    harness: Harness, tmp_path: Path, hours: int, minutes_after: int
) -> None:
    """By the function's clock another slot would be due; nor is the engine's time to come back read by it."""
    harness.schedule, slot = slot_minutes_ago(minutes_after)
    harness.slot = slot if minutes_after > 0 else slot - DAY
    await harness.add_mentors(30)
    now = datetime.now(UTC)
    back_in_a_second = {
        "date": format_datetime(now, usegmt=True),
        "retry-after": format_datetime(now + timedelta(seconds=1), usegmt=True),
    }
    harness.engine.rules.append(rules.only(rules.first(1), rules.respond(503, headers=back_in_a_second)))
    function = await harness.start_function(SMALL | WallClock(tmp_path / "clock", hours).env)
    await until_hours_ahead(harness, function, hours)

    not_due = await harness.fire(function, {"scheduled_for": (harness.slot + DAY).isoformat()})
    answers = [await harness.fire(function, body) for body in ({}, {"scheduled_for": harness.slot.isoformat()})]
    last_run = await harness.http.get(f"{function.url}/health/last-run", params={"max_age_hours": 0.5})

    assert (not_due.status_code, not_due.json()["code"]) == (422, "not_a_slot")
    (invocation,) = await harness.invocations()
    assert [(answer.status_code, answer.json()["id"]) for answer in answers] == [(200, invocation["id"])] * 2
    assert [answer.json()["deduplicated"] for answer in answers] == [False, True]
    assert datetime.fromisoformat(invocation["scheduled_for"]) == harness.slot
    started = datetime.fromisoformat(invocation["started_at"])
    assert invocation["lateness_seconds"] == round((started - harness.slot).total_seconds())
    assert abs(started - datetime.now(UTC)) < timedelta(minutes=10)
    assert await harness.rows(b"select next_due_at from scheduler.settings") == [(harness.slot + DAY,)]
    assert last_run.status_code == 200
    await check_success(harness, invocation)


async def test_a_clock_set_in_mid_slice_gives_up_no_call(harness: Harness, tmp_path: Path) -> None:
    await harness.add_mentors(100)
    clock = WallClock(tmp_path / "clock", 0)

    async def set_clock(call: Call, proceed: Proceed) -> Reply:
        if call.number in (2, 5):
            clock.set(1 if call.number == 2 else -1)
        return await proceed(call)

    harness.engine.rules.append(set_clock)
    function = await harness.start_function(SMALL | clock.env)

    invocation = await harness.run(function)

    await until_hours_ahead(harness, function, -1)
    assert len(harness.engine.calls) == 10, "a call was given up and repeated"
    await check_success(harness, invocation)
