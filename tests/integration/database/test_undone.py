"""scheduler_undone: every pair that a run left undone, once, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .asked import Undone, add_mentors, all_undone, ended_run, opened, pairs_of, record_each, undone
from .sql_core import SCENARIO, Pairs, SqlCore, Worker, mentor, pairs

OUTCOMES = ("triggered", "not_triggered", "suppressed", "skipped", "failed")
TYPES = ("lapsed", "milestone", "onboarding")


def without_activity(found: list[Undone]) -> list[tuple[str, str]]:
    return [(one.user_id, one.scenario_type) for one in found]


async def test_only_what_failed_or_was_not_evaluated(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker, [*OUTCOMES, None])
    assert without_activity(await all_undone(worker, run)) == [(mentor(4), SCENARIO), (mentor(5), SCENARIO)]


async def test_of_a_mentor_only_the_pairs_that_failed(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1, 2], TYPES)])
    results = [
        (mentor(number), scenario_type, "failed" if (number, scenario_type) == (2, "milestone") else "triggered")
        for number in (1, 2)
        for scenario_type in TYPES
    ]
    counts = {scenario_type: {"triggered": 2} for scenario_type in TYPES} | {"milestone": {"triggered": 1, "failed": 1}}
    await worker.complete_with(await worker.claim_one(), results, counts)
    await worker.finish(run)
    assert without_activity(await all_undone(worker, run)) == [(mentor(2), "milestone")]


async def test_those_who_are_not_active_any_more_are_marked(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [0, 1, 3])
    run = await ended_run(core, worker, ["failed", "failed", "failed", None])
    await core.owner.run("update public.peer_mentors set status = 'paused' where user_id = %s", mentor(1))
    assert [one.active for one in await all_undone(worker, run)] == [True, False, False, True]


async def test_a_batch_recorded_late_is_read_by_what_it_came_to(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1, 2, 3]), pairs([4, 5])])
    first, second = (await worker.claim())["batches"]
    await worker.cancel(run)
    assert len(await all_undone(worker, run)) == 5
    await worker.complete(first, "not_triggered", {mentor(2): "failed"})
    assert without_activity(await all_undone(worker, run)) == [(mentor(number), SCENARIO) for number in (2, 4, 5)]
    await worker.complete(second, "triggered")
    assert without_activity(await all_undone(worker, run)) == [(mentor(2), SCENARIO)]


async def test_the_rest_says_where_the_runs_own_enumeration_stands(core: SqlCore, worker: Worker) -> None:
    request = {"user_ids": [mentor(1), mentor(2)], "scenario_types": [SCENARIO]}
    run = await opened(worker, request=request)
    await worker.enqueue(run, [pairs([1])], following=mentor(1))
    await worker.cancel(run)
    page = await undone(worker, run)
    assert page["rest"] == {
        "triggered_by": "manual",
        "retry_of": None,
        "request": request,
        "enumeration_cursor": mentor(1),
        "enumeration_done": False,
    }
    retry = await opened(worker, retry_of=run)
    rest = (await undone(worker, retry))["rest"]
    assert (rest["triggered_by"], rest["retry_of"], rest["enumeration_cursor"]) == ("retry", run, None)


async def test_a_page_after_the_last_user_has_nobody_and_still_the_rest(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker, ["failed"])
    page = await undone(worker, run, after="ffffffff-ffff-ffff-ffff-ffffffffffff")
    assert (page["mentors"], page["last_user_id"], page["rest"]["enumeration_done"]) == ([], None, True)


async def test_a_deleted_run_can_be_read_on_until_it_is_pruned(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker, ["failed"])
    await worker.delete(run)
    assert len(await all_undone(worker, run)) == 1


async def test_there_is_no_page_of_a_run_that_does_not_exist(worker: Worker) -> None:
    assert await undone(worker, str(uuid4())) is None


async def test_a_page_is_about_as_large_as_was_asked_for(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs(range(start, start + 10)) for start in range(0, 100, 10)])
    await worker.cancel(run)
    sizes = {
        mentors: len((await undone(worker, run, mentors=mentors))["mentors"]) for mentors in (1, 10, 11, 45, 10**6)
    }
    assert sizes == {1: 10, 10: 10, 11: 20, 45: 50, 10**6: 100}


@pytest.mark.parametrize("mentors", [0, -1, None])
async def test_a_page_of_no_size_does_not_look_like_the_end(core: SqlCore, worker: Worker, mentors: int | None) -> None:
    page = await undone(worker, await ended_run(core, worker, ["failed", "failed"]), mentors=mentors)
    assert (page["last_user_id"], len(page["mentors"])) == (mentor(0), 1)


groups = st.lists(
    st.tuples(st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True), st.integers(1, 4)),
    min_size=1,
    max_size=3,
)
batches = st.lists(st.tuples(groups, st.booleans(), st.randoms(use_true_random=False)), max_size=8)


def freeze(shape: list[tuple[list[str], int]], numbers: Iterator[int]) -> Pairs:
    return [
        {"scenario_types": types, "user_ids": [mentor(next(numbers)) for _ in range(size)]} for types, size in shape
    ]


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(shapes=batches, mentors=st.integers(1, 12))
async def test_whatever_the_pages_each_undone_pair_comes_once_in_order(
    core: SqlCore, worker: Worker, shapes: list[tuple[list[tuple[list[str], int]], bool, Any]], mentors: int
) -> None:
    await core.owner.run("delete from public.scheduler_invocations")
    await core.let_batches_reappear()
    numbers = count()
    frozen = [freeze(shape, numbers) for shape, _, _ in shapes]
    run = await core.open_manual_run(worker, frozen)
    claimed = {batch["batch_no"]: batch for batch in (await worker.claim())["batches"]}
    expected: set[tuple[str, str]] = set()
    for batch_no, (_, is_recorded, random) in enumerate(shapes, start=1):
        batch = claimed[batch_no]
        if is_recorded:
            outcomes = {pair: random.choice(OUTCOMES) for pair in pairs_of(batch["pairs"])}
            assert await record_each(worker, batch, outcomes) == "done"
            expected |= {pair for pair, outcome in outcomes.items() if outcome == "failed"}
        else:
            expected |= set(pairs_of(batch["pairs"]))
    await worker.cancel(run)
    found = without_activity(await all_undone(worker, run, mentors=mentors))
    assert found == sorted(expected)
