"""scheduler_split: a batch that may kill its workers becomes one batch for each of its users, in the poison queue."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from .asked import all_undone, listed, opened
from .sql_core import QUEUES, SCENARIO, Json, SqlCore, Worker, assert_counts_add_up, mentor, pairs


async def suspect(core: SqlCore, worker: Worker) -> Json:
    """The one batch that is queued, as it is claimed the third time."""
    for _ in range(2):
        await worker.claim_one()
        await core.let_batches_reappear()
    batch = await worker.claim_one()
    assert batch["deliveries"] == 3
    return batch


async def singles(worker: Worker) -> list[Json]:
    """All that can be claimed, what is poison one at a time."""
    batches: list[Json] = (await worker.claim(1000))["batches"]
    while poison := (await worker.claim(1000, poison="last"))["batches"]:
        batches += poison
    return sorted(batches, key=lambda batch: int(batch["batch_no"]))


async def tables(core: SqlCore) -> list[list[tuple[Any, ...]]]:
    return [
        await core.owner.rows("select * from public.scheduler_invocation_batches order by batch_no"),
        *[await core.owner.rows(f"select msg_id, read_ct, message from pgmq.q_{queue} order by 1") for queue in QUEUES],
        await core.owner.rows("select next_batch_no from public.scheduler_invocations"),
    ]


async def test_each_user_gets_a_batch_of_her_own_with_all_of_her_pairs(core: SqlCore, worker: Worker) -> None:
    frozen = [
        *pairs([1, 3], ["lapsed", "milestone"]),
        *pairs([2], ["onboarding"]),
        {**pairs([1, 4], ["gone"])[0], "skip": "mentor_not_active"},
    ]
    run = await core.open_run(worker, [frozen])
    before = (await core.describe(run))["counts"]
    assert await worker.split(await suspect(core, worker))
    assert [batch["pairs"] for batch in await singles(worker)] == [
        [*pairs([1], ["lapsed", "milestone"]), {**pairs([1], ["gone"])[0], "skip": "mentor_not_active"}],
        pairs([2], ["onboarding"]),
        pairs([3], ["lapsed", "milestone"]),
        [{**pairs([4], ["gone"])[0], "skip": "mentor_not_active"}],
    ]
    assert (await core.describe(run))["counts"] == before | {"batches": 4}
    assert await core.queued() == 4


async def test_the_singles_are_there_at_once_and_as_suspect_as_the_batch_was(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    assert await worker.split(await suspect(core, worker))
    for deliveries in (3, 4, 5, 6):
        assert [batch["deliveries"] for batch in await singles(worker)] == [deliveries] * 2
        await core.let_batches_reappear()


async def test_a_single_that_is_given_back_unharmed_stays_as_suspect_as_it_was(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    assert await worker.split(await suspect(core, worker))
    for _ in range(3):
        for batch in await singles(worker):
            assert batch["deliveries"] == 3
            assert await worker.release(batch)


async def test_singles_wait_in_the_poison_queue_whatever_their_run(core: SqlCore, worker: Worker) -> None:
    await core.open_manual_run(worker, [pairs([1, 2])])
    assert await worker.split(await suspect(core, worker))
    await core.open_run(worker, [pairs([3])])
    assert (await worker.claim(manual_only=True, poison="last"))["batches"] == []
    assert [batch["pairs"] for batch in (await worker.claim())["batches"]] == [pairs([3])]
    # Dispatch asks for slices for them as well.
    assert await core.owner.value("select scheduler.visible_batches(10)") == 2
    assert [batch["is_poison"] for batch in await singles(worker)] == [True, True]


async def test_a_batch_of_one_user_is_moved_there_as_it_is(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [[*pairs([1], ["a"]), *pairs([1], ["b"])]])
    batch = await suspect(core, worker)
    assert await worker.split(batch)
    (moved,) = await singles(worker)
    assert (moved["pairs"], moved["deliveries"], moved["is_poison"]) == (batch["pairs"], 3, True)


async def test_a_split_repeated_after_a_lost_answer_does_nothing(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    batch = await suspect(core, worker)
    assert await worker.split(batch)
    before = await tables(core)
    assert not await worker.split(batch)
    assert await tables(core) == before


@pytest.mark.parametrize("why", ["split before", "claimed since", "done", "cancelled", "pruned"])
async def test_what_cannot_be_split_is_left_as_it_is(core: SqlCore, worker: Worker, why: str) -> None:
    run = await core.open_run(worker, [pairs([1, 2])])
    batch = await suspect(core, worker)
    match why:
        case "split before":
            assert await worker.split(batch)
            batch, _ = await singles(worker)
        case "claimed since":
            await core.let_batches_reappear()
            await worker.claim_one()
        case "done":
            await worker.complete(batch)
        case "cancelled":
            await worker.cancel(run)
        case "pruned":
            await core.owner.run("delete from public.scheduler_invocations")
    before = await tables(core)
    assert not await worker.split(batch)
    assert await tables(core) == before


async def test_a_record_of_the_batch_that_was_split_comes_too_late(core: SqlCore, worker: Worker) -> None:
    """Its users are asked about again under the same keys."""
    run = await core.open_run(worker, [pairs([1, 2])])
    batch = await suspect(core, worker)
    assert await worker.split(batch)
    assert await worker.complete(batch) == "gone"
    assert await worker.complete(batch, rest=[mentor(1)]) == "gone"
    assert not await worker.release(batch)
    assert (await core.describe(run))["counts"]["triggered"] == 0


async def test_one_single_that_fails_costs_nobody_else(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(10), ["lapsed", "milestone"])])
    assert await worker.split(await suspect(core, worker))
    for batch in await singles(worker):
        assert await worker.complete(batch, "not_triggered", {mentor(7): "failed"}) == "done"
    ended = await worker.finish(run)
    assert ended["ended_now"]
    assert_counts_add_up(await core.describe(run))
    counts = ended["invocation"]["counts"]
    assert (ended["invocation"]["status"], counts["failed"], counts["batches_done"]) == ("partial", 2, 10)
    assert [one.user_id for one in await all_undone(worker, run)] == [mentor(7)] * 2


async def test_each_user_of_a_batch_that_was_split_is_found_with_her_own_results(core: SqlCore, worker: Worker) -> None:
    before, after = pairs([1, 2]), pairs([8, 9])
    run = await core.open_run(worker, [before, pairs([3, 5, 7]), after])
    batches = {batch["batch_no"]: batch for batch in (await worker.claim())["batches"]}
    assert await worker.split(batches[2])
    for batch in await singles(worker):
        (user_id,) = batch["pairs"][0]["user_ids"]
        if user_id != mentor(7):
            await worker.complete(batch, "triggered" if user_id == mentor(3) else "not_triggered")
    expected = {1: None, 2: None, 3: "triggered", 5: "not_triggered", 7: None, 8: None, 9: None}
    for number in range(11):
        found = (await listed(worker, user_id=mentor(number)))["items"]
        assert [[result["outcome"] for result in item["results"]] for item in found] == (
            [[expected[number]]] if number in expected else []
        ), number
    await worker.cancel(run)
    (item,) = (await listed(worker, user_id=mentor(7)))["items"]
    assert item["results"][0]["outcome"] == "not_evaluated"


@pytest.mark.parametrize("mentors", [1, 2, 3, 100])
async def test_a_retry_of_a_run_with_singles_reads_everybody_once_in_order(
    core: SqlCore, worker: Worker, mentors: int
) -> None:
    """The singles' numbers are the highest, but their users stand in the middle."""
    run = await core.open_run(worker, [pairs([1, 2]), pairs([3, 5, 7]), pairs([8, 9])])
    batches = {batch["batch_no"]: batch for batch in (await worker.claim())["batches"]}
    assert await worker.split(batches[2])
    for batch in await singles(worker):
        if batch["pairs"] == pairs([5]):
            await worker.complete(batch, "failed")
        elif batch["pairs"] == pairs([3]):
            await worker.complete(batch, "triggered")
    await worker.complete(batches[1], "not_triggered", {mentor(2): "failed"})
    await worker.cancel(run)
    undone = await all_undone(worker, run, mentors=mentors)
    assert [one.user_id for one in undone] == [mentor(number) for number in (2, 5, 7, 8, 9)]
    assert await opened(worker, retry_of=run)


async def test_singles_of_a_run_that_ends_early_are_abandoned(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1, 2, 3])])
    assert await worker.split(await suspect(core, worker))
    late, *_ = await singles(worker)
    cancelled = await worker.cancel(run)
    assert cancelled is not None
    assert (cancelled["counts"]["not_evaluated"], await core.queued()) == (3, 0)
    assert await worker.complete(late, "triggered") == "done"
    described = await core.describe(run)
    assert (described["counts"]["triggered"], described["counts"]["not_evaluated"]) == (1, 2)
    assert_counts_add_up(described)


async def test_of_two_who_split_at_once_one_does(core: SqlCore) -> None:
    workers = await core.workers(2)
    await core.open_run(workers[0], [pairs(range(20))])
    batch = await suspect(core, workers[0])
    assert sorted(await asyncio.gather(*(worker.split(batch) for worker in workers))) == [False, True]
    assert len(await singles(workers[0])) == 20


async def test_a_split_beside_the_next_claim_leaves_it_to_that_one(core: SqlCore) -> None:
    first, second = await core.workers(2)
    await core.open_run(first, [pairs([1, 2])])
    mine = await suspect(core, first)
    await core.let_batches_reappear()
    async with second.transaction():
        theirs = await second.claim_one()
        splitting = asyncio.create_task(first.split(mine))
        await core.until_waiting_for_a_lock(first)
    assert await splitting is False
    assert await second.complete(theirs) == "done"


async def test_a_run_is_not_ended_between_a_batch_and_its_singles(core: SqlCore) -> None:
    splitter, finisher = await core.workers(2)
    run = await core.open_run(splitter, [pairs([1, 2])])
    batch = await suspect(core, splitter)
    async with splitter.transaction():
        assert await splitter.split(batch)
        finishing = asyncio.create_task(finisher.finish(run))
        await core.until_waiting_for_a_lock(finisher)
    assert not (await finishing)["ended_now"]


async def test_pages_are_queued_on_beside_a_split(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1, 2])], done=False)
    assert await worker.split(await suspect(core, worker))
    assert await worker.enqueue(run, [pairs([3]), pairs([4])], done=True)
    numbers = await core.owner.column("select batch_no from public.scheduler_invocation_batches order by batch_no")
    assert numbers == [2, 3, 4, 5]
    claimed = await singles(worker)
    assert [batch["pairs"] for batch in claimed] == [pairs([number]) for number in (1, 2, 3, 4)]
    assert [batch["deliveries"] for batch in claimed] == [3, 3, 1, 1]
    assert {SCENARIO} == {group["scenario_types"][0] for batch in claimed for group in batch["pairs"]}
