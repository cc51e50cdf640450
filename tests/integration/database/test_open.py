"""scheduler_open: a run that somebody asks for; the same key is the same run, however often it comes at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from .asked import ask, ended_run, opened, refusal
from .sql_core import SCENARIO, SqlCore, Worker, mentor, pairs


async def runs(core: SqlCore) -> object:
    return await core.owner.value("select count(*) from public.scheduler_invocations")


async def test_what_was_asked_for_is_kept_and_waits_for_its_first_page(core: SqlCore, worker: Worker) -> None:
    request = {"user_ids": [mentor(1), mentor(2)], "scenario_types": [SCENARIO]}
    run = await opened(
        worker, key="k1", request_hash="h1", request=request, note="look at these", expires_after_hours=3
    )
    (row,) = await core.owner.rows(
        "select idempotency_key, request_hash, triggered_by, status, dry_run, retry_of, request, config, engine_scope,"
        " enumeration_cursor, enumeration_done, note, started_at, extract(epoch from expires_at - created_at)::int,"
        " scheduled_for = created_at, engine_scope_since = created_at from public.scheduler_invocations"
    )
    assert row == (
        *("key:k1", "h1", "manual", "pending", False, None, request, {"batch_size": 100}, f"manual:{run}"),
        *(None, False, "look at these", None, 3 * 3600, True, True),
    )


async def test_its_batches_go_to_the_queue_of_those_for_whom_a_person_waits(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker)
    assert await worker.enqueue(run, [pairs([1])], following=mentor(1))
    (batch,) = (await worker.claim(manual_only=True))["batches"]
    assert (batch["invocation_id"], batch["engine_scope"]) == (run, f"manual:{run}")


async def test_a_dry_run_has_a_scope_that_collides_with_nothing(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker, dry_run=True)
    assert await core.owner.rows("select dry_run, engine_scope from public.scheduler_invocations") == [
        (True, f"dry:{run}")
    ]


async def test_without_a_key_every_call_is_a_run_of_its_own(core: SqlCore, worker: Worker) -> None:
    assert await opened(worker) != await opened(worker)
    assert await runs(core) == 2


async def test_twenty_simultaneous_calls_with_one_key_open_one_run(core: SqlCore) -> None:
    answers = await asyncio.gather(*(ask(worker, key="k") for worker in await core.workers(20)))
    assert Counter(answer["outcome"] for answer in answers) == {"opened": 1, "same": 19}
    assert len({answer["invocation"]["id"] for answer in answers}) == 1
    assert await runs(core) == 1


async def test_of_twenty_simultaneous_different_requests_with_one_key_one_is_carried_out(core: SqlCore) -> None:
    workers = await core.workers(20)
    answers = await asyncio.gather(
        *(ask(worker, key="k", request_hash=f"h{number % 4}") for number, worker in enumerate(workers))
    )
    (winner,) = (number % 4 for number, answer in enumerate(answers) if answer["outcome"] == "opened")
    for number, answer in enumerate(answers):
        assert answer["outcome"] in ({"opened", "same"} if number % 4 == winner else {"other_request"})
        assert (answer["invocation"] is None) == (answer["outcome"] == "other_request")
    assert await runs(core) == 1


async def test_a_call_repeated_after_a_lost_answer_finds_what_it_opened_itself(core: SqlCore, worker: Worker) -> None:
    for key in (None, "k"):
        run = str(uuid4())
        first = await ask(worker, invocation_id=run, key=key)
        again = await ask(worker, invocation_id=run, key=key)
        assert (first["outcome"], again["outcome"]) == ("opened", "opened")
        assert first["invocation"] == again["invocation"]
        assert first["invocation"]["id"] == run
    assert await runs(core) == 2


async def test_a_call_and_its_own_repetition_at_once_are_one_run(core: SqlCore) -> None:
    run = str(uuid4())
    answers = await asyncio.gather(*(ask(worker, invocation_id=run) for worker in await core.workers(10)))
    assert [answer["outcome"] for answer in answers] == ["opened"] * 10
    assert await runs(core) == 1


async def test_who_comes_second_waits_and_takes_over_where_the_first_is_undone(core: SqlCore) -> None:
    first, second = await core.workers(2)
    await first.run("begin")
    await opened(first, key="k")
    waiting = asyncio.create_task(ask(second, key="k"))
    await core.until_waiting_for_a_lock(second)
    await first.run("rollback")
    assert (await waiting)["outcome"] == "opened"
    assert await runs(core) == 1


async def test_the_same_key_shows_the_runs_current_state(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker, key="k")
    await worker.cancel(run)
    again = await ask(worker, key="k")
    assert again == {"outcome": "same", "invocation": await core.describe(run), "witness": None}
    assert again["invocation"]["status"] == "cancelled"


async def test_the_key_of_a_deleted_run_stays_spent(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker, key="k")
    await worker.cancel(run)
    await worker.delete(run)
    assert await refusal(worker, key="k") == "deleted"
    assert await refusal(worker, key="k", request_hash="another") == "deleted"
    assert await runs(core) == 1


async def test_no_clients_key_collides_with_a_slot_or_with_a_run_without_one(core: SqlCore, worker: Worker) -> None:
    night, keyless = await core.open_run(worker), await opened(worker)
    slot = await core.owner.value("select idempotency_key from public.scheduler_invocations where id = %s", night)
    for key in (str(slot), keyless, f"id:{keyless}"):
        assert await opened(worker, key=key) not in {night, keyless}


async def test_whom_the_engine_has_answered_before_is_told_to_who_opens(core: SqlCore, worker: Worker) -> None:
    assert (await ask(worker))["witness"] is None
    await ended_run(core, worker, ["triggered"])
    assert (await ask(worker))["witness"] == {"user_id": mentor(0), "scenario_type": SCENARIO}


async def test_nothing_open_past_its_time_stays_open(core: SqlCore, worker: Worker) -> None:
    expired = await core.open_manual_run(worker, [pairs([1])])
    await core.expire_now(expired)
    await opened(worker)
    assert (await core.describe(expired))["status"] == "failed"


async def posted(core: SqlCore) -> object:
    return await core.owner.value("select count(*) from net.http_request_queue")


async def test_a_slice_is_asked_for_once_where_nobody_works_on_it(core: SqlCore, worker: Worker) -> None:
    for name in ("scheduler_function_url", "scheduler_invoke_token"):
        await core.owner.run("select vault.create_secret(%s, %s)", "https://function.example", name)
    await core.owner.run("update scheduler.settings set next_due_at = now() + interval '1 hour'")
    await opened(worker, key="k0")
    assert await posted(core) == 0
    await opened(worker, key="k", post_slice=True)
    await ask(worker, key="k", post_slice=True)
    assert await posted(core) == 1


async def test_a_run_is_opened_although_no_slice_can_be_asked_for(core: SqlCore, worker: Worker) -> None:
    await opened(worker, post_slice=True)
    assert await core.owner.column("select error from scheduler.dispatches") == ["vault_secret_missing"]


async def test_ten_thousand_chosen_mentors_are_kept_as_they_are(core: SqlCore, worker: Worker) -> None:
    request = {"user_ids": [mentor(number) for number in range(10_000)], "scenario_types": None}
    run = await opened(worker, request=request)
    await core.install_long_ago()
    answer = await worker.open_slot(*await core.slots())
    assert {row["id"]: row["request"] for row in answer["open"]}[run] == request


@pytest.mark.parametrize(
    "senseless",
    [{"note": "n" * 2001}, {"expires_after_hours": None}, {"dry_run": None}, {"retry_of": "no uuid"}, {"note": "\0"}],
)
async def test_what_makes_no_sense_opens_nothing(core: SqlCore, worker: Worker, senseless: dict[str, Any]) -> None:
    with pytest.raises(psycopg.Error):
        await ask(worker, **senseless)
    assert await runs(core) == 0
