"""scheduler.requeue_lost_batches: that there is work follows from the batches, never from a message being there."""

from __future__ import annotations

import asyncio

import pytest

from .sql_core import QUEUES, Session, SqlCore, Worker, pairs

SCHEDULED = QUEUES[1]


async def tick(session: Session) -> None:
    await session.run("select scheduler.dispatch()")


async def claimed(worker: Worker) -> list[tuple[str, int]]:
    return [(batch["invocation_id"], batch["batch_no"]) for batch in (await worker.claim(1000))["batches"]]


@pytest.mark.parametrize("how", ["archived", "renumbered"])
async def test_every_open_batch_is_queued_again(core: SqlCore, worker: Worker, how: str) -> None:
    run = await core.open_run(worker, [pairs([number]) for number in range(5)])
    for batch in (await worker.claim(2))["batches"]:
        await worker.complete(batch)
    if how == "archived":
        await core.owner.run(f"select pgmq.archive('{SCHEDULED}', msg_id) from pgmq.q_{SCHEDULED}")
    else:
        # as in a queue that was dropped and made anew, which counts from one again
        await core.owner.run(f"""update pgmq.q_{SCHEDULED} set message = message || '{{"batch_no": 7}}'""")
    await tick(core.owner)
    assert await claimed(worker) == [(run, number) for number in (3, 4, 5)]


async def test_lost_batches_are_delivered_for_the_first_time(core: SqlCore, worker: Worker) -> None:
    """How often it was read is gone with its message; that it is a suspect is not."""
    await core.open_run(worker, [pairs([1]), pairs([2, 3])])
    first, second = (await worker.claim())["batches"]
    await worker.release(first)
    assert await worker.split(second)
    await core.lose_messages()
    await tick(core.owner)
    batches = [(await worker.claim(poison="last"))["batches"][0] for _ in range(3)]
    assert [(batch["batch_no"], batch["deliveries"], batch["is_poison"]) for batch in batches] == [
        (1, 1, False),
        (3, 3, True),
        (4, 3, True),
    ]


async def test_simultaneous_ticks_queue_each_batch_once(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([number]) for number in range(50)])
    clocks = [await core.session() for _ in range(4)]
    for _ in range(10):
        await core.lose_messages()
        await asyncio.gather(*map(tick, clocks))
        assert await core.queued() == 50
    assert len(await claimed(worker)) == 50


async def test_what_others_hold_is_left_to_the_next_tick(core: SqlCore, worker: Worker) -> None:
    """Waiting for a run could break the order of locks; a batch that is just being recorded is no work."""
    held = await core.open_run(worker, [pairs([1])])
    manual = await core.open_manual_run(worker, [pairs([2]), pairs([3])])
    batch = (await worker.claim(1))["batches"][0]
    await core.lose_messages()
    holder, clock = await core.session(), await core.session()
    async with holder.transaction(), worker.transaction():
        await holder.run("select from public.scheduler_invocations where id = %s for no key update", held)
        await worker.complete(batch)
        await tick(clock)
    assert await claimed(worker) == [(manual, 2)]
    await tick(clock)
    assert await claimed(worker) == [(held, 1)]


async def test_one_run_that_cannot_be_requeued_stops_no_other(core: SqlCore, worker: Worker) -> None:
    scheduled = await core.open_run(worker, [pairs([1])])
    manual = await core.open_manual_run(worker, [pairs([2])])
    await core.lose_messages()
    await core.owner.run(
        "create function public.refuse() returns trigger language plpgsql as"
        " $$ begin raise exception 'no room'; end $$;"
        f" create trigger refuse before insert on pgmq.q_{SCHEDULED} execute function public.refuse()"
    )
    await tick(core.owner)
    assert await claimed(worker) == [(manual, 1)]
    await core.owner.run(f"drop trigger refuse on pgmq.q_{SCHEDULED}")
    await tick(core.owner)
    assert await claimed(worker) == [(scheduled, 1)]
