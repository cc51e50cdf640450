"""scheduler_active_mentors: which of the chosen are active; scheduler_active_mentors_page: everybody, page by page."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from .asked import add_mentors
from .sql_core import SqlCore, Worker, mentor

READ_ROWS = """
select coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::integer
  from pg_stat_xact_user_tables where relname = 'peer_mentors'
"""


async def active(worker: Worker, user_ids: list[Any] | None) -> list[str]:
    rows = await worker.call("active_mentors", user_ids=user_ids)
    assert all(row["segments"] == ["onboarding"] for row in rows)
    return sorted(row["user_id"] for row in rows)


async def test_only_the_active_among_the_chosen(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [1, 2, 3, 4])
    await core.owner.run("update public.peer_mentors set status = 'left' where user_id = %s", mentor(2))
    assert await active(worker, [mentor(1), mentor(2), mentor(3), mentor(9)]) == [mentor(1), mentor(3)]


async def test_who_is_chosen_twice_comes_once(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [1, 2])
    assert await active(worker, [mentor(1), mentor(2), mentor(1).upper(), mentor(1)]) == [mentor(1), mentor(2)]


@pytest.mark.parametrize("nobody", [None, [], [None]])
async def test_nobody_chosen_is_nobody_and_not_everybody(
    core: SqlCore, worker: Worker, nobody: list[Any] | None
) -> None:
    await add_mentors(core, [1])
    assert await active(worker, nobody) == []


async def test_ten_thousand_come_in_one_answer(core: SqlCore, worker: Worker) -> None:
    """The Data API cuts rows, so the answer is one."""
    everybody = list(range(10_000))
    await add_mentors(core, everybody)
    assert await active(worker, [mentor(number) for number in everybody]) == [mentor(number) for number in everybody]


async def test_what_is_no_id_is_refused(worker: Worker) -> None:
    with pytest.raises(psycopg.Error):
        await active(worker, ["' or true --"])


# Everybody, page by page


async def pages(worker: Worker, *, rows: int, after: str | None = None) -> list[list[str]]:
    """The ids in each page, to the last."""
    read: list[list[str]] = []
    while True:
        page = await worker.call("active_mentors_page", after=after, rows=rows)
        ids = sorted(user_id for group in page["groups"] for user_id in group["user_ids"])
        read.append(ids)
        if page["is_last"]:
            return read
        after = ids[-1]


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 6, 7])
async def test_everybody_who_is_active_is_in_one_page(core: SqlCore, worker: Worker, rows: int) -> None:
    await add_mentors(core, range(7))
    await core.owner.run("update public.peer_mentors set status = 'left' where user_id = %s", mentor(2))
    everybody = [mentor(number) for number in range(7) if number != 2]
    read = await pages(worker, rows=rows)
    assert [user_id for page in read for user_id in page] == everybody
    assert max(len(page) for page in read) <= rows


async def test_a_page_begins_after_a_mentor_who_need_not_be_there_any_more(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [1, 2, 3, 4])
    await core.owner.run("delete from public.peer_mentors where user_id = %s", mentor(2))
    assert await pages(worker, rows=10, after=mentor(2)) == [[mentor(3), mentor(4)]]


async def test_nobody_is_an_empty_last_page(worker: Worker) -> None:
    assert await worker.call("active_mentors_page", after=None, rows=10) == {
        "groups": [],
        "is_last": True,
    }


async def test_a_page_says_who_has_which_segments(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [1, 2, 3])
    await core.owner.run("update public.peer_mentors set segments = '{near}' where user_id <> %s", mentor(2))
    page = await worker.call("active_mentors_page", after=None, rows=10)
    assert sorted(page["groups"], key=lambda group: group["user_ids"]) == [
        {"segments": ["onboarding", "near"], "user_ids": [mentor(1), mentor(3)]},
        {"segments": ["onboarding"], "user_ids": [mentor(2)]},
    ]


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
async def test_a_mentor_whom_a_view_shows_in_several_rows_has_all_of_them_in_one_page(
    core: SqlCore, worker: Worker, rows: int
) -> None:
    await add_mentors(core, [1, 2, 3])
    await core.owner.run(
        "create or replace view public.active_peer_mentors with (security_invoker = true) as"
        " select user_id, array[segment] as segments"
        " from public.peer_mentors cross join unnest(array['new', 'near']) as segment"
    )
    after: str | None = None
    met: list[str] = []
    while len(met) < 3:
        page = await worker.call("active_mentors_page", after=after, rows=rows)
        new, near = sorted(page["groups"], key=lambda group: group["segments"], reverse=True)
        assert sorted(new["user_ids"]) == sorted(near["user_ids"])
        met += sorted(new["user_ids"])
        after = met[-1]
    assert met == [mentor(1), mentor(2), mentor(3)]


async def test_a_page_reads_its_own_rows_and_not_those_before_it(core: SqlCore, worker: Worker) -> None:
    """Offsets would read everybody before: with a million mentors, four minutes a night."""
    await add_mentors(core, range(1000))
    await core.owner.run("analyze public.peer_mentors")
    async with worker.connection.transaction():
        await worker.run("set local enable_seqscan = off")
        before = await worker.value(READ_ROWS)
        assert len(await pages(worker, rows=50)) == 20 + 1
        read = await worker.value(READ_ROWS) - before
    assert 1000 <= read <= 1000 + 3 * 21
