"""Answers about runs stay small and cheap: they grow with neither users nor causes, nor with what else is open."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from .requests import listed, opened, seen
from .sql_core import SCENARIO, Json, Session, SqlCore, Worker, mentor, pairs

BATCHES, USERS_PER_BATCH = 30, 100


def code(number: int) -> str:
    """A code of its own in which nothing looks like an id."""
    return "code_" + "".join(chr(ord("a") + int(digit)) for digit in str(number))


async def fail(worker: Worker, batch: Json, causes: Mapping[str, str]) -> None:
    failed = [(user_id, SCENARIO, "failed") for user_id in causes]
    counts = {SCENARIO: {"failed": len(failed)}}
    assert await worker.complete_with(batch, failed, counts, causes=causes) == "done"


async def read_of_evaluations(session: Session) -> tuple[int, int]:
    """How often this transaction has searched the whole table, and how many of its rows it has read."""
    ((searched, read),) = await session.rows(
        "select seq_scan, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)"
        " from pg_stat_xact_user_tables where relname = 'scheduler_evaluations'"
    )
    return searched, read


async def test_the_20_commonest_causes_are_shown_with_lower_bounds(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(60)), pairs(range(60, 100))])
    first, second = (await worker.claim(2))["batches"]
    # 41 causes, of which the batch keeps the 19 with two users and one of the others
    causes_of_first = {mentor(number): code(number // 2 if number < 38 else number) for number in range(60)}
    await fail(worker, first, causes_of_first)
    # few causes, all kept: one that the other batch keeps, and one that it may have dropped
    users = [mentor(number) for number in range(60, 100)]
    await fail(worker, second, dict.fromkeys(users[:30], code(0)) | dict.fromkeys(users[30:], "late"))

    described = await core.describe(run)
    causes = described["failures"]
    assert [cause["code"] for cause in causes[:3]] == [code(0), "late", code(1)]
    assert [cause["count"] for cause in causes] == [32, 10, *[2] * 18]
    assert [cause["code"] for cause in causes if cause["is_lower_bound"]] == ["late"]
    assert described["other_failures"] == {"count": 100 - 32 - 10 - 36}
    assert (causes[1]["message"], causes[1]["sample_user_ids"]) == ("it failed", users[30:])
    assert len(causes[0]["sample_user_ids"]) == 10
    finished = await worker.finish(run)
    assert finished["failures"] == [
        {name: cause[name] for name in ("code", "count", "is_lower_bound")} for cause in causes
    ]


async def test_a_cause_for_each_pair_keeps_answers_short_and_cheap(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    before = await core.open_manual_run(worker, [pairs(range(USERS_PER_BATCH))])
    await worker.complete(await worker.claim_one(), "failed", {mentor(7): "triggered"})
    await worker.finish(before)
    # what the planner knows speaks for a search of the whole table: all codes that it has seen are one
    await core.owner.run("analyze public.scheduler_evaluations")
    due, following = await core.slots()
    run = (await worker.open_slot(due, following))["invocation"]["id"]
    starts = range(0, BATCHES * USERS_PER_BATCH, USERS_PER_BATCH)
    await worker.enqueue(run, [pairs(range(start, start + USERS_PER_BATCH)) for start in starts], done=True)
    for batch in (await worker.claim(BATCHES))["batches"]:
        user_ids = batch["pairs"][0]["user_ids"]
        await fail(worker, batch, {user_id: code(int(user_id[-12:], 16)) for user_id in user_ids})

    async with worker.transaction():
        answers: dict[str, Any] = {
            "finish": await worker.finish(run),
            "open_slot": await worker.open_slot(due, following),
            "list": await listed(worker),
            "get": await seen(worker, run),
            "update": await worker.update(run, set_note=True, note="n"),
        }
        searched, read = await read_of_evaluations(worker)
    assert answers["get"]["counts"]["failed"] == BATCHES * USERS_PER_BATCH
    assert len(answers["get"]["failures"]) == 20
    assert answers["open_slot"]["canary"]["user_id"] == mentor(7)
    assert max(len(json.dumps(answer)) for answer in answers.values()) < 20_000
    # a row or two for each cause that is shown, of the single run and of the changed one, and the canary's batch
    assert searched == 0
    assert read < 2 * 2 * 20 + USERS_PER_BATCH


async def test_a_slice_gets_few_open_runs_those_needing_it_first(core: SqlCore, worker: Worker) -> None:
    due, following = await core.slots()
    waiting = [await core.open_manual_run(worker, [pairs([number])]) for number in range(55)]
    finishable = await core.open_manual_run(worker)
    unread = await opened(worker)
    scheduled = await core.open_run(worker, [pairs([9])])
    answer = await worker.open_slot(due, following)
    assert answer["more_open"] is True
    assert {row["id"] for row in answer["open"]} == {scheduled, finishable, unread, *waiting[:47]}


async def test_the_chosen_users_given_to_a_slice_are_bounded(core: SqlCore, worker: Worker) -> None:
    due, following = await core.slots()
    chosen = sorted(str(uuid4()) for _ in range(10_000))
    runs = [await opened(worker, request={"user_ids": chosen, "scenario_types": None}) for _ in range(12)]
    answer = await worker.open_slot(due, following)
    given = [row["id"] for row in answer["open"]]
    assert answer["more_open"] is True
    assert 0 < len(given) < len(runs)
    assert given == runs[: len(given)]
    shown = (await seen(worker, runs[0]))["request"]
    assert shown == {"users": 10_000, "sample_user_ids": chosen[:10], "scenario_types": None}


async def test_of_the_functions_answers_the_latest_20_are_shown(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker)
    await core.owner.run(
        "insert into scheduler.dispatches (requested_at, error)"
        " select now() + make_interval(secs => n), 'Timeout after ' || n || ' ms' from generate_series(1, 50) as n"
    )
    dispatches = (await seen(worker, run))["dispatches"]
    assert [answer["error"] for answer in dispatches] == [f"Timeout after {n} ms" for n in range(50, 30, -1)]
