"""scheduler_active_mentors: which of the chosen are active, whatever was chosen."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from .asked import add_mentors
from .sql_core import SqlCore, Worker, mentor


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
