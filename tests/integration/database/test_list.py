"""scheduler_list, get, used_slots and last_success: filters, pages, a mentor's history, one run in detail."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from psycopg.types.json import Jsonb

from .requests import ended_run, listed, opened, seen
from .sql_core import CONFIG, SCENARIO, Json, SqlCore, Worker, mentor, pairs

OUTCOMES = ("triggered", "not_triggered", "suppressed", "skipped", "failed")


def ids(answer: Json) -> list[str]:
    return [item["id"] for item in answer["items"]]


async def of_each_kind(core: SqlCore, worker: Worker) -> dict[str, str]:
    """A scheduled run that failed, a retry of it that waits, and a cancelled manual run; opened in this order."""
    failed = await ended_run(core, worker, ["failed"])
    retry = await opened(worker, retry_of=failed)
    manual = await opened(worker)
    await worker.cancel(manual)
    for hours, run in enumerate((manual, retry, failed)):
        at = f"date_trunc('minute', now()) - make_interval(hours => {hours})"
        await core.change(run, f"scheduled_for = {at}, invoked_at = {at}")
    return {"failed": failed, "retry": retry, "manual": manual}


async def test_the_newest_is_first_and_each_is_summarized(core: SqlCore, worker: Worker) -> None:
    assert await listed(worker) == {"items": [], "next": None, "total": 0}
    runs = await of_each_kind(core, worker)
    answer = await listed(worker)
    assert answer["items"] == [await core.summarize(runs[kind]) for kind in ("manual", "retry", "failed")]
    await worker.delete(runs["failed"])
    assert ids(await listed(worker)) == [runs["manual"], runs["retry"]]
    assert (await listed(worker, user_id=mentor(0)))["items"] == []
    assert await seen(worker, runs["failed"]) is None
    assert await seen(worker, str(uuid4())) is None


async def test_the_list_is_filtered(core: SqlCore, worker: Worker) -> None:
    """A span of slots includes its ends."""
    runs = await of_each_kind(core, worker)
    slot = await core.owner.value("select scheduled_for from scheduler_invocations where id = %s", runs["retry"])
    instant = timedelta(microseconds=1)
    filters: list[tuple[Json, list[str]]] = [
        ({"statuses": ["failed"]}, ["failed"]),
        ({"statuses": ["cancelled", "pending"]}, ["manual", "retry"]),
        ({"statuses": []}, []),
        ({"trigger": ["retry", "schedule"]}, ["retry", "failed"]),
        ({"trigger": ["manual"], "statuses": ["failed"]}, []),
        ({"triggered_by": ["admin"]}, ["manual", "retry"]),
        ({"triggered_by": ["test", "another"]}, ["failed"]),
        ({"scheduled_from": slot, "scheduled_to": slot}, ["retry"]),
        ({"scheduled_from": slot + instant}, ["manual"]),
        ({"scheduled_to": slot - instant}, ["failed"]),
    ]
    for given, expected in filters:
        answer = await listed(worker, **given)
        assert (ids(answer), answer["total"]) == ([runs[kind] for kind in expected], len(expected)), given


async def test_a_page_by_number_says_how_many_match(core: SqlCore, worker: Worker) -> None:
    runs = [await core.open_manual_run(worker, [pairs([1])]) for _ in range(5)][::-1]
    await worker.cancel(await core.open_run(worker))
    pages = [await listed(worker, limit=2, offset=offset, trigger=["manual"]) for offset in (0, 2, 4, 6)]
    assert [ids(page) for page in pages] == [runs[:2], runs[2:4], runs[4:], []]
    assert [(page["total"], page["next"] is None) for page in pages] == [(5, False), (5, False), (5, True), (5, True)]
    # a page by number is followed by one from its end
    following = await listed(worker, limit=2, after=pages[1]["next"], trigger=["manual"])
    assert (ids(following), following["total"]) == (runs[4:], 5)
    assert (await listed(worker, user_id=mentor(1)))["total"] is None


@pytest.mark.parametrize("user_id", [None, mentor(1)], ids=["list", "history"])
@pytest.mark.parametrize("same_moment", [False, True])
async def test_pages_show_each_run_once_whatever_comes_and_goes(
    core: SqlCore, worker: Worker, user_id: str | None, same_moment: bool
) -> None:
    runs = []
    for _ in range(5):
        runs.append(await core.open_manual_run(worker, [pairs([1])]))
        if user_id:
            await core.open_manual_run(worker, [pairs([2])])
    if same_moment:
        await core.owner.run("update public.scheduler_invocations set invoked_at = '2026-11-23 02:00Z'")
    # where moments are equal, the smaller id is first
    expected = sorted(runs) if same_moment else runs[::-1]
    first = await listed(worker, user_id=user_id, limit=2)
    await core.owner.run("delete from public.scheduler_invocations where id = %s", expected[1])
    await core.open_manual_run(worker, [pairs([1])])
    second = await listed(worker, user_id=user_id, limit=2, after=first["next"])
    third = await listed(worker, user_id=user_id, limit=1, after=second["next"])
    assert [ids(page) for page in (first, second, third)] == [expected[:2], expected[2:4], expected[4:]]
    assert third["next"] is None


async def test_a_mentors_history_has_only_runs_with_its_outcomes(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker, [*OUTCOMES, None])
    await opened(worker)
    for number, outcome in enumerate((*OUTCOMES, "not_evaluated")):
        (item,) = (await listed(worker, user_id=mentor(number)))["items"]
        failed = outcome == "failed"
        assert item.pop("results") == [
            {
                "scenario_type": SCENARIO,
                "outcome": outcome,
                "error_code": "engine_error" if failed else None,
                "error_message": "it failed" if failed else None,
                "notification_id": None,
            }
        ]
        assert item == await core.summarize(run)
    assert (await listed(worker, user_id=mentor(6)))["items"] == []


async def test_a_mentors_scenarios_are_those_of_its_group(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [[*pairs([1, 5], ["b", "a"]), *pairs([3], ["c"])], pairs([7])])
    for number, scenario_types in {0: [], 1: ["a", "b"], 2: [], 3: ["c"], 4: [], 5: ["a", "b"], 6: [], 8: []}.items():
        results = [item["results"] for item in (await listed(worker, user_id=mentor(number)))["items"]]
        assert [(one["scenario_type"], one["outcome"]) for each in results for one in each] == [
            (scenario_type, None) for scenario_type in scenario_types
        ]
    batch = await worker.claim_one()
    await worker.cancel(run)
    # a late record is in the history as well
    await worker.complete(batch, "not_triggered")
    (item,) = (await listed(worker, user_id=mentor(3)))["items"]
    assert (item["status"], item["results"][0]["outcome"]) == ("cancelled", "not_triggered")


# Over many runs


@pytest.fixture
async def history(core: SqlCore) -> list[str]:
    """The ids of 4,500 daily runs, the newest first. Mentor 1 was in the newest, two around the 2,000th, the oldest."""
    await core.owner.run(
        "insert into public.scheduler_invocations (idempotency_key, trigger, triggered_by, status, scheduled_for,"
        " invoked_at, finished_at, expires_at, engine_scope, config)"
        " select scheduler.slot_key(slot), 'schedule', 'pg_cron', 'success', slot, slot, slot, slot, 's', %s"
        " from generate_series(timestamptz '2026-11-22 02:00Z', '2000-01-01', '-1 day') as slot limit 4500",
        Jsonb({"evaluation_schedule": "0 2 * * *", "evaluation_timezone": "UTC"}),
    )
    runs = await core.owner.column("select id::text from public.scheduler_invocations order by invoked_at desc")
    await core.owner.run(
        "insert into public.scheduler_invocation_batches (invocation_id, batch_no, pairs, first_user_id, last_user_id,"
        " mentors, evaluations, queue, msg_id, state, not_triggered, finished_at)"
        " select run, 1, %s, %s, %s, 1, 1, 'scenario_evaluation_batches', 0, 'done', 1, now()"
        " from unnest(%s::uuid[]) as run",
        *(Jsonb(pairs([1])), mentor(1), mentor(1), [runs[ago - 1] for ago in (1, 2000, 2001, 4500)]),
    )
    return runs


async def test_a_mentors_page_looks_into_2000_runs_at_most(worker: Worker, history: list[str]) -> None:
    pages: list[list[int]] = []
    after = None
    while not pages or after is not None:
        page = await listed(worker, user_id=mentor(1), after=after)
        pages.append([history.index(run) + 1 for run in ids(page)])
        after = page["next"]
    assert pages == [[1, 2000], [2001], [4500]]
    full = await listed(worker, user_id=mentor(1), limit=1)
    assert (ids(full), full["next"]["id"]) == ([history[0]], history[0])
    unknown = await listed(worker, user_id=mentor(3))
    assert (ids(unknown), unknown["next"]["id"]) == ([], history[1999])


async def test_spent_slots_are_bounded_and_include_deleted_runs(
    core: SqlCore, worker: Worker, history: list[str]
) -> None:
    await core.change(history[2], "deleted_at = now()")
    found = await worker.call("used_slots", **{"from": "2026-11-19T02:00:00Z", "to": "2026-11-21T02:00:00Z"})
    assert found == [
        {"scheduled_for": f"2026-11-{day}T02:00:00+00:00", "schedule": "0 2 * * *", "timezone": "UTC"}
        for day in (21, 20, 19)
    ]
    found = await worker.call("used_slots", **{"from": "1990-01-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"})
    assert (len(found), found[0]["scheduled_for"]) == (1001, "2026-11-22T02:00:00+00:00")


# scheduler_get


@pytest.mark.parametrize("request_of", [{}, {"user_ids": None}, {"user_ids": [mentor(1)], "scenario_types": ["a"]}])
async def test_a_run_in_detail_shows_what_was_asked_for(core: SqlCore, worker: Worker, request_of: Json) -> None:
    run, user_ids = await opened(worker, request=request_of), request_of.get("user_ids")
    assert await seen(worker, run) == await core.describe(run) | {
        "request": {
            "users": user_ids and len(user_ids),
            "sample_user_ids": user_ids or [],
            "scenario_types": request_of.get("scenario_types"),
        },
        "config": CONFIG,
        "enumeration_done": False,
        "retry": None,
        "not_evaluated_user_ids": [],
        "batch_results": [],
        "dispatches": [],
    }


@pytest.mark.parametrize(("dry_run", "sent"), [(False, 1), (True, 0)])
async def test_the_first_thousand_batches_are_shown(core: SqlCore, worker: Worker, dry_run: bool, sent: int) -> None:
    run = await core.open_run(worker, [pairs([number]) for number in range(1001)])
    await core.change(run, f"dry_run = {dry_run}")
    await worker.complete(await worker.claim_one())
    names = ("batch_index", "user_count", "notifications_sent", "failed", "duration_ms", "status")
    shown = [tuple(batch[name] for name in names) for batch in (await seen(worker, run))["batch_results"]]
    assert shown == [(1, 1, sent, 0, 5, "done"), *((number, 1, 0, 0, None, "open") for number in range(2, 1001))]


async def test_some_of_the_users_not_evaluated_are_named(core: SqlCore, worker: Worker) -> None:
    few = await core.open_run(worker, [pairs([1], ["a"]), pairs([2, 3], ["a", "b"])])
    await worker.complete(await worker.claim_one())
    assert (await seen(worker, few))["not_evaluated_user_ids"] == []
    await worker.cancel(few)
    assert (await seen(worker, few))["not_evaluated_user_ids"] == [mentor(2), mentor(3)]
    many = await core.open_manual_run(worker, [pairs(range(start, start + 50)) for start in range(0, 1000, 50)])
    await worker.cancel(many)
    named = (await seen(worker, many))["not_evaluated_user_ids"]
    assert len(set(named)) == len(named) == 10


@pytest.mark.parametrize("is_open", [False, True])
async def test_the_functions_answers_while_it_was_due_are_counted(core: SqlCore, worker: Worker, is_open: bool) -> None:
    run = await ended_run(core, worker)
    await core.change(run, "scheduled_for = now() - interval '1 hour', finished_at = now() - interval '30 minutes'")
    if is_open:
        await core.change(run, "status = 'running', finished_at = null")
    await core.owner.run(
        "insert into scheduler.dispatches (requested_at, status_code, error)"
        " select scheduled_for + make_interval(mins => at), code, said from public.scheduler_invocations, (values"
        " (-1, 500, null), (0, 200, null), (5, 200, null), (10, null, 'no_answer'), (20, 401, null), (31, 503, null)"
        ") as answer (at, code, said)"
    )
    answers = (await seen(worker, run))["dispatches"]
    assert [(answer["status_code"], answer["error"], answer["count"]) for answer in answers] == [
        *([(503, None, 1)] if is_open else []),
        (401, None, 1),
        (None, "no_answer", 1),
        (200, None, 2),
    ]
    assert answers[-1]["first_at"] < answers[-1]["last_at"] < answers[-2]["first_at"] == answers[-2]["last_at"]


# scheduler_last_success


async def last_success(core: SqlCore, worker: Worker) -> Any:
    """Return it, once the time that comes along is known to be the database's."""
    before = await core.now()
    answer = await worker.value("select public.scheduler_last_success()")
    assert before <= datetime.fromisoformat(answer["clock"]) <= await core.now()
    return answer["run"]


@pytest.mark.parametrize(
    ("outcomes", "change", "is_good"),
    [
        (["triggered"], "note = null", True),
        (["failed", "not_triggered"], "note = null", True),
        (["failed"], "note = null", False),
        (["triggered", None], "note = null", False),
        ([], "note = null", False),
        # its mentors had no scenario that applied
        ([], """status = 'success', skip_reasons = skip_reasons || '{"no_scenario_applies": 3}'""", True),
        (["triggered"], "trigger = 'manual'", False),
        (["triggered"], "trigger = 'retry'", False),
        (["triggered"], "dry_run = true", False),
        (["triggered"], "status = 'skipped'", False),
    ],
)
async def test_a_good_run_is_scheduled_and_in_part_evaluated(
    core: SqlCore, worker: Worker, outcomes: list[str | None], change: str, is_good: bool
) -> None:
    assert await last_success(core, worker) is None
    await core.change(await ended_run(core, worker, outcomes), change)
    assert (await last_success(core, worker) is not None) == is_good


async def test_the_latest_good_run_counts_even_when_deleted(core: SqlCore, worker: Worker) -> None:
    older = await ended_run(core, worker, ["triggered"])
    times = "scheduled_for = now() + interval '9 days', finished_at = now() - interval '1 day'"
    await core.change(older, f"idempotency_key = 'slot:older', {times}")
    newer = await ended_run(core, worker, ["failed", "triggered"])
    await worker.delete(newer)
    summary = await core.summarize(newer)
    assert await last_success(core, worker) == {
        name: summary[name] for name in ("scheduled_for", "finished_at", "status")
    }
