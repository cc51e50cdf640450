"""scheduler_cancel and scheduler.expire: an invocation ends early and says what was left undone (I2, I5)."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from .sql_core import SCENARIO, Json, SqlCore, Worker, assert_counts_add_up, pairs


async def expire(core: SqlCore, invocation: str) -> Json:
    await core.expire_now(invocation)
    await core.owner.run("select scheduler.expire()")
    return await core.describe(invocation)


async def end(core: SqlCore, worker: Worker, invocation: str, how: str) -> Json:
    if how == "expired":
        return await expire(core, invocation)
    cancelled = await worker.cancel(invocation)
    assert cancelled is not None
    return cancelled


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_what_was_not_evaluated_is_counted_per_scenario(core: SqlCore, worker: Worker, how: str) -> None:
    mixed = [*pairs([3, 4, 5], ["lapsed", "milestone"]), *pairs([6], ["milestone"])]
    invocation = await core.open_run(worker, [pairs([1, 2], ["lapsed"]), mixed])
    await worker.complete(await worker.claim_one(), "not_triggered")
    ended = await end(core, worker, invocation, how)
    assert ended["counts"]["not_evaluated"] == 7
    assert ended["counts"]["not_triggered"] == 2
    assert ended["scenarios"] == {
        "lapsed": {"not_triggered": 2, "not_evaluated": 3},
        "milestone": {"not_evaluated": 4},
    }
    assert_counts_add_up(ended)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
@pytest.mark.parametrize("manual", [False, True])
async def test_its_messages_are_gone_and_others_stay(core: SqlCore, worker: Worker, how: str, manual: bool) -> None:
    invocation = await (core.open_manual_run if manual else core.open_run)(worker, [pairs([1]), pairs([2])])
    other = await core.open_manual_run(worker, [pairs([3])])
    await end(core, worker, invocation, how)
    claimed = await worker.claim()
    assert [batch["invocation_id"] for batch in claimed["batches"]] == [other]
    assert claimed["stale"] == 0


@pytest.mark.parametrize(
    ("outcomes", "enumerated", "status"),
    [
        # recorded before the end; the batch of mentor 9 is always left open
        ([], True, "failed"),
        ([], False, "failed"),
        (["triggered"], True, "partial"),
        (["not_triggered"], False, "partial"),
        (["suppressed"], True, "partial"),
        (["failed"], True, "failed"),
        (["skipped"], True, "failed"),
        (["failed", "triggered"], True, "partial"),
    ],
)
@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_the_status_tells_the_truth(
    core: SqlCore, worker: Worker, outcomes: list[str], enumerated: bool, status: str, how: str
) -> None:
    batches = [pairs([number]) for number in range(len(outcomes))]
    invocation = await core.open_run(worker, [*batches, pairs([9])], done=enumerated)
    for outcome in outcomes:
        await worker.complete(await worker.claim_one(), outcome)
    ended = await end(core, worker, invocation, how)
    assert ended["status"] == ("cancelled" if how == "cancelled" else status)
    assert ended["error"] == (None if how == "cancelled" else "expired")
    assert ended["finished_at"] is not None
    assert_counts_add_up(ended)


async def test_an_unfinished_enumeration_is_never_a_success(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1])], done=False)
    await worker.complete(await worker.claim_one())
    assert (await expire(core, invocation))["status"] == "partial"


async def test_an_expired_run_that_waited_for_the_engine_says_so(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1])])
    await core.owner.run("update public.scheduler_invocations set error = 'engine_rejected'")
    assert (await expire(core, invocation))["error"] == "engine_rejected"


async def test_a_run_of_which_only_the_end_was_missing_expires_without_an_error(core: SqlCore, worker: Worker) -> None:
    invocation = await core.open_run(worker, [pairs([1])])
    await worker.complete(await worker.claim_one())
    ended = await expire(core, invocation)
    assert (ended["status"], ended["error"]) == ("succeeded", None)


async def test_a_run_that_read_nobody_and_was_left_lying_expires_as_one_that_read_nobody(
    core: SqlCore, worker: Worker
) -> None:
    ended = await expire(core, await core.open_run(worker))
    assert (ended["status"], ended["error"]) == ("failed", "no_active_mentors")


async def test_a_run_that_cannot_be_ended_keeps_nothing_else_from_going_on(core: SqlCore, worker: Worker) -> None:
    stuck, other = [await core.open_manual_run(worker, [pairs([1])]) for _ in range(2)]
    await core.owner.run(
        "alter table public.scheduler_invocation_batches add constraint never"
        f" check (invocation_id <> '{stuck}' or state <> 'abandoned')"
    )
    await core.owner.run("update public.scheduler_invocations set expires_at = now() - interval '1 second'")
    await core.owner.run("select scheduler.dispatch()")
    assert (await core.describe(stuck))["status"] == "running"
    assert (await core.describe(other))["status"] == "failed"
    await core.install_long_ago()
    assert (await worker.open_slot(*await core.slots()))["opened"]


@pytest.mark.parametrize("status", ["succeeded", "partial", "failed", "cancelled", "skipped"])
async def test_what_has_ended_stays_as_it_is(core: SqlCore, worker: Worker, status: str) -> None:
    invocation = await core.open_run(worker)
    await core.owner.run("update public.scheduler_invocations set status = %s, finished_at = now()", status)
    before = await core.describe(invocation)
    assert await worker.cancel(invocation) == before
    await core.expire_now(invocation)
    await core.owner.run("select scheduler.expire()")
    assert {**await core.describe(invocation), "expires_at": None} == {**before, "expires_at": None}


async def test_there_is_nothing_to_cancel_where_there_is_no_invocation(worker: Worker) -> None:
    assert await worker.cancel(str(uuid4())) is None


async def test_only_what_is_past_its_time_expires(core: SqlCore, worker: Worker) -> None:
    old = await core.open_run(worker, [pairs([1])])
    young = await core.open_manual_run(worker, [pairs([2])])
    await expire(core, old)
    assert (await core.describe(young))["status"] == "running"


async def test_every_invocation_past_its_time_expires_at_once(core: SqlCore, worker: Worker) -> None:
    invocations = [await core.open_manual_run(worker, [pairs([number])]) for number in range(5)]
    await core.owner.run("update public.scheduler_invocations set expires_at = now() - interval '1 second'")
    await core.owner.run("select scheduler.dispatch()")
    assert [(await core.describe(one))["status"] for one in invocations] == ["failed"] * 5
    assert await core.queued() == 0


async def test_of_two_simultaneous_ends_one_counts(core: SqlCore) -> None:
    canceller, other = await core.workers(2)
    invocation = await core.open_run(canceller, [pairs([1])])
    async with canceller.transaction():
        cancelled = await canceller.cancel(invocation)
        late = asyncio.create_task(other.cancel(invocation))
        await core.until_waiting_for_a_lock(other)
    assert await late == cancelled


async def test_a_record_that_was_first_is_kept_by_the_cancellation(core: SqlCore) -> None:
    worker, canceller = await core.workers(2)
    invocation = await core.open_run(worker, [pairs([1]), pairs([2])])
    batch = await worker.claim_one()
    async with worker.transaction():
        assert await worker.complete(batch, "triggered") == "done"
        cancelling = asyncio.create_task(canceller.cancel(invocation))
        await core.until_waiting_for_a_lock(canceller)
    cancelled = await cancelling
    assert cancelled is not None
    assert cancelled["counts"]["triggered"] == cancelled["counts"]["not_evaluated"] == 1
    assert_counts_add_up(cancelled)


async def test_a_record_that_waits_for_the_cancellation_is_recorded_as_late(core: SqlCore) -> None:
    worker, canceller = await core.workers(2)
    invocation = await core.open_run(worker, [pairs([1]), pairs([2])])
    batch = await worker.claim_one()
    async with canceller.transaction():
        await canceller.cancel(invocation)
        completing = asyncio.create_task(worker.complete(batch, "triggered"))
        await core.until_waiting_for_a_lock(worker)
    assert await completing == "done"
    after = await core.describe(invocation)
    assert after["status"] == "cancelled"
    assert after["scenarios"] == {SCENARIO: {"triggered": 1, "not_evaluated": 1}}
    assert_counts_add_up(after)


@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_racing_with_everything_a_worker_does_it_never_deadlocks_and_counts_add_up(
    core: SqlCore, how: str
) -> None:
    """A deadlock would surface here as an exception: nothing in this test retries."""
    workers = await core.workers(4)
    ender = await core.session()
    caller = await core.worker()

    async def work(worker: Worker, invocation: str, batches: list[Json]) -> None:
        for number, batch in enumerate(batches):
            if number % 3 == 2:
                await worker.release(batch, blameless=True)
            else:
                await worker.complete(batch, "triggered")
            await worker.finish(invocation)
            await worker.claim(1, visibility_seconds=0)

    async def end_it(invocation: str) -> None:
        if how == "cancelled":
            await caller.cancel(invocation)
        else:
            await ender.run("select scheduler.expire()")

    for _ in range(25):
        invocation = await core.open_manual_run(workers[0], [pairs([n, n + 100]) for n in range(12)])
        if how == "expired":
            await core.expire_now(invocation)
        shares = [(await worker.claim(3))["batches"] for worker in workers]
        await asyncio.gather(
            *(work(worker, invocation, share) for worker, share in zip(workers, shares, strict=True)),
            end_it(invocation),
        )
        ended = await core.describe(invocation)
        assert ended["status"] in {"cancelled", "partial", "failed", "succeeded"}
        assert ended["counts"]["evaluations"] == 24
        assert_counts_add_up(ended)
    assert (await workers[0].claim())["batches"] == []
    assert await core.queued() == 0
