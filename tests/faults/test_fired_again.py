"""Fired again, at the same instant or after the fact: one slot, one run, whoever fires and how often."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from tests.emulator.connections import connect
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import rules

SMALL = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "2",
    "ENGINE_TIMEOUT_SECONDS": "20",
    "MAX_WORKERS": "2",
}

# How many dispatches are under way after every change of them, as whoever changes them sees it.
NOTE_UNDER_WAY = b"""
create table public.under_way (dispatches integer);
create function public.note_under_way() returns trigger language plpgsql as $$
begin
  insert into public.under_way select count(*) from scheduler.dispatches where ended_at is null;
  return null;
end
$$;
create trigger note_under_way after insert or update on scheduler.dispatches
for each statement execute function public.note_under_way();
"""


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


async def test_fired_twenty_times_at_once_in_every_way_and_by_dispatch_it_is_one_run(
    night: Night, clockwork: Clockwork
) -> None:
    await night.add_mentors(400)
    everybody_is_at_it = asyncio.Event()
    night.engine.rules.append(rules.hold_until(everybody_is_at_it))
    # A hundred batches: more than twenty slices take in hand, so that no process is left without.
    many = {**SMALL, "EVALUATION_BATCH_SIZE": "4", "ENGINE_USERS_PER_CALL": "4"}
    functions = await asyncio.gather(*(night.start_function(many) for _ in range(3)))
    await clockwork.start()
    fires = [
        asyncio.create_task(night.fire(functions[number % 3], **ways_to_fire(night)[number % 5]))
        for number in range(20)
    ]
    ticks = [asyncio.create_task(clockwork.tick()) for _ in range(2)]

    # Two calls in flight in each process: nobody waits for another to be through.
    await night.engine.until(lambda engine: engine.in_flight == 6)
    everybody_is_at_it.set()
    answers = await asyncio.gather(*fires)
    await asyncio.gather(*ticks)
    await clockwork.until_quiet()

    (invocation,) = await night.invocations()
    assert {answer.status_code for answer in answers} <= {200, 202}
    assert {answer.json()["id"] for answer in answers} == {invocation["id"]}
    opened = [line for one in functions for line in night.log_lines(one) if line["event"] == "invocation_opened"]
    # Dispatch may have been the one who opened it.
    assert len(opened) == 1
    assert await night.rows(b"select from scheduler.dispatches"), "dispatch was not among those who fired"
    assert sum(not answer.json()["deduplicated"] for answer in answers) <= 1
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert max(night.engine.keys_seen.values()) == 1


async def test_one_answer_of_twenty_says_that_it_opened_the_run(night: Night) -> None:
    """Without dispatch, so that the one who opened it is among those who were answered."""
    await night.add_mentors(100)
    functions = await asyncio.gather(*(night.start_function(SMALL) for _ in range(3)))

    answers = await asyncio.gather(
        *(night.fire(functions[number % 3], **ways_to_fire(night)[number % 5]) for number in range(20))
    )

    (invocation,) = await night.invocations()
    assert sorted(answer.json()["deduplicated"] for answer in answers) == [False] + [True] * 19
    assert {answer.json()["id"] for answer in answers} == {invocation["id"]}
    await check_promises(night, invocation)


async def test_ten_dispatches_at_once_ask_for_no_more_slices_than_there_are_workers(
    night: Night, clockwork: Clockwork
) -> None:
    await night.add_mentors(200)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    functions = await asyncio.gather(*(night.start_function(SMALL) for _ in range(2)))
    await night.project.write_vault_secrets(functions[0].url)
    await night.execute(NOTE_UNDER_WAY)

    # Due, and nobody knows yet how much there is to do: one slice will see.
    assert sorted(await dispatch_at_once(night, 10)) == [0] * 9 + [1]
    firing = asyncio.create_task(night.fire(functions[1]))
    await night.engine.until(lambda engine: engine.in_flight == 2)
    # Twenty batches, and one slice on its way to them: one more.
    assert sorted(await dispatch_at_once(night, 10)) == [0] * 9 + [1]
    assert await dispatch_at_once(night, 2) == [0, 0]
    # Only now the posts go out, both in one round.
    await clockwork.start()
    await night.engine.until(lambda engine: engine.in_flight == 4)
    gate.set()
    await firing
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    ((most,),) = await night.rows(b"select max(dispatches) from public.under_way")
    assert most == 2
    slices = [line["dispatch_id"] for line in night.log_lines(functions[0]) if line["event"] == "slice_ended"]
    assert len(slices) == len(set(slices)) >= 2, "a dispatch is one slice"


async def test_the_slot_of_a_deleted_run_stays_spent_also_when_its_rows_are_gone(
    night: Night, clockwork: Clockwork
) -> None:
    mentors = await night.add_mentors(30)
    refused = rules.refuse_calls_with(set(mentors))
    night.engine.rules.append(refused)
    function = await night.start_function(SMALL)
    await clockwork.start()
    # The last night that went well is kept for the dead-man's check; this one did not go well.
    run = (await night.fire(function)).json()
    assert run["status"] == "failed"
    await check_promises(night, run)
    night.engine.rules.remove(refused)
    calls = len(night.engine.calls)
    assert (await Caller(night, function).delete(run["id"])).status_code == 204

    async def fire_in_every_way() -> None:
        for way in ways_to_fire(night):
            answer = await night.fire(function, **way)
            assert (answer.status_code, answer.json()) == (200, {"status": "idle"})

    await fire_in_every_way()
    # Every cron job, and with them the one that prunes.
    await clockwork.tick()
    await eventually(lambda: no_rows_are_left(night))
    await fire_in_every_way()
    await clockwork.tick()
    await clockwork.until_quiet()

    assert await night.invocations() == []
    assert len(night.engine.calls) == calls
    assert night.engine.acts == {}
    await check_rest_of_nothing(night)


async def dispatch_at_once(night: Night, times: int) -> list[int]:
    """`scheduler.dispatch()` over so many connections at the same time: how many slices each asked for."""

    async def one(start: asyncio.Barrier) -> int:
        async with connect(night.project.database_url) as connection:
            await start.wait()
            row = await (await connection.execute(b"select scheduler.dispatch()")).fetchone()
            assert row is not None
            return int(row[0])

    start = asyncio.Barrier(times)
    return await asyncio.gather(*(one(start) for _ in range(times)))


async def no_rows_are_left(night: Night) -> bool:
    return await night.rows(b"select from public.scheduler_invocations") == []


async def check_rest_of_nothing(night: Night) -> None:
    assert await night.queue_lengths() == [0, 0, 0]
    assert await night.rows(b"select from public.scheduler_evaluations") == []
