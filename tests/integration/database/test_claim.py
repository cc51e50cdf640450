"""scheduler_claim: hands out what waits, hides it, and clears away what is over."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from .sql_core import SqlCore, Worker, mentor, minutes, pairs

NOTHING = {"batches": [], "stale": 0, "engine_paused_until": None, "poison_waits": False}


def keys(claimed: dict[str, Any]) -> list[tuple[str, int]]:
    return [(batch["invocation_id"], batch["batch_no"]) for batch in claimed["batches"]]


async def test_a_claimed_batch_carries_what_its_evaluation_needs(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1, 2], ["lapsed", "milestone"])])
    batch = await worker.claim_one()
    scheduled_for = batch.pop("scheduled_for")
    assert await core.owner.value("select scheduled_for = %s::timestamptz from scheduler_invocations", scheduled_for)
    assert batch == {
        "invocation_id": invocation,
        "batch_no": 1,
        "pairs": pairs([1, 2], ["lapsed", "milestone"]),
        "read_count": 1,
        "deliveries": 1,
        "dry_run": False,
        "is_poison": False,
        "engine_scope": await core.owner.value("select engine_scope from scheduler_invocations"),
    }


async def test_a_claimed_batch_is_hidden_for_the_visibility_time(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    before = await core.now()
    assert len((await worker.claim(visibility_seconds=300))["batches"]) == 1
    visible_again = await core.owner.value("select vt from pgmq.q_scenario_evaluation_batches")
    assert before + minutes(5) <= visible_again <= await core.now() + minutes(5)
    assert await worker.claim() == NOTHING
    await core.let_batches_reappear()
    again = await worker.claim_one()
    assert (again["read_count"], again["deliveries"]) == (2, 2)


async def test_no_more_is_claimed_than_was_asked_for(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([number]) for number in range(5)])
    await core.open_manual_run(worker, [pairs([number]) for number in range(5)])
    assert [len((await worker.claim(quantity))["batches"]) for quantity in (0, 3, 4, 9)] == [0, 3, 4, 3]


async def test_manual_runs_are_claimed_first(core: SqlCore, worker: Worker) -> None:
    night = await core.open_run(worker, [pairs([number]) for number in range(5)])
    person = await core.open_manual_run(worker, [pairs([1]), pairs([2])])
    assert Counter(key for key, _ in keys(await worker.claim(3))) == {person: 2, night: 1}


async def test_who_works_for_a_person_leaves_the_night_to_others(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    person = await core.open_manual_run(worker, [pairs([1]), pairs([2])])
    assert keys(await worker.claim(manual_only=True)) == [(person, 1), (person, 2)]
    assert await worker.claim(manual_only=True) == NOTHING
    assert len((await worker.claim())["batches"]) == 1


@pytest.mark.parametrize("state", ["done", "abandoned"])
async def test_messages_of_batches_that_are_over_are_deleted_and_counted(
    core: SqlCore, worker: Worker, state: str
) -> None:
    await core.open_run(worker, [pairs([1]), pairs([2]), pairs([3])])
    await core.owner.run(
        "update scheduler_invocation_batches set state = %s, finished_at = now(), triggered = 1 where batch_no < 3",
        state,
    )
    claimed = await worker.claim()
    assert (len(claimed["batches"]), claimed["stale"]) == (1, 2)
    assert await core.queued() == 1


async def test_messages_of_deleted_invocations_are_deleted_and_counted(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1]), pairs([2])])
    await core.owner.run("delete from public.scheduler_invocations")
    assert (await worker.claim())["stale"] == 2
    assert await core.queued() == 0


async def test_a_second_message_for_a_batch_is_stale(core: SqlCore, worker: Worker) -> None:
    """Somebody sends a copy by hand: the batch is handed out once."""
    await core.open_run(worker, [pairs([1])])
    await core.owner.run(
        "select pgmq.send('scenario_evaluation_batches', message) from pgmq.q_scenario_evaluation_batches"
    )
    claimed = await worker.claim()
    assert (len(claimed["batches"]), claimed["stale"]) == (1, 1)


@pytest.mark.parametrize(
    "message",
    [
        '"hello"',
        "{}",
        '{"invocation_id": "hello", "batch_no": 1}',
        '{"invocation_id": "00000000-0000-4000-8000-000000000000", "batch_no": "one"}',
        '{"invocation_id": "00000000-0000-4000-8000-000000000000", "batch_no": 99999999999}',
    ],
)
async def test_a_message_that_nobody_understands_is_cleared_away(core: SqlCore, worker: Worker, message: str) -> None:
    """The dashboard lets anybody add one by hand: it must not jam the queue for ever."""
    await core.owner.run("select pgmq.send('scenario_evaluation_batches', %s::jsonb)", message)
    # enough of them that the planner goes by the batches' key, and reads the message to do so
    run = await core.open_run(worker, [pairs([number]) for number in range(2000)])
    await core.owner.run("analyze public.scheduler_invocation_batches, pgmq.q_scenario_evaluation_batches")
    claimed = await worker.claim(3)
    assert (keys(claimed), claimed["stale"]) == ([(run, 1), (run, 2)], 1)


async def test_while_the_engine_is_paused_nothing_is_claimed(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    await core.owner.run("update scheduler.settings set engine_paused_until = now() + interval '1 minute'")
    paused = await worker.claim()
    assert (paused["batches"], paused["stale"]) == ([], 0)
    assert paused["engine_paused_until"] is not None
    assert await core.owner.column("select read_ct from pgmq.q_scenario_evaluation_batches") == [0]
    await core.owner.run("update scheduler.settings set engine_paused_until = now()")
    assert (await worker.claim_one())["read_count"] == 1


async def test_a_delivery_that_was_given_back_unharmed_does_not_count(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    for delivery in range(1, 4):
        batch = await worker.claim_one()
        assert (batch["read_count"], batch["deliveries"]) == (delivery, 1)
        assert await worker.release(batch, blameless=True)


async def test_simultaneous_claims_never_share_a_batch(core: SqlCore) -> None:
    workers = await core.workers(10)
    await core.open_run(workers[0], [pairs([number]) for number in range(100)])

    async def claim_all(worker: Worker) -> list[tuple[str, int]]:
        mine: list[tuple[str, int]] = []
        # what others have locked at that moment is passed over, so an empty answer says nothing
        while found := keys(await worker.claim(3)):
            mine += found
        return mine

    claimed = [key for keys_of_one in await asyncio.gather(*map(claim_all, workers)) for key in keys_of_one]
    claimed += await claim_all(workers[0])
    assert len(claimed) == len(set(claimed)) == 100


async def test_a_batch_committed_beside_a_claim_is_never_taken_for_stale(core: SqlCore) -> None:
    """Many enqueue and claim at once: every batch is handed out exactly once while it is hidden."""
    enumerators, claimers = await core.workers(4), await core.workers(6)
    pages, per_page = 60, 3
    runs = [await core.open_manual_run(one, done=False) for one in enumerators]
    all_queued = asyncio.Event()
    stale = 0

    async def enumerate_mentors(worker: Worker, invocation: str) -> None:
        for page in range(pages):
            assert await worker.enqueue(
                invocation,
                [pairs([page]) for _ in range(per_page)],
                expected=mentor(page) if page else None,
                following=mentor(page + 1),
            )

    async def claim_until_empty(worker: Worker) -> list[tuple[str, int]]:
        nonlocal stale
        mine: list[tuple[str, int]] = []
        while True:
            was_all = all_queued.is_set()
            claimed = await worker.claim(2)
            stale += claimed["stale"]
            mine += keys(claimed)
            if was_all and not claimed["batches"] and not claimed["stale"]:
                return mine

    claims = [asyncio.create_task(claim_until_empty(one)) for one in claimers]
    await asyncio.gather(*(enumerate_mentors(*pair) for pair in zip(enumerators, runs, strict=True)))
    all_queued.set()
    claimed = Counter(key for keys_of_one in await asyncio.gather(*claims) for key in keys_of_one)
    claimed.update(await claim_until_empty(claimers[0]))
    assert stale == 0
    assert set(claimed.values()) == {1}
    assert len(claimed) == len(enumerators) * pages * per_page
    assert await core.queued() == len(claimed)


async def test_a_claim_waits_for_nobody(core: SqlCore) -> None:
    """While a cancellation holds the invocation, its batches and their messages, others go on claiming."""
    worker, canceller = await core.workers(2)
    night = await core.open_run(worker, [pairs([1])])
    person = await core.open_manual_run(worker, [pairs([2])])
    async with canceller.transaction():
        await canceller.cancel(night)
        assert keys(await worker.claim()) == [(person, 1)]


async def poison(core: SqlCore, worker: Worker, number: int = 1) -> None:
    """So many batches of one user each in the poison queue, of one night."""
    await core.open_run(worker, [pairs([user]) for user in range(number)])
    for _ in range(2):
        await worker.claim()
        await core.let_batches_reappear()
    for batch in (await worker.claim())["batches"]:
        assert await worker.split(batch)


async def test_poison_batches_are_claimed_one_at_a_time_where_nothing_else_is_left(core: SqlCore) -> None:
    first, second = await core.workers(2)
    await poison(core, first, 3)
    person = await core.open_manual_run(first, [pairs([9])])
    claimed = await first.claim(poison="last")
    assert (keys(claimed), claimed["batches"][0]["is_poison"]) == ([(person, 1)], False)
    hint = await first.claim()
    assert (hint["batches"], hint["poison_waits"]) == ([], True)
    assert await first.claim(manual_only=True, poison="first") == NOTHING
    handed_out = [await worker.claim(poison="last") for worker in (first, second, first)]
    assert [[batch["is_poison"] for batch in claimed["batches"]] for claimed in handed_out] == [[True]] * 3
    assert await first.claim(poison="last") == NOTHING
    assert await first.claim() == NOTHING


async def test_poison_batches_can_be_asked_for_first(core: SqlCore, worker: Worker) -> None:
    await poison(core, worker)
    person = await core.open_manual_run(worker, [pairs([8]), pairs([9])])
    assert [batch["is_poison"] for batch in (await worker.claim(poison="first"))["batches"]] == [True]
    assert keys(await worker.claim(poison="first")) == [(person, 1)]


async def test_a_slot_is_told_of_poison_that_has_waited_for_ten_minutes(core: SqlCore, worker: Worker) -> None:
    await poison(core, worker)
    slots = await core.slots()
    for age, overdue in ((9, False), (11, True)):
        await core.owner.run(
            "update pgmq.q_scenario_evaluation_batches_poison"
            " set enqueued_at = clock_timestamp() - make_interval(mins => %s)",
            age,
        )
        assert (await worker.open_slot(*slots))["poison_overdue"] is overdue
    await worker.claim(poison="first")
    assert (await worker.open_slot(*slots))["poison_overdue"] is False
