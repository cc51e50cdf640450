"""scheduler_enqueue: freezes a page of the enumeration once, whoever else read the same page."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from .sql_core import Pairs, SqlCore, Worker, mentor, pairs


async def test_two_enumerators_with_the_same_page_queue_it_once(core: SqlCore) -> None:
    workers = await core.workers(2)
    invocation = await core.open_run(workers[0], done=False)
    for page in range(20):
        expected = mentor(page * 10) if page else None
        accepted = await asyncio.gather(
            *(
                worker.enqueue(
                    invocation,
                    [pairs(range(page * 10, page * 10 + 10))],
                    expected=expected,
                    following=mentor(page * 10 + 10),
                )
                for worker in workers
            )
        )
        assert sorted(accepted) == [False, True]
    assert await core.queued() == 20
    users = await core.owner.column(
        "select jsonb_array_elements_text(pairs -> 0 -> 'user_ids') from public.scheduler_invocation_batches"
    )
    assert sorted(users) == [mentor(number) for number in range(200)]


async def test_no_time_is_spent_on_compressing_ids(core: SqlCore, worker: Worker) -> None:
    """Those here would shrink, as the random ids of real users would not."""
    invocation = await core.open_run(worker, done=False)
    assert await worker.enqueue(invocation, [pairs(range(500))], following=mentor(500))
    assert (
        await core.owner.value("select pg_column_compression(pairs) from public.scheduler_invocation_batches") is None
    )


async def test_a_page_read_from_elsewhere_is_refused(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, done=False)
    assert await worker.enqueue(invocation, [pairs([1])], following=mentor(1))
    assert not await worker.enqueue(invocation, [pairs([2])], expected=None, following=mentor(2))
    assert not await worker.enqueue(invocation, [pairs([2])], expected=mentor(9), following=mentor(2))
    assert await core.queued() == 1


async def test_a_page_sent_again_after_a_lost_answer_is_not_queued_twice(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, done=False)
    assert await worker.enqueue(invocation, [pairs([1])], following=mentor(1), skipped=4)
    assert not await worker.enqueue(invocation, [pairs([1])], following=mentor(1), skipped=4)
    counts = (await core.describe(invocation))["counts"]
    assert (counts["batches"], counts["mentors_skipped"], counts["mentors"]) == (1, 4, 5)


async def test_pairs_are_frozen_and_counted(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, done=False)
    mixed = [*pairs([1, 2, 3], ["lapsed", "milestone"]), *pairs([4], ["onboarding"])]
    assert await worker.enqueue(invocation, [mixed, pairs([5])], following=mentor(5), skipped=2)
    assert await core.owner.rows(
        "select batch_no, pairs, mentors, evaluations, state from public.scheduler_invocation_batches order by batch_no"
    ) == [(1, mixed, 4, 7, "open"), (2, pairs([5]), 1, 1, "open")]
    counts = (await core.describe(invocation))["counts"]
    assert counts["mentors"] == 7
    assert counts["mentors_skipped"] == 2
    assert counts["evaluations"] == 8


async def test_batch_numbers_go_on_over_pages_and_each_has_its_own_message(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, done=False)
    await worker.enqueue(invocation, [pairs([1]), pairs([2])], following=mentor(2))
    await worker.enqueue(invocation, [pairs([3])], expected=mentor(2), following=mentor(3))
    rows = await core.owner.rows(
        "select b.batch_no, q.message from public.scheduler_invocation_batches as b"
        " join pgmq.q_scenario_evaluation_batches as q using (msg_id) order by b.batch_no"
    )
    assert rows == [(number, {"invocation_id": invocation, "batch_no": number}) for number in (1, 2, 3)]


async def test_the_queue_holds_no_personal_data(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1, 2])])
    assert await core.owner.column("select message from pgmq.q_scenario_evaluation_batches") == [
        {"invocation_id": invocation, "batch_no": 1}
    ]


async def test_the_done_flag_closes_the_enumeration_and_keeps_the_cursor(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, done=False)
    await worker.enqueue(invocation, [pairs([1])], following=mentor(1))
    assert await worker.enqueue(invocation, [], expected=mentor(1), done=True)
    assert await core.owner.rows("select enumeration_done, enumeration_cursor::text from scheduler_invocations") == [
        (True, mentor(1))
    ]
    assert not await worker.enqueue(invocation, [pairs([2])], expected=mentor(1), following=mentor(2))
    assert not await worker.enqueue(invocation, [], expected=mentor(1), done=True)
    assert await core.queued() == 1


@pytest.mark.parametrize("status", ["succeeded", "partial", "failed", "cancelled", "skipped"])
async def test_an_ended_invocation_takes_no_more_batches(core: SqlCore, worker: Worker, status: str) -> None:
    invocation = await core.open_run(worker, done=False)
    await core.owner.run("update public.scheduler_invocations set status = %s, finished_at = now()", status)
    assert not await worker.enqueue(invocation, [pairs([1])], following=mentor(1))
    assert await core.queued() == 0
    assert await core.owner.column("select status from public.scheduler_invocations") == [status]


async def test_an_unknown_invocation_takes_no_batches(core: SqlCore, worker: Worker) -> None:
    assert not await worker.enqueue(str(uuid4()), [pairs([1])], following=mentor(1))
    assert await core.queued() == 0


async def test_a_pending_invocation_runs_from_its_first_page_on(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_manual_run(worker, done=False)
    await core.owner.run("update public.scheduler_invocations set status = 'pending', started_at = null")
    await worker.enqueue(invocation, [pairs([1])], following=mentor(1))
    (first,) = await core.owner.rows("select status, started_at from public.scheduler_invocations")
    assert first[0] == "running"
    await worker.enqueue(invocation, [pairs([2])], expected=mentor(1), following=mentor(2))
    assert await core.owner.rows("select status, started_at from public.scheduler_invocations") == [first]


@pytest.mark.parametrize("triggered_by", ["manual", "retry"])
async def test_what_a_person_starts_waits_in_the_manual_queue(core: SqlCore, worker: Worker, triggered_by: str) -> None:
    invocation = await core.open_manual_run(worker, done=False)
    await core.owner.run("update public.scheduler_invocations set triggered_by = %s", triggered_by)
    await worker.enqueue(invocation, [pairs([1])], following=mentor(1))
    assert await core.owner.value("select count(*) from pgmq.q_scenario_evaluation_batches_manual") == 1
    assert await core.owner.value("select count(*) from pgmq.q_scenario_evaluation_batches") == 0


@pytest.mark.parametrize("empty", [[], pairs([]), pairs([1], [])], ids=["no groups", "no users", "no types"])
async def test_a_page_with_a_batch_without_pairs_is_refused_and_leaves_nothing(
    core: SqlCore, worker: Worker, empty: Pairs
) -> None:
    invocation = await core.open_run(worker, done=False)
    with pytest.raises(psycopg.errors.IntegrityError):
        await worker.enqueue(invocation, [pairs([1]), empty], following=mentor(1))
    assert await core.queued() == 0
    assert await core.owner.rows("select enumeration_cursor, next_batch_no from public.scheduler_invocations") == [
        (None, 1)
    ]


async def test_cancelling_and_enqueueing_leave_nothing_queued(core: SqlCore) -> None:
    enumerator, canceller = await core.workers(2)
    invocation = await core.open_run(enumerator, done=False)
    async with enumerator.transaction():
        assert await enumerator.enqueue(invocation, [pairs([1])], following=mentor(1))
        cancelling = asyncio.create_task(canceller.cancel(invocation))
        await core.until_waiting_for_a_lock(canceller)
    cancelled = await cancelling
    assert cancelled is not None
    assert (cancelled["status"], cancelled["counts"]["not_evaluated"]) == ("cancelled", 1)
    assert await core.queued() == 0
    assert not await enumerator.enqueue(invocation, [pairs([2])], expected=mentor(1), following=mentor(2))


async def test_the_ends_of_a_batch_are_those_of_all_its_groups(core: SqlCore, worker: Worker) -> None:
    mixed = [*pairs([4, 10], ["lapsed"]), *pairs([3, 5, 17], ["milestone"]), *pairs([9], ["onboarding"])]
    await core.open_run(worker, [mixed, pairs([18])])
    assert await core.owner.rows(
        "select first_user_id::text, last_user_id::text from public.scheduler_invocation_batches order by batch_no"
    ) == [(mentor(3), mentor(17)), (mentor(18), mentor(18))]


async def test_a_cursor_is_any_text_and_stays_where_the_last_page_left_it(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, done=False)
    cursors = ["1", "17", "rest:", f"rest:{mentor(1)}", "rest:rest:2"]
    for page, (expected, following) in enumerate(zip([None, *cursors], cursors, strict=False)):
        assert await worker.enqueue(invocation, [pairs([page])], expected=expected, following=following)
    assert not await worker.enqueue(invocation, [], expected="rest:2", done=True)
    assert await worker.enqueue(invocation, [], expected=cursors[-1], done=True)
    assert await core.owner.column("select enumeration_cursor from public.scheduler_invocations") == [cursors[-1]]
