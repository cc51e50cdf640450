"""What the baseline gives a project, and how migrations are applied to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.emulator.connections import connect
from tests.emulator.errors import EmulatorError
from tests.emulator.migrations import apply_migrations
from tests.emulator.project import Project, ProjectFactory

from .looking import rows


async def test_migrations_run_as_a_plain_role(project: Project) -> None:
    async with project.connect() as database:
        cursor = await database.execute(
            b"select rolname, rolsuper, rolbypassrls, rolcreaterole from pg_roles where rolname = current_user"
        )
        assert await cursor.fetchall() == [("postgres", False, True, True)]


async def test_forgotten_revokes_are_open_to_anon(projects: ProjectFactory) -> None:
    """The classic default privileges: an emulator without them would hide the mistake."""
    async with (
        projects.database() as name,
        connect(projects.server.url(name)) as database,
    ):
        await database.execute(b"create table public.forgotten (id int)")
        await database.execute(b"create function public.forgotten() returns int language sql return 1")
        cursor = await database.execute(
            b"select has_table_privilege('anon', 'public.forgotten', 'select'),"
            b" has_function_privilege('anon', 'public.forgotten()', 'execute')"
        )
        assert await cursor.fetchone() == (True, True)


async def test_anon_reaches_no_private_schema_but_pg_nets(project: Project) -> None:
    schemas = ["vault", "cron", "pgmq", "scheduler"]
    query = "select schema, has_schema_privilege('anon', schema, 'usage') from unnest(%s::text[]) as schema"
    assert await rows(project, query, schemas) == [(schema, False) for schema in schemas]


async def test_what_supabase_grants_without_being_asked_is_granted(project: Project) -> None:
    """Not ours to revoke: `postgres` owns none of it."""
    granted = await rows(
        project,
        "select has_schema_privilege('anon', 'net', 'usage'), has_table_privilege('anon', 'cron.job', 'select'),"
        " has_table_privilege('anon', 'net.http_request_queue', 'select, insert, update, delete, truncate'),"
        " has_table_privilege('anon', 'net._http_response', 'select, insert, update, delete, truncate'),"
        " has_function_privilege('anon', 'net.http_get(text, jsonb, jsonb, integer)', 'execute'),"
        " has_schema_privilege('service_role', 'vault', 'usage'),"
        " has_table_privilege('service_role', 'vault.decrypted_secrets', 'select')",
    )
    assert granted == [(True,) * 7]
    owners = await rows(
        project,
        "select distinct relowner::regrole::text from pg_class"
        " where relnamespace in ('net'::regnamespace, 'cron'::regnamespace, 'vault'::regnamespace)",
    )
    assert owners == [("supabase_admin",)]


@pytest.mark.parametrize(("role", "limit"), [("authenticator", "8s"), ("postgres", "2min")])
async def test_each_role_has_the_time_that_supabase_gives_its_statements(
    projects: ProjectFactory, role: str, limit: str
) -> None:
    async with projects.database() as name, connect(projects.server.url(name, role)) as database:
        assert await (await database.execute(b"show statement_timeout")).fetchone() == (limit,)


async def test_vault_gives_back_what_was_put_in(project: Project) -> None:
    await project.write_vault_secrets("http://127.0.0.1:1")
    await project.write_vault_secrets("http://127.0.0.1:2")
    async with project.connect() as database:
        await database.execute(b"set role service_role")
        cursor = await database.execute(
            b"select decrypted_secret, secret = decrypted_secret from vault.decrypted_secrets"
            b" where name = 'scheduler_function_url'"
        )
        assert await cursor.fetchall() == [("http://127.0.0.1:2/", False)]


async def test_only_new_migrations_are_applied(projects: ProjectFactory, tmp_path: Path) -> None:
    first = tmp_path / "20300101000000_make_a_table.sql"
    first.write_text("create table public.made (id int); -- 100% ünicode\n")
    async with projects.database() as name:
        url = projects.server.url(name)
        assert await apply_migrations(url, tmp_path) == ["20300101000000"]
        (tmp_path / "20300102000000_fill_it.sql").write_text("insert into public.made values (1);")
        assert await apply_migrations(url, tmp_path) == ["20300102000000"]
        async with connect(url) as database:
            cursor = await database.execute(
                b"select name, statements from supabase_migrations.schema_migrations where version = '20300101000000'"
            )
            assert await cursor.fetchone() == ("make_a_table", [first.read_text()])


async def test_a_migration_that_fails_leaves_nothing_and_names_its_line(
    projects: ProjectFactory, tmp_path: Path
) -> None:
    (tmp_path / "20300101000000_break.sql").write_text("create table public.half (id int);\n\nselect * from nowhere;\n")
    async with projects.database() as name:
        url = projects.server.url(name)
        with pytest.raises(EmulatorError, match=r"20300101000000_break\.sql: line 3: .*nowhere"):
            await apply_migrations(url, tmp_path)
        async with connect(url) as database:
            cursor = await database.execute(b"select to_regclass('public.half')")
            assert await cursor.fetchone() == (None,)


async def test_a_clone_starts_from_the_template_and_not_from_a_neighbour(projects: ProjectFactory) -> None:
    async with projects.database() as one, projects.database() as other:
        async with connect(projects.server.url(one)) as database:
            await database.execute(b"create table public.mine (id int)")
        async with connect(projects.server.url(other)) as database:
            cursor = await database.execute(b"select to_regclass('public.mine')")
            assert await cursor.fetchone() == (None,)
