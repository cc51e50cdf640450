"""Migrations on an empty database, again, and on databases of others; on the oldest and on the newest PostgreSQL."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.emulator.project import MIGRATIONS
from tests.integration.database.walk import grants

from .conftest import Installation

VERSIONS = [file.name.partition("_")[0] for file in sorted(MIGRATIONS.glob("*.sql"))]
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


async def test_an_empty_database_gets_everything_once(empty: Installation) -> None:
    assert await empty.push() == VERSIONS
    assert await empty.owner.value("select public.scheduler_finish(gen_random_uuid()) ->> 'ended_now'") == "false"
    jobs = "select jobname from cron.job where jobname like 'scheduler-%' order by jobname"
    assert await empty.owner.column(jobs) == ["scheduler-dispatch", "scheduler-prune"]
    before = await empty.dump()
    assert await empty.push() == []
    assert await empty.dump() == before

    await empty.owner.run("drop schema supabase_migrations cascade")
    said = await empty.refusal()
    assert "20261120000100_create_sample_peer_mentors.sql: the scheduler is in this database already" in said
    assert "nothing was changed" in said
    assert "supabase migration repair --status applied" in said


@pytest.mark.parametrize("applied", [1, 4, len(VERSIONS)])
async def test_an_unfinished_installation_can_be_removed_and_repeated(
    empty: Installation, tmp_path: Path, applied: int
) -> None:
    for file in sorted(MIGRATIONS.glob("*.sql"))[:applied]:
        shutil.copy(file, tmp_path)
    assert await empty.push(tmp_path) == VERSIONS[:applied]
    await empty.uninstall(VERSIONS[1:])
    assert await empty.push() == VERSIONS[1:]


@pytest.mark.parametrize(
    ("theirs", "refusal"),
    [
        (THEIRS, "public.peer_mentors is a table of your own (mentor_no bigint, email text, retired boolean)"),
        (
            "create view public.active_peer_mentors as select 1::bigint as user_id",
            "public.active_peer_mentors, column user_id: expected uuid, found bigint;"
            " column segments: expected text[], found none; change the view as docs/adapting.md shows",
        ),
        ("create schema scheduler", "is not ours: nothing was changed"),
        ("create table public.scheduler_invocations (id bigint)", "is not ours: nothing was changed"),
    ],
)
async def test_obstacles_are_named_and_left_unchanged(empty: Installation, theirs: str, refusal: str) -> None:
    await empty.owner.run(theirs)
    assert refusal in await empty.refusal()


@pytest.mark.parametrize("has_table", [True, False])
async def test_an_existing_view_is_used_and_left_unchanged(empty: Installation, has_table: bool) -> None:
    await empty.owner.run(THEIRS if has_table else THEIRS.replace("public.peer_mentors", "public.people"))
    await empty.owner.run(THEIR_VIEW if has_table else THEIR_VIEW.replace("public.peer_mentors", "public.people"))
    table, view = "--table=public.pe*", ("--schema-only", "--no-privileges", "--table=public.active_peer_mentors")
    before, definition = await empty.dump(table), await empty.dump(*view)

    assert await empty.push() == VERSIONS

    assert (await empty.dump(table), await empty.dump(*view)) == (before, definition)
    assert await empty.owner.value("select count(*) from public.active_peer_mentors") == 2
    seam = {grant.role for grant in await grants(empty.owner) if grant.name == "public.active_peer_mentors"}
    assert seam == {"service_role"}
