"""Cancelled, expired or overtaken by the next slot while workers are at it: what happened counts, the rest is named.

Most of it twice: with the function killed at the same moment, and without.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

import pytest

from functions.peer_mentors import PAGE_SIZE
from tests.emulator.function import FunctionProcess
from tests.faults.breakpoint import breakpoint_at
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_chain, check_counts, check_promises, true_status
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

# For a run whose row nobody can change, because somebody is at it: its time is over as soon as it begins.
BORN_EXPIRED = b"""
create function public.born_expired() returns trigger language plpgsql as $$
begin
  new.expires_at := new.created_at;
  return new;
end
$$;
create trigger born_expired before insert on public.scheduler_invocations
for each row when (new.triggered_by = 'schedule') execute function public.born_expired();
"""

# Of the updates of an invocation the last one ends it.
HOLD_THE_END = b"""
create function public.hold_the_end() returns trigger language plpgsql as $$
begin
  raise exception using errcode = '55P03';
end
$$;
create trigger hold_the_end before update on public.scheduler_invocations
for each row when (new.finished_at is not null) execute function public.hold_the_end();
"""

End = Callable[[Night, Clockwork, FunctionProcess, str], Coroutine[Any, Any, None]]


async def cancel(night: Night, _: Clockwork, function: FunctionProcess, run_id: str) -> None:
    """Somebody asks a function of her own to cancel it."""
    answer = await Caller(night, function).cancel(run_id)
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def expire(night: Night, clockwork: Clockwork, _: FunctionProcess, __: str) -> None:
    """Its time is over, and the minute's tick sees it."""
    await night.execute(b"update public.scheduler_invocations set expires_at = now() where expires_at > now()")
    await clockwork.tick()
    assert all(run["finished_at"] for run in await night.invocations())


@pytest.mark.parametrize(("end", "kill"), [(cancel, False), (expire, True)], ids=["cancelled", "expired and killed"])
async def test_ended_while_calls_are_in_flight_late_answers_count_and_a_retry_evaluates_the_rest(
    night: Night, clockwork: Clockwork, end: End, kill: bool
) -> None:
    await night.add_mentors(300)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    functions = await asyncio.gather(*(night.start_function(SMALL) for _ in range(2)))
    survivor = functions[1]
    slices = [asyncio.create_task(night.fire(function)) for function in functions]
    await night.engine.until(lambda engine: engine.in_flight == 4)
    await eventually(lambda: all_is_read(night))
    run_id = (await night.invocations())[0]["id"]

    await asyncio.gather(end(night, clockwork, survivor, run_id), *([functions[0].kill()] if kill else []))
    ended = await night.describe(run_id)
    assert await night.queue_lengths() == [0, 0, 0]
    gate.set()
    await asyncio.gather(*slices, return_exceptions=True)

    assert ended["counts"]["not_evaluated"] == 600
    assert (ended["status"], ended["error"]) == (("cancelled", None) if end is cancel else ("failed", "expired"))
    asked_about = set(night.engine.pairs_seen)
    after = await night.describe(run_id)
    assert (after["status"], after["finished_at"]) == (ended["status"], ended["finished_at"])
    pairs = await night.recorded_pairs(run_id)
    check_counts(after, pairs)
    evaluated = {pair for pair, outcome in pairs.items() if outcome != "not_evaluated"}
    assert evaluated, "no answer came after the end"
    assert evaluated <= asked_about
    # What was in flight and in hand then, in each of the two, and nothing else.
    assert len({user_id for user_id, _ in asked_about}) <= 2 * 4 * 10
    if not kill:
        assert evaluated == asked_about
    seen = await Caller(night, survivor).see(run_id)
    assert seen["not_evaluated_user_ids"]
    assert all((user_id, "milestone_reached") not in evaluated for user_id in seen["not_evaluated_user_ids"])

    retry = await retried(night, clockwork, survivor, run_id)
    assert retry["status"] == "succeeded"
    assert retry["counts"]["evaluations"] == 600 - len(evaluated)
    assert await check_chain(night, [after, retry]) == night.expected_pairs()


@pytest.mark.parametrize(("end", "kill"), [(cancel, False), (expire, True)], ids=["cancelled", "expired and killed"])
async def test_ended_in_the_middle_of_the_reading_a_retry_evaluates_those_who_were_never_read_too(
    night: Night, clockwork: Clockwork, end: End, kill: bool
) -> None:
    """Mentors are read page by page: the end comes while the first page is being queued."""
    await night.add_mentors(PAGE_SIZE + 200)
    if end is expire:
        await night.execute(BORN_EXPIRED)
    sized = {**SMALL, "EVALUATION_BATCH_SIZE": "50", "ENGINE_USERS_PER_CALL": "50"}
    function, bystander = await asyncio.gather(*(night.start_function(sized) for _ in range(2)))

    async with breakpoint_at(night.project, "public.scheduler_invocation_batches", "insert") as stop:
        firing = asyncio.create_task(night.fire(function))
        await stop.until_reached()
        run_id = (await night.invocations())[0]["id"]
        ending = asyncio.create_task(end(night, clockwork, bystander, run_id))
        await eventually(lambda: waits_behind_another(night))
        if kill:
            await function.kill()
        # Frozen, so that its next page cannot overtake the end, which waits for this one.
        with contextlib.nullcontext() if kill else function.frozen():
            await stop.release()
            await ending
    await asyncio.gather(firing, return_exceptions=True)
    if kill:
        await function.until_ready()

    run = await night.describe(run_id)
    assert run["counts"]["mentors"] == PAGE_SIZE
    assert not await all_is_read(night)
    pairs = await night.recorded_pairs(run_id)
    check_counts(run, pairs)
    assert run["status"] == "cancelled" if end is cancel else run["status"] in ("failed", "partial")

    retry = await retried(night, clockwork, bystander, run_id)
    assert retry["status"] == "succeeded"
    assert len({user_id for user_id, _ in await night.recorded_pairs(retry["id"])}) >= 200
    assert await check_chain(night, [run, retry]) == night.expected_pairs()


@pytest.mark.parametrize(("end", "kill"), [(cancel, True), (expire, False)], ids=["cancelled and killed", "expired"])
async def test_ended_in_the_middle_of_a_record_the_record_counts(
    night: Night, clockwork: Clockwork, end: End, kill: bool
) -> None:
    """The records are written and not committed; the end waits for them, and abandons the others."""
    await night.add_mentors(300)
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    # Asked to end it is one that is not itself held at the breakpoint, with all its connections to the Data API.
    *functions, bystander = await asyncio.gather(*(night.start_function(SMALL) for _ in range(3)))
    slices = [asyncio.create_task(night.fire(function)) for function in functions]
    await night.engine.until(lambda engine: engine.in_flight == 4)
    await eventually(lambda: all_is_read(night))
    run_id = (await night.invocations())[0]["id"]

    async with breakpoint_at(night.project, "public.scheduler_evaluations", "insert") as stop:
        gate.set()
        await stop.until_reached(2)
        ending = asyncio.create_task(end(night, clockwork, bystander, run_id))
        await eventually(lambda: waits_behind_another(night))
        if kill:
            await functions[0].kill()
        await stop.release()
        await ending
    await asyncio.gather(*slices, return_exceptions=True)
    if kill:
        await functions[0].until_ready()

    run = await night.describe(run_id)
    pairs = await night.recorded_pairs(run_id)
    check_counts(run, pairs)
    assert sum(outcome != "not_evaluated" for outcome in pairs.values()) >= 2 * 20
    assert run["counts"]["not_evaluated"] > 0, "nothing was left to abandon"
    assert run["status"] == ("cancelled" if end is cancel else "partial")
    await check_promises(night, run)

    retry = await retried(night, clockwork, bystander, run_id)
    assert retry["status"] == "succeeded"
    assert await check_chain(night, [run, retry]) == night.expected_pairs()


async def test_a_retry_does_not_wait_for_late_answers_and_both_say_the_same(night: Night, clockwork: Clockwork) -> None:
    """Taken up again while the first workers still wait for the engine: the same keys, so it acts once."""
    await night.add_mentors(200)
    gate = asyncio.Event()
    function, bystander = await asyncio.gather(*(night.start_function(SMALL) for _ in range(2)))
    firing = asyncio.create_task(night.fire(function))
    night.engine.rules.append(rules.only(lambda call: call.number <= 2, rules.hold_until(gate)))
    await night.engine.until(lambda engine: engine.in_flight == 2)
    await eventually(lambda: all_is_read(night))
    run_id = (await night.invocations())[0]["id"]
    await cancel(night, clockwork, bystander, run_id)

    retry = await retried(night, clockwork, bystander, run_id)
    assert retry["counts"]["evaluations"] == 400
    gate.set()
    await firing

    late = {pair for pair, outcome in (await night.recorded_pairs(run_id)).items() if outcome != "not_evaluated"}
    assert late, "nobody was late"
    assert max(night.engine.keys_seen.values()) == 2
    chain = [await night.describe(run_id), retry]
    assert await check_chain(night, chain, recorded_late=late) == night.expected_pairs()


@pytest.mark.parametrize("kill", [False, True], ids=["not killed", "killed"])
async def test_the_next_slot_is_skipped_once_however_many_fire_and_the_open_run_goes_on(
    night: Night, clockwork: Clockwork, kill: bool
) -> None:
    mentors = await night.add_mentors(200)
    gate = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: call.keys[0].startswith("slot:"), rules.hold_until(gate)))
    earlier = night.slot - timedelta(minutes=2)
    first = await night.start_function(SMALL | {"EVALUATION_SCHEDULE": f"{earlier.minute} {earlier.hour} * * *"})
    # Across an hour's end this names two more minutes: one lies before both, the other is still to come.
    both_slots = f"{earlier.minute},{night.slot.minute} {earlier.hour},{night.slot.hour} * * *"
    bystander, *later = await asyncio.gather(
        *(night.start_function(SMALL | {"EVALUATION_SCHEDULE": both_slots}) for _ in range(3))
    )
    await clockwork.start()
    firing = asyncio.create_task(night.fire(first))
    await night.engine.until(lambda engine: engine.in_flight == 2)
    (run,) = await night.invocations()
    assert datetime.fromisoformat(run["scheduled_for"]) == earlier

    named = {"scheduled_for": night.slot.isoformat()}
    fires = [asyncio.create_task(night.fire(later[number % 2], named if number % 3 else None)) for number in range(10)]
    await eventually(lambda: skipped(night))
    if kill:
        await first.kill()
    chosen = await Caller(night, bystander).run({"user_ids": mentors[:10]})
    assert (await night.describe(run["id"]))["finished_at"] is None
    gate.set()
    answers = [answer.json() for answer in await asyncio.gather(*fires)]
    await asyncio.gather(firing, return_exceptions=True)
    await clockwork.until_ended()
    await clockwork.tick()
    await clockwork.until_quiet()

    scheduled = [one for one in await night.invocations() if one["triggered_by"] == "schedule"]
    assert [one["id"] for one in scheduled] == [run["id"], answers[0]["id"]]
    assert sorted(answer["deduplicated"] for answer in answers) == [False] + [True] * 9
    overlap = scheduled[1]
    assert {answer["id"] for answer in answers} == {overlap["id"]}
    assert (overlap["status"], overlap["error"], overlap["counts"]["mentors"]) == ("skipped", "overlap", 0)
    assert datetime.fromisoformat(overlap["scheduled_for"]) == night.slot
    assert not any(f":{night.slot:%H:%M}Z:" in key for key in night.engine.keys_seen), "the skipped slot was evaluated"
    assert scheduled[0]["status"] == "succeeded"
    # Not before the gate was opened, where a worker of the night took its batch.
    assert (await night.describe(chosen["id"]))["status"] == "succeeded"
    keys_of_the_night = [key for key in night.engine.acts if key.startswith("slot:")]
    pairs = await night.recorded_pairs(run["id"])
    assert pairs == night.expected_pairs()
    assert len(keys_of_the_night) == sum(outcome == "triggered" for outcome in pairs.values())
    check_counts(scheduled[0], pairs)
    assert await night.queue_lengths() == [0, 0, 0]


@pytest.mark.parametrize("served", [0, 6], ids=["from the start", "after some batches"])
async def test_expired_while_the_engine_is_down_it_is_what_it_is_and_says_why(
    night: Night, clockwork: Clockwork, served: int
) -> None:
    """The breaker keeps everybody from working, not the run from ending; the function is killed as well."""
    await night.add_mentors(200)
    back = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: call.number > served and not back.is_set(), rules.respond(503)))
    function = await night.start_function(SMALL | {"ENGINE_MAX_ATTEMPTS": "2"})
    await clockwork.start()
    await clockwork.tick()
    await clockwork.until_quiet()
    (run,) = await night.invocations()
    assert (run["status"], run["error"]) == ("running", "engine_unavailable")
    ((is_paused,),) = await night.rows(b"select engine_paused_until > now() from scheduler.settings")
    assert is_paused
    calls = len(night.engine.calls)

    await night.execute(b"update public.scheduler_invocations set expires_at = now() - interval '1 second'")
    await asyncio.gather(function.kill(), clockwork.tick())

    run = await night.describe(run["id"])
    assert (run["status"], run["error"]) == ("partial" if served else "failed", "engine_unavailable")
    assert len(night.engine.calls) == calls
    pairs = await check_promises(night, run)
    assert sum(outcome != "not_evaluated" for outcome in pairs.values()) == served * 20

    # It is back, and so is the function: who was not evaluated is, under the keys of that night.
    back.set()
    await function.until_ready()
    await clockwork.let_time_pass()
    retry = await retried(night, clockwork, function, run["id"])
    assert retry["status"] == "succeeded"
    assert await check_chain(night, [run, retry]) == night.expected_pairs()


@pytest.mark.parametrize(
    ("late", "somebody_failed"),
    [(False, True), (True, False)],
    ids=["by the next tick, somebody failed", "at its expiry, all well"],
)
async def test_a_run_of_which_only_the_end_is_missing_ends_as_what_it_is(
    night: Night, clockwork: Clockwork, late: bool, somebody_failed: bool
) -> None:
    """Everything is recorded, and whoever would have said that it is over was killed."""
    mentors = await night.add_mentors(60)
    if somebody_failed:
        night.engine.rules.append(rules.items_refused(mentors[:5]))
    function = await night.start_function(SMALL)
    await clockwork.start()
    await night.execute(HOLD_THE_END)
    await clockwork.tick()
    await clockwork.until_quiet()
    (run,) = await night.invocations()
    assert (run["status"], run["counts"]["batches_done"]) == ("running", 6)
    await function.kill()
    await night.execute(b"drop trigger hold_the_end on public.scheduler_invocations")
    calls = len(night.engine.calls)
    if late:
        # There is no function any more that could end it.
        await function.stop()
        await night.execute(b"update public.scheduler_invocations set expires_at = now() - interval '1 second'")
        await clockwork.tick()
    else:
        await clockwork.until_ended()

    run = await night.describe(run["id"])
    pairs = await check_promises(night, run)
    assert run["status"] == true_status(pairs) == ("partial" if somebody_failed else "succeeded")
    assert run["error"] is None
    assert len(night.engine.calls) == calls


# ---- doing and looking


async def retried(night: Night, clockwork: Clockwork, function: FunctionProcess, run_id: str) -> dict[str, Any]:
    """What a run left undone, taken up again and worked on to its end."""
    if night.project.net is None:
        await clockwork.start()
    retry = await Caller(night, function).run({"retry_of": run_id})
    if not retry["finished_at"]:
        await clockwork.until_ended()
    return await night.describe(retry["id"])


async def all_is_read(night: Night) -> bool:
    return bool(await night.rows(b"select from public.scheduler_invocations where enumeration_done"))


async def skipped(night: Night) -> bool:
    return bool(await night.rows(b"select from public.scheduler_invocations where status = 'skipped'"))


async def waits_behind_another(night: Night) -> bool:
    """Whether some statement waits for a lock that is another transaction's, and not for the breakpoint."""
    async with night.project.connect(superuser=True) as connection:
        cursor = await connection.execute(
            b"select from pg_stat_activity where datname = current_database()"
            b" and wait_event_type = 'Lock' and wait_event in ('transactionid', 'tuple')"
        )
        return await cursor.fetchone() is not None
