"""Permits to call the engine, in SQL: they never exceed the total, and one is kept for manual slices."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from .sql_core import SqlCore, Worker

TOTAL = 12  # three permits of four calls


def new_id() -> str:
    return str(uuid4())


async def take(worker: Worker, *, manual: bool = False, number: int = 1, calls: int = 4) -> list[bool]:
    return [await worker.take_permit(new_id(), calls=calls, total=TOTAL, manual=manual) for _ in range(number)]


async def test_the_last_permit_serves_only_manual_slices(core: SqlCore, worker: Worker) -> None:
    assert await take(worker, number=3) == [True, True, False]
    assert await take(worker, manual=True, number=2) == [True, False]
    await core.owner.run("delete from scheduler.engine_permits")
    assert await take(worker, manual=True, number=4) == [True, True, True, False]


async def test_a_permit_asked_for_again_counts_once(worker: Worker) -> None:
    """The answer was lost: the Data API's client sends the call again."""
    permit_id = new_id()
    assert [await worker.take_permit(permit_id) for _ in range(5)] == [True] * 5
    assert await take(worker, number=2) == [True, False]


async def test_a_returned_permit_is_free_at_once(worker: Worker) -> None:
    first, second = new_id(), new_id()
    assert [await worker.take_permit(one) for one in (first, second)] == [True, True]
    await worker.end_slice()
    await worker.end_slice(engine_permit_id=new_id())
    assert await take(worker) == [False]
    await worker.end_slice(engine_permit_id=first, engine_error="engine_unavailable")
    assert await take(worker, number=2) == [True, False]


async def test_a_permit_is_free_after_its_expiry_only(core: SqlCore, worker: Worker) -> None:
    before = await core.now()
    assert await take(worker, number=2) == [True, True]
    expiries = await core.owner.column("select expires_at from scheduler.engine_permits")
    after = await core.now()
    assert all(30 <= (at - before).total_seconds() <= 30 + (after - before).total_seconds() for at in expiries)
    assert await take(worker) == [False]
    await core.owner.run("update scheduler.engine_permits set expires_at = clock_timestamp()")
    assert await take(worker, number=3) == [True, True, False]


async def test_permits_of_another_size_count_by_their_calls(worker: Worker) -> None:
    """New settings are rolled out: some processes still have the old ones."""
    assert await take(worker, calls=6) == [True]
    assert await take(worker, calls=3, number=2) == [True, False]
    assert await take(worker, calls=3, manual=True, number=2) == [True, False]


async def test_permits_share_the_calls_of_a_minute(core: SqlCore, worker: Worker) -> None:
    """Also while settings change: beside a permit without a limit none with one is taken."""

    async def take_shares(*shares: tuple[int, int] | None) -> list[bool]:
        return [await worker.take_permit(new_id(), calls=1, per_minute=share) for share in shares]

    assert await take_shares((40, 100), (40, 100), (40, 100), (20, 100), None, (1, 1000)) == [
        *(True, True, False, True, True, False)
    ]
    await core.owner.run("update scheduler.engine_permits set expires_at = clock_timestamp() where per_minute is null")
    assert await take_shares((1, 100), (1, 101)) == [False, True]


async def test_permits_are_taken_one_at_a_time_under_a_row(core: SqlCore) -> None:
    """Not under an advisory lock, which any role could hold."""
    first, second = await core.workers(2)
    assert await take(first) == [True]
    assert await core.race(first, take(first), second, take(second)) == ([True], [False])
    await core.owner.run("delete from scheduler.engine_ceiling")
    with pytest.raises(psycopg.errors.NoDataFound):
        await take(first)
