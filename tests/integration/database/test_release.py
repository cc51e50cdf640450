"""scheduler_release: only who holds a batch gives it back."""

from __future__ import annotations

import asyncio

import pytest

from .sql_core import SqlCore, Worker, pairs


async def handed_back(core: SqlCore) -> object:
    return await core.owner.value("select handed_back from public.scheduler_invocation_batches")


async def test_a_released_batch_is_there_at_once(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    assert await worker.release(await worker.claim_one())
    assert (await worker.claim_one())["read_count"] == 2


async def test_a_manual_batch_goes_back_to_its_own_queue(core: SqlCore, worker: Worker) -> None:
    await core.open_manual_run(worker, [pairs([1])])
    assert await worker.release(await worker.claim_one())
    assert (await worker.claim_one())["read_count"] == 2


async def test_a_released_batch_stays_hidden_for_the_delay(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    assert await worker.release(await worker.claim_one(), delay_seconds=120)
    assert (await worker.claim())["batches"] == []
    assert await core.owner.value(
        "select vt between now() + interval '60 seconds' and now() + interval '120 seconds'"
        " from pgmq.q_scenario_evaluation_batches"
    )


@pytest.mark.parametrize(("blameless", "deliveries"), [(True, 1), (False, 2)])
async def test_only_a_blameless_release_does_not_count_as_a_delivery(
    core: SqlCore, worker: Worker, blameless: bool, deliveries: int
) -> None:
    await core.open_run(worker, [pairs([1])])
    assert await worker.release(await worker.claim_one(), blameless=blameless)
    assert (await worker.claim_one())["deliveries"] == deliveries


async def test_who_does_not_hold_it_any_more_cannot_release_it(core: SqlCore) -> None:
    first, second = await core.workers(2)
    await core.open_run(first, [pairs([1])])
    mine = await first.claim_one()
    await core.let_batches_reappear()
    theirs = await second.claim_one()
    assert not await first.release(mine)
    assert (await first.claim())["batches"] == []
    assert await handed_back(core) == 0
    assert await second.release(theirs)


@pytest.mark.parametrize("over", ["done", "cancelled", "deleted"])
async def test_a_batch_that_is_over_is_not_released(core: SqlCore, worker: Worker, over: str) -> None:
    invocation = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    if over == "done":
        await worker.complete(batch)
    elif over == "cancelled":
        await worker.cancel(invocation)
    else:
        await core.owner.run("delete from public.scheduler_invocations")
    assert not await worker.release(batch)


async def test_a_release_repeated_after_a_lost_answer_counts_once(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    for _ in range(2):
        await worker.release(await worker.claim_one(), blameless=False)
    batch = await worker.claim_one()
    assert batch["deliveries"] == 3
    await worker.release(batch, blameless=True)
    await worker.release(batch, blameless=True)
    assert await handed_back(core) == 1
    assert (await worker.claim_one())["deliveries"] == 3


async def test_a_release_beside_the_next_claim_leaves_it_hidden(core: SqlCore) -> None:
    first, second = await core.workers(2)
    await core.open_run(first, [pairs([1])])
    mine = await first.claim_one()
    await core.let_batches_reappear()
    async with second.transaction():
        await second.claim_one()
        releasing = asyncio.create_task(first.release(mine))
        await core.until_waiting_for_a_lock(first)
    assert await releasing is False
    assert await handed_back(core) == 0
    assert (await first.claim())["batches"] == []
