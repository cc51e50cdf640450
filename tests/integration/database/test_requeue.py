"""scheduler.requeue_lost_batches: that there is work follows from the batches, never from a message being there."""

from __future__ import annotations

import asyncio

import pytest

from .sql_core import QUEUES, Session, SqlCore, Worker, pairs

MANUAL, NIGHTLY, _ = QUEUES


async def tick(session: Session) -> None:
    await session.run("select scheduler.dispatch()")


async def messages(core: SqlCore) -> list[tuple[object, ...]]:
    return await core.owner.rows(
        " union all ".join(f"select msg_id, read_ct, message from pgmq.q_{queue}" for queue in QUEUES)
        + " order by msg_id"
    )


async def claimed(worker: Worker, *, manual_only: bool = False) -> list[tuple[str, int]]:
    batches = (await worker.claim(1000, manual_only=manual_only))["batches"]
    return sorted((batch["invocation_id"], batch["batch_no"]) for batch in batches)


@pytest.mark.parametrize("how", ["purge_queue", "archive"])
async def test_every_open_batch_is_queued_again_and_only_those(core: SqlCore, worker: Worker, how: str) -> None:
    night = await core.open_run(worker, [pairs([number]) for number in range(5)])
    person = await core.open_manual_run(worker, [pairs([number]) for number in range(3)])
    for batch in (await worker.claim(2, manual_only=True))["batches"]:
        await worker.complete(batch)
    for queue in (NIGHTLY, MANUAL):
        if how == "purge_queue":
            await core.owner.run(f"select pgmq.purge_queue('{queue}')")
        else:
            await core.owner.run(f"select pgmq.archive('{queue}', msg_id) from pgmq.q_{queue}")
    assert await core.queued() == 0
    await tick(core.owner)
    assert await claimed(worker, manual_only=True) == [(person, 3)]
    assert await claimed(worker) == [(night, number) for number in range(1, 6)]


async def test_where_nothing_is_lost_nothing_changes(core: SqlCore, worker: Worker) -> None:
    """Neither waiting, nor hidden, nor given back."""
    await core.open_run(worker, [pairs([number]) for number in range(4)])
    await core.open_manual_run(worker, [pairs([9])])
    await worker.release((await worker.claim(2))["batches"][0], delay_seconds=60)
    before = await messages(core), await core.owner.rows("select * from public.scheduler_invocation_batches")
    await tick(core.owner)
    assert (await messages(core), await core.owner.rows("select * from public.scheduler_invocation_batches")) == before


async def test_what_was_lost_counts_its_deliveries_from_the_start(core: SqlCore, worker: Worker) -> None:
    """How often it was read is gone with its message; that it is a suspect is not."""
    await core.open_run(worker, [pairs([1]), pairs([2, 3])])
    first, second = (await worker.claim())["batches"]
    await worker.release(first)
    assert await worker.split(second)
    for queue in QUEUES:
        await core.owner.run(f"select pgmq.purge_queue('{queue}')")
    await tick(core.owner)
    claimed = [(await worker.claim(poison="last"))["batches"][0] for _ in range(3)]
    assert {batch["batch_no"]: batch["deliveries"] for batch in claimed} == {1: 1, 3: 3, 4: 3}
    assert [batch["is_poison"] for batch in claimed] == [False, True, True]


async def test_who_has_a_lost_batch_in_hand_records_it_all_the_same(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    await core.owner.run(f"select pgmq.purge_queue('{NIGHTLY}')")
    await tick(core.owner)
    assert await worker.complete(batch) == "done"
    assert await core.queued() == 0
    assert (await worker.finish(run))["ended_now"]


async def test_a_message_that_only_has_the_number_of_a_lost_one_does_not_stand_for_it(
    core: SqlCore, worker: Worker
) -> None:
    """A queue that was dropped and made anew counts from one again."""
    run = await core.open_run(worker, [pairs([1]), pairs([2])])
    await core.owner.run(
        f"update pgmq.q_{NIGHTLY} set message = jsonb_build_object('invocation_id', %s::text, 'batch_no', 7)", run
    )
    await tick(core.owner)
    assert await claimed(worker) == [(run, 1), (run, 2)]


@pytest.mark.parametrize("ended", ["cancelled", "done"])
async def test_of_a_run_that_has_ended_nothing_is_queued(core: SqlCore, worker: Worker, ended: str) -> None:
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    await core.owner.run(f"select pgmq.purge_queue('{NIGHTLY}')")
    if ended == "done":
        await worker.complete(batch)
        await worker.finish(run)
    else:
        await worker.cancel(run)
    await tick(core.owner)
    assert await core.queued() == 0


async def test_two_ticks_at_once_queue_each_batch_once(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([number]) for number in range(50)])
    clocks = [await core.session() for _ in range(4)]
    for _ in range(10):
        await core.owner.run(f"select pgmq.purge_queue('{NIGHTLY}')")
        await asyncio.gather(*(tick(clock) for clock in clocks))
        assert await core.queued() == 50
    assert len(await claimed(worker)) == 50
    assert (await core.describe(run))["counts"]["batches"] == 50


async def test_a_run_that_somebody_holds_is_left_to_the_next_tick(core: SqlCore, worker: Worker) -> None:
    """Waiting for it could break the order in which invocations are locked."""
    night = await core.open_run(worker, [pairs([1])])
    person = await core.open_manual_run(worker, [pairs([2])])
    for queue in (NIGHTLY, MANUAL):
        await core.owner.run(f"select pgmq.purge_queue('{queue}')")
    holder, clock = await core.session(), await core.session()
    async with holder.transaction():
        await holder.run("select from public.scheduler_invocations where id = %s for no key update", night)
        await clock.run("select scheduler.requeue_lost_batches()")
    assert await claimed(worker) == [(person, 1)]
    await tick(clock)
    assert await claimed(worker) == [(night, 1)]


async def test_a_batch_that_somebody_is_recording_is_left_to_him(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1]), pairs([2])])
    batch, _ = (await worker.claim())["batches"]
    await core.owner.run(f"select pgmq.purge_queue('{NIGHTLY}')")
    clock = await core.session()
    async with worker.transaction():
        await worker.complete(batch)
        await tick(clock)
    assert [number for _, number in await claimed(worker)] == [2]


async def test_one_run_that_cannot_be_helped_keeps_dispatch_from_nothing(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    person = await core.open_manual_run(worker, [pairs([2])])
    expired = await core.open_manual_run(worker, [pairs([3])])
    for queue in (NIGHTLY, MANUAL):
        await core.owner.run(f"select pgmq.purge_queue('{queue}')")
    await core.owner.run(
        "create function public.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'no room'; end $$;"
        f" create trigger refuse before insert on pgmq.q_{NIGHTLY} execute function public.refuse()"
    )
    await core.expire_now(expired)
    await tick(core.owner)
    assert await claimed(worker, manual_only=True) == [(person, 1)]
    assert (await core.describe(expired))["error"] == "expired"
    await core.owner.run(f"drop trigger refuse on pgmq.q_{NIGHTLY}")
    await tick(core.owner)
    assert len(await claimed(worker)) == 1


async def test_a_tick_beside_everything_that_changes_batches_loses_and_doubles_nothing(core: SqlCore) -> None:
    """Batches are claimed, given back, cut off, split and recorded while the queue is emptied and healed."""
    workers, clock = await core.workers(3), await core.session()
    run = await core.open_run(workers[0], [pairs(range(start, start + 4)) for start in range(0, 120, 4)])
    over = asyncio.Event()

    async def work(worker: Worker, turn: int) -> None:
        idle = 0
        while idle < 50:
            batches = (await worker.claim(2))["batches"] or (await worker.claim(poison="last"))["batches"]
            idle = 0 if batches else idle + 1
            for batch in batches:
                turn += 1
                users = [user_id for group in batch["pairs"] for user_id in group["user_ids"]]
                if turn % 5 == 0:
                    await worker.release(batch)
                elif turn % 3 == 0 and not batch["is_poison"]:
                    await worker.split(batch)
                elif len(users) > 1:
                    await worker.complete(batch, rest=users[1:2])
                else:
                    await worker.complete(batch)

    async def heal() -> None:
        purges = 0
        while not over.is_set():
            if purges < 20:
                for queue in QUEUES:
                    await clock.run(f"select pgmq.purge_queue('{queue}')")
                purges += 1
            await tick(clock)

    healing = asyncio.create_task(heal())
    await asyncio.gather(*(work(worker, turn) for turn, worker in enumerate(workers)))
    over.set()
    await healing
    # what was emptied while it was in somebody's hands
    await tick(clock)
    await core.let_batches_reappear()
    await work(workers[0], 1)
    ended = await workers[0].finish(run)
    assert ended["ended_now"]
    assert (ended["invocation"]["counts"]["triggered"], ended["invocation"]["counts"]["mentors"]) == (120, 120)
    assert await core.queued() == 0
