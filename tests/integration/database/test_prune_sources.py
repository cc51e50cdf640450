"""scheduler.prune beside what still reads or writes what it takes away: retries, late records, the dead-man's check."""

from __future__ import annotations

import asyncio

import psycopg

from .asked import ask, ended_run, opened, refusal, undone
from .sql_core import Session, SqlCore, Worker, mentor, pairs


async def prune(session: Session) -> None:
    await session.run("call scheduler.prune()")


async def left(core: SqlCore) -> set[str]:
    return set(await core.owner.column("select id::text from public.scheduler_invocations"))


async def grow_old(core: SqlCore, run: str) -> None:
    await core.owner.run(
        "update public.scheduler_invocations set finished_at = now() - interval '1 year' where id = %s", run
    )


async def test_what_was_deleted_goes_with_the_next_prune_however_young(core: SqlCore, worker: Worker) -> None:
    gone, stays = await ended_run(core, worker, ["failed"]), await opened(worker)
    await worker.delete(gone)
    await prune(core.owner)
    assert await left(core) == {stays}


async def test_the_key_of_what_was_pruned_is_free_again(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker, key="k")
    await worker.cancel(run)
    await worker.delete(run)
    await prune(core.owner)
    assert await opened(worker, key="k") != run


async def test_the_source_of_an_open_retry_stays_until_it_is_read(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker, ["failed"])
    retry = await opened(worker, retry_of=source)
    await worker.delete(source)
    await prune(core.owner)
    assert await left(core) == {source, retry}
    assert len((await undone(worker, source))["mentors"]) == 1
    await worker.enqueue(retry, [pairs([0])], following=mentor(0), done=True)
    await prune(core.owner)
    assert await left(core) == {retry}


async def test_the_source_of_a_retry_that_was_cut_off_stays_because_the_next_one_reads_it_too(
    core: SqlCore, worker: Worker
) -> None:
    source = await ended_run(core, worker, ["failed", "failed"])
    retry = await opened(worker, retry_of=source)
    await worker.enqueue(retry, [pairs([0])], following=mentor(0))
    await worker.cancel(retry)
    await worker.delete(source)
    await prune(core.owner)
    assert (await undone(worker, retry))["rest"]["retry_of"] == source
    assert len((await undone(worker, source, after=mentor(0)))["mentors"]) == 1


async def test_a_chain_goes_in_the_end(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker, ["failed"])
    retry = await opened(worker, retry_of=source)
    await worker.cancel(retry)
    for run in (source, retry):
        await grow_old(core, run)
    await prune(core.owner)
    await prune(core.owner)
    assert await left(core) == set()


async def test_a_retry_that_is_just_being_opened_is_waited_for_and_keeps_its_source(
    core: SqlCore, worker: Worker
) -> None:
    source = await ended_run(core, worker, ["failed"])
    await grow_old(core, source)
    pruner = await core.session()
    async with worker.transaction():
        retry = await opened(worker, retry_of=source)
        pruning = asyncio.create_task(prune(pruner))
        await core.until_waiting_for_a_lock(pruner)
    await pruning
    assert await left(core) == {source, retry}
    assert (await core.describe(retry))["retry_of"] == source


async def test_a_retry_of_what_is_just_being_pruned_finds_no_source(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker, ["failed"])
    await grow_old(core, source)
    pruner = await core.session()
    async with core.owner.transaction():
        # its rows are on their way out, chunk by chunk; the invocation is still there
        await core.owner.run("select from public.scheduler_evaluations for update")
        pruning = asyncio.create_task(prune(pruner))
        await core.until_waiting_for_a_lock(pruner)
        assert await refusal(worker, retry_of=source) == "retry_source_unknown"
    await pruning
    assert await left(core) == set()


async def test_what_becomes_a_source_while_others_are_pruned_stays(core: SqlCore, worker: Worker) -> None:
    """All candidates are read at the start; the last one's turn may come an hour later."""
    first, source = await ended_run(core, worker, ["triggered"]), await opened(worker)
    await worker.cancel(source)
    await grow_old(core, source)
    await core.owner.run(
        "update public.scheduler_invocations set status = 'cancelled', finished_at = now() - interval '2 years'"
        " where id = %s",
        first,
    )
    pruner = await core.session()
    async with core.owner.transaction():
        await core.owner.run("select from public.scheduler_evaluations for update")
        pruning = asyncio.create_task(prune(pruner))
        await core.until_waiting_for_a_lock(pruner)
        assert (await ask(worker, retry_of=source))["outcome"] == "opened"
    await pruning
    assert source in await left(core)
    assert first not in await left(core)


async def test_a_worker_that_records_late_beside_it_never_meets_it_in_a_deadlock(core: SqlCore) -> None:
    worker, pruner = await core.worker(), await core.session()
    run = await core.open_run(worker, [pairs([0])])
    batch = await worker.claim_one()
    await worker.cancel(run)
    await worker.delete(run)
    await core.owner.run(
        "create function public.stop() returns trigger language plpgsql as"
        " 'begin perform pg_advisory_xact_lock(1); return new; end';"
        "create trigger stop before insert on public.scheduler_evaluations for each row execute function public.stop()"
    )
    async with core.owner.transaction():
        await core.owner.run("select pg_advisory_xact_lock(1)")
        # holds its batch, and has yet to ask for its invocation
        completing = asyncio.create_task(worker.complete(batch))
        await core.until_waiting_for_a_lock(worker)
        pruning = asyncio.create_task(prune(pruner))
        await core.until_waiting_for_a_lock(pruner)
    for outcome in await asyncio.gather(completing, pruning, return_exceptions=True):
        assert not isinstance(outcome, psycopg.errors.DeadlockDetected), outcome
    assert completing.result() == "done"
    assert await left(core) == set()


async def test_the_last_night_that_went_well_stays_until_there_is_another(core: SqlCore, worker: Worker) -> None:
    """Or a weekly schedule with a short retention would look dead, and so would a night that somebody tidied away."""
    nights = []
    for days in (20, 10, 0):
        nights.append(await ended_run(core, worker, ["triggered"]))
        await core.owner.run(
            "update public.scheduler_invocations set idempotency_key = id::text where id = %s", nights[-1]
        )
        await core.owner.run(
            "update public.scheduler_invocations set finished_at = now() - make_interval(days => %s) where id = %s",
            days,
            nights[-1],
        )
    before = await worker.value("select public.scheduler_last_good_run() -> 'run'")
    for night in nights:
        await worker.delete(night)
    await prune(core.owner)
    assert await left(core) == {nights[-1]}
    assert await worker.value("select public.scheduler_last_good_run() -> 'run'") == before
