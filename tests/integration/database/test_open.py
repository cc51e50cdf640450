"""scheduler_open: a run on request, or a retry of one; the same key is the same run, however often it comes at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from .requests import TTL_HOURS, Unfinished, add_mentors, all_unfinished, ask, ended_run, opened, refusal, unfinished
from .sql_core import CONFIG, SCENARIO, SqlCore, Worker, mentor, pairs


async def runs(core: SqlCore) -> object:
    return await core.owner.value("select count(*) from public.scheduler_invocations")


@pytest.mark.parametrize(("dry_run", "scope"), [(False, "manual"), (True, "dry")])
async def test_what_was_asked_for_is_kept(core: SqlCore, worker: Worker, dry_run: bool, scope: str) -> None:
    request = {"user_ids": [mentor(number) for number in range(10_000)], "scenario_types": [SCENARIO]}
    texts = {"note": "look", "triggered_by": "kari", "requested_by": "Kari N.", "reason": "an outage"}
    run = await opened(
        worker, key="k1", request_hash="h1", request=request, dry_run=dry_run, expires_after_hours=3, **texts
    )
    (row,) = await core.owner.rows(
        "select idempotency_key, request_hash, trigger, status, dry_run, retry_of, request, config, engine_scope,"
        " enumeration_cursor, enumeration_done, note, started_at, extract(epoch from expires_at - invoked_at)::int,"
        " scheduled_for = invoked_at, engine_scope_since = invoked_at, triggered_by, requested_by, reason"
        " from public.scheduler_invocations"
    )
    assert row == (
        *("key:k1", "h1", "manual", "pending", dry_run, None, request, CONFIG, f"{scope}:{run}"),
        *(None, False, "look", None, 3 * 3600, True, True, "kari", "Kari N.", "an outage"),
    )
    (given,) = (await worker.open_slot(*await core.slots()))["open"]
    assert (given["id"], given["request"]) == (run, request)


async def test_twenty_simultaneous_calls_with_one_key_open_one_run(core: SqlCore) -> None:
    workers = await core.workers(20)
    answers = await asyncio.gather(
        *(ask(worker, key="k", request_hash=f"h{number % 4}") for number, worker in enumerate(workers))
    )
    (winner,) = (number % 4 for number, answer in enumerate(answers) if answer["outcome"] == "opened")
    assert Counter(answer["outcome"] for answer in answers) == {"opened": 1, "same": 4, "other_request": 15}
    for number, answer in enumerate(answers):
        assert (answer["invocation"] is None) == (number % 4 != winner)
    assert await runs(core) == 1


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_call_repeated_after_a_lost_answer_opens_once(core: SqlCore, key: str | None) -> None:
    run = str(uuid4())
    workers = await core.workers(10)
    answers = await asyncio.gather(*(ask(worker, invocation_id=run, key=key) for worker in workers))
    answers.append(await ask(workers[0], invocation_id=run, key=key))
    assert {(answer["outcome"], answer["invocation"]["id"]) for answer in answers} == {("opened", run)}
    assert await runs(core) == 1


async def test_the_key_of_an_ended_or_deleted_run_stays_spent(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker, key="k")
    cancelled = await worker.cancel(run)
    assert await ask(worker, key="k") == {"outcome": "same", "invocation": cancelled, "canary": None}
    await worker.delete(run)
    assert await refusal(worker, key="k") == "deleted"
    assert await refusal(worker, key="k", request_hash="another") == "deleted"
    assert await runs(core) == 1


async def test_a_clients_key_collides_with_no_other_name(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker)
    keyless, _ = [await opened(worker) for _ in range(2)]
    taken = await core.owner.column("select idempotency_key from public.scheduler_invocations")
    for key in (*taken, keyless):
        await opened(worker, key=key)
    assert await runs(core) == 3 + 4


async def test_what_the_engine_answered_comes_along(core: SqlCore, worker: Worker) -> None:
    """A canary, and whether it evaluated a user within the time budget, 25 seconds."""

    async def known() -> list[tuple[Any, bool]]:
        answers = (await worker.open_slot(*await core.slots()), await ask(worker))
        return [(answer["canary"], answer["engine_answered_recently"]) for answer in answers]

    await ended_run(core, worker, ["failed", "skipped"])
    assert await known() == [(None, False)] * 2
    await core.open_manual_run(worker, [pairs([1]), pairs([2])])
    await worker.complete(await worker.claim_one(), "triggered")
    canary = {"user_id": mentor(1), "scenario_type": SCENARIO}
    assert await known() == [(canary, True)] * 2
    await core.owner.run(
        "update scheduler_invocation_batches set finished_at = now() - interval '26 s' where state = 'done'"
    )
    assert await known() == [(canary, False)] * 2
    await worker.complete(await worker.claim_one(), "not_triggered")
    assert await known() == [(canary, True)] * 2


async def test_a_slice_is_posted_once_and_only_if_asked(core: SqlCore, worker: Worker) -> None:
    await opened(worker, request_slice=True)
    assert await core.owner.column("select error from scheduler.dispatches") == ["vault_secret_missing"]
    await core.make_callable()
    await opened(worker, key="k0")
    assert await core.posted() == 0
    for _ in range(2):
        await ask(worker, key="k", request_slice=True)
    assert await core.posted() == 1


@pytest.mark.parametrize(
    "senseless",
    [{"note": "n" * 2001}, {"expires_after_hours": None}, {"dry_run": None}, {"retry_of": "no uuid"}, {"note": "\0"}],
)
async def test_what_makes_no_sense_opens_nothing(core: SqlCore, worker: Worker, senseless: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error):
        await ask(worker, **senseless)
    assert await runs(core) == 0


# Retries


async def scope(core: SqlCore, run: str) -> tuple[object, ...]:
    (row,) = await core.owner.rows(
        "select engine_scope, engine_scope_since from public.scheduler_invocations where id = %s", run
    )
    return row


async def make_keys_old(core: SqlCore, run: str, hours: float) -> None:
    await core.change(run, f"engine_scope_since = now() - make_interval(secs => {hours * 3600})")


async def cut_off(core: SqlCore, run: str) -> None:
    """End it as if its enumeration had been stopped in the middle."""
    await core.change(run, "status = 'cancelled', finished_at = now()")


@pytest.mark.parametrize(("source_is_dry", "asked_dry"), [(True, False), (True, True), (False, True)])
async def test_dry_runs_and_their_retries_use_no_real_key(
    core: SqlCore, worker: Worker, source_is_dry: bool, asked_dry: bool
) -> None:
    run = await opened(worker, dry_run=source_is_dry)
    for dry in (asked_dry, False):
        await cut_off(core, run)
        run = await opened(worker, retry_of=run, dry_run=dry)
        assert (await core.describe(run))["dry_run"]
        assert (await scope(core, run))[0] == f"dry:{run}"


async def test_a_retry_is_over_before_the_engine_forgets_keys(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    lasts = "select expires_at - invoked_at, expires_at - engine_scope_since from scheduler_invocations where id = %s"
    ((time_enough, _),) = await core.owner.rows(lasts, await opened(worker, retry_of=source, expires_after_hours=20))
    assert time_enough == timedelta(hours=20)
    await core.owner.run("delete from public.scheduler_invocations where retry_of is not null")
    await make_keys_old(core, source, TTL_HOURS - 3)
    retry = await opened(worker, retry_of=source, expires_after_hours=20)
    ((_, after_first_key),) = await core.owner.rows(lasts, retry)
    assert after_first_key == timedelta(hours=TTL_HOURS)
    # the window of a chain is that of its first run
    await cut_off(core, retry)
    await make_keys_old(core, retry, TTL_HOURS)
    assert await refusal(worker, retry_of=retry) == "retry_window_closed"
    assert await opened(worker, retry_of=retry, dry_run=True)


async def test_a_slot_skipped_for_overlap_can_be_retried(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    await core.change(await core.open_run(worker), "idempotency_key = 'slot:another'")
    skipped = (await worker.open_slot(due, following))["invocation"]
    assert skipped["status"] == "skipped"
    retry = await opened(worker, retry_of=skipped["id"])
    assert (await scope(core, retry))[0] == f"slot:{due:%Y-%m-%dT%H:%MZ}"


async def test_of_many_simultaneous_retries_with_one_key_one_is_opened(core: SqlCore, worker: Worker) -> None:
    source = await ended_run(core, worker)
    answers = await asyncio.gather(*(ask(one, retry_of=source, key="k") for one in await core.workers(12)))
    assert Counter(answer["outcome"] for answer in answers) == {"opened": 1, "same": 11}


@pytest.mark.parametrize(("supports", "outcome"), [([], "retry_source_open"), (["idempotency"], "opened")])
async def test_without_idempotency_a_retry_waits_for_workers(
    core: SqlCore, worker: Worker, supports: list[str], outcome: str
) -> None:
    """A batch that was in hand at the cancellation may be recorded for 35 seconds more."""
    asked: dict[str, Any] = {"config": CONFIG | {"engine_supports": supports}}
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    await worker.cancel(run)
    asked["retry_of"] = run
    answer = await ask(worker, **asked)
    assert answer["outcome"] == outcome
    if outcome == "opened":
        await worker.cancel(answer["invocation"]["id"])
    await core.change(run, "finished_at = now() - interval '36 s'")
    await worker.cancel(await opened(worker, **asked))
    await core.change(run, "finished_at = now()")
    assert await worker.complete(batch, "failed") == "done"
    assert await opened(worker, **asked)


# scheduler_unfinished, which a retry reads


async def test_only_failed_and_not_evaluated_pairs_are_read(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [4, 6])
    run = await ended_run(core, worker, ["triggered", "not_triggered", "suppressed", "skipped", "failed", None, None])
    await worker.delete(run)
    assert await all_unfinished(worker, run) == [
        Unfinished(mentor(4), SCENARIO, active=True),
        Unfinished(mentor(5), SCENARIO, active=False),
        Unfinished(mentor(6), SCENARIO, active=True),
    ]


async def test_the_state_of_the_enumeration_comes_along(core: SqlCore, worker: Worker) -> None:
    request = {"user_ids": [mentor(1), mentor(2)], "scenario_types": [SCENARIO]}
    run = await opened(worker, request=request)
    await worker.enqueue(run, [pairs([1])], following=mentor(1))
    await worker.cancel(run)
    expected = {
        "trigger": "manual",
        "retry_of": None,
        "request": request,
        "enumeration_cursor": mentor(1),
        "enumeration_done": False,
    }
    assert (await unfinished(worker, run))["remaining"] == expected
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    assert await unfinished(worker, run, after=last) == {"mentors": [], "last_user_id": None, "remaining": expected}
    remaining = (await unfinished(worker, await opened(worker, retry_of=run)))["remaining"]
    assert (remaining["trigger"], remaining["retry_of"], remaining["enumeration_cursor"]) == ("retry", run, None)
    assert await unfinished(worker, str(uuid4())) is None


async def test_a_page_is_about_as_large_as_asked(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(start, start + 10)) for start in range(0, 100, 10)])
    await worker.cancel(run)
    sizes = {
        asked: len((await unfinished(worker, run, mentors=asked))["mentors"])
        for asked in (None, -1, 0, 1, 10, 11, 45, 10**6)
    }
    # no page is empty before the end
    assert sizes == {None: 10, -1: 10, 0: 10, 1: 10, 10: 10, 11: 20, 45: 50, 10**6: 100}
