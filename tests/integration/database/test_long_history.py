"""scheduler_list and scheduler_spent_slots over many runs: what a look costs does not grow with them."""

from __future__ import annotations

from typing import Any

import pytest

from .asked import listed
from .sql_core import SCENARIO, Json, SqlCore, Worker, mentor

LOOK_BACK = 2_000
RUNS = 2 * LOOK_BACK + 500
SELDOM, ALWAYS = mentor(1), mentor(2)
# The runs that SELDOM was in, counted from the newest: two that the first page looks into, one just behind, the oldest.
IN = (1, LOOK_BACK, LOOK_BACK + 1, RUNS)
# The newest is inserted last, as in life.
INSERT_RUNS = """
insert into public.scheduler_invocations (
  idempotency_key, triggered_by, status, scheduled_for, created_at, finished_at, expires_at, engine_scope, config
)
select scheduler.slot_key(slot), 'schedule', 'succeeded', slot, slot, slot, slot, 's',
       '{"evaluation_schedule": "0 2 * * *", "evaluation_timezone": "UTC"}'
  from generate_series(%s, 1, -1) as run (ago)
 cross join lateral (select timestamptz '2026-11-23 02:00Z' - make_interval(days => ago) as slot) as at
"""
INSERT_BATCHES = """
insert into public.scheduler_invocation_batches (
  invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, queue, msg_id, state,
  not_triggered, finished_at
)
select i.id, 1, jsonb_build_array(jsonb_build_object(
         'scenario_types', jsonb_build_array(%s::text),
         'user_ids', to_jsonb(case when i.ago = any (%s) then %s::text[] else %s::text[] end)
       )), %s, %s, 2, 2, 'scenario_evaluation_batches', 0, 'done', 2, now()
  from (select id, row_number() over (order by created_at desc) as ago from public.scheduler_invocations) as i
"""
USERS_INDEX = ("scheduler_invocation_batches_by_user", "numscans")
NEWEST_INDEX = ("scheduler_invocations_newest", "tuples_returned")
WHOLE_TABLE = ("scheduler_invocations", "tuples_returned")


@pytest.fixture
async def history(core: SqlCore) -> list[str]:
    """The ids of many runs, the newest first; one mentor was in all of them, another in few."""
    await core.owner.run(INSERT_RUNS, RUNS)
    await core.owner.run(INSERT_BATCHES, SCENARIO, list(IN), [ALWAYS, SELDOM], [ALWAYS], SELDOM, ALWAYS)
    await core.owner.run("analyze public.scheduler_invocations, public.scheduler_invocation_batches")
    return await core.owner.column("select id::text from public.scheduler_invocations order by created_at desc")


async def read(worker: Worker, *counters: tuple[str, str], **asked: Any) -> tuple[Json, list[int]]:
    """A page, and what reading it counted on tables or indexes."""
    async with worker.transaction():
        page = await listed(worker, **asked)
        counted = [
            int(await worker.value(f"select pg_stat_get_xact_{count}('public.{relation}'::regclass)"))
            for relation, count in counters
        ]
    return page, counted


async def test_a_mentors_page_looks_into_2000_runs_at_most(worker: Worker, history: list[str]) -> None:
    pages: list[list[int]] = []
    after = None
    while not pages or after is not None:
        page = await listed(worker, user_id=SELDOM, after=after)
        pages.append([history.index(item["id"]) + 1 for item in page["items"]])
        after = page["next"]
    assert pages == [[1, LOOK_BACK], [LOOK_BACK + 1], [RUNS]]
    full = await listed(worker, user_id=SELDOM, limit=1)
    assert ([item["id"] for item in full["items"]], full["next"]["id"]) == ([history[0]], history[0])


async def test_a_history_reads_no_more_runs_than_needed(worker: Worker, history: list[str]) -> None:
    page, (scans,) = await read(worker, USERS_INDEX, user_id=mentor(3))
    assert (page["items"], page["next"]["id"]) == ([], history[LOOK_BACK - 1])
    # a user's batch is found in two steps: the range it was enumerated with, and all batches with that range
    assert LOOK_BACK <= scans <= 2 * LOOK_BACK + 50
    page, (scans,) = await read(worker, USERS_INDEX, user_id=ALWAYS, limit=20)
    assert [item["id"] for item in page["items"]] == history[:20]
    # a few for each of the 20 and the one that tells of a next page
    assert scans <= 10 * 21


@pytest.mark.parametrize("skipped", [0, RUNS - 100])
async def test_a_page_reads_no_more_than_it_shows(worker: Worker, history: list[str], skipped: int) -> None:
    """Also by the plan that PostgreSQL keeps, which is made without a look at where the page begins."""
    await worker.run("set plan_cache_mode = force_generic_plan")
    after = None
    if skipped:
        last = history[skipped - 1]
        at = await worker.value("select public.scheduler_get(%s::uuid) ->> 'created_at'", last)
        after = {"created_at": at, "id": last}
    page, (by_index, whole) = await read(worker, NEWEST_INDEX, WHOLE_TABLE, limit=20, after=after)
    assert [item["id"] for item in page["items"]] == history[skipped : skipped + 20]
    assert 0 < by_index <= 25
    assert whole == 0


@pytest.mark.usefixtures("history")
async def test_spent_slots_are_bounded_and_include_deleted_runs(core: SqlCore, worker: Worker) -> None:
    await core.owner.run(
        "update public.scheduler_invocations set deleted_at = now() where scheduled_for = '2026-11-20 02:00Z'"
    )
    found = await worker.call("spent_slots", **{"from": "2026-11-19T02:00:00Z", "to": "2026-11-21T02:00:00Z"})
    assert found == [
        {"scheduled_for": f"2026-11-{day}T02:00:00+00:00", "schedule": "0 2 * * *", "timezone": "UTC"}
        for day in (21, 20, 19)
    ]
    async with worker.transaction():
        found = await worker.call("spent_slots", **{"from": "1990-01-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"})
        whole = await worker.value("select pg_stat_get_xact_tuples_returned('public.scheduler_invocations'::regclass)")
    assert (len(found), found[0]["scheduled_for"], whole) == (1001, "2026-11-22T02:00:00+00:00", 0)
