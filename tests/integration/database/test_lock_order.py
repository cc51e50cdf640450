"""Locks are taken in one order everywhere: functions that change each other's rows never end in a deadlock (40P01).

The interleaving is forced: a third session holds a row on which the first one stops in the middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from itertools import count
from random import Random
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from .requests import all_unfinished, ask, ended_run, opened
from .sql_core import Session, SqlCore, Worker, assert_counts_add_up, mentor, minutes, pairs

# Not pgmq.purge_queue, which raises its lock on the whole queue: two of it meet in a deadlock of their own.
LOSE_MESSAGES = """
  delete from pgmq.q_scenario_evaluation_batches_manual
   where msg_id in (select msg_id from pgmq.q_scenario_evaluation_batches_manual for update skip locked)
"""
STOP_AT_ROWS = """
create function public.stop() returns trigger language plpgsql as
'begin perform pg_advisory_xact_lock(1); return new; end';
create trigger stop before insert on public.scheduler_evaluations for each row execute function public.stop()
"""
BATCHES_OF = "select from public.scheduler_invocation_batches where invocation_id = any(%s::uuid[]) for update"

Calls = list[tuple[Session, Coroutine[Any, Any, Any]]]


async def all_end(*calls: asyncio.Task[Any] | Coroutine[Any, Any, Any]) -> list[Any]:
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        assert not isinstance(outcome, psycopg.errors.DeadlockDetected), outcome
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


async def meet(core: SqlCore, calls: Calls, query: str, *parameters: object) -> list[Any]:
    """Make the calls one by one, while the query holds what the first one stops at; none ends in a deadlock."""
    begun = []
    async with core.owner.transaction():
        await core.owner.run(query, *parameters)
        for session, call in calls:
            begun.append(asyncio.create_task(call))
            await core.until_waiting_for_a_lock(session, or_done=begun[-1])
    answers = await all_end(*begun)
    # scheduler.expire continues after any error, a deadlock too
    overdue = "select id from public.scheduler_invocations where finished_at is null and expires_at <= now()"
    assert await core.owner.column(overdue) == []
    return answers


def outage(reporter: Worker, **given: Any) -> tuple[Session, Coroutine[Any, Any, Any]]:
    return reporter, reporter.end_slice(engine_error="engine_unavailable", **given)


async def tick(clock: Session) -> None:
    await clock.run("select scheduler.dispatch()")


async def dispatched(core: SqlCore) -> Any:
    return await core.owner.value("insert into scheduler.dispatches default values returning id")


async def two_manual_runs(core: SqlCore, worker: Worker) -> list[str]:
    return sorted([await core.open_manual_run(worker, [pairs([1])]) for _ in range(2)])


async def test_expiring_two_runs_beside_a_slice_end(core: SqlCore) -> None:
    worker, reporter = await core.workers(2)
    expirer = await core.session()
    runs = await two_manual_runs(core, worker)
    for minutes_ago, run in zip((1, 2), runs, strict=True):
        await core.change(run, f"expires_at = now() - make_interval(mins => {minutes_ago})")
    calls: Calls = [(expirer, expirer.run("select scheduler.expire()")), outage(reporter)]
    await meet(core, calls, BATCHES_OF, runs)


async def test_opening_an_overlapping_slot_beside_a_slice_end(core: SqlCore) -> None:
    worker, reporter, opener = await core.workers(3)
    await core.install_long_ago()
    due, following = await core.slots()
    await worker.open_slot(due - minutes(60), following)
    dispatch_id = await dispatched(core)
    calls: Calls = [outage(reporter, dispatch_id=dispatch_id), (opener, opener.open_slot(due, following))]
    await meet(core, calls, "select from scheduler.dispatches where id = %s for update", dispatch_id)


async def test_abandoning_a_slice_beside_its_end(core: SqlCore) -> None:
    """Dispatch stops at the first run, in which the end of the slice has nothing to change."""
    worker, reporter = await core.workers(2)
    clock = await core.session()
    first, second = await two_manual_runs(core, worker)
    await core.change(first, "expires_at = now() - interval '1 hour', error_code = 'engine_unavailable'")
    await core.change(second, "expires_at = now() - interval '1 minute'")
    dispatch_id = await dispatched(core)
    await core.owner.run("update scheduler.dispatches set requested_at = now() - interval '10 minutes'")
    calls: Calls = [(clock, tick(clock)), outage(reporter, dispatch_id=dispatch_id)]
    await meet(core, calls, "select from public.scheduler_invocations where id = %s for no key update", first)


async def test_opening_a_slot_that_expires_another_beside_a_slice_end(core: SqlCore) -> None:
    worker, reporter, opener = await core.workers(3)
    await core.install_long_ago()
    scheduled = await core.open_run(worker, [pairs([1])])
    # locked in the order of ids: the one that expires comes second
    while (expired := await core.open_manual_run(worker, [pairs([2])])) < scheduled:
        await worker.cancel(expired)
    await core.expire_now(expired)
    calls: Calls = [(opener, opener.open_slot(*await core.slots())), outage(reporter)]
    await meet(core, calls, BATCHES_OF, [expired])


async def test_opening_a_run_that_expires_another_beside_a_slice_end(core: SqlCore) -> None:
    worker, reporter, opener = await core.workers(3)
    source = await ended_run(core, worker)
    await opened(worker, retry_of=source)
    expired = await core.open_manual_run(worker, [pairs([2])])
    await core.expire_now(expired)
    calls: Calls = [(opener, ask(opener, retry_of=source, request_slice=True)), outage(reporter)]
    answer, _ = await meet(core, calls, BATCHES_OF, [expired])
    assert answer["outcome"] == "retry_already_open"


async def test_opening_a_slot_beside_an_editor_of_several_rows(core: SqlCore) -> None:
    """The editor's transaction has the later row, and then takes the earlier one, which opening has come to first."""
    opener, editor = await core.worker(), await core.session()
    await core.install_long_ago()
    row = "scenario_evaluation_config (scenario_type, organization, schedule) values ('a', %s, '0 2 * * *')"
    for organization in ("Bergen", "Oslo"):
        await core.owner.run(f"insert into public.{row}", organization)
    await core.owner.run("update public.scenario_evaluation_config set due_after = now() - interval '1 day' where true")
    version = (await opener.call("scenario_config", known_version=""))["version"]
    edit = "update public.scenario_evaluation_config set enabled = false where organization = %s"
    async with editor.transaction():
        await editor.run(edit, "Oslo")
        opening = asyncio.create_task(opener.open_slot(*await core.slots(), scenario_version=version))
        await core.until_waiting_for_a_lock(opener, or_done=opening)
        editing = asyncio.create_task(editor.run(edit, "Bergen"))
        (answer, _) = await all_end(opening, editing)
    assert answer["opened"]


async def test_cancelling_beside_a_slice_end_and_a_record(core: SqlCore) -> None:
    worker, reporter, canceller = await core.workers(3)
    run = await core.open_manual_run(worker, [pairs([1]), pairs([2])])
    batch = await worker.claim_one()
    async with worker.transaction():
        await worker.complete(batch)
        cancelling = asyncio.create_task(canceller.update(run, status="cancelled", set_note=True, note="enough"))
        await core.until_waiting_for_a_lock(canceller)
        reporting = asyncio.create_task(outage(reporter, progressed=True)[1])
        await core.until_waiting_for_a_lock(reporter)
    await all_end(cancelling, reporting)


@pytest.mark.parametrize("step", ["cut off", "split"])
async def test_queueing_parts_beside_a_slice_end_and_a_cancellation(core: SqlCore, step: str) -> None:
    worker, reporter, canceller = await core.workers(3)
    run = await core.open_manual_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    queueing = worker.complete(batch, remaining=[mentor(2)]) if step == "cut off" else worker.split(batch)
    calls: Calls = [(worker, queueing), outage(reporter), (canceller, canceller.cancel(run))]
    await meet(core, calls, "select from pgmq.q_scenario_evaluation_batches_manual for update")


async def test_requeueing_beside_a_slice_end_waiting_for_an_expiry(core: SqlCore) -> None:
    """The run that has lost its batches comes before the one that dispatch has just ended."""
    worker, reporter = await core.workers(2)
    clock = await core.session()
    lost, expired = await two_manual_runs(core, worker)
    await core.expire_now(expired)
    await core.lose_messages()
    await meet(core, [(clock, tick(clock)), outage(reporter)], BATCHES_OF, [expired])
    await tick(clock)
    await core.change_settings("engine_paused_until = null")
    assert (await worker.claim_one())["invocation_id"] == lost


async def test_pruning_beside_a_worker_that_records_late(core: SqlCore) -> None:
    """The worker holds its batch, and has yet to write its rows."""
    worker, pruner = await core.worker(), await core.session()
    run = await core.open_run(worker, [pairs([0])])
    batch = await worker.claim_one()
    await worker.cancel(run)
    await worker.delete(run)
    await core.owner.run(STOP_AT_ROWS)
    calls: Calls = [(worker, worker.complete(batch)), (pruner, pruner.run("call scheduler.prune()"))]
    assert await meet(core, calls, "select pg_advisory_xact_lock(1)") == ["done", None]
    for table in ("invocations", "evaluations"):
        assert await core.owner.value(f"select count(*) from public.scheduler_{table}") == 0


async def test_a_crowd_doing_everything_never_deadlocks_and_adds_up(core: SqlCore) -> None:
    """Seeded, so that it asks for the same each time; how the calls interleave is the server's."""
    await core.install_long_ago()
    due, following = await core.slots()
    first = await core.worker()
    runs = [(await first.open_slot(due, following))["invocation"]["id"]]
    runs += [await opened(first, key=f"k{number}") for number in range(3)]
    numbers = count()

    async def be_busy(worker: Worker, clock: Session, random: Random) -> None:
        for _ in range(60):
            permit_id, run = str(uuid4()), random.choice(runs)
            await worker.take_permit(permit_id, manual=random.random() < 0.5, seconds=0.02)
            for batch in (await worker.claim(2))["batches"]:
                users = batch["pairs"][0]["user_ids"]
                match random.randrange(5):
                    case 0:
                        await worker.release(batch)
                    case 1 if len(users) > 1:
                        await worker.split(batch)
                    case 2:
                        await worker.complete(batch, "failed", remaining=users[1:] or None)
                    case _:
                        await worker.complete(batch, "failed")
            match random.randrange(9):
                case 0:
                    if (answer := await ask(worker, retry_of=run, request_slice=True))["invocation"]:
                        runs.append(answer["invocation"]["id"])
                case 1:
                    runs.append(await opened(worker))
                case 2:
                    verdict = random.choice([None, "cancelled", "failed"])
                    await worker.update(run, status=verdict, set_note=True, note="busy")
                case 3:
                    await worker.delete(run)
                    await clock.run("call scheduler.prune()")
                case 4:
                    # Not at once: no real run expires between two statements of a function, whose now() is the same.
                    await core.change(run, "expires_at = clock_timestamp() + interval '50 ms'")
                    if random.random() < 0.3:
                        await clock.run(LOSE_MESSAGES)
                    await tick(clock)
                case 5:
                    error = random.choice([None, "engine_unavailable"])
                    await worker.end_slice(progressed=True, engine_error=error, engine_permit_id=permit_id)
                    await clock.run("update scheduler.settings set engine_paused_until = null")
                case 6:
                    await worker.open_slot(due, following, max_workers=random.randint(1, 9))
                case _:
                    batches = [pairs([next(numbers), next(numbers)])]
                    await worker.enqueue(run, batches, done=random.random() < 0.5)
                    await worker.finish(run)

    crowd = [(await core.worker(), await core.session(), Random(seed)) for seed in range(6)]
    await all_end(*(be_busy(*one) for one in crowd))
    for run in await core.owner.column("select id::text from public.scheduler_invocations"):
        await first.cancel(run)
        ended = await core.describe(run)
        assert_counts_add_up(ended)
        unfinished = await all_unfinished(first, run, mentors=3)
        assert len(set(unfinished)) == len(unfinished) == ended["counts"]["failed"] + ended["counts"]["not_evaluated"]
    assert await core.queued() == 0
