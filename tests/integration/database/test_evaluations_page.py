"""scheduler_evaluations_page: every stored result of a run, in bounded pages."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from shared.database import MAX_ANSWER_BYTES

from .requests import evaluations
from .sql_core import Json, SqlCore, Worker, mentor
from .test_bounded_answers import read_of_evaluations

STORED = [
    (1, "a", "triggered", None),
    (1, "b", "failed", "engine_error"),
    (2, "a", "suppressed", None),
    (3, "b", "skipped", "mentor_not_active"),
    (4, "a", "failed", "outcome_unknown"),
    (4, "b", "failed", "engine_error"),
]
INSERT = "insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome, error_code"
# So many results, of which those from a number on have failed, with texts of so many letters.
INSERT_MANY = f"""
{INSERT}, error_message, notification_id)
select %s, lpad(to_hex(n), 32, '0')::uuid, 'a', case when n < %s then 'triggered' else 'failed' end, 'code', text, text
  from generate_series(0, %s - 1) as n, (select repeat('€', %s) as text) as long
"""


async def all_pages(worker: Worker, run: str, **asked: Any) -> list[Json]:
    pages = [await evaluations(worker, run, **asked)]
    while pages[-1]["next"]:
        assert len(pages) < 20, "the pages do not end"
        pages.append(await evaluations(worker, run, after=pages[-1]["next"], **asked))
    return pages


def found(pages: list[Json]) -> list[tuple[Any, ...]]:
    names = ("user_id", "scenario_type", "outcome", "error_code")
    return [tuple(row[name] for name in names) for page in pages for row in page["items"]]


async def test_stored_results_are_read_in_order_and_filtered(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker)
    stored = [(mentor(number), *row) for number, *row in STORED]
    for row in stored[::-1]:
        await core.owner.run(f"{INSERT}) values (%s, %s, %s, %s, %s)", run, *row)
    filters: list[tuple[Json, list[int]]] = [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"outcomes": ["failed"]}, [1, 4, 5]),
        ({"outcomes": ["triggered", "skipped"]}, [0, 3]),
        ({"outcomes": []}, []),
        ({"code": "engine_error"}, [1, 5]),
        ({"scenario_type": "a", "outcomes": ["failed"]}, [4]),
        ({"scenario_type": "c"}, []),
    ]
    for asked, expected in filters:
        for limit in (1, 2, 3, 6, 100):
            pages = await all_pages(worker, run, limit=limit, **asked)
            assert found(pages) == [stored[number] for number in expected], (asked, limit)
            assert {len(page["items"]) for page in pages[:-1]} <= {limit}
            assert {page["is_open"] for page in pages} == {True}
    await worker.finish(run)
    assert (await evaluations(worker, run))["is_open"] is False
    await worker.delete(run)
    for unknown in (run, str(uuid4())):
        assert await evaluations(worker, unknown) is None


async def test_a_page_is_cut_by_its_size(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker)
    await core.owner.run(INSERT_MANY, run, 0, 6000, 300)
    pages = await all_pages(worker, run, limit=10_000)
    assert max(len(json.dumps(page, ensure_ascii=False).encode()) for page in pages) < MAX_ANSWER_BYTES / 1.5
    assert len(set(found(pages))) == len(found(pages)) == 6000


async def test_a_page_searches_50000_results_at_most(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker)
    await core.owner.run(INSERT_MANY, run, 50_010, 50_015, 1)
    first, second = await all_pages(worker, run, outcomes=["failed"], limit=10)
    assert (len(first["items"]), len(second["items"])) == (0, 5)
    # The next page begins where this one ended, and reads no more than its rows, by whichever plan.
    async with worker.transaction():
        await worker.run("set local plan_cache_mode = force_generic_plan")
        before = await read_of_evaluations(worker)
        page = await evaluations(worker, run, limit=10, after=[second["items"][0]["user_id"], ""])
        after = await read_of_evaluations(worker)
    assert (len(page["items"]), page["next"]) == (5, None)
    assert (after[0], after[1] - before[1]) == (0, 5)
    # Whether others follow the last one searched is not known.
    await core.owner.run("delete from public.scheduler_evaluations where user_id >= lpad(to_hex(50000), 32, '0')::uuid")
    assert [len(page["items"]) for page in await all_pages(worker, run, outcomes=["failed"])] == [0, 0]
