"""The function's clock is an hour off, or is set in the middle of its work: what counts is the database's clock.

The function runs as deployed, with wall_clock.c between it and the wall clock. The clock that measures spans of time is
left alone: nobody sets that one.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.emulator.function import FunctionProcess
from tests.faults.oracle import check_promises
from tests.faults.system_packages import wall_clock_library
from tests.integration.nightly.night import Night, eventually, slot_minutes_ago
from tests.scripted_engine import Call, Proceed, Reply, Rule, rules

DAY = timedelta(days=1)
OFF_BY = pytest.mark.parametrize("hours", [1, -1], ids=["an hour ahead", "an hour behind"])
# So close to the slot, clocks that are an hour apart do not agree whether it has come.
WHEN = pytest.mark.parametrize("minutes_after", [30, -30], ids=["after the slot", "before the slot"])
SMALL = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "1",
    "ENGINE_TIMEOUT_SECONDS": "20",
}
A_LITTLE = timedelta(minutes=5)


class WallClock:
    """The wall clock of some functions of a night, so many hours ahead of everybody else's."""

    def __init__(self, night: Night, library: Path, offset: Path, hours: float) -> None:
        self._night = night
        self._library = library
        self._offset = offset
        offset.write_bytes(_seconds(hours))
        self._hours = hours

    def set(self, hours: float) -> None:
        """Put it so many hours ahead, for functions that run as for those to come."""
        # in place: they look into the file's memory
        with self._offset.open("r+b", buffering=0) as file:
            file.write(_seconds(hours))
        self._hours = hours

    def set_at_call(self, number: int, hours: float) -> Rule:
        """Sets it while the engine is at this call."""

        async def rule(call: Call, proceed: Proceed) -> Reply:
            if call.number == number:
                self.set(hours)
            return await proceed(call)

        return rule

    async def start_function(self, env: Mapping[str, str] | None = None) -> FunctionProcess:
        """An instance that goes by it."""
        function = await self._night.start_function(
            {"LD_PRELOAD": str(self._library), "WALL_CLOCK_OFFSET": str(self._offset), **(env or {})}
        )
        await self.check(function)
        return function

    async def check(self, function: FunctionProcess) -> None:
        """Wait until an instance dates its answers by it. In vain where the library was not loaded: nobody says so."""
        await eventually(lambda: self._is_shown_by(function), within=20)

    async def _is_shown_by(self, function: FunctionProcess) -> bool:
        answer = await self._night.http.get(f"{function.url}/health")
        ahead = parsedate_to_datetime(answer.headers["Date"]) - datetime.now(UTC)
        return abs(ahead - timedelta(hours=self._hours)) < A_LITTLE


def _seconds(hours: float) -> bytes:
    return struct.pack("q", round(hours * 3600))


NewClock = Callable[[float], WallClock]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    # No connection is used twice: the server closes idle ones, sometimes just when the next request sets out.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(trust_env=False, timeout=60, limits=limits) as client:
        yield client


@pytest.fixture
def new_clock(night: Night, tmp_path: Path) -> NewClock:
    library = wall_clock_library()
    numbers = itertools.count()
    return lambda hours: WallClock(night, library, tmp_path / f"clock-{next(numbers)}", hours)


async def last_run(night: Night, function: FunctionProcess, **params: Any) -> int:
    """What a monitor sees; it is remembered for half a minute, so ask a process once."""
    return (await night.http.get(f"{function.url}/health/last-run", params=params)).status_code


def due_slot(night: Night, minutes_after: int) -> datetime:
    """Moves the schedule, so that a slot of it is so many minutes ago (or ahead); answers the one that is due."""
    night.schedule, slot = slot_minutes_ago(minutes_after)
    night.slot = slot if minutes_after > 0 else slot - DAY
    return night.slot


@OFF_BY
@WHEN
async def test_a_function_whose_clock_is_off_opens_the_slot_that_is_due_once_and_no_other(
    night: Night, new_clock: NewClock, hours: int, minutes_after: int
) -> None:
    slot = due_slot(night, minutes_after)
    await night.add_mentors(100)
    function = await new_clock(hours).start_function()
    ((before,),) = await night.rows(b"select clock_timestamp()")

    by_a_name_to_come = await night.fire(function, {"scheduled_for": (slot + DAY).isoformat()})
    answers = [await night.fire(function, body) for body in ({}, {}, {"scheduled_for": slot.isoformat()})]

    assert (by_a_name_to_come.status_code, by_a_name_to_come.json()["code"]) == (422, "not_a_slot")
    (invocation,) = await night.invocations()
    assert [(answer.status_code, answer.json()["id"]) for answer in answers] == [(200, invocation["id"])] * 3
    assert [answer.json()["deduplicated"] for answer in answers] == [False, True, True]
    assert datetime.fromisoformat(invocation["scheduled_for"]) == slot
    started = datetime.fromisoformat(invocation["started_at"])
    ((after, next_due),) = await night.rows(b"select clock_timestamp(), next_due_at from scheduler.settings")
    assert before <= started <= after
    assert invocation["lateness_seconds"] == round((started - slot).total_seconds())
    assert next_due == slot + DAY
    await check_promises(night, invocation)


@WHEN
async def test_fired_at_once_where_clocks_go_right_ahead_and_behind_a_slot_is_one_run(
    night: Night, new_clock: NewClock, minutes_after: int
) -> None:
    slot = due_slot(night, minutes_after)
    await night.add_mentors(100)
    functions = await asyncio.gather(*(new_clock(hours).start_function(SMALL) for hours in (0, 1, -1)))
    for _ in range(5):
        answers = await asyncio.gather(*(night.fire(function) for function in [*functions, *functions]))

        (invocation,) = await night.invocations()
        assert sorted(answer.json()["deduplicated"] for answer in answers) == [False] + [True] * 5
        assert {answer.json()["id"] for answer in answers} == {invocation["id"]}
        assert datetime.fromisoformat(invocation["scheduled_for"]) == slot
        await check_promises(night, invocation)
        # The same slot once more: forget that it was ever fired.
        await night.execute(b"delete from public.scheduler_invocations")
        await night.project.make_slot_due()
    assert [function.restarts for function in functions] == [0, 0, 0]


async def test_a_clock_that_is_set_back_in_mid_slice_does_not_lengthen_its_time_budget(
    night: Night, new_clock: NewClock
) -> None:
    await night.add_mentors(200)
    clock = new_clock(0)
    night.engine.rules += [clock.set_at_call(2, -1), rules.slow(None, 0.3)]
    function = await clock.start_function(SMALL | {"TIME_BUDGET_SECONDS": "1", "ENGINE_TIMEOUT_SECONDS": "0.9"})

    answer = await night.fire(function)

    await clock.check(function)
    assert answer.status_code == 202
    assert answer.json()["counts"]["batches_done"] < 20
    hidden = await night.rows(b"select 1 from pgmq.q_scenario_evaluation_batches where vt > clock_timestamp()")
    assert hidden == [], "kept what it could not finish"


async def test_a_clock_that_is_set_forward_in_mid_slice_takes_no_time_from_it(
    night: Night, new_clock: NewClock
) -> None:
    await night.add_mentors(100)
    clock = new_clock(0)
    night.engine.rules.append(clock.set_at_call(2, 1))
    function = await clock.start_function(SMALL)

    answer = await night.fire(function)

    await clock.check(function)
    assert answer.status_code == 200
    assert len(night.engine.calls) == 10, "a call was given up and repeated"
    await check_promises(night, answer.json())


@OFF_BY
async def test_the_dead_mans_check_counts_by_the_databases_clock(night: Night, new_clock: NewClock, hours: int) -> None:
    await night.add_mentors(10)
    clock = new_clock(hours)
    function = await clock.start_function()
    await night.fire(function)

    assert await last_run(night, function, max_age_hours=0.5) == 200
    await night.execute(b"update public.scheduler_invocations set finished_at = now() - interval '40 minutes'")
    assert await last_run(night, await clock.start_function(), max_age_hours=0.5) == 503


async def test_where_an_engine_names_the_time_to_come_back_a_clock_that_is_behind_does_not_wait_for_an_hour(
    night: Night, new_clock: NewClock
) -> None:
    await night.add_mentors(30)
    now = datetime.now(UTC)
    headers = {
        "date": format_datetime(now, usegmt=True),
        "retry-after": format_datetime(now + timedelta(seconds=1), usegmt=True),
    }
    night.engine.rules.append(rules.only(rules.first(1), rules.respond(503, headers=headers)))
    function = await new_clock(-1).start_function(SMALL)

    answer = await night.fire(function)

    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    await check_promises(night, answer.json())
