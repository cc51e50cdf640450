"""The view of the active mentors is a team's own: wrong columns are refused by name, odd rows cost themselves only."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from shared.database import MAX_ANSWER_BYTES

from .asked import ask, opened, undone
from .sql_core import SqlCore, Worker, mentor

WITHOUT_USER_ID = "select public.scheduler_mentors_without_user_id()"
GOOD = "gen_random_uuid() as user_id, '{new}'::text[] as segments"
FAULTS = [
    ("'x'::text as user_id, '{}'::text[] as segments", "column user_id: expected uuid, found text;"),
    ("1::bigint as user_id, '{}'::text[] as segments", "column user_id: expected uuid, found bigint;"),
    ("gen_random_uuid()::public.person as user_id, '{}'::text[] as segments", "expected uuid, found public.person;"),
    ("gen_random_uuid() as user_id, 'new'::text as segments", "column segments: expected text[], found text;"),
    ("gen_random_uuid() as user_id, '{}'::varchar(9)[] as segments", "found character varying(9)[];"),
    ("gen_random_uuid() as user_id, '{}'::public.label[] as segments", "found public.label[];"),
    ("gen_random_uuid() as user_id, '[\"new\"]'::jsonb as segments", "found jsonb;"),
    ("gen_random_uuid() as user_id, '{}'::text[] as \"Segments\"", "column segments: expected text[], found none;"),
    ("2 as n", "column user_id: expected uuid, found none; column segments: expected text[], found none;"),
]


async def replace_view(core: SqlCore, columns: str | None, kind: str = "view") -> None:
    """The view with these columns, and the rights on it; None: no view."""
    await core.owner.run(
        "do $$ declare found text; begin"
        " select case relkind when 'm' then 'materialized view' when 'r' then 'table' else 'view' end into found"
        "   from pg_class where oid = to_regclass('public.active_peer_mentors');"
        " if found is not null then execute format('drop %s public.active_peer_mentors', found); end if; end $$"
    )
    if columns is not None:
        await core.owner.run(f"create {kind} public.active_peer_mentors as select {columns}")
        await core.owner.run("grant select on public.active_peer_mentors to service_role")


async def all_refuse(core: SqlCore, worker: Worker, fault: str) -> None:
    retried = str(uuid4())
    for reads in (
        worker.call("active_mentors", user_ids=[mentor(1)]),
        worker.call("active_mentors_page", after=None, rows=10),
        worker.value(WITHOUT_USER_ID),
        undone(worker, retried),
        ask(worker),
        ask(worker, retry_of=retried),
    ):
        with pytest.raises(psycopg.Error) as refused:
            await reads
        assert refused.value.sqlstate == "MV001"
        assert fault in str(refused.value)
    assert await core.owner.value("select count(*) from public.scheduler_invocations") == 0


@pytest.mark.parametrize(("columns", "fault"), FAULTS)
async def test_columns_of_the_wrong_type_are_refused_by_name(
    core: SqlCore, worker: Worker, columns: str, fault: str
) -> None:
    await core.owner.run("create domain public.person as uuid; create domain public.label as text")
    # The session has read a good view before, as a connection of the Data API's has.
    await worker.call("active_mentors_page", after=None, rows=10)
    await replace_view(core, columns)
    await all_refuse(core, worker, fault)
    await replace_view(core, GOOD)
    assert len((await worker.call("active_mentors_page", after=None, rows=10))["groups"]) == 1


async def test_a_view_that_is_not_there_is_refused_by_name(core: SqlCore, worker: Worker) -> None:
    await replace_view(core, None)
    await all_refuse(core, worker, "public.active_peer_mentors: expected a view with the columns user_id uuid and")
    # Has the name and the columns, and nothing can be read from it.
    await core.owner.run("create type public.active_peer_mentors as (user_id uuid, segments text[])")
    await all_refuse(core, worker, "found none")


@pytest.mark.parametrize("kind", ["materialized view", "table"])
async def test_a_table_or_a_materialized_view_serves_as_well(core: SqlCore, worker: Worker, kind: str) -> None:
    await replace_view(core, GOOD, kind)
    assert (await worker.call("active_mentors_page", after=None, rows=10))["groups"][0]["segments"] == ["new"]
    await replace_view(core, "gen_random_uuid() as user_id, 'new'::text as segments", kind)
    await all_refuse(core, worker, "column segments: expected text[], found text")


async def test_a_known_key_is_answered_whatever_the_view_is(core: SqlCore, worker: Worker) -> None:
    run = await opened(worker, key="once")
    await replace_view(core, None)
    again = await ask(worker, key="once")
    assert (again["outcome"], again["invocation"]["id"]) == ("same", run)


async def test_a_run_waits_pending_for_its_view(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    manual = await opened(worker)
    await replace_view(core, "gen_random_uuid() as user_id, 'new'::text as segments")
    answer = await worker.open_slot(due, following)
    run = answer["invocation"]
    assert (run["status"], run["error"], run["started_at"]) == ("pending", "mentors_view_invalid", None)
    assert {row["id"] for row in answer["open"]} == {manual, run["id"]}
    # That the engine serves another run says nothing of the view.
    await worker.hand_back(engine_answers=True)
    assert (await worker.open_slot(due, following))["invocation"]["error"] == "mentors_view_invalid"

    await replace_view(core, GOOD)
    assert await worker.enqueue(run["id"], [], done=True)
    run = (await worker.open_slot(due, following))["invocation"]
    assert (run["status"], run["error"]) == ("running", None)


async def test_a_run_whose_view_stays_invalid_ends_failed(core: SqlCore, worker: Worker) -> None:
    await core.install_long_ago()
    due, following = await core.slots()
    await replace_view(core, None)
    run = (await worker.open_slot(due, following))["invocation"]
    await core.owner.run("update public.scheduler_invocations set expires_at = now()")
    await core.owner.run("select scheduler.expire()")
    ended = await worker.call("get", invocation_id=run["id"])
    assert (ended["status"], ended["error"]) == ("failed", "mentors_view_invalid")


async def test_rows_without_a_user_id_are_counted_and_in_no_page(core: SqlCore, worker: Worker) -> None:
    await replace_view(
        core,
        "* from (values (null::uuid, '{new}'::text[]), (null, null),"
        f" ('{mentor(1)}', '{{new,null}}'), ('{mentor(2)}', '{{{{new}},{{near}}}}'), ('{mentor(3)}', null))"
        " as rows (user_id, segments)",
    )
    assert await worker.value(WITHOUT_USER_ID) == 2
    page = await worker.call("active_mentors_page", after=None, rows=2)
    assert page["is_last"] is False
    assert sorted((group["segments"] for group in page["groups"]), key=str) == [
        ["new", None],
        [["new"], ["near"]],
    ]
    page = await worker.call("active_mentors_page", after=mentor(2), rows=2)
    assert page == {"groups": [{"segments": None, "user_ids": [mentor(3)]}], "is_last": True}


async def test_segments_of_over_200000_bytes_are_returned_as_null(core: SqlCore, worker: Worker) -> None:
    await replace_view(
        core,
        f"* from (values ('{mentor(1)}'::uuid, array[repeat('ü', 99998)]),"
        f" ('{mentor(2)}', array[repeat('ü', 99998) || 'x']),"
        f" ('{mentor(3)}', array_fill(repeat('x', 64), array[300000]))) as rows (user_id, segments)",
    )
    page = await worker.call("active_mentors_page", after=None, rows=10)
    found = {user_id: group["segments"] for group in page["groups"] for user_id in group["user_ids"]}
    assert found == {mentor(1): ["ü" * 99_998], mentor(2): [None], mentor(3): [None]}
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


async def test_a_run_of_rows_without_user_ids_read_no_mentor(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, done=False)
    assert await worker.enqueue(run, [], done=True, skip_reasons={"user_id_missing": 3})
    ended = (await worker.finish(run))["invocation"]
    assert (ended["status"], ended["error"], ended["counts"]["mentors_skipped"]) == ("failed", "no_active_mentors", 3)


async def test_reasons_add_up_over_pages(core: SqlCore, worker: Worker) -> None:
    run = await core.open_run(worker, done=False)
    for n, reasons in enumerate(({"no_scenario_applies": 2, "invalid_segments": 4}, {}, {"no_scenario_applies": 1})):
        assert await worker.enqueue(run, [], expected=str(n) if n else None, following=str(n + 1), skip_reasons=reasons)
    found = await worker.call("get", invocation_id=run)
    assert found["skip_reasons"] == {"no_scenario_applies": 3, "user_id_missing": 0, "invalid_segments": 4}
    assert (found["counts"]["mentors"], found["counts"]["mentors_skipped"]) == (3, 3)
