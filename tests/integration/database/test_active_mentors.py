"""The view of the active mentors, a team's own: read page by page, refused by name where its columns are wrong."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest

from shared.database import MAX_ANSWER_BYTES

from .requests import add_mentors, ask, opened, unfinished
from .sql_core import SqlCore, Worker, mentor

WITHOUT_USER_ID = "select public.scheduler_mentors_without_user_id()"
GOOD = "gen_random_uuid() as user_id, '{new}'::text[] as segments"
WRONG = [
    ("view", "'x'::text as user_id, '{}'::text[] as segments", "column user_id: expected uuid, found text;"),
    ("view", "gen_random_uuid()::public.person as user_id, '{}'::text[] as segments", "found public.person;"),
    ("view", "gen_random_uuid() as user_id, 'new'::text as segments", "column segments: expected text[], found text;"),
    ("view", "gen_random_uuid() as user_id, '{}'::varchar(9)[] as segments", "found character varying(9)[];"),
    ("table", "gen_random_uuid() as user_id, '{}'::public.label[] as segments", "found public.label[];"),
    ("materialized view", "gen_random_uuid() as user_id, '[\"new\"]'::jsonb as segments", "found jsonb;"),
    ("view", "2 as n", "column user_id: expected uuid, found none; column segments: expected text[], found none;"),
    ("type", "", "public.active_peer_mentors: expected a view with the columns user_id uuid and segments text[]"),
]
FIND = """
select case relkind when 'm' then 'materialized view' when 'r' then 'table' when 'c' then 'type' else 'view' end
  from pg_class where oid = to_regclass('public.active_peer_mentors')
"""


async def replace_view(core: SqlCore, columns: str, kind: str = "view") -> None:
    for found in await core.owner.column(FIND):
        await core.owner.run(f"drop {found} public.active_peer_mentors")
    if kind == "type":
        await core.owner.run("create type public.active_peer_mentors as (user_id uuid, segments text[])")
    else:
        await core.owner.run(f"create {kind} public.active_peer_mentors as select {columns}")
        await core.owner.run("grant select on public.active_peer_mentors to service_role")


async def page_of(worker: Worker, after: str | None = None, rows: int = 10) -> Any:
    return await worker.call("active_mentors_page", after=after, rows=rows)


async def pages(worker: Worker, *, rows: int, after: str | None = None) -> list[list[str]]:
    read: list[list[str]] = []
    while True:
        page = await page_of(worker, after, rows)
        read.append(sorted(user_id for group in page["groups"] for user_id in group["user_ids"]))
        if page["is_last"]:
            return read
        after = read[-1][-1]


@pytest.mark.parametrize("chosen", [[1, 2, 3, 1, 9], [], None])
async def test_of_chosen_mentors_only_active_ones_are_read(
    core: SqlCore, worker: Worker, chosen: list[int] | None
) -> None:
    """None chosen is none, and not all."""
    await add_mentors(core, [1, 2, 3, 4])
    await core.owner.run("update public.peer_mentors set status = 'left' where user_id = %s", mentor(2))
    user_ids = None if chosen is None else [mentor(number).upper() for number in chosen]
    found = sorted(await worker.call("active_mentors", user_ids=user_ids), key=lambda row: row["user_id"])
    expected = [mentor(number) for number in ((1, 3) if chosen else ())]
    assert found == [{"user_id": user_id, "segments": ["onboarding"]} for user_id in expected]


@pytest.mark.parametrize("rows", [0, 1, 2, 5, 6, 7])
async def test_every_active_mentor_is_in_one_page(core: SqlCore, worker: Worker, rows: int) -> None:
    assert await page_of(worker) == {"groups": [], "is_last": True}
    await add_mentors(core, range(7))
    await core.owner.run("update public.peer_mentors set status = 'left' where user_id = %s", mentor(2))
    read = await pages(worker, rows=rows)
    assert [user_id for page in read for user_id in page] == [mentor(number) for number in range(7) if number != 2]
    assert max(len(page) for page in read) <= max(1, rows)
    assert await pages(worker, rows=10, after=mentor(2)) == [[mentor(number) for number in (3, 4, 5, 6)]]


async def test_a_page_groups_mentors_by_segments(core: SqlCore, worker: Worker) -> None:
    await add_mentors(core, [1, 2, 3])
    await core.owner.run("update public.peer_mentors set segments = '{near}' where user_id <> %s", mentor(2))
    assert sorted((await page_of(worker))["groups"], key=lambda group: str(group["user_ids"])) == [
        {"segments": ["onboarding", "near"], "user_ids": [mentor(1), mentor(3)]},
        {"segments": ["onboarding"], "user_ids": [mentor(2)]},
    ]


@pytest.mark.parametrize("rows", [1, 2, 3])
async def test_all_rows_of_a_mentor_are_in_one_page(core: SqlCore, worker: Worker, rows: int) -> None:
    users = [mentor(1), mentor(2), mentor(3)]
    values = ", ".join(f"('{user_id}'::uuid)" for user_id in users)
    twice = f"from (values {values}) as users (user_id), unnest('{{a,b}}'::text[]) as segment"
    await replace_view(core, f"user_id, array[segment] as segments {twice}")
    read = await pages(worker, rows=rows)
    assert [user_id for page in read for user_id in page] == [user_id for user_id in users for _ in range(2)]
    assert all(len(page) % 2 == 0 for page in read)


async def test_rows_too_long_together_cost_only_their_mentor(core: SqlCore, worker: Worker) -> None:
    users = [mentor(1), mentor(2)]
    long = f"select '{users[0]}'::uuid, array[repeat('x', 1000) || row] from generate_series(1, 300) as row"
    await replace_view(
        core, f"user_id, segments from ({long} union all select '{users[1]}', '{{b}}') as m (user_id, segments)"
    )
    expected: list[tuple[str, list[str | None]]] = [(users[0], [None]), (users[1], ["b"])]
    groups = (await page_of(worker, rows=1000))["groups"]
    assert sorted((*group["user_ids"], group["segments"]) for group in groups) == expected
    chosen = await worker.call("active_mentors", user_ids=users)
    assert sorted((row["user_id"], row["segments"]) for row in chosen) == expected


@pytest.mark.parametrize(("kind", "columns", "fault"), WRONG)
async def test_wrong_columns_are_refused_by_name(
    core: SqlCore, worker: Worker, kind: str, columns: str, fault: str
) -> None:
    await core.owner.run("create domain public.person as uuid; create domain public.label as text")
    # the session has read a good view before, as a connection of the Data API's has
    await replace_view(core, GOOD, kind if kind != "type" else "view")
    assert (await page_of(worker))["groups"][0]["segments"] == ["new"]
    known = await opened(worker, key="known")
    await replace_view(core, columns, kind)
    for reads in (
        worker.call("active_mentors", user_ids=[mentor(1)]),
        page_of(worker),
        worker.value(WITHOUT_USER_ID),
        unfinished(worker, known),
        ask(worker),
        ask(worker, retry_of=str(uuid4())),
    ):
        with pytest.raises(psycopg.Error) as refused:
            await reads
        assert refused.value.sqlstate == "MV001"
        assert fault in str(refused.value)
    assert await core.owner.value("select count(*) from public.scheduler_invocations") == 1
    assert (await ask(worker, key="known"))["outcome"] == "same"
    await replace_view(core, GOOD)
    assert len((await page_of(worker))["groups"]) == 1


async def test_a_run_waits_pending_for_its_view(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    await replace_view(core, "2 as n")
    answer = await worker.open_slot(due, following)
    run = answer["invocation"]
    assert (run["status"], run["error_code"], run["started_at"]) == ("pending", "mentors_view_invalid", None)
    assert [row["id"] for row in answer["open"]] == [run["id"]]
    # that the engine serves another run says nothing of the view
    await worker.end_slice(engine_answers=True)
    assert (await worker.open_slot(due, following))["invocation"]["error_code"] == "mentors_view_invalid"
    await replace_view(core, GOOD)
    assert await worker.enqueue(run["id"], [])
    run = (await worker.open_slot(due, following))["invocation"]
    assert (run["status"], run["error_code"]) == ("running", None)
    # a slice that cannot read it any more says so, and the run ends with it
    await worker.call("finish", invocation_id=run["id"], waits_for_view=True)
    ended = await core.expire(run["id"])
    assert (ended["status"], ended["error_code"]) == ("failed", "mentors_view_invalid")


async def test_rows_without_user_id_are_counted_and_in_no_page(core: SqlCore, worker: Worker) -> None:
    """Odd segments are passed on; those of more than 200,000 bytes are returned as null."""
    await replace_view(
        core,
        "* from (values (null::uuid, '{new}'::text[]), (null, null),"
        f" ('{mentor(1)}', '{{new,null}}'), ('{mentor(2)}', '{{{{new}},{{near}}}}'), ('{mentor(3)}', null),"
        f" ('{mentor(4)}', array[repeat('ü', 99998)]), ('{mentor(5)}', array[repeat('ü', 99998) || 'x']))"
        " as rows (user_id, segments)",
    )
    assert await worker.value(WITHOUT_USER_ID) == 2
    page = await page_of(worker, rows=5)
    assert page["is_last"] is False
    found = {user_id: group["segments"] for group in page["groups"] for user_id in group["user_ids"]}
    segments: list[Any] = [["new", None], [["new"], ["near"]], None, ["ü" * 99_998], [None]]
    assert found == {mentor(number): of for number, of in enumerate(segments, start=1)}
    chosen = await worker.call("active_mentors", user_ids=list(found))
    assert {row["user_id"]: row["segments"] for row in chosen} == found


# One long segment, and as many as fit, each of which costs jsonb a space more.
@pytest.mark.parametrize(
    "segments", ["array[lpad(n::text, 199996, '-')]", "array_fill('-'::text, '{49990}') || n::text"]
)
async def test_fifty_of_the_longest_segments_fit_in_an_answer(core: SqlCore, segments: str) -> None:
    rows = "generate_series(1000, 1049) as n"
    await replace_view(core, f"lpad(to_hex(n), 32, '0')::uuid as user_id, {segments} as segments from {rows}")
    for answer in ("_page(null, 50)", "(array(select user_id from public.active_peer_mentors))"):
        size = await core.owner.value(f"select octet_length(public.scheduler_active_mentors{answer}::text)")
        assert 50 * 199_000 < size < MAX_ANSWER_BYTES
