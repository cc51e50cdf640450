"""scheduler_undone: every pair that failed or was not evaluated, once, in pages of whole ranges of users."""

from __future__ import annotations

from uuid import uuid4

import pytest

from .asked import Undone, add_mentors, all_undone, ended_run, opened, undone
from .sql_core import SCENARIO, SqlCore, Worker, mentor, pairs

OUTCOMES = ("triggered", "not_triggered", "suppressed", "skipped", "failed")
TYPES = ("lapsed", "milestone", "onboarding")


async def test_only_failed_and_not_evaluated_pairs_are_read(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [4, 6])
    run = await ended_run(core, worker, [*OUTCOMES, None, None])
    await worker.delete(run)
    assert await all_undone(worker, run) == [
        Undone(mentor(4), SCENARIO, active=True),
        Undone(mentor(5), SCENARIO, active=False),
        Undone(mentor(6), SCENARIO, active=True),
    ]


async def test_the_state_of_the_enumeration_comes_along(core: SqlCore, worker: Worker) -> None:
    request = {"user_ids": [mentor(1), mentor(2)], "scenario_types": [SCENARIO]}
    run = await opened(worker, request=request)
    await worker.enqueue(run, [pairs([1])], following=mentor(1))
    await worker.cancel(run)
    expected = {
        "triggered_by": "manual",
        "retry_of": None,
        "request": request,
        "enumeration_cursor": mentor(1),
        "enumeration_done": False,
    }
    assert (await undone(worker, run))["rest"] == expected
    last = "ffffffff-ffff-ffff-ffff-ffffffffffff"
    assert await undone(worker, run, after=last) == {"mentors": [], "last_user_id": None, "rest": expected}
    rest = (await undone(worker, await opened(worker, retry_of=run)))["rest"]
    assert (rest["triggered_by"], rest["retry_of"], rest["enumeration_cursor"]) == ("retry", run, None)
    assert await undone(worker, str(uuid4())) is None


async def test_a_page_is_about_as_large_as_asked(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(start, start + 10)) for start in range(0, 100, 10)])
    await worker.cancel(run)
    sizes = {
        asked: len((await undone(worker, run, mentors=asked))["mentors"])
        for asked in (None, -1, 0, 1, 10, 11, 45, 10**6)
    }
    # no page is empty before the end
    assert sizes == {None: 10, -1: 10, 0: 10, 1: 10, 10: 10, 11: 20, 45: 50, 10**6: 100}
