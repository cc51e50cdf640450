"""Locks are taken in one order everywhere: what calls each other's rows never ends in a deadlock (40P01).

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

from .asked import ask, ended_run, opened
from .sql_core import Session, SqlCore, Worker, mentor, minutes, pairs

# What somebody does who empties the queue. Not pgmq.purge_queue, which raises its lock on the whole queue: two of it
# meet in a deadlock of their own.
LOSE_MESSAGES = """
  delete from pgmq.q_scenario_evaluation_batches_manual
   where msg_id in (select msg_id from pgmq.q_scenario_evaluation_batches_manual for update skip locked)
"""


async def both_end(*calls: Coroutine[Any, Any, Any] | asyncio.Task[Any]) -> None:
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert not isinstance(outcome, psycopg.errors.DeadlockDetected), outcome
        if isinstance(outcome, BaseException):
            raise outcome


async def dispatched(core: SqlCore) -> int:
    number = await core.owner.value("insert into scheduler.dispatches default values returning id")
    assert isinstance(number, int)
    return number


async def test_expiring_two_runs_beside_a_hand_back(core: SqlCore) -> None:
    worker, reporter = await core.workers(2)
    expirer: Session = await core.session()
    runs = sorted([await core.open_manual_run(worker, [pairs([1])]) for _ in range(2)])
    for minutes_ago, run in zip((1, 2), runs, strict=True):
        await core.owner.run(
            "update public.scheduler_invocations set expires_at = now() - make_interval(mins => %s) where id = %s",
            minutes_ago,
            run,
        )
    async with core.owner.transaction():
        await core.owner.run(
            "select from public.scheduler_invocation_batches where invocation_id = any(%s::uuid[]) for update", runs
        )
        expiring = asyncio.create_task(expirer.run("select scheduler.expire()"))
        await core.until_waiting_for_a_lock(expirer)
        reporting = asyncio.create_task(reporter.hand_back(engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter)
    await both_end(expiring, reporting)


async def test_opening_an_overlapping_slot_beside_a_hand_back(core: SqlCore) -> None:
    worker, reporter, opener = await core.workers(3)
    await core.install_long_ago()
    due, following = await core.slots()
    await worker.open_slot(due - minutes(60), following)
    dispatch_id = await dispatched(core)
    async with core.owner.transaction():
        await core.owner.run("select from scheduler.dispatches where id = %s for update", dispatch_id)
        reporting = asyncio.create_task(reporter.hand_back(dispatch_id=dispatch_id, engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter)
        opening = asyncio.create_task(opener.open_slot(due, following))
        await core.until_waiting_for_a_lock(opener)
    await both_end(reporting, opening)


async def test_dispatch_giving_up_a_slice_beside_its_hand_back(core: SqlCore) -> None:
    worker, reporter = await core.workers(2)
    clock: Session = await core.session()
    first, _ = [await core.open_manual_run(worker, [pairs([1])]) for _ in range(2)]
    await core.owner.run("update public.scheduler_invocations set expires_at = now() - interval '1 minute'")
    await core.owner.run(
        "update public.scheduler_invocations set expires_at = now() - interval '1 hour', error = 'engine_unavailable'"
        " where id = %s",
        first,
    )
    dispatch_id = await dispatched(core)
    await core.owner.run("delete from net.http_request_queue where true")
    await core.owner.run("update scheduler.dispatches set requested_at = now() - interval '10 minutes'")
    async with core.owner.transaction():
        # dispatch stops at the first run, in which hand_back has nothing to change
        await core.owner.run("select from public.scheduler_invocations where id = %s for no key update", first)
        harvesting = asyncio.create_task(clock.run("select scheduler.dispatch()"))
        await core.until_waiting_for_a_lock(clock)
        reporting = asyncio.create_task(reporter.hand_back(dispatch_id=dispatch_id, engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter, or_done=reporting)
    await both_end(harvesting, reporting)


async def night_and_later_expired_run(core: SqlCore, worker: Worker) -> tuple[str, str]:
    """A scheduled run that is open, and one with a higher id whose time is over."""
    night = await core.open_run(worker, [pairs([1])])
    while (expired := await core.open_manual_run(worker, [pairs([2])])) < night:
        await worker.cancel(expired)
    await core.expire_now(expired)
    return night, expired


async def test_opening_a_slot_that_expires_another_run_beside_a_hand_back(core: SqlCore) -> None:
    worker, reporter, opener = await core.workers(3)
    await core.install_long_ago()
    _, expired = await night_and_later_expired_run(core, worker)
    async with core.owner.transaction():
        await core.owner.run(
            "select from public.scheduler_invocation_batches where invocation_id = %s for update", expired
        )
        opening = asyncio.create_task(opener.open_slot(*await core.slots()))
        await core.until_waiting_for_a_lock(opener)
        reporting = asyncio.create_task(reporter.hand_back(engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter)
    await both_end(opening, reporting)


async def test_opening_a_run_that_expires_another_beside_a_hand_back(core: SqlCore) -> None:
    worker, reporter, opener = await core.workers(3)
    source = await ended_run(core, worker)
    await opened(worker, retry_of=source)
    expired = await core.open_manual_run(worker, [pairs([2])])
    await core.expire_now(expired)
    async with core.owner.transaction():
        await core.owner.run(
            "select from public.scheduler_invocation_batches where invocation_id = %s for update", expired
        )
        opening = asyncio.create_task(ask(opener, retry_of=source, post_slice=True))
        await core.until_waiting_for_a_lock(opener)
        reporting = asyncio.create_task(reporter.hand_back(engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter)
    await both_end(opening, reporting)
    assert opening.result()["outcome"] == "retry_already_open"


async def test_cancelling_beside_a_hand_back_and_a_record(core: SqlCore) -> None:
    worker, reporter, canceller = await core.workers(3)
    run = await core.open_manual_run(worker, [pairs([1]), pairs([2])])
    batch = await worker.claim_one()
    async with worker.transaction():
        await worker.complete(batch)
        cancelling = asyncio.create_task(canceller.update(run, cancel=True, set_note=True, note="enough"))
        await core.until_waiting_for_a_lock(canceller)
        reporting = asyncio.create_task(reporter.hand_back(engine_error="engine_unavailable", progressed=True))
        await core.until_waiting_for_a_lock(reporter)
    await both_end(cancelling, reporting)


@pytest.mark.parametrize("step", ["cut off", "split"])
async def test_queuing_parts_of_a_batch_beside_a_hand_back_and_a_cancellation(core: SqlCore, step: str) -> None:
    worker, reporter, canceller = await core.workers(3)
    run = await core.open_manual_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    async with core.owner.transaction():
        await core.owner.run("select from pgmq.q_scenario_evaluation_batches_manual for update")
        queuing = asyncio.create_task(
            worker.complete(batch, rest=[mentor(2)]) if step == "cut off" else worker.split(batch)
        )
        await core.until_waiting_for_a_lock(worker)
        reporting = asyncio.create_task(reporter.hand_back(engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter)
        cancelling = asyncio.create_task(canceller.cancel(run))
        await core.until_waiting_for_a_lock(canceller)
    await both_end(queuing, reporting, cancelling)


async def test_finding_lost_batches_beside_a_hand_back_that_waits_for_an_expiry(core: SqlCore) -> None:
    """The run that has lost its batches comes before the one that dispatch has just ended."""
    worker, reporter = await core.workers(2)
    clock: Session = await core.session()
    lost, expired = sorted([await core.open_manual_run(worker, [pairs([1])]) for _ in range(2)])
    await core.expire_now(expired)
    await core.owner.run("select pgmq.purge_queue('scenario_evaluation_batches_manual')")
    async with core.owner.transaction():
        await core.owner.run(
            "select from public.scheduler_invocation_batches where invocation_id = %s for update", expired
        )
        ticking = asyncio.create_task(clock.run("select scheduler.dispatch()"))
        await core.until_waiting_for_a_lock(clock)
        reporting = asyncio.create_task(reporter.hand_back(engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter)
    await both_end(ticking, reporting)
    await clock.run("select scheduler.dispatch()")
    await core.owner.run("update scheduler.settings set engine_paused_until = null")
    assert (await worker.claim_one())["invocation_id"] == lost


async def test_a_crowd_that_does_everything_at_once_never_meets_in_a_deadlock(core: SqlCore) -> None:
    """Seeded, so that it asks for the same each time; how the calls interleave is the server's."""
    await core.install_long_ago()
    due, following = await core.slots()
    first = await core.worker()
    await first.open_slot(due, following)
    runs = [await opened(first, key=f"k{number}") for number in range(3)]

    numbers = count()

    async def be_busy(worker: Worker, clock: Session, random: Random) -> None:
        for _ in range(60):
            permit_id = str(uuid4())
            await worker.take_permit(permit_id, manual=random.random() < 0.5, seconds=0.02)
            claimed = await worker.claim(2)
            run, batches = random.choice(runs), claimed["batches"]
            for batch in batches:
                users = batch["pairs"][0]["user_ids"]
                chance = random.random()
                if chance < 0.2:
                    await worker.release(batch)
                elif chance < 0.4 and len(users) > 1:
                    await worker.split(batch)
                else:
                    await worker.complete(batch, "failed", rest=(users[1:] or None) if chance < 0.6 else None)
            step = random.randrange(10)
            if step == 0:
                answer = await ask(worker, retry_of=run, post_slice=True)
                if answer["invocation"]:
                    runs.append(answer["invocation"]["id"])
            elif step == 1:
                runs.append(await opened(worker))
            elif step == 2:
                await worker.update(run, cancel=random.random() < 0.5, set_note=True, note="busy")
            elif step == 3:
                await worker.delete(run)
            elif step == 4:
                await core.expire_now(run)
                if random.random() < 0.3:
                    await clock.run(LOSE_MESSAGES)
                await clock.run("select scheduler.dispatch()")
            elif step == 5:
                await clock.run("call scheduler.prune()")
            elif step == 6:
                await worker.hand_back(
                    progressed=True,
                    engine_answers=True,
                    engine_error=random.choice([None, "engine_unavailable"]),
                    engine_permit_id=permit_id,
                )
                await clock.run("update scheduler.settings set engine_paused_until = null")
            elif step == 7:
                await worker.open_slot(due, following, max_workers=random.randint(1, 9))
            else:
                done = random.random() < 0.5
                await worker.enqueue(run, [pairs([next(numbers), next(numbers)])], done=done)
                await worker.finish(run)

    crowd = [(await core.worker(), await core.session(), Random(seed)) for seed in range(6)]
    await both_end(*(be_busy(*one) for one in crowd))
