"""The breaker that all workers share: an engine that is away is nobody's failure (I4)."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime

import pytest

from .sql_core import SqlCore, Worker, pairs

OUTAGE = "engine_unavailable"


async def let_the_pause_end(core: SqlCore) -> None:
    await core.owner.run("update scheduler.settings set engine_paused_until = clock_timestamp()")


async def outages(core: SqlCore) -> object:
    return await core.owner.value("select engine_outages from scheduler.settings")


async def meet_an_outage(core: SqlCore, worker: Worker, retry_after_seconds: int | None = None) -> int:
    """The pause that one more outage brings, in whole seconds."""
    before = await core.now()
    await worker.hand_back(engine_error=OUTAGE, retry_after_seconds=retry_after_seconds)
    after = await core.now()
    until: datetime = await core.owner.value("select engine_paused_until from scheduler.settings")
    longest, shortest = (until - before).total_seconds(), (until - after).total_seconds()
    whole = math.ceil(shortest)
    assert shortest <= whole <= longest
    return whole


async def test_the_pause_doubles_up_to_five_minutes(core: SqlCore, worker: Worker) -> None:
    pauses = []
    for _ in range(15):
        pauses.append(await meet_an_outage(core, worker))
        await let_the_pause_end(core)
    assert pauses == [15, 30, 60, 120, 240, *[300] * 10]


@pytest.mark.parametrize(("retry_after", "pause"), [(0, 15), (5, 15), (100, 100), (900, 900)])
async def test_what_the_engine_asks_for_wins_where_it_is_longer(
    core: SqlCore, worker: Worker, retry_after: int, pause: int
) -> None:
    assert await meet_an_outage(core, worker, retry_after) == pause


async def test_several_workers_in_the_same_outage_lengthen_it_once(core: SqlCore) -> None:
    workers = await core.workers(10)
    await asyncio.gather(*(worker.hand_back(engine_error=OUTAGE) for worker in workers))
    assert await outages(core) == 1
    await let_the_pause_end(core)
    await asyncio.gather(*(worker.hand_back(engine_error=OUTAGE) for worker in workers))
    assert await outages(core) == 2


async def test_an_engine_that_answers_ends_the_pause_and_its_growth(core: SqlCore, worker: Worker) -> None:
    for _ in range(3):
        await meet_an_outage(core, worker)
        await let_the_pause_end(core)
    await worker.hand_back(engine_answers=True)
    assert await core.owner.rows("select engine_outages, engine_paused_until from scheduler.settings") == [(0, None)]
    assert await meet_an_outage(core, worker) == 15


async def test_an_answer_from_before_the_pause_does_not_end_it(core: SqlCore) -> None:
    unlucky, served = await core.workers(2)
    waiting = await core.open_run(unlucky, [pairs([1])])
    await meet_an_outage(core, unlucky)
    before = await core.owner.rows("select * from scheduler.settings")
    await served.hand_back(engine_answers=True)
    assert await core.owner.rows("select * from scheduler.settings") == before
    assert (await core.describe(waiting))["error"] == OUTAGE


@pytest.mark.parametrize(
    ("first", "second", "pause"), [(None, 900, 900), (900, None, 900), (100, 900, 900), (900, 100, 900)]
)
async def test_the_longest_that_the_engine_asked_of_any_worker_holds_for_all(
    core: SqlCore, first: int | None, second: int | None, pause: int
) -> None:
    one, other = await core.workers(2)
    await meet_an_outage(core, one, first)
    await other.hand_back(engine_error=OUTAGE, retry_after_seconds=second)
    left = await core.owner.value(
        "select extract(epoch from engine_paused_until - clock_timestamp()) from scheduler.settings"
    )
    assert pause - 10 < left <= pause
    assert await outages(core) == 1


async def test_a_slice_without_news_of_the_engine_changes_nothing(core: SqlCore, worker: Worker) -> None:
    await meet_an_outage(core, worker)
    before = await core.owner.rows("select * from scheduler.settings")
    await worker.hand_back(progressed=False, engine_answers=False)
    assert await core.owner.rows("select * from scheduler.settings") == before


@pytest.mark.parametrize("error", ["engine_unavailable", "engine_rejected"])
async def test_the_open_invocations_say_why_they_wait_and_until_then_only(
    core: SqlCore, worker: Worker, error: str
) -> None:
    ended = await core.open_manual_run(worker)
    await worker.finish(ended)
    waiting = [await core.open_run(worker, [pairs([1])]), await core.open_manual_run(worker, [pairs([2])])]
    await worker.hand_back(engine_error=error, engine_message="refused")
    await worker.hand_back(engine_error=error, engine_message="x" * 400)
    assert [(await core.describe(one))["error"] for one in waiting] == [error, error]
    assert [(await core.describe(one))["error_message"] for one in waiting] == ["x" * 300] * 2
    assert [(await core.describe(one))["status"] for one in waiting] == ["running", "running"]
    assert (await core.describe(ended))["error"] is None
    await let_the_pause_end(core)
    await worker.hand_back(engine_answers=True)
    assert [(await core.describe(one))["error"] for one in waiting] == [None, None]
    assert [(await core.describe(one))["error_message"] for one in waiting] == [None, None]


async def test_a_run_that_ends_keeps_its_message_only_with_its_error(core: SqlCore, worker: Worker) -> None:
    expired, cancelled = [await core.open_manual_run(worker, [pairs([n])]) for n in (1, 2)]
    emptied = await core.open_manual_run(worker)
    await worker.hand_back(engine_error=OUTAGE, engine_message="no connection")
    await worker.finish(emptied)
    await core.owner.run("select scheduler.end_early(%s, %s)", expired, False)
    await core.owner.run("select scheduler.end_early(%s, %s)", cancelled, True)
    ended = [await core.describe(one) for one in (expired, cancelled, emptied)]
    assert [(one["error"], one["error_message"]) for one in ended] == [
        (OUTAGE, "no connection"),
        (OUTAGE, "no connection"),
        (None, None),
    ]


async def test_reporting_an_outage_and_recording_batches_do_not_wait_for_each_other(core: SqlCore) -> None:
    reporter, worker = await core.workers(2)
    await core.open_run(worker, [pairs([1])])
    batch = await worker.claim_one()
    async with reporter.transaction():
        await reporter.hand_back(engine_error=OUTAGE)
        assert await worker.complete(batch) == "done"
