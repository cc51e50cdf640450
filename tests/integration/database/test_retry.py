"""scheduler_open with a source: who may be retried, when, and with which of the engine's keys."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import pytest

from .asked import TTL_HOURS, ask, ended_run, opened, record, refusal
from .sql_core import SqlCore, Worker, mentor, pairs


async def scope(core: SqlCore, run: str) -> tuple[object, ...]:
    (row,) = await core.owner.rows(
        "select engine_scope, engine_scope_since from public.scheduler_invocations where id = %s", run
    )
    return row


async def hours_since_its_keys_were_new(core: SqlCore, run: str, hours: float) -> None:
    await core.owner.run(
        "update public.scheduler_invocations set engine_scope_since = now() - make_interval(secs => %s) where id = %s",
        hours * 3600,
        run,
    )


async def cut_off(core: SqlCore, run: str) -> None:
    """End it as if its enumeration had been stopped in the middle."""
    await core.owner.run(
        "update public.scheduler_invocations set status = 'cancelled', finished_at = now() where id = %s", run
    )


async def test_a_retry_names_its_source_and_inherits_the_engines_keys(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    await hours_since_its_keys_were_new(core, source, 5)
    retry = await opened(worker, retry_of=source)
    described = await core.describe(retry)
    assert (described["triggered_by"], described["retry_of"], described["status"]) == ("retry", source, "pending")
    assert await scope(core, retry) == await scope(core, source)


async def test_keys_are_inherited_along_a_chain(core: SqlCore, worker: Worker) -> None:
    night = run = await ended_run(core, worker)
    await hours_since_its_keys_were_new(core, night, 30)
    for _ in range(3):
        run = await opened(worker, retry_of=run)
        await worker.enqueue(run, [pairs([0])], following="1", done=True)
        await record(worker, run, ["failed"])
        await worker.finish(run)
        assert await scope(core, run) == await scope(core, night)


async def test_the_source_stays_as_it_is(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker, ["failed", None])
    before = await core.describe(source)
    retry = await opened(worker, retry_of=source)
    await worker.enqueue(retry, [pairs([0]), pairs([1])], following="2", done=True)
    await record(worker, retry, ["triggered", "triggered"])
    await worker.finish(retry)
    assert await core.describe(source) == before


@pytest.mark.parametrize("asked_dry", [False, True])
async def test_what_retries_a_dry_run_is_dry_under_keys_of_its_own(
    core: SqlCore, worker: Worker, asked_dry: bool
) -> None:
    source = await opened(worker, dry_run=True)
    await cut_off(core, source)
    retry = await opened(worker, retry_of=source, dry_run=asked_dry)
    assert (await core.describe(retry))["dry_run"]
    assert (await scope(core, retry))[0] == f"dry:{retry}"


async def test_a_dry_retry_of_a_real_run_and_what_retries_that_touch_no_real_key(core: SqlCore, worker: Worker) -> None:
    dry = await opened(worker, retry_of=await ended_run(core, worker), dry_run=True)
    await cut_off(core, dry)
    again = await opened(worker, retry_of=dry)
    assert (await core.describe(again))["dry_run"]
    assert [(await scope(core, run))[0] for run in (dry, again)] == [f"dry:{dry}", f"dry:{again}"]


async def test_it_is_over_before_the_engine_forgets_the_first_key(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    await hours_since_its_keys_were_new(core, source, TTL_HOURS - 3)
    retry = await opened(worker, retry_of=source, expires_after_hours=20)
    assert await core.owner.value(
        "select expires_at - engine_scope_since from public.scheduler_invocations where id = %s", retry
    ) == timedelta(hours=TTL_HOURS)


async def test_with_time_enough_it_has_as_long_as_any_other_run(core: SqlCore, worker: Worker) -> None:
    retry = await opened(worker, retry_of=await ended_run(core, worker), expires_after_hours=20)
    assert await core.owner.value(
        "select expires_at - created_at from public.scheduler_invocations where id = %s", retry
    ) == timedelta(hours=20)


async def test_what_the_engine_may_have_forgotten_is_only_retried_dry(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    await hours_since_its_keys_were_new(core, source, TTL_HOURS)
    assert await refusal(worker, retry_of=source) == "retry_window_closed"
    assert await opened(worker, retry_of=source, dry_run=True)


async def test_the_window_of_a_chain_is_that_of_its_first_run(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    await hours_since_its_keys_were_new(core, source, TTL_HOURS - 1)
    retry = await opened(worker, retry_of=source)
    await cut_off(core, retry)
    await core.owner.run(
        "update public.scheduler_invocations set engine_scope_since = engine_scope_since - interval '1 hour'"
    )
    assert await refusal(worker, retry_of=retry) == "retry_window_closed"


@pytest.mark.parametrize("outcome", ["triggered", "not_triggered", "suppressed", "skipped"])
async def test_where_nothing_was_left_undone_there_is_nothing_to_retry(
    core: SqlCore, worker: Worker, outcome: str
) -> None:
    assert await refusal(worker, retry_of=await ended_run(core, worker, [outcome])) == "nothing_to_retry"


@pytest.mark.parametrize("outcome", ["failed", None])
async def test_failed_and_not_evaluated_pairs_can_be_retried(
    core: SqlCore, worker: Worker, outcome: str | None
) -> None:
    await opened(worker, retry_of=await ended_run(core, worker, ["triggered", outcome]))


async def test_a_run_that_was_cut_off_before_everybody_was_read_can_be_retried(core: SqlCore, worker: Worker) -> None:
    await opened(worker, retry_of=await ended_run(core, worker, ["triggered"], enumerated=False))


async def test_a_slot_that_was_skipped_for_overlap_can_be_retried(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    await core.open_run(worker)
    await core.owner.run("update public.scheduler_invocations set idempotency_key = 'slot:another'")
    skipped = (await worker.open_slot(due, following))["invocation"]
    assert skipped["status"] == "skipped"
    retry = await opened(worker, retry_of=skipped["id"])
    assert (await scope(core, retry))[0] == f"slot:{due:%Y-%m-%dT%H:%MZ}"


async def test_a_batch_that_was_recorded_late_leaves_nothing_to_retry(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    await worker.cancel(run)
    await worker.complete(batch, "triggered")
    assert await refusal(worker, retry_of=run) == "nothing_to_retry"


async def test_an_open_run_is_not_retried(core: SqlCore, worker: Worker) -> None:
    assert await refusal(worker, retry_of=await core.open_run(worker, [pairs([1])])) == "retry_source_open"


async def test_a_run_past_its_time_is_ended_first_and_then_retried(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    await core.expire_now(run)
    await opened(worker, retry_of=run)
    assert (await core.describe(run))["status"] == "failed"


async def test_nothing_unknown_or_deleted_is_retried(core: SqlCore, worker: Worker) -> None:
    assert await refusal(worker, retry_of=str(uuid4())) == "retry_source_unknown"
    source = await ended_run(core, worker)
    await worker.delete(source)
    assert await refusal(worker, retry_of=source) == "retry_source_unknown"


async def test_two_retries_of_one_run_are_not_open_together(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    first = await opened(worker, retry_of=source)
    assert await refusal(worker, retry_of=source) == "retry_already_open"
    assert await refusal(worker, retry_of=source, dry_run=True) == "retry_already_open"
    await worker.cancel(first)
    await opened(worker, retry_of=source)


async def test_a_retry_past_its_time_does_not_stand_in_the_way_of_the_next(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    await core.expire_now(await opened(worker, retry_of=source))
    await opened(worker, retry_of=source)


async def test_of_many_simultaneous_retries_one_is_opened(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    answers = await asyncio.gather(*(ask(other, retry_of=source) for other in await core.workers(12)))
    assert Counter(answer["outcome"] for answer in answers) == {"opened": 1, "retry_already_open": 11}


async def test_of_many_simultaneous_retries_with_one_key_all_are_told_of_the_one(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    answers = await asyncio.gather(*(ask(other, retry_of=source, key="k") for other in await core.workers(12)))
    assert Counter(answer["outcome"] for answer in answers) == {"opened": 1, "same": 11}
    assert len({answer["invocation"]["id"] for answer in answers}) == 1


async def test_a_retry_repeated_after_a_lost_answer_is_not_in_its_own_way(core: SqlCore, worker: Worker) -> None:
    source, retry = await ended_run(core, worker), str(uuid4())
    for _ in range(2):
        assert await opened(worker, invocation_id=retry, retry_of=source) == retry


async def test_a_key_finds_its_retry_after_the_source_is_gone(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    retry = await opened(worker, retry_of=source, key="k")
    await worker.delete(source)
    again = await ask(worker, retry_of=source, key="k")
    assert (again["outcome"], again["invocation"]["id"]) == ("same", retry)


async def test_it_is_claimed_under_the_keys_of_its_source(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    retry = await opened(worker, retry_of=source)
    await worker.enqueue(retry, [pairs([0])], following="1")
    (batch,) = (await worker.claim(manual_only=True))["batches"]
    assert (batch["invocation_id"], batch["engine_scope"]) == (retry, (await scope(core, source))[0])
    assert batch["pairs"][0]["user_ids"] == [mentor(0)]
