"""scheduler_list and scheduler_spent_slots over many nights: what a look costs does not grow with them."""

from __future__ import annotations

from typing import Any

import pytest

from .asked import listed
from .sql_core import SCENARIO, Json, SqlCore, Worker, mentor

LOOK_BACK = 2_000
NIGHTS = 2 * LOOK_BACK + 500
HERS, EVERYBODYS = mentor(1), mentor(2)
# In which nights she was, counted from the newest: two that the first page looks into, one just behind it, the oldest.
IN = (1, LOOK_BACK, LOOK_BACK + 1, NIGHTS)
# The newest is inserted last, as in life.
INSERT_NIGHTS = """
insert into public.scheduler_invocations (
  idempotency_key, triggered_by, status, scheduled_for, created_at, finished_at, expires_at, engine_scope, config
)
select scheduler.slot_key(slot), 'schedule', 'succeeded', slot, slot, slot, slot, 's',
       '{"evaluation_schedule": "0 2 * * *", "evaluation_timezone": "UTC"}'
  from generate_series(%s, 1, -1) as night (ago)
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


@pytest.fixture
async def history(core: SqlCore) -> list[str]:
    """The ids of many nights, the newest first; one mentor was in all of them, another in few."""
    await core.owner.run(INSERT_NIGHTS, NIGHTS)
    await core.owner.run(INSERT_BATCHES, SCENARIO, list(IN), [EVERYBODYS, HERS], [EVERYBODYS], HERS, EVERYBODYS)
    await core.owner.run("analyze public.scheduler_invocations, public.scheduler_invocation_batches")
    return await core.owner.column("select id::text from public.scheduler_invocations order by created_at desc")


async def touched(worker: Worker, relation: str, count: str, **asked: Any) -> tuple[Json, int]:
    """A page, and what reading it counted on a table or an index: `numscans` or `tuples_returned`."""
    async with worker.transaction():
        page = await listed(worker, **asked)
        number = await worker.value(f"select pg_stat_get_xact_{count}(%s::regclass)", f"public.{relation}")
    return page, int(number)


async def test_a_mentors_page_looks_into_so_many_nights_and_the_next_one_goes_on_there(
    worker: Worker, history: list[str]
) -> None:
    pages: list[list[int]] = []
    after = None
    while not pages or after is not None:
        page = await listed(worker, user_id=HERS, after=after)
        pages.append([history.index(item["id"]) + 1 for item in page["items"]])
        after = page["next"]
    assert pages == [[1, LOOK_BACK], [LOOK_BACK + 1], [NIGHTS]]


async def test_a_full_page_ends_where_its_last_run_is(worker: Worker, history: list[str]) -> None:
    first = await listed(worker, user_id=HERS, limit=1)
    assert ([item["id"] for item in first["items"]], first["next"]["id"]) == ([history[0]], history[0])
    second = await listed(worker, user_id=HERS, limit=1, after=first["next"])
    assert [item["id"] for item in second["items"]] == [history[LOOK_BACK - 1]]


async def test_somebody_who_is_in_no_night_is_looked_for_in_so_many_and_told_where_to_go_on(
    worker: Worker, history: list[str]
) -> None:
    page, scans = await touched(worker, "scheduler_invocation_batches_by_user", "numscans", user_id=mentor(3))
    assert page["items"] == []
    assert page["next"]["id"] == history[LOOK_BACK - 1]
    # Her batch would be found in two steps: the range that it was enumerated with, and whoever has it in common.
    assert LOOK_BACK <= scans <= 2 * LOOK_BACK + 50


async def test_somebody_who_is_in_every_night_is_looked_for_in_no_more_than_are_shown(
    worker: Worker, history: list[str]
) -> None:
    page, scans = await touched(
        worker, "scheduler_invocation_batches_by_user", "numscans", user_id=EVERYBODYS, limit=20
    )
    assert [item["id"] for item in page["items"]] == history[:20]
    # A few for each of the 20 and the one that tells of a next page.
    assert scans <= 10 * 21


@pytest.mark.usefixtures("history")
async def test_the_list_reads_no_more_invocations_than_it_shows(worker: Worker) -> None:
    _, read = await touched(worker, "scheduler_invocations_newest", "tuples_returned", limit=20)
    assert 0 < read <= 25
    _, whole = await touched(worker, "scheduler_invocations", "tuples_returned", limit=20)
    assert whole == 0


async def test_a_page_from_deep_in_the_list_reads_no_more_than_the_first(worker: Worker, history: list[str]) -> None:
    """Also by the plan that PostgreSQL keeps, which is made without a look at where the page begins."""
    await worker.run("set plan_cache_mode = force_generic_plan")
    deep = NIGHTS - 100
    (created_at,) = await worker.column("select public.scheduler_get(%s::uuid) ->> 'created_at'", history[deep - 1])
    page, read = await touched(
        worker,
        "scheduler_invocations_newest",
        "tuples_returned",
        limit=20,
        after={"created_at": created_at, "id": history[deep - 1]},
    )
    assert [item["id"] for item in page["items"]] == history[deep : deep + 20]
    assert 0 < read <= 25
    _, whole = await touched(worker, "scheduler_invocations", "tuples_returned", limit=20)
    assert whole == 0


@pytest.mark.usefixtures("history")
async def test_spent_slots_are_those_of_the_span_its_ends_included_the_latest_first(worker: Worker) -> None:
    found = await worker.call("spent_slots", **{"from": "2026-11-19T02:00:00Z", "to": "2026-11-21T02:00:00Z"})
    assert found == [
        {"scheduled_for": f"2026-11-{day}T02:00:00+00:00", "schedule": "0 2 * * *", "timezone": "UTC"}
        for day in (21, 20, 19)
    ]


@pytest.mark.usefixtures("history")
async def test_the_slot_of_a_run_that_was_deleted_stays_spent(core: SqlCore, worker: Worker) -> None:
    await core.owner.run(
        "update public.scheduler_invocations set deleted_at = now() where scheduled_for = '2026-11-20 02:00Z'"
    )
    found = await worker.call("spent_slots", **{"from": "2026-11-20T02:00:00Z", "to": "2026-11-20T02:00:00Z"})
    assert len(found) == 1


@pytest.mark.usefixtures("history")
async def test_so_many_spent_slots_are_answered_and_found_by_their_key(worker: Worker) -> None:
    async with worker.transaction():
        found = await worker.call("spent_slots", **{"from": "1990-01-01T00:00:00Z", "to": "2026-12-01T00:00:00Z"})
        (read,) = await worker.column(
            "select pg_stat_get_xact_tuples_returned('public.scheduler_invocations'::regclass)"
        )
    assert len(found) == 1001
    assert found[0]["scheduled_for"] == "2026-11-22T02:00:00+00:00"
    assert read == 0
