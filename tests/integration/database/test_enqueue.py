"""scheduler_enqueue: freezes a page of the enumeration once, whichever workers read the same page."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from .sql_core import Pairs, SqlCore, Worker, mentor, pairs


async def test_two_enumerators_with_the_same_page_queue_it_once(core: SqlCore) -> None:
    workers = await core.workers(2)
    run = await core.open_run(workers[0], done=False)
    for page in range(20):
        batch = [pairs(range(page * 10, page * 10 + 10))]
        expected = str(page) if page else None
        accepted = await asyncio.gather(
            *(one.enqueue(run, batch, expected=expected, following=str(page + 1)) for one in workers)
        )
        assert sorted(accepted) == [False, True]
    assert await core.queued() == 20
    users = await core.batches("jsonb_array_elements_text(pairs -> 0 -> 'user_ids')")
    assert sorted(user for (user,) in users) == [mentor(number) for number in range(200)]


async def test_pairs_and_their_ranges_are_frozen_and_counted(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, done=False)
    mixed = [*pairs([4, 10], ["lapsed", "milestone"]), *pairs([3, 5, 17], ["milestone"]), *pairs([9], ["onboarding"])]
    assert await worker.enqueue(run, [mixed, pairs([18])], following="18", skipped=2)
    assert await worker.enqueue(run, [pairs([19])], expected="18", following="19", skipped=1)
    assert await core.batches(
        "batch_no, pairs, mentors, evaluations, state, first_user_id::text, last_user_id::text"
    ) == [
        (1, mixed, 6, 8, "open", mentor(3), mentor(17)),
        (2, pairs([18]), 1, 1, "open", mentor(18), mentor(18)),
        (3, pairs([19]), 1, 1, "open", mentor(19), mentor(19)),
    ]
    counts = (await core.describe(run))["counts"]
    assert (counts["mentors"], counts["mentors_skipped"], counts["evaluations"]) == (11, 3, 10)


async def test_each_batch_has_a_message_without_personal_data(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, done=False)
    await worker.enqueue(run, [pairs([1]), pairs([2])], following="2")
    await worker.enqueue(run, [pairs([3])], expected="2", following="3")
    assert await core.owner.rows(
        "select b.batch_no, q.message from public.scheduler_invocation_batches as b"
        " join pgmq.q_scenario_evaluation_batches as q using (msg_id) order by b.batch_no"
    ) == [(number, {"invocation_id": run, "batch_no": number}) for number in (1, 2, 3)]


async def test_no_time_is_spent_on_compressing_ids(core: SqlCore, worker: Worker) -> None:
    """These would shrink, as the random ids of real users would not."""
    await core.open_run(worker, [pairs(range(500))])
    assert await core.batches("pg_column_compression(pairs)") == [(None,)]


async def test_a_pending_invocation_runs_from_its_first_page(core: SqlCore, worker: Worker) -> None:
    run = await core.open_manual_run(worker, done=False)
    await core.change(run, "status = 'pending', started_at = null")
    await worker.enqueue(run, [pairs([1])], following="1")
    first = await core.summarize(run)
    assert first["status"] == "running"
    await worker.enqueue(run, [pairs([2])], expected="1", following="2")
    assert (await core.summarize(run))["started_at"] == first["started_at"]


@pytest.mark.parametrize(("triggered_by", "is_manual"), [("manual", True), ("retry", True), ("schedule", False)])
async def test_manual_runs_and_retries_have_a_queue_of_their_own(
    core: SqlCore, worker: Worker, triggered_by: str, is_manual: bool
) -> None:
    run = await core.open_manual_run(worker, done=False)
    await core.change(run, f"triggered_by = '{triggered_by}'")
    await worker.enqueue(run, [pairs([1])], following="1")
    assert len((await worker.claim(manual_only=True))["batches"]) == is_manual


@pytest.mark.parametrize("empty", [[], pairs([]), pairs([1], [])], ids=["no groups", "no users", "no types"])
async def test_a_batch_without_pairs_is_refused_with_its_page(core: SqlCore, worker: Worker, empty: Pairs) -> None:
    run = await core.open_run(worker, done=False)
    before = await core.everything()
    with pytest.raises(psycopg.errors.IntegrityError):
        await worker.enqueue(run, [pairs([1]), empty], following="1")
    assert await core.everything() == before
    assert await worker.enqueue(run, [pairs([1])], following="1")


async def test_skip_reasons_add_up_over_pages(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, done=False)
    for page, reasons in enumerate([{"no_scenario_applies": 2, "invalid_segments": 4}, {}, {"no_scenario_applies": 1}]):
        expected, following = str(page) if page else None, str(page + 1)
        assert await worker.enqueue(run, [], expected=expected, following=following, skip_reasons=reasons)
    found = await core.summarize(run)
    assert found["skip_reasons"] == {"no_scenario_applies": 3, "user_id_missing": 0, "invalid_segments": 4}
    assert (found["counts"]["mentors"], found["counts"]["mentors_skipped"]) == (3, 3)


async def test_a_cancellation_beside_a_page_leaves_nothing_queued(core: SqlCore) -> None:
    enumerator, canceller = await core.workers(2)
    first, second = [await core.open_manual_run(enumerator, done=False) for _ in range(2)]
    accepted, cancelled = await core.race(
        enumerator, enumerator.enqueue(first, [pairs([1])]), canceller, canceller.cancel(first)
    )
    assert (accepted, cancelled["counts"]["not_evaluated"]) == (True, 1)
    _, accepted = await core.race(
        canceller, canceller.cancel(second), enumerator, enumerator.enqueue(second, [pairs([2])])
    )
    assert not accepted
    assert await core.queued() == 0
