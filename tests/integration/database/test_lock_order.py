"""Locks are taken in one order everywhere: what calls each other's rows never ends in a deadlock (40P01).

The interleaving is forced: a third session holds a row on which the first one stops in the middle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import psycopg

from .sql_core import Session, SqlCore, minutes, pairs


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
    await core.owner.run("update scheduler.dispatches set requested_at = now() - interval '10 minutes'")
    async with core.owner.transaction():
        # dispatch stops at the first run, in which hand_back has nothing to change
        await core.owner.run("select from public.scheduler_invocations where id = %s for no key update", first)
        harvesting = asyncio.create_task(clock.run("select scheduler.dispatch()"))
        await core.until_waiting_for_a_lock(clock)
        reporting = asyncio.create_task(reporter.hand_back(dispatch_id=dispatch_id, engine_error="engine_unavailable"))
        await core.until_waiting_for_a_lock(reporter, or_done=reporting)
    await both_end(harvesting, reporting)
