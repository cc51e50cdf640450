"""scheduler_get and scheduler_last_good_run: one run in detail, and when a night last went well."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import uuid4

import pytest

from .asked import ended_run, opened, seen
from .sql_core import Json, SqlCore, Worker, mentor, minutes, pairs

DETAIL = {"request", "config", "enumeration_done", "not_evaluated_user_ids", "dispatches"}


async def in_detail(worker: Worker, run: str) -> Json:
    found = await seen(worker, run)
    assert found is not None
    return found


async def test_it_shows_what_the_list_shows_and_what_was_asked_for(core: SqlCore, worker: Worker) -> None:
    request = {"user_ids": [mentor(1)], "scenario_types": None}
    run = await opened(worker, request=request)
    found = await in_detail(worker, run)
    assert {name: value for name, value in found.items() if name not in DETAIL} == await core.describe(run)
    assert {name: found[name] for name in DETAIL} == {
        "request": {"users": 1, "sample_user_ids": [mentor(1)], "scenario_types": None},
        "config": {"batch_size": 100},
        "enumeration_done": False,
        "not_evaluated_user_ids": [],
        "dispatches": [],
    }


@pytest.mark.parametrize("request_of", [{}, {"user_ids": None, "scenario_types": None}], ids=["slot", "manual"])
async def test_a_run_of_everybody_names_nobody(worker: Worker, request_of: Json) -> None:
    found = await in_detail(worker, await opened(worker, request=request_of))
    assert found["request"] == {"users": None, "sample_user_ids": [], "scenario_types": None}


async def test_there_is_nothing_to_see_of_what_does_not_exist(worker: Worker) -> None:
    assert await seen(worker, str(uuid4())) is None


async def test_some_of_those_who_were_not_evaluated_are_named_each_once(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1], ["a"]), pairs([2, 3], ["a", "b"])])
    await worker.complete(await worker.claim_one())
    assert (await in_detail(worker, run))["not_evaluated_user_ids"] == []
    await worker.cancel(run)
    assert (await in_detail(worker, run))["not_evaluated_user_ids"] == [mentor(2), mentor(3)]


async def test_of_a_whole_night_that_was_not_evaluated_a_few_are_named(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(start, start + 50)) for start in range(0, 1000, 50)])
    await worker.cancel(run)
    named = (await in_detail(worker, run))["not_evaluated_user_ids"]
    assert len(set(named)) == len(named) == 10


async def dispatched(core: SqlCore, run: str, minutes_after_slot: float, status: int | None, error: str | None) -> None:
    await core.owner.run(
        "insert into scheduler.dispatches (requested_at, status_code, error)"
        " select scheduled_for + %s, %s, %s from public.scheduler_invocations where id = %s",
        minutes(minutes_after_slot),
        status,
        error,
        run,
    )


async def test_the_functions_answers_from_slot_to_end_are_counted(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker)
    await core.owner.run(
        "update public.scheduler_invocations set scheduled_for = now() - interval '1 hour',"
        " finished_at = now() - interval '30 minutes'"
    )
    for at, status, error in [
        (-1, 500, None),
        (0, 200, None),
        (5, 200, None),
        (10, None, "no_answer"),
        (20, 401, None),
        (31, 503, None),
    ]:
        await dispatched(core, run, at, status, error)
    answers = (await in_detail(worker, run))["dispatches"]
    assert [(answer["status_code"], answer["error"], answer["count"]) for answer in answers] == [
        (401, None, 1),
        (None, "no_answer", 1),
        (200, None, 2),
    ]
    assert answers[2]["first_at"] < answers[2]["last_at"] < answers[1]["first_at"] == answers[1]["last_at"]


async def test_while_it_is_open_answers_up_to_now_are_counted(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker)
    await dispatched(core, run, 0.001, None, None)
    ((answer),) = (await in_detail(worker, run))["dispatches"]
    assert (answer["status_code"], answer["error"], answer["count"]) == (None, None, 1)


async def last_good_run(worker: Worker) -> Any:
    return (await worker.value("select public.scheduler_last_good_run()"))["run"]


async def test_where_no_night_ever_ended_none_went_well(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1])])
    assert await last_good_run(worker) is None


@pytest.mark.parametrize(
    ("outcomes", "is_good"),
    [
        (["triggered"], True),
        (["failed", "not_triggered"], True),
        (["failed"], False),
        (["triggered", None], False),
        ([], False),
    ],
)
async def test_a_night_went_well_if_it_was_read_and_at_least_in_part_evaluated(
    core: SqlCore, worker: Worker, outcomes: list[str | None], is_good: bool
) -> None:
    await ended_run(core, worker, outcomes)
    assert (await last_good_run(worker) is not None) == is_good


@pytest.mark.parametrize(
    "change",
    [
        "triggered_by = 'manual'",
        "triggered_by = 'retry'",
        "dry_run = true",
        "status = 'skipped'",
        "status = 'cancelled'",
    ],
)
async def test_only_a_real_scheduled_run_counts(core: SqlCore, worker: Worker, change: str) -> None:
    await ended_run(core, worker, ["triggered"])
    await core.owner.run(f"update public.scheduler_invocations set {change}")
    assert await last_good_run(worker) is None


async def test_a_night_in_which_no_scenario_applied_to_anybody_went_well(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, skipped=3)
    await worker.finish(run)
    assert (await last_good_run(worker))["status"] == "succeeded"


async def test_the_latest_to_end_is_told_and_being_deleted_does_not_unmake_it(core: SqlCore, worker: Worker) -> None:
    older = await ended_run(core, worker, ["triggered"])
    await core.owner.run(
        "update public.scheduler_invocations set idempotency_key = 'slot:older',"
        " scheduled_for = now() + interval '9 days', finished_at = now() - interval '1 day' where id = %s",
        older,
    )
    newer = await ended_run(core, worker, ["failed", "triggered"])
    await worker.delete(newer)
    described = await core.describe(newer)
    assert await last_good_run(worker) == {name: described[name] for name in ("scheduled_for", "finished_at", "status")}


@pytest.mark.parametrize("nights", [0, 1])
async def test_the_time_is_told_along_whether_or_not_there_is_a_good_night(
    core: SqlCore, worker: Worker, nights: int
) -> None:
    for _ in range(nights):
        await ended_run(core, worker, ["triggered"])
    before = await worker.value("select clock_timestamp()")
    told = await worker.value("select public.scheduler_last_good_run()")
    assert before <= datetime.fromisoformat(told["clock"]) <= await worker.value("select clock_timestamp()")
    assert (told["run"] is not None) == bool(nights)
