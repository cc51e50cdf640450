"""scheduler_complete: results, counts and the queue's acknowledgement in one transaction, once."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import psycopg
import pytest

from .sql_core import SCENARIO, Session, SqlCore, Worker, assert_counts_add_up, mentor, pairs


async def evaluations(core: SqlCore) -> list[tuple[object, ...]]:
    return await core.owner.rows(
        "select user_id::text, scenario_type, outcome, error_code from public.scheduler_evaluations order by 1, 2"
    )


async def states(core: SqlCore) -> list[tuple[object, ...]]:
    return await core.owner.rows(
        "select batch_no, state, triggered, not_triggered, suppressed, skipped, failed, not_evaluated"
        " from public.scheduler_invocation_batches order by batch_no"
    )


async def test_rows_counts_and_acknowledgement_come_together(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs(range(1, 7))])
    outcomes = dict(
        zip(map(mentor, range(1, 6)), ["triggered", "not_triggered", "suppressed", "skipped", "failed"], strict=True)
    )
    assert await worker.complete(await worker.claim_one(), "not_triggered", outcomes) == "done"
    assert await evaluations(core) == [
        (mentor(1), SCENARIO, "triggered", None),
        (mentor(3), SCENARIO, "suppressed", None),
        (mentor(4), SCENARIO, "skipped", None),
        (mentor(5), SCENARIO, "failed", "engine_error"),
    ]
    assert await states(core) == [(1, "done", 1, 2, 1, 1, 1, 0)]
    assert await core.queued() == 0
    described = await core.describe(invocation)
    assert_counts_add_up(described)
    assert described["failures"] == [
        {
            "code": "engine_error",
            "count": 1,
            "is_lower_bound": False,
            "message": "it failed",
            "sample_user_ids": [mentor(5)],
        }
    ]


async def test_when_the_rows_cannot_be_written_nothing_has_changed(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    before = await states(core)
    await core.owner.run(
        "alter table public.scheduler_evaluations add constraint not_this_one check (user_id <> %s::uuid)".replace(
            "%s", f"'{mentor(2)}'"
        )
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        await worker.complete(batch)
    assert (await states(core), await evaluations(core), await core.queued()) == (before, [], 1)
    await core.owner.run("alter table public.scheduler_evaluations drop constraint not_this_one")
    assert await worker.complete(batch) == "done"


async def test_when_the_acknowledgement_fails_nothing_has_changed(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    before = await states(core)
    await core.owner.run("alter table pgmq.q_scenario_evaluation_batches rename to away")
    with pytest.raises(psycopg.errors.UndefinedTable):
        await worker.complete(batch)
    assert (await states(core), await evaluations(core)) == (before, [])
    await core.owner.run("alter table pgmq.away rename to q_scenario_evaluation_batches")
    assert await core.queued() == 1


async def test_the_first_to_record_wins(core: SqlCore) -> None:
    first, second = await core.workers(2)
    invocation = await core.open_run(first, [pairs([1])])
    batch = await first.claim_one()
    await core.let_batches_reappear()
    again = await second.claim_one()
    assert await first.complete(batch, "triggered") == "done"
    assert await second.complete(again, "failed") == "already_done"
    assert await first.complete(batch, "triggered") == "already_done"
    assert await evaluations(core) == [(mentor(1), SCENARIO, "triggered", None)]
    assert_counts_add_up(await core.describe(invocation))


async def test_of_two_simultaneous_records_one_wins(core: SqlCore) -> None:
    workers = await core.workers(2)
    invocation = await core.open_run(workers[0], [pairs([number]) for number in range(30)])
    for _ in range(30):
        batch = await workers[0].claim_one()
        answers = await asyncio.gather(*(worker.complete(batch) for worker in workers))
        assert sorted(answers) == ["already_done", "done"]
    described = await core.describe(invocation)
    assert described["counts"]["triggered"] == 30
    assert_counts_add_up(described)
    assert await core.queued() == 0


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_late_result_moves_counts_but_neither_status_nor_end(
    core: SqlCore, worker: Worker, cancelled: bool
) -> None:
    invocation = await core.open_run(worker, [pairs([1]), pairs([2])])
    late = await worker.claim_one()
    if cancelled:
        await worker.cancel(invocation)
    else:
        await core.expire_now(invocation)
        await core.owner.run("select scheduler.expire()")
    before = await core.describe(invocation)
    assert before["counts"]["not_evaluated"] == 2
    assert await worker.complete(late, "triggered") == "done"
    after = await core.describe(invocation)
    assert (after["status"], after["finished_at"]) == (before["status"], before["finished_at"])
    assert (after["counts"]["triggered"], after["counts"]["not_evaluated"]) == (1, 1)
    assert after["scenarios"] == {SCENARIO: {"triggered": 1, "not_evaluated": 1}}
    assert_counts_add_up(after)
    assert not (await worker.finish(invocation))["ended_now"]
    assert await worker.complete(late, "triggered") == "already_done"


async def test_a_batch_of_a_deleted_invocation_is_gone(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    await core.owner.run("delete from public.scheduler_invocations")
    assert await worker.complete(batch) == "gone"
    assert await worker.complete({**batch, "invocation_id": str(uuid4())}) == "gone"
    assert await evaluations(core) == []


@pytest.mark.parametrize(
    ("notable", "counts"),
    [
        ([], {}),
        ([(mentor(1), SCENARIO, "triggered")], {SCENARIO: {"triggered": 1}}),
        ([(mentor(1), SCENARIO, "triggered")], {SCENARIO: {"triggered": 2}}),
        ([(mentor(1), SCENARIO, "triggered")], {SCENARIO: {"triggered": 1, "not_triggered": 2}}),
        ([(mentor(1), SCENARIO, "triggered"), (mentor(2), SCENARIO, "triggered")], {SCENARIO: {"triggered": 1}}),
        (
            [(mentor(number), SCENARIO, "triggered") for number in (1, 2, 3)],
            {SCENARIO: {"triggered": 3}},
        ),
        (
            [(mentor(number), SCENARIO, "triggered") for number in (1, 2)],
            {SCENARIO: {"triggered": 1, "failed": 2}},
        ),
        ([(mentor(1), SCENARIO, "triggered")] * 2, {SCENARIO: {"triggered": 2}}),
    ],
)
async def test_results_that_do_not_cover_the_pairs_are_refused(
    core: SqlCore, worker: Worker, notable: list[tuple[str, str, str]], counts: dict[str, dict[str, int]]
) -> None:
    await core.open_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    before = await states(core)
    with pytest.raises(psycopg.DatabaseError):
        await worker.complete_with(batch, notable, counts)
    assert (await states(core), await evaluations(core), await core.queued()) == (before, [], 1)


async def test_how_the_batch_was_delivered_is_kept(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    await worker.complete({**await worker.claim_one(), "deliveries": 3})
    assert await core.owner.rows(
        "select deliveries, duration_ms, worker, finished_at is not null from public.scheduler_invocation_batches"
    ) == [(3, 5, "test", True)]


async def test_recording_waits_for_nobody_but_its_own_batch(core: SqlCore, worker: Worker) -> None:
    """A finish, a hand-back or a cancellation that holds the invocation does not hold up those that record."""
    invocation = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    holder: Session = await core.session()
    async with holder.transaction():
        await holder.run("select from public.scheduler_invocations where id = %s for no key update", invocation)
        assert await worker.complete(batch) == "done"
