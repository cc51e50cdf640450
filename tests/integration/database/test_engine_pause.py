"""The pause that all workers share: an engine that is away is no user's failure (I4)."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime

import pytest

from .sql_core import SqlCore, Worker, minutes, pairs

OUTAGE = "engine_unavailable"


async def let_the_pause_end(core: SqlCore) -> None:
    await core.change_settings("engine_paused_until = clock_timestamp()")


async def meet_an_outage(core: SqlCore, worker: Worker) -> int:
    """The pause that one more outage brings, in whole seconds."""
    before = await core.now()
    await worker.end_slice(engine_error=OUTAGE)
    after = await core.now()
    until: datetime = (await core.settings("engine_paused_until"))[0]
    longest, shortest = (until - before).total_seconds(), (until - after).total_seconds()
    whole = math.ceil(shortest)
    assert shortest <= whole <= longest
    return whole


async def test_the_pause_doubles_to_five_minutes_and_starts_anew(core: SqlCore, worker: Worker) -> None:
    pauses = []
    for _ in range(14):
        pauses.append(await meet_an_outage(core, worker))
        await let_the_pause_end(core)
    assert pauses == [15, 30, 60, 120, 240, *[300] * 9]
    await worker.end_slice(engine_answers=True)
    assert await core.settings("engine_outages, engine_paused_until") == (0, None)
    assert await meet_an_outage(core, worker) == 15


@pytest.mark.parametrize(
    ("asked", "pause"),
    [
        ([0], 15),
        ([5], 15),
        ([900], 900),
        ([100_000], 3600),
        ([None, 900], 900),
        ([900, None], 900),
        ([100, 900], 900),
        ([900, 100], 900),
    ],
)
async def test_the_longest_pause_asked_of_any_worker_holds(
    core: SqlCore, worker: Worker, asked: list[int | None], pause: int
) -> None:
    before = await core.now()
    for seconds in asked:
        await worker.end_slice(engine_error=OUTAGE, retry_after_seconds=seconds)
    until, outages = await core.settings("engine_paused_until, engine_outages")
    assert before + minutes(pause / 60) <= until <= await core.now() + minutes(pause / 60)
    assert outages == 1


async def test_workers_in_the_same_outage_lengthen_the_pause_once(core: SqlCore) -> None:
    workers = await core.workers(10)
    for outages in (1, 2):
        await asyncio.gather(*(worker.end_slice(engine_error=OUTAGE) for worker in workers))
        assert await core.settings("engine_outages") == (outages,)
        await let_the_pause_end(core)


@pytest.mark.parametrize("engine_answers", [True, False])
async def test_earlier_answers_and_silence_do_not_end_the_pause(
    core: SqlCore, worker: Worker, engine_answers: bool
) -> None:
    waiting = await core.open_run(worker, [pairs([1])])
    await meet_an_outage(core, worker)
    before = await core.settings("*")
    await worker.end_slice(engine_answers=engine_answers)
    assert await core.settings("*") == before
    assert (await core.describe(waiting))["error_code"] == OUTAGE


@pytest.mark.parametrize("error", ["engine_unavailable", "engine_rejected"])
async def test_open_invocations_say_why_they_wait_until_answered(core: SqlCore, worker: Worker, error: str) -> None:
    ended = await core.open_manual_run(worker)
    await worker.finish(ended)
    waiting = [await core.open_run(worker, [pairs([1])]), await core.open_manual_run(worker, [pairs([2])])]
    for message in ("refused", "x" * 400):
        await worker.end_slice(engine_error=error, engine_message=message)
        described = [await core.describe(run) for run in waiting]
        assert [(one["status"], one["error_code"], one["error_message"]) for one in described] == [
            ("running", error, message[:300])
        ] * 2
    assert (await core.describe(ended))["error_code"] is None
    await let_the_pause_end(core)
    await worker.end_slice(engine_answers=True)
    described = [await core.describe(run) for run in waiting]
    assert [(one["error_code"], one["error_message"]) for one in described] == [(None, None)] * 2
