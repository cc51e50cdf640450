"""scheduler_evaluations_page: every stored result of a run, in bounded pages."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

from shared.database import MAX_ANSWER_BYTES

from .requests import evaluations
from .sql_core import Json, SqlCore, Worker, mentor, pairs
from .test_bounded_answers import read_of_evaluations

A, B = "a", "b"
STORED = [
    (1, A, "triggered", None),
    (1, B, "failed", "engine_error"),
    (2, A, "suppressed", None),
    (3, B, "skipped", None),
    (4, A, "failed", "outcome_unknown"),
    (4, B, "failed", "engine_error"),
]
# Results of a run without a batch, which the page does not read: user n of type `a`; those from p_failed on have failed.
INSERT = """
insert into public.scheduler_evaluations
  (invocation_id, user_id, scenario_type, outcome, error_code, error_message, notification_id)
select %s, lpad(to_hex(n), 32, '0')::uuid, 'a', case when n < %s then 'triggered' else 'failed' end, 'code', text, text
  from generate_series(0, %s - 1) as n, (select repeat('€', %s) as text) as long
"""


async def all_pages(worker: Worker, run: str, **asked: Any) -> list[Json]:
    pages = [await evaluations(worker, run, **asked)]
    while pages[-1]["next"]:
        assert len(pages) < 20, "the pages do not end"
        pages.append(await evaluations(worker, run, after=pages[-1]["next"], **asked))
    return pages


def found(pages: list[Json]) -> list[tuple[str, str]]:
    return [(row["user_id"], row["scenario_type"]) for page in pages for row in page["items"]]


async def test_stored_results_are_read_in_order_and_filtered(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([3, 4], [A, B]), pairs([1, 2], [A, B])])
    for batch in (await worker.claim(2))["batches"]:
        rows = [row for row in STORED if mentor(row[0]) in batch["pairs"][0]["user_ids"]]
        counts: dict[str, Json] = {scenario_type: {"not_triggered": 2} for scenario_type in (A, B)}
        for _, scenario_type, outcome, _ in rows:
            counts[scenario_type]["not_triggered"] -= 1
            counts[scenario_type][outcome] = counts[scenario_type].get(outcome, 0) + 1
        await worker.complete_with(batch, [(mentor(n), kind, outcome) for n, kind, outcome, _ in rows], counts)
    await core.owner.run(
        "update public.scheduler_evaluations set error_code = 'outcome_unknown', notification_id = 'n-4'"
        " where user_id = %s and scenario_type = 'a'",
        mentor(4),
    )
    for asked, expected in [
        ({}, STORED),
        ({"outcomes": ["failed"]}, [row for row in STORED if row[2] == "failed"]),
        ({"outcomes": ["triggered", "skipped"]}, [STORED[0], STORED[3]]),
        ({"outcomes": []}, []),
        ({"code": "engine_error"}, [STORED[1], STORED[5]]),
        ({"scenario_type": A, "outcomes": ["failed"]}, [STORED[4]]),
        ({"scenario_type": "c"}, []),
    ]:
        for limit in (1, 2, 3, 6, 100):
            pages = await all_pages(worker, run, limit=limit, **asked)
            assert found(pages) == [(mentor(number), kind) for number, kind, *_ in expected], (asked, limit)
            assert max(len(page["items"]) for page in pages) <= limit
            assert all(page["items"] for page in pages[:-1])
    (page,) = await all_pages(worker, run)
    assert page["items"][4] == {
        **{"user_id": mentor(4), "scenario_type": A, "outcome": "failed", "attempts": 1},
        **{"error_code": "outcome_unknown", "error_message": "it failed", "notification_id": "n-4"},
    }
    assert page["is_open"] is True
    await worker.finish(run)
    assert (await evaluations(worker, run))["is_open"] is False
    await worker.delete(run)
    for unknown in (run, str(uuid4())):
        assert await evaluations(worker, unknown) is None


async def test_a_page_is_cut_by_its_size(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker)
    await core.owner.run(INSERT, run, 0, 6000, 300)
    pages = await all_pages(worker, run, limit=10_000)
    assert len(pages) > 1
    assert max(len(json.dumps(page, ensure_ascii=False).encode()) for page in pages) < MAX_ANSWER_BYTES
    assert len(set(found(pages))) == len(found(pages)) == 6000


async def test_a_page_searches_50000_results_at_most(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker)
    await core.owner.run(INSERT, run, 50_010, 50_015, 1)
    first, second = await all_pages(worker, run, outcomes=["failed"], limit=10)
    assert (len(first["items"]), len(second["items"])) == (0, 5)
    # enters the index where the page before ended, and reads no more than the page
    async with worker.transaction():
        _, before = await read_of_evaluations(worker)
        page = await evaluations(worker, run, limit=10, after=[second["items"][0]["user_id"], ""])
        searched, read = await read_of_evaluations(worker)
    assert (len(page["items"]), page["next"]) == (5, None)
    assert (searched, read - before) == (0, 5)
    # a search that ends with the last result does not say whether there are others
    await core.owner.run("delete from public.scheduler_evaluations where outcome = 'failed'")
    await core.owner.run("delete from public.scheduler_evaluations where user_id >= lpad(to_hex(50000), 32, '0')::uuid")
    assert [len(page["items"]) for page in await all_pages(worker, run, outcomes=["failed"])] == [0, 0]
