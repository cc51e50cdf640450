"""scheduler_delete: gone from the API at once; the slot and the key stay spent."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from .asked import ended_run, listed, opened, seen
from .sql_core import SqlCore, Worker, mentor, pairs


@pytest.mark.parametrize("status", ["succeeded", "partial", "failed", "cancelled", "skipped"])
async def test_what_has_ended_is_deleted_once(core: SqlCore, worker: Worker, status: str) -> None:
    run = await core.open_run(worker)
    await core.owner.run("update public.scheduler_invocations set status = %s, finished_at = now()", status)
    assert await worker.delete(run) == "deleted"
    assert await worker.delete(run) is None


async def test_what_is_open_is_not(core: SqlCore, worker: Worker) -> None:
    for run in (await opened(worker), await core.open_run(worker, [pairs([1])])):
        before = await core.describe(run)
        assert await worker.delete(run) == "open"
        assert await seen(worker, run) is not None
        assert await core.describe(run) == before


async def test_there_is_nothing_to_delete_where_there_is_no_run(worker: Worker) -> None:
    assert await worker.delete(str(uuid4())) is None


async def test_it_is_seen_by_no_reader_any_more(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker, ["failed"])
    await worker.delete(run)
    assert await seen(worker, run) is None
    assert (await listed(worker))["items"] == []
    assert (await listed(worker, user_id=mentor(0)))["items"] == []


async def test_its_slot_stays_spent_and_is_not_shown(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    run = (await worker.open_slot(due, following))["invocation"]["id"]
    await worker.cancel(run)
    await worker.delete(run)
    for requested in (None, due):
        again = await worker.open_slot(due, following, requested)
        assert (again["opened"], again["not_a_slot"], again["invocation"], again["open"]) == (False, False, None, [])


async def test_an_older_slot_whose_run_was_deleted_is_no_slot_to_ask_for(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    older = due.replace(year=due.year - 1)
    run = await core.open_run(worker)
    await core.owner.run(
        "update public.scheduler_invocations set idempotency_key = scheduler.slot_key(%s) where id = %s", older, run
    )
    assert (await worker.open_slot(due, following, older))["invocation"]["id"] == run
    await worker.cancel(run)
    await worker.delete(run)
    assert (await worker.open_slot(due, following, older))["not_a_slot"]


async def test_what_a_worker_still_holds_of_it_is_recorded(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    await worker.cancel(run)
    await worker.delete(run)
    assert await worker.complete(batch) == "done"
    assert (await worker.finish(run))["ended_now"] is False


async def test_it_waits_for_an_end_that_is_just_coming(core: SqlCore) -> None:
    worker, deleter = await core.workers(2)
    run = await core.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    async with worker.transaction():
        assert (await worker.finish(run))["ended_now"]
        deleting = asyncio.create_task(deleter.delete(run))
        await core.until_waiting_for_a_lock(deleter)
    assert await deleting == "deleted"


async def test_an_end_that_waits_for_a_refused_deletion_still_comes(core: SqlCore) -> None:
    worker, deleter = await core.workers(2)
    run = await core.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    async with deleter.transaction():
        assert await deleter.delete(run) == "open"
        finishing = asyncio.create_task(worker.finish(run))
        await core.until_waiting_for_a_lock(worker)
    assert (await finishing)["ended_now"]
    assert await seen(worker, run) is not None


async def test_of_many_simultaneous_deletions_one_counts(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker, ["failed"])
    outcomes = await asyncio.gather(*(other.delete(run) for other in await core.workers(8)))
    assert sorted(outcomes, key=str) == [None] * 7 + ["deleted"]
