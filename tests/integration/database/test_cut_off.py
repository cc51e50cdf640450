"""scheduler_complete with a rest: whoever is through is recorded, and the others go on in a batch of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from .asked import all_undone, listed
from .sql_core import SCENARIO, Session, SqlCore, Worker, assert_counts_add_up, mentor, pairs


def mentors(*numbers: int) -> list[str]:
    return [mentor(number) for number in numbers]


async def batches(core: SqlCore) -> list[tuple[Any, ...]]:
    return await core.owner.rows(
        "select batch_no, state, pairs, mentors, evaluations, triggered, not_evaluated"
        " from public.scheduler_invocation_batches order by batch_no"
    )


async def tables(core: SqlCore) -> list[list[tuple[Any, ...]]]:
    return [
        await core.owner.rows("select * from public.scheduler_invocation_batches order by batch_no"),
        await core.owner.rows("select * from public.scheduler_evaluations order by user_id"),
        await core.owner.rows("select msg_id, read_ct, message from pgmq.q_scenario_evaluation_batches order by 1"),
        await core.owner.rows("select next_batch_no from public.scheduler_invocations"),
    ]


async def test_whoever_is_through_is_recorded_and_the_others_wait_in_a_batch_of_their_own(
    core: SqlCore, worker: Worker
) -> None:
    run = await core.open_run(worker, [pairs([1, 2, 3, 4], ["lapsed", "milestone"])])
    assert await worker.complete(await worker.claim_one(), rest=mentors(2, 4)) == "done"
    assert await batches(core) == [
        (1, "done", pairs([1, 3], ["lapsed", "milestone"]), 2, 4, 4, 0),
        (2, "open", pairs([2, 4], ["lapsed", "milestone"]), 2, 4, 0, 0),
    ]
    assert await core.queued() == 1
    described = await core.describe(run)
    counts = described["counts"]
    assert (counts["mentors"], counts["batches"], counts["batches_done"], counts["evaluations"]) == (4, 2, 1, 8)
    assert not (await worker.finish(run))["ended_now"]
    assert await worker.complete(await worker.claim_one(), "not_triggered") == "done"
    assert (await worker.finish(run))["ended_now"]
    assert_counts_add_up(await core.describe(run))


async def test_groups_keep_their_types_and_their_reason_to_be_skipped(core: SqlCore, worker: Worker) -> None:
    skipped = {**pairs([5, 6], ["onboarding"])[0], "skip": "mentor_not_active"}
    await core.open_run(worker, [[*pairs([1, 2], ["lapsed"]), *pairs([3, 4], ["milestone"]), skipped]])
    batch = await worker.claim_one()
    outcomes = dict.fromkeys(mentors(5), "skipped")
    assert await worker.complete(batch, "triggered", outcomes, rest=mentors(2, 3, 4, 6)) == "done"
    assert [row[2] for row in await batches(core)] == [
        [*pairs([1], ["lapsed"]), skipped | {"user_ids": mentors(5)}],
        [*pairs([2], ["lapsed"]), *pairs([3, 4], ["milestone"]), skipped | {"user_ids": mentors(6)}],
    ]


async def test_the_rest_is_there_at_once_and_no_delivery_counts_against_it(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    await worker.claim_one()
    await core.let_batches_reappear()
    assert await worker.complete(await worker.claim_one(), rest=mentors(2)) == "done"
    rest = await worker.claim_one()
    assert (rest["batch_no"], rest["pairs"], rest["deliveries"], rest["read_count"]) == (2, pairs([2]), 1, 1)


async def test_the_rest_of_a_manual_batch_stays_in_its_queue(core: SqlCore, worker: Worker) -> None:
    await core.open_manual_run(worker, [pairs([1, 2])])
    await worker.complete(await worker.claim_one(), rest=mentors(2))
    assert len((await worker.claim(manual_only=True))["batches"]) == 1


async def test_a_record_repeated_after_a_lost_answer_cuts_nothing_off(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2, 3])])
    batch = await worker.claim_one()
    assert await worker.complete(batch, rest=mentors(2)) == "done"
    before = await tables(core)
    assert await worker.complete(batch, rest=mentors(2)) == "already_done"
    assert await worker.complete(batch, rest=mentors(3)) == "already_done"
    assert await worker.complete(batch) == "already_done"
    assert await tables(core) == before


async def test_of_a_pruned_invocation_nothing_is_cut_off(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    await core.owner.run("delete from public.scheduler_invocations")
    assert await worker.complete(batch, rest=mentors(2)) == "gone"
    assert await batches(core) == []


async def test_a_batch_can_be_worked_off_user_by_user(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(10))])
    for number in range(9):
        batch = await worker.claim_one()
        assert await worker.complete(batch, rest=mentors(*range(number + 1, 10))) == "done"
    assert await worker.complete(await worker.claim_one()) == "done"
    ended = (await worker.finish(run))["invocation"]
    assert (ended["status"], ended["counts"]["batches"], ended["counts"]["triggered"]) == ("succeeded", 10, 10)
    assert_counts_add_up(await core.describe(run))
    assert await core.queued() == 0


@pytest.mark.parametrize(
    "rest",
    [
        [],
        mentors(1, 2, 3),
        mentors(4),
        mentors(3, 4),
        mentors(2, 2, 9),
    ],
    ids=["nobody", "everybody", "a stranger", "a stranger as well", "a stranger beside one named twice"],
)
async def test_a_rest_that_is_no_part_of_the_batch_is_refused(
    core: SqlCore, worker: Worker, rest: Sequence[str]
) -> None:
    await core.open_run(worker, [pairs([1, 2, 3])])
    batch = await worker.claim_one()
    before = await tables(core)
    with pytest.raises(psycopg.errors.DataException, match="expected a rest of some but not all of its users"):
        await worker.complete(batch, rest=rest)
    assert await tables(core) == before


@pytest.mark.parametrize(
    ("notable", "counts"),
    [
        ([], {}),
        ([(mentor(1), SCENARIO, "triggered")], {SCENARIO: {"triggered": 1}}),
        ([(mentor(1), SCENARIO, "triggered"), (mentor(3), SCENARIO, "triggered")], {SCENARIO: {"triggered": 2}}),
        ([(mentor(number), SCENARIO, "triggered") for number in (1, 2, 3)], {SCENARIO: {"triggered": 3}}),
    ],
    ids=["nobody", "too few", "one of the rest", "everybody"],
)
async def test_results_have_to_cover_all_but_the_rest(
    core: SqlCore, worker: Worker, notable: list[tuple[str, str, str]], counts: dict[str, dict[str, int]]
) -> None:
    await core.open_run(worker, [pairs([1, 2, 3])])
    batch = await worker.claim_one()
    before = await tables(core)
    with pytest.raises(psycopg.errors.DataException):
        await worker.complete_with(batch, notable, counts, rest=mentors(3))
    assert await tables(core) == before


@pytest.mark.parametrize("cancelled", [True, False])
async def test_the_rest_of_an_abandoned_batch_is_abandoned_too(core: SqlCore, worker: Worker, cancelled: bool) -> None:
    run = await core.open_run(worker, [pairs([1, 2, 3], ["lapsed", "milestone"]), pairs([4])])
    late, _ = (await worker.claim())["batches"]
    if cancelled:
        await worker.cancel(run)
    else:
        await core.expire_now(run)
        await core.owner.run("select scheduler.expire()")
    before = await core.describe(run)
    assert await worker.complete(late, rest=mentors(2, 3)) == "done"
    after = await core.describe(run)
    assert (after["status"], after["finished_at"]) == (before["status"], before["finished_at"])
    assert (after["counts"]["triggered"], after["counts"]["not_evaluated"]) == (2, 5)
    assert after["counts"]["mentors"] == 4
    assert_counts_add_up(after)
    assert await core.queued() == 0
    assert [(row[0], row[1]) for row in await batches(core)] == [(1, "done"), (2, "abandoned"), (3, "abandoned")]
    assert await worker.complete(late, rest=mentors(2, 3)) == "already_done"


async def test_each_user_is_found_on_whichever_side_she_is(core: SqlCore, worker: Worker) -> None:
    """The two parts lie between each other."""
    await core.open_run(worker, [pairs([1, 3, 5, 7, 9]), pairs([11])])
    batch, _ = (await worker.claim())["batches"]
    await worker.complete(batch, rest=mentors(3, 7))
    await worker.complete(await worker.claim_one(), rest=mentors(7))
    expected = {1: "triggered", 3: "triggered", 5: "triggered", 7: None, 9: "triggered", 11: None}
    for number in range(13):
        found = (await listed(worker, user_id=mentor(number)))["items"]
        assert [[result["outcome"] for result in item["results"]] for item in found] == (
            [[expected[number]]] if number in expected else []
        ), number


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_retry_reads_both_sides_once_in_order(core: SqlCore, worker: Worker, size: int) -> None:
    run = await core.open_run(worker, [pairs([1, 3, 5, 7, 9]), pairs([11, 12])])
    batch, _ = (await worker.claim())["batches"]
    await worker.complete(batch, "triggered", {mentor(5): "failed"}, rest=mentors(3, 7))
    await worker.cancel(run)
    undone = await all_undone(worker, run, mentors=size)
    assert [one.user_id for one in undone] == mentors(3, 5, 7, 11, 12)


async def test_what_is_cut_off_while_a_retry_reads_does_not_come_a_second_time(core: SqlCore, worker: Worker) -> None:
    """The retry has read the abandoned batch as a whole; its rest, which has a later number, was in it."""
    run = await core.open_run(worker, [pairs([1, 2, 3]), pairs([4])])
    late, _ = (await worker.claim())["batches"]
    await worker.cancel(run)
    first = await worker.call("undone", invocation_id=run, after_user_id=None, mentors=1)
    assert [row["user_id"] for row in first["mentors"]] == mentors(1, 2, 3)
    await worker.complete(late, rest=mentors(3))
    second = await worker.call("undone", invocation_id=run, after_user_id=first["last_user_id"], mentors=1)
    assert [row["user_id"] for row in second["mentors"]] == mentors(4)
    last = await worker.call("undone", invocation_id=run, after_user_id=second["last_user_id"], mentors=1)
    assert last["last_user_id"] is None


async def test_of_two_who_record_the_same_batch_with_different_rests_one_does(core: SqlCore) -> None:
    workers = await core.workers(2)
    run = await core.open_run(workers[0], [pairs(range(10)) for _ in range(1)])
    batch = await workers[0].claim_one()
    answers = await asyncio.gather(
        workers[0].complete(batch, rest=mentors(0, 1)), workers[1].complete(batch, rest=mentors(5))
    )
    assert sorted(answers) == ["already_done", "done"]
    assert (await core.describe(run))["counts"]["mentors"] == 10
    assert await core.queued() == 1


async def test_a_run_is_not_ended_between_a_record_and_its_rest(core: SqlCore) -> None:
    recorder, finisher = await core.workers(2)
    run = await core.open_run(recorder, [pairs([1, 2])])
    batch = await recorder.claim_one()
    async with recorder.transaction():
        await recorder.complete(batch, rest=mentors(2))
        finishing = asyncio.create_task(finisher.finish(run))
        await core.until_waiting_for_a_lock(finisher)
    assert not (await finishing)["ended_now"]


async def test_a_record_with_a_rest_beside_a_cancellation_waits_and_is_late(core: SqlCore) -> None:
    recorder, canceller = await core.workers(2)
    run = await core.open_run(recorder, [pairs([1, 2])])
    batch = await recorder.claim_one()
    async with canceller.transaction():
        await canceller.cancel(run)
        recording = asyncio.create_task(recorder.complete(batch, rest=mentors(2)))
        await core.until_waiting_for_a_lock(recorder)
    assert await recording == "done"
    described = await core.describe(run)
    assert (described["counts"]["triggered"], described["counts"]["not_evaluated"]) == (1, 1)
    assert_counts_add_up(described)
    assert await core.queued() == 0


async def test_when_the_rest_cannot_be_queued_nothing_has_changed(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    before = await tables(core)
    owner: Session = core.owner
    await owner.run("alter table pgmq.q_scenario_evaluation_batches rename to away")
    with pytest.raises(psycopg.errors.UndefinedTable):
        await worker.complete(batch, rest=mentors(2))
    await owner.run("alter table pgmq.away rename to q_scenario_evaluation_batches")
    assert await tables(core) == before
    assert await worker.complete(batch, rest=mentors(2)) == "done"
