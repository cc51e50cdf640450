"""A database that has something of the same name already: a clear message, and nothing of theirs is touched."""

from __future__ import annotations

import pytest

from tests.integration.database.walk import grants

from .database import Installation
from .test_apply import VERSIONS

# Their own, with rights and a policy that their application lives on.
THEIRS = """
create table public.peer_mentors (
  mentor_no bigint generated always as identity primary key,
  email text not null unique,
  retired boolean not null default false
);
alter table public.peer_mentors enable row level security;
create policy who_is_signed_in_reads on public.peer_mentors for select to authenticated using (true);
insert into public.peer_mentors (email) values ('one@example.org'), ('two@example.org');
"""
THEIR_VIEW = """
create view public.active_peer_mentors with (security_invoker = true) as
select ('00000000-0000-4000-8000-' || lpad(to_hex(mentor_no), 12, '0'))::uuid as user_id, '{}'::text[] as segments
  from public.peer_mentors
 where not retired
"""


async def test_peer_mentors_of_another_shape_stop_it_before_it_begins(empty: Installation) -> None:
    await empty.owner.run(THEIRS)
    said = await empty.refusal()
    assert "public.peer_mentors is a table of your own (mentor_no bigint, email text, retired boolean)" in said
    assert "nothing was changed" in said
    assert "docs/adapting.md" in said


async def test_with_a_view_over_them_it_goes_on_and_leaves_them_as_they_were(empty: Installation) -> None:
    await empty.owner.run(THEIRS)
    before = await empty.dump("--table=public.peer_mentors*")
    await empty.owner.run(THEIR_VIEW)
    definition = await empty.dump("--schema-only", "--no-privileges", "--table=public.active_peer_mentors")

    assert await empty.push() == VERSIONS
    assert await empty.dump("--table=public.peer_mentors*") == before
    assert await empty.dump("--schema-only", "--no-privileges", "--table=public.active_peer_mentors") == definition
    assert await empty.owner.value("select count(*) from public.active_peer_mentors") == 2
    seam = {grant.role for grant in await grants(empty.owner) if grant.name == "public.active_peer_mentors"}
    assert seam == {"service_role"}


async def test_without_a_table_of_ours_their_view_is_enough(empty: Installation) -> None:
    await empty.owner.run(
        "create view public.active_peer_mentors as select gen_random_uuid() as user_id, '{}'::text[] as segments"
    )
    assert await empty.push() == VERSIONS
    assert await empty.owner.value("select to_regclass('public.peer_mentors') is null")


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ("1::bigint as user_id, '{}'::text[] as segments", "column user_id: expected uuid, found bigint"),
        ("", "column user_id: expected uuid, found none; column segments: expected text[], found none"),
    ],
)
async def test_a_view_with_other_columns_is_refused_and_unchanged(
    empty: Installation, columns: str, found: str
) -> None:
    await empty.owner.run(f"create view public.active_peer_mentors as select {columns}")
    assert f"public.active_peer_mentors, {found}; change the view as docs/adapting.md shows" in await empty.refusal()


@pytest.mark.parametrize("theirs", ["create schema scheduler", "create table public.scheduler_invocations (id bigint)"])
async def test_names_that_are_taken_are_told(empty: Installation, theirs: str) -> None:
    await empty.owner.run(theirs)
    assert "is not ours: nothing was changed" in await empty.refusal()


async def test_the_samples_table_without_its_view_gets_it_and_keeps_its_rows(empty: Installation) -> None:
    await empty.push()
    await empty.owner.run("insert into public.peer_mentors (user_id) values (gen_random_uuid())")
    view = await empty.dump("--schema-only", "--table=public.active_peer_mentors")
    # As if it had stopped right after its first file, and somebody had dropped the view.
    await empty.owner.run("drop view public.active_peer_mentors")
    await empty.owner.run("alter schema scheduler rename to elsewhere")
    await empty.owner.run("alter table public.scheduler_invocations set schema elsewhere")
    first = (await empty.owner.column("select statements[1] from supabase_migrations.schema_migrations limit 1"))[0]
    await empty.owner.run(first.replace("%", "%%"))
    assert await empty.dump("--schema-only", "--table=public.active_peer_mentors") == view
    assert await empty.owner.value("select count(*) from public.active_peer_mentors") == 1
