"""scheduler.time_ordered_id: later ids sort after earlier ones, in every index that begins with them."""

from __future__ import annotations

import uuid

from .sql_core import SqlCore, Worker

MADE = "select scheduler.time_ordered_id(timestamptz '1970-01-01Z' + n * interval '1 ms') from generate_series({}) as n"


async def test_it_is_a_version_7_uuid_of_the_millisecond(core: SqlCore) -> None:
    made: list[uuid.UUID] = await core.owner.column(MADE.format("1790000000000, 1790000000099"))
    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    assert [one.int >> 80 for one in made] == list(range(1790000000000, 1790000000100))
    assert len({one.int & (1 << 62) - 1 for one in made}) == len(made), "the rest is random"


async def test_later_ones_sort_later(core: SqlCore) -> None:
    made = await core.owner.column(MADE.format("1, 5000"))
    assert await core.owner.column("select id from unnest(%s::uuid[]) as id order by id", made) == made


async def test_the_run_of_a_slot_is_called_by_one(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    answer = await worker.open_slot(*await core.slots())
    made = uuid.UUID(answer["invocation"]["id"])
    now = await core.owner.value("select extract(epoch from clock_timestamp()) * 1000")
    assert made.version == 7
    assert 0 <= int(now) - (made.int >> 80) < 60_000
