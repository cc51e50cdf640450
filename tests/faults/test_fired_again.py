"""Fired again, at the same instant or after the fact: one slot, one run, however it is fired and how often."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tests.faults.oracle import check_success
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

# A hundred batches: more than twenty slices take in hand, so that no process is left without.
SMALL = batches_of(4, engine_max_concurrency=2, engine_timeout_seconds=20, max_workers=2)


def ways_to_fire(harness: Harness) -> list[dict[str, Any]]:
    """Without a name, by name, to the second, in another time zone, and as Cloud Scheduler does."""
    in_oslo = f"{harness.slot + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}+01:00"
    return [
        {},
        {"body": {"scheduled_for": harness.slot.isoformat()}},
        {"body": {"scheduled_for": harness.slot.replace(second=42).isoformat()}},
        {"body": {"scheduled_for": in_oslo}},
        {"headers": {"X-CloudScheduler-ScheduleTime": harness.slot.isoformat()}},
    ]


async def test_a_slot_fired_in_every_way_is_one_run(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(400)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.hold_until(gate))
    functions = await asyncio.gather(*(harness.start_function(SMALL) for _ in range(2)))
    await time_control.start()

    fires = [
        asyncio.create_task(harness.fire(functions[number % 2], **ways_to_fire(harness)[number % 5]))
        for number in range(20)
    ]
    # Two calls in flight in each process: none waits for another to be through.
    await harness.engine.until(lambda engine: engine.in_flight == 4)
    await asyncio.gather(time_control.tick(), time_control.tick())
    gate.set()
    answers = [answer.json() for answer in await asyncio.gather(*fires)]
    await time_control.until_quiet()

    (invocation,) = await harness.invocations()
    assert {answer["id"] for answer in answers} == {invocation["id"]}
    assert sorted(answer["deduplicated"] for answer in answers) == [False] + [True] * 19
    assert await harness.rows(b"select from scheduler.dispatches"), "dispatch was not among those that fired"
    assert max(harness.engine.keys_seen.values()) == 1
    await check_success(harness, invocation)

    calls = len(harness.engine.calls)
    for way in ways_to_fire(harness):
        again = (await harness.fire(functions[0], **way)).json()
        assert (again["id"], again["status"], again["deduplicated"]) == (invocation["id"], "success", True)
    # Hidden from callers first, and then its rows are gone.
    assert (await Caller(harness, functions[0]).delete(invocation["id"])).status_code == 204
    for _ in range(2):
        for way in ways_to_fire(harness):
            answer = await harness.fire(functions[1], **way)
            assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
        await time_control.tick_and_wait()
        await harness.execute(b"delete from public.scheduler_invocations")
    assert await harness.invocations() == []
    assert len(harness.engine.calls) == calls
