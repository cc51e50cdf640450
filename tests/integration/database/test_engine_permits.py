"""Permits to call the engine, in SQL: they never exceed the total, and one is kept for manual slices."""

from __future__ import annotations

import asyncio
from random import Random
from uuid import uuid4

import psycopg
import pytest

from .sql_core import SqlCore, Worker

TOTAL = 12  # three permits of four calls


def new_id() -> str:
    return str(uuid4())


async def take(worker: Worker, *, manual: bool = False, number: int = 1, calls: int = 4) -> list[bool]:
    return [await worker.take_permit(new_id(), calls=calls, total=TOTAL, manual=manual) for _ in range(number)]


async def test_the_last_permit_serves_only_manual_slices(core: SqlCore) -> None:
    worker = await core.worker()
    assert await take(worker, number=3) == [True, True, False]
    assert await take(worker, manual=True, number=2) == [True, False]
    assert await take(worker) == [False]


async def test_manual_slices_may_take_every_permit_that_is_free(core: SqlCore) -> None:
    worker = await core.worker()
    assert await take(worker) == [True]
    assert await take(worker, manual=True, number=3) == [True, True, False]


async def test_a_permit_that_is_asked_for_again_counts_once(core: SqlCore) -> None:
    """The answer was lost: the Data API's client sends the call again."""
    worker = await core.worker()
    permit_id = new_id()
    assert [await worker.take_permit(permit_id) for _ in range(5)] == [True] * 5
    assert await take(worker) == [True]


async def test_a_returned_permit_is_free_at_once_and_no_other_one(core: SqlCore) -> None:
    worker = await core.worker()
    first, second = new_id(), new_id()
    assert [await worker.take_permit(one) for one in (first, second)] == [True, True]
    await worker.hand_back()
    await worker.hand_back(engine_permit_id=new_id())
    assert await take(worker) == [False]
    await worker.hand_back(engine_permit_id=first, engine_error="engine_unavailable")
    assert await take(worker, number=2) == [True, False]


async def test_a_permit_is_free_again_after_its_expiry_and_not_before(core: SqlCore) -> None:
    worker = await core.worker()
    before = await core.now()
    assert await take(worker, number=2) == [True, True]
    expiries = await core.owner.column("select expires_at from scheduler.engine_permits")
    assert all(30 <= (at - before).total_seconds() < 40 for at in expiries)
    await core.owner.run("update scheduler.engine_permits set expires_at = clock_timestamp() + interval '1 minute'")
    assert await take(worker) == [False]
    await core.owner.run("update scheduler.engine_permits set expires_at = clock_timestamp()")
    assert await take(worker, number=3) == [True, True, False]


async def test_permits_of_another_size_count_by_their_calls(core: SqlCore) -> None:
    """New settings are rolled out: some processes still have the old ones."""
    worker = await core.worker()
    assert await take(worker, calls=6) == [True]
    assert await take(worker, calls=3, number=2) == [True, False]
    assert await take(worker, calls=3, manual=True, number=2) == [True, False]


async def test_one_permit_is_taken_at_a_time_under_a_lock_that_only_the_owner_can_hold(core: SqlCore) -> None:
    first, second = await core.workers(2)
    assert await take(first) == [True]
    async with first.transaction():
        assert await take(first) == [True]
        held = await core.owner.column("select locktype from pg_locks where pid = %s", first.pid)
        assert "advisory" not in held
        taking = asyncio.create_task(take(second))
        await core.until_waiting_for_a_lock(second, or_done=taking)
    assert await taking == [False]


async def test_without_the_row_to_lock_no_permit_is_given(core: SqlCore) -> None:
    worker = await core.worker()
    await core.owner.run("delete from scheduler.engine_ceiling where true")
    with pytest.raises(psycopg.errors.NoDataFound):
        await take(worker)


async def test_simultaneous_requests_never_hold_more_than_the_total(core: SqlCore) -> None:
    auditor = await core.session()
    all_done = asyncio.Event()
    seen: list[tuple[int, int]] = []

    async def audit() -> None:
        while not all_done.is_set():
            seen.extend(
                await auditor.rows(
                    "select coalesce(sum(calls), 0), coalesce(sum(calls) filter (where not is_manual), 0)"
                    " from scheduler.engine_permits"
                )
            )

    async def request(worker: Worker, random: Random) -> None:
        for _ in range(80):
            permit_id = new_id()
            if await worker.take_permit(permit_id, total=TOTAL, manual=random.random() < 0.5, seconds=0.05):
                await asyncio.sleep(0)
                if random.random() < 0.8:  # else its process was killed
                    await worker.hand_back(engine_permit_id=permit_id)

    auditing = asyncio.create_task(audit())
    await asyncio.gather(*(request(worker, Random(seed)) for seed, worker in enumerate(await core.workers(8))))
    all_done.set()
    await auditing
    assert max(taken for taken, _ in seen) == TOTAL
    assert max(scheduled for _, scheduled in seen) <= TOTAL - 4
