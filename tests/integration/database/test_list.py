"""scheduler_list: filters, pages, and one mentor's history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from .asked import ended_run, listed, opened
from .sql_core import SCENARIO, Json, SqlCore, Worker, mentor, minutes, pairs

OUTCOMES = ("triggered", "not_triggered", "suppressed", "skipped", "failed")


def ids(answer: Json) -> list[str]:
    return [item["id"] for item in answer["items"]]


async def of_each_kind(core: SqlCore, worker: Worker) -> dict[str, str]:
    """A night that failed, a retry of it that waits, and a manual run that was cancelled; opened in this order."""
    night = await ended_run(core, worker, ["failed"])
    retry = await opened(worker, retry_of=night)
    manual = await opened(worker)
    await worker.cancel(manual)
    for hours, run in enumerate((manual, retry, night)):
        await core.owner.run(
            "update public.scheduler_invocations set scheduled_for = date_trunc('minute', now()) - %s,"
            " created_at = now() - %s where id = %s",
            timedelta(hours=hours),
            timedelta(hours=hours),
            run,
        )
    return {"night": night, "retry": retry, "manual": manual}


async def test_an_empty_list_has_no_next_page(worker: Worker) -> None:
    assert await listed(worker) == {"items": [], "next": None}


async def test_the_newest_is_first_and_each_is_summarized(core: SqlCore, worker: Worker) -> None:
    runs = await of_each_kind(core, worker)
    answer = await listed(worker)
    assert answer["items"] == [await core.summarize(runs[kind]) for kind in ("manual", "retry", "night")]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"statuses": ["failed"]}, ["night"]),
        ({"statuses": ["cancelled", "pending"]}, ["manual", "retry"]),
        ({"statuses": []}, []),
        ({"statuses": ["no such"]}, []),
        ({"triggered_by": ["retry", "schedule"]}, ["retry", "night"]),
        ({"triggered_by": ["manual"], "statuses": ["failed"]}, []),
    ],
)
async def test_filters(core: SqlCore, worker: Worker, filters: dict[str, Any], expected: list[str]) -> None:
    runs = await of_each_kind(core, worker)
    assert ids(await listed(worker, **filters)) == [runs[kind] for kind in expected]


async def test_the_ends_of_a_span_of_slots_belong_to_it(core: SqlCore, worker: Worker) -> None:
    runs = await of_each_kind(core, worker)
    slot = await core.owner.value("select scheduled_for from scheduler_invocations where id = %s", runs["retry"])
    instant = timedelta(microseconds=1)
    assert ids(await listed(worker, scheduled_from=slot)) == [runs["manual"], runs["retry"]]
    assert ids(await listed(worker, scheduled_to=slot)) == [runs["retry"], runs["night"]]
    assert ids(await listed(worker, scheduled_from=slot, scheduled_to=slot)) == [runs["retry"]]
    assert ids(await listed(worker, scheduled_from=slot + instant)) == [runs["manual"]]
    assert ids(await listed(worker, scheduled_to=slot - instant)) == [runs["night"]]
    assert ids(await listed(worker, scheduled_from=slot, scheduled_to=slot - minutes(1))) == []


async def test_the_next_page_begins_after_the_last_one_shown_and_is_told_only_if_there_is_one(
    core: SqlCore, worker: Worker
) -> None:
    runs = [await opened(worker) for _ in range(4)]
    first = await listed(worker, limit=2)
    assert ids(first) == runs[:1:-1]
    assert first["next"]["id"] == runs[2]
    second = await listed(worker, limit=2, after=first["next"])
    assert (ids(second), second["next"]) == (runs[1::-1], None)


async def test_a_page_can_begin_after_a_run_that_is_gone(core: SqlCore, worker: Worker) -> None:
    runs = [await opened(worker) for _ in range(3)]
    following = (await listed(worker, limit=2))["next"]
    await core.owner.run("delete from public.scheduler_invocations where id = %s", runs[1])
    assert ids(await listed(worker, after=following)) == [runs[0]]


async def test_a_mentors_history_has_her_outcomes_and_no_run_that_she_was_not_in(core: SqlCore, worker: Worker) -> None:
    run = await ended_run(core, worker, [*OUTCOMES, None])
    await opened(worker)
    for number, outcome in enumerate((*OUTCOMES, "not_evaluated")):
        (item,) = (await listed(worker, user_id=mentor(number)))["items"]
        (result,) = item.pop("results")
        assert item == await core.summarize(run)
        assert (result["scenario_type"], result["outcome"]) == (SCENARIO, outcome)
        failed = outcome == "failed"
        assert (result["error_code"], result["error_message"]) == (
            ("engine_error", "it failed") if failed else (None, None)
        )
    for number in (-1, 6, 99):
        assert (await listed(worker, user_id=mentor(number)))["items"] == []


async def test_of_a_batch_that_is_open_she_has_no_outcome_yet(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [pairs([1], ["b", "a"])])
    (item,) = (await listed(worker, user_id=mentor(1)))["items"]
    assert [(result["scenario_type"], result["outcome"]) for result in item["results"]] == [("a", None), ("b", None)]


async def test_a_mentor_between_two_batches_and_one_between_two_of_a_batch_are_in_neither(
    core: SqlCore, worker: Worker
) -> None:
    await core.open_run(worker, [pairs([1, 3]), pairs([5, 7])])
    for number, is_in in {1: True, 2: False, 3: True, 4: False, 5: True, 6: False, 7: True}.items():
        assert bool((await listed(worker, user_id=mentor(number)))["items"]) == is_in


async def test_her_scenario_types_are_those_of_her_group(core: SqlCore, worker: Worker) -> None:
    await core.open_run(worker, [[*pairs([1, 4], ["a", "b"]), *pairs([2, 3], ["c"])]])
    (item,) = (await listed(worker, user_id=mentor(3)))["items"]
    assert [result["scenario_type"] for result in item["results"]] == ["c"]


async def test_a_late_record_is_in_her_history(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    await worker.cancel(run)
    await worker.complete(batch, "not_triggered")
    (item,) = (await listed(worker, user_id=mentor(1)))["items"]
    assert (item["status"], item["results"][0]["outcome"]) == ("cancelled", "not_triggered")


async def test_her_history_has_pages_and_filters_like_any_list(core: SqlCore, worker: Worker) -> None:
    runs = []
    for _ in range(3):
        runs.append(await core.open_manual_run(worker, [pairs([1])]))
        await core.open_manual_run(worker, [pairs([2])])
    await worker.cancel(runs[1])
    first = await listed(worker, user_id=mentor(1), limit=2)
    second = await listed(worker, user_id=mentor(1), limit=2, after=first["next"])
    assert ids(first) + ids(second) == runs[::-1]
    assert ids(await listed(worker, user_id=mentor(1), statuses=["cancelled"])) == [runs[1]]
