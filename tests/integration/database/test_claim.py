"""scheduler_claim, release, split and enqueue: batches are claimed, released, split and queued.

What becomes of one batch step by step is explored in tests/faults/state_machine.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import datetime
from typing import Any

import psycopg
import pytest

from .sql_core import QUEUES, Pairs, SqlCore, Worker, mentor, minutes, pairs

NOTHING = {"batches": [], "stale": 0, "engine_paused_until": None, "poison_waits": False}


def keys(claimed: dict[str, Any]) -> list[tuple[str, int]]:
    return [(batch["invocation_id"], batch["batch_no"]) for batch in claimed["batches"]]


async def test_a_claimed_batch_carries_what_its_evaluation_needs(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1, 2], ["lapsed", "milestone"])])
    ((scope, scheduled_for),) = await core.owner.rows("select engine_scope, scheduled_for from scheduler_invocations")
    claimed = await worker.claim_one()
    assert datetime.fromisoformat(claimed.pop("scheduled_for")) == scheduled_for
    assert claimed == {
        "invocation_id": run,
        "batch_no": 1,
        "pairs": pairs([1, 2], ["lapsed", "milestone"]),
        "read_count": 1,
        "deliveries": 1,
        "dry_run": False,
        "is_poison": False,
        "engine_scope": scope,
    }


async def test_manual_runs_are_claimed_first_and_no_more_than_asked(core: SqlCore, worker: Worker) -> None:
    scheduled = await core.open_run(worker, [pairs([number]) for number in range(5)])
    manual = await core.open_manual_run(worker, [pairs([1]), pairs([2])])
    assert (await worker.claim(0))["batches"] == []
    assert keys(await worker.claim(1, manual_only=True)) == [(manual, 1)]
    assert keys(await worker.claim(3)) == [(manual, 2), (scheduled, 1), (scheduled, 2)]
    assert await worker.claim(manual_only=True) == NOTHING
    assert len((await worker.claim(9))["batches"]) == 3


@pytest.mark.parametrize(
    "message",
    [
        '"hello"',
        "{}",
        '{"invocation_id": "hello", "batch_no": 1}',
        '{"invocation_id": "00000000-0000-4000-8000-000000000000", "batch_no": "one"}',
        '{"invocation_id": "00000000-0000-4000-8000-000000000000", "batch_no": 99999999999}',
        '{"invocation_id": "RUN", "batch_no": 1}',
    ],
)
async def test_a_message_of_no_open_batch_is_cleared_away(core: SqlCore, worker: Worker, message: str) -> None:
    """It can be added by hand in the dashboard, a copy too, and must not block the queue."""
    # enough of them that the planner goes by the batches' key, and reads the message to do so
    run = await core.open_run(worker, [pairs([number]) for number in range(2000)])
    await core.owner.run("select pgmq.send(%s, %s::jsonb)", QUEUES[1], message.replace("RUN", run))
    await core.owner.run("analyze public.scheduler_invocation_batches, pgmq.q_scenario_evaluation_batches")
    await core.owner.run(f"update pgmq.q_{QUEUES[1]} set vt = '2100-01-01' where msg_id between 3 and 2000")
    claimed = await worker.claim(4)
    assert (keys(claimed), claimed["stale"]) == ([(run, 1), (run, 2)], 1)
    assert await core.queued() == 2000


async def test_while_the_engine_is_paused_nothing_is_claimed(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    await core.change_settings("engine_paused_until = now() + interval '1 minute'")
    paused = await worker.claim()
    assert paused.pop("engine_paused_until") is not None
    assert paused == {"batches": [], "stale": 0, "poison_waits": False}
    await core.change_settings("engine_paused_until = now()")
    assert (await worker.claim_one())["read_count"] == 1


async def test_simultaneous_claims_and_pages_share_and_lose_no_batch(core: SqlCore) -> None:
    """A batch that is committed beside a claim is never taken for stale."""
    enumerators, claimers = await core.workers(3), await core.workers(5)
    runs = [await core.open_manual_run(one, done=False) for one in enumerators]
    all_queued = asyncio.Event()

    async def enumerate_mentors(worker: Worker, run: str) -> None:
        for page in range(40):
            expected, following = str(page) if page else None, str(page + 1)
            assert await worker.enqueue(run, [pairs([page]) for _ in range(3)], expected=expected, following=following)

    async def claim_until_empty(worker: Worker) -> list[tuple[str, int]]:
        mine: list[tuple[str, int]] = []
        while True:
            # what others have locked at that moment is passed over, so an empty answer says nothing before
            was_all = all_queued.is_set()
            claimed = await worker.claim(2)
            assert not claimed["stale"]
            mine += keys(claimed)
            if was_all and not claimed["batches"]:
                return mine

    claims = [asyncio.create_task(claim_until_empty(one)) for one in claimers]
    await asyncio.gather(*map(enumerate_mentors, enumerators, runs))
    all_queued.set()
    claimed = Counter(key for keys_of_one in await asyncio.gather(*claims) for key in keys_of_one)
    claimed.update(await claim_until_empty(claimers[0]))
    assert set(claimed.values()) == {1}
    assert len(claimed) == await core.queued() == 3 * 40 * 3


async def test_a_claim_does_not_wait_for_locks(core: SqlCore) -> None:
    """While a cancellation holds the invocation, its batches and their messages, other workers continue claiming."""
    worker, canceller = await core.workers(2)
    scheduled = await core.open_run(worker, [pairs([1])])
    manual = await core.open_manual_run(worker, [pairs([2])])
    async with canceller.transaction():
        await canceller.cancel(scheduled)
        assert keys(await worker.claim()) == [(manual, 1)]


# scheduler_release, and workers that hold a batch no longer


async def test_a_batch_is_hidden_for_its_time_or_delay(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    for seconds in (300, 120):
        before = await core.now()
        batch = await worker.claim_one(300)
        if seconds == 120:
            assert await worker.release(batch, delay_seconds=120)
        ((_, _, visible_again, _),) = await core.messages()
        assert before + minutes(seconds / 60 - 1) <= visible_again <= await core.now() + minutes(seconds / 60)
        assert await worker.claim() == NOTHING
        await core.let_batches_reappear()


@pytest.mark.parametrize("step", ["release", "split"])
@pytest.mark.parametrize("by", ["claim_one", "cancel"])
async def test_a_batch_taken_away_meanwhile_is_left_alone(core: SqlCore, step: str, by: str) -> None:
    worker, other = await core.workers(2)
    run = await core.open_run(worker, [pairs([1, 2])])
    batch = await worker.claim_one()
    await core.let_batches_reappear()
    taken = other.claim_one() if by == "claim_one" else other.cancel(run)
    assert (await core.race(other, taken, worker, getattr(worker, step)(batch)))[1] is False
    assert (await core.batches("released_count")) == [(0,)]
    assert (await worker.claim())["batches"] == []


# scheduler_split, and the poison queue


async def poison(core: SqlCore, worker: Worker, number: int = 1) -> None:
    """So many batches of one user each in the poison queue."""
    await core.open_run(worker, [pairs([user]) for user in range(number)])
    for batch in (await worker.claim())["batches"]:
        assert await worker.split(batch)


async def test_each_user_gets_a_batch_with_all_its_pairs(core: SqlCore, worker: Worker) -> None:
    skipped = {"skip": "mentor_not_active"}
    lapsed, gone = pairs([1, 3], ["lapsed", "milestone"]), [{**pairs([1, 4], ["gone"])[0], **skipped}]
    await core.open_manual_run(worker, [[*lapsed, *pairs([2], ["onboarding"]), *gone]])
    assert await worker.split(await worker.claim_one())
    # dispatch requests slices for them as well
    assert await core.owner.value("select scheduler.visible_batches(10)") == 4
    singles = [(await worker.claim(9, poison="last"))["batches"][0] for _ in range(4)]
    assert [batch["pairs"] for batch in singles] == [
        [*pairs([1], ["lapsed", "milestone"]), {**pairs([1], ["gone"])[0], **skipped}],
        pairs([2], ["onboarding"]),
        pairs([3], ["lapsed", "milestone"]),
        [{**pairs([4], ["gone"])[0], **skipped}],
    ]
    assert [(batch["deliveries"], batch["is_poison"]) for batch in singles] == [(3, True)] * 4


@pytest.mark.parametrize("other", ["split", "finish"])
async def test_a_split_beside_another_or_an_end_counts_once(core: SqlCore, other: str) -> None:
    first, second = await core.workers(2)
    run = await core.open_run(first, [pairs(range(20))])
    batch = await first.claim_one()
    call = second.split(batch) if other == "split" else second.finish(run)
    was_split, answer = await core.race(first, first.split(batch), second, call)
    assert (was_split, answer if other == "split" else answer["ended_now"]) == (True, False)
    assert await core.queued() == 20


async def test_poison_batches_come_one_at_a_time(core: SqlCore, worker: Worker) -> None:
    """After all else, or where they are asked for first."""
    await poison(core, worker, 3)
    manual = await core.open_manual_run(worker, [pairs([8]), pairs([9])])
    assert keys(await worker.claim(poison="last")) == [(manual, 1)]
    assert [batch["is_poison"] for batch in (await worker.claim(9, poison="first"))["batches"]] == [True]
    assert keys(await worker.claim()) == [(manual, 2)]
    hint = await worker.claim()
    assert (hint["batches"], hint["poison_waits"]) == ([], True)
    assert await worker.claim(manual_only=True, poison="first") == NOTHING
    for _ in range(2):
        assert [batch["is_poison"] for batch in (await worker.claim(poison="last"))["batches"]] == [True]
    assert await worker.claim(poison="last") == await worker.claim() == NOTHING


async def test_open_slot_reports_poison_waiting_for_ten_minutes(core: SqlCore, worker: Worker) -> None:
    await poison(core, worker)
    slots = await core.slots()
    for age, overdue in ((9, False), (11, True)):
        await core.owner.run(f"update pgmq.q_{QUEUES[2]} set enqueued_at = clock_timestamp() - %s", minutes(age))
        assert (await worker.open_slot(*slots))["poison_overdue"] is overdue
    await worker.claim(poison="first")
    assert (await worker.open_slot(*slots))["poison_overdue"] is False


# scheduler_enqueue


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


async def test_batches_have_frozen_pairs_counts_and_a_message(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, done=False)
    mixed = [*pairs([4, 10], ["lapsed", "milestone"]), *pairs([3, 5, 17], ["milestone"]), *pairs([9], ["onboarding"])]
    assert await worker.enqueue(run, [mixed, pairs([18])], following="18")
    assert await worker.enqueue(run, [pairs([19])], expected="18", following="19")
    assert await core.batches(
        "batch_no, pairs, mentors, evaluations, state, first_user_id::text, last_user_id::text"
    ) == [
        (1, mixed, 6, 8, "open", mentor(3), mentor(17)),
        (2, pairs([18]), 1, 1, "open", mentor(18), mentor(18)),
        (3, pairs([19]), 1, 1, "open", mentor(19), mentor(19)),
    ]
    counts = (await core.describe(run))["counts"]
    assert (counts["mentors"], counts["evaluations"]) == (8, 10)
    # the messages hold no personal data
    assert await core.owner.rows(
        "select b.batch_no, q.message from public.scheduler_invocation_batches as b"
        " join pgmq.q_scenario_evaluation_batches as q using (msg_id) order by b.batch_no"
    ) == [(number, {"invocation_id": run, "batch_no": number}) for number in (1, 2, 3)]


async def test_a_pending_invocation_runs_from_its_first_page(core: SqlCore, worker: Worker) -> None:
    run = await core.open_manual_run(worker, done=False)
    await core.change(run, "status = 'pending', started_at = null")
    await worker.enqueue(run, [pairs([1])], following="1")
    first = await core.summarize(run)
    assert first["status"] == "running"
    await worker.enqueue(run, [pairs([2])], expected="1", following="2")
    assert (await core.summarize(run))["started_at"] == first["started_at"]


@pytest.mark.parametrize(("trigger", "is_manual"), [("manual", True), ("retry", True), ("schedule", False)])
async def test_manual_runs_and_retries_have_a_queue_of_their_own(
    core: SqlCore, worker: Worker, trigger: str, is_manual: bool
) -> None:
    await core.open_run(worker, [pairs([1])], trigger=trigger)
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
