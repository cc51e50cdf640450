"""Fired again, at the same instant or after the fact: one slot, one run, however it is fired and how often."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules

# A hundred batches: more than twenty slices take in hand, so that no process is left without.
SMALL = {
    "EVALUATION_BATCH_SIZE": "4",
    "ENGINE_USERS_PER_CALL": "4",
    "ENGINE_MAX_CONCURRENCY": "2",
    "ENGINE_TIMEOUT_SECONDS": "20",
    "MAX_WORKERS": "2",
}


def ways_to_fire(night: Night) -> list[dict[str, Any]]:
    """Without a name, by name, to the second, in another time zone, and as Cloud Scheduler does."""
    in_oslo = f"{night.slot + timedelta(hours=1):%Y-%m-%dT%H:%M:%S}+01:00"
    return [
        {},
        {"body": {"scheduled_for": night.slot.isoformat()}},
        {"body": {"scheduled_for": night.slot.replace(second=42).isoformat()}},
        {"body": {"scheduled_for": in_oslo}},
        {"headers": {"X-CloudScheduler-ScheduleTime": night.slot.isoformat()}},
    ]


async def test_a_slot_fired_in_every_way_is_one_run(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(400)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    functions = await asyncio.gather(*(night.start_function(SMALL) for _ in range(2)))
    await clockwork.start()

    fires = [
        asyncio.create_task(night.fire(functions[number % 2], **ways_to_fire(night)[number % 5]))
        for number in range(20)
    ]
    # Two calls in flight in each process: none waits for another to be through.
    await night.engine.until(lambda engine: engine.in_flight == 4)
    await asyncio.gather(clockwork.tick(), clockwork.tick())
    gate.set()
    answers = [answer.json() for answer in await asyncio.gather(*fires)]
    await clockwork.until_quiet()

    (invocation,) = await night.invocations()
    assert {answer["id"] for answer in answers} == {invocation["id"]}
    assert sorted(answer["deduplicated"] for answer in answers) == [False] + [True] * 19
    assert await night.rows(b"select from scheduler.dispatches"), "dispatch was not among those that fired"
    assert max(night.engine.keys_seen.values()) == 1
    await check_success(night, invocation)

    calls = len(night.engine.calls)
    for way in ways_to_fire(night):
        again = (await night.fire(functions[0], **way)).json()
        assert (again["id"], again["status"], again["deduplicated"]) == (invocation["id"], "succeeded", True)
    # Hidden from callers first, and then its rows are gone.
    assert (await Caller(night, functions[0]).delete(invocation["id"])).status_code == 204
    for _ in range(2):
        for way in ways_to_fire(night):
            answer = await night.fire(functions[1], **way)
            assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
        await clockwork.tick_and_wait()
        await night.execute(b"delete from public.scheduler_invocations")
    assert await night.invocations() == []
    assert len(night.engine.calls) == calls
