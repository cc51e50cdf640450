"""scheduler_finish: ends what is recorded in full, tells the truth, and never leaves a run lying."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from .sql_core import SqlCore, Worker, assert_counts_add_up, mentor, pairs


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        (["triggered", "not_triggered", "suppressed"], "succeeded"),
        (["not_triggered"], "succeeded"),
        (["skipped"], "succeeded"),
        (["skipped", "triggered"], "succeeded"),
        (["failed", "triggered"], "partial"),
        (["failed", "not_triggered"], "partial"),
        (["failed", "suppressed"], "partial"),
        (["failed"], "failed"),
        (["failed", "skipped"], "failed"),
    ],
)
async def test_the_status_tells_the_truth(core: SqlCore, worker: Worker, outcomes: list[str], status: str) -> None:
    invocation = await core.open_run(worker, [pairs([number]) for number in range(len(outcomes))])
    for outcome in outcomes:
        await worker.complete(await worker.claim_one(), outcome)
    ended = await worker.finish(invocation)
    assert ended["ended_now"] is True
    assert (ended["invocation"]["status"], ended["invocation"]["error"]) == (status, None)
    assert ended["invocation"]["finished_at"] is not None
    assert_counts_add_up(await core.describe(invocation))


async def test_a_scheduled_run_that_read_nobody_has_failed(core: SqlCore, worker: Worker) -> None:
    invocation = (await worker.finish(await core.open_run(worker)))["invocation"]
    assert (invocation["status"], invocation["error"]) == ("failed", "no_active_mentors")


async def test_a_scheduled_run_of_whom_nothing_applied_to_anybody_has_succeeded(core: SqlCore, worker: Worker) -> None:
    invocation = (await worker.finish(await core.open_run(worker, skipped=3)))["invocation"]
    assert (invocation["status"], invocation["error"], invocation["counts"]["mentors"]) == ("succeeded", None, 3)


async def test_a_manual_run_for_nobody_has_succeeded(core: SqlCore, worker: Worker) -> None:
    assert (await worker.finish(await core.open_manual_run(worker)))["invocation"]["status"] == "succeeded"


async def test_an_outage_that_is_over_leaves_no_error(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1])])
    await core.owner.run("update public.scheduler_invocations set error = 'engine_unavailable'")
    await worker.complete(await worker.claim_one())
    assert (await worker.finish(invocation))["invocation"]["error"] is None


async def test_it_runs_on_while_a_batch_is_open(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1]), pairs([2])])
    await worker.complete(await worker.claim_one())
    answer = await worker.finish(invocation)
    assert (answer["ended_now"], answer["invocation"]["status"]) == (False, "running")


async def test_it_runs_on_while_the_enumeration_is_not_done(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, done=False)
    await worker.enqueue(invocation, [pairs([1])], following=mentor(1))
    await worker.complete(await worker.claim_one())
    assert not (await worker.finish(invocation))["ended_now"]
    await worker.enqueue(invocation, [], expected=mentor(1), done=True)
    assert (await worker.finish(invocation))["ended_now"]


async def test_a_second_finish_changes_nothing(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    first = await worker.finish(invocation)
    second = await worker.finish(invocation)
    assert second == {"ended_now": False, "invocation": first["invocation"], "failures": None}


async def test_what_was_cancelled_stays_cancelled(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1])])
    cancelled = await worker.cancel(invocation)
    finished = await worker.finish(invocation)
    assert (finished["ended_now"], finished["failures"]) == (False, None)
    assert cancelled == cancelled | finished["invocation"]


async def test_there_is_nothing_to_finish_where_there_is_no_invocation(worker: Worker) -> None:
    assert await worker.finish(str(uuid4())) == {"ended_now": False, "invocation": None, "failures": None}


async def test_two_workers_with_the_last_two_batches_always_end_the_run(core: SqlCore) -> None:
    workers = await core.workers(2)

    async def record_and_finish(worker: Worker, batch: dict[str, object]) -> bool:
        assert await worker.complete(batch) == "done"
        return bool((await worker.finish(str(batch["invocation_id"])))["ended_now"])

    for _ in range(50):
        invocation = await core.open_manual_run(workers[0], [pairs([1]), pairs([2])])
        batches = [await worker.claim_one() for worker in workers]
        ended = await asyncio.gather(*map(record_and_finish, workers, batches))
        assert sorted(ended) == [False, True]
        assert (await core.describe(invocation))["status"] == "succeeded"


async def test_twenty_simultaneous_finishes_end_it_once(core: SqlCore) -> None:
    workers = await core.workers(20)
    invocation = await core.open_run(workers[0], [pairs([1])])
    await workers[0].complete(await workers[0].claim_one())
    answers = await asyncio.gather(*(worker.finish(invocation) for worker in workers))
    assert sum(answer["ended_now"] for answer in answers) == 1
    assert {answer["invocation"]["finished_at"] for answer in answers} == {answers[0]["invocation"]["finished_at"]}
