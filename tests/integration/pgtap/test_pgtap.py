"""supabase/tests/database on a real PostgreSQL, the oldest and the newest: `supabase test db` without Docker."""

from __future__ import annotations

from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.emulator.connections import Connection, connect
from tests.emulator.extensions import extensions_folder
from tests.emulator.migrations import apply_migrations, describe
from tests.emulator.postgres import SUPERUSER
from tests.emulator.project import MIGRATIONS, ProjectFactory
from tests.emulator.staging import ROOT
from tests.faults.system_packages import server_with_pgtap

from .tap import complaints_of

SCRIPTS = {path.stem: path.read_bytes() for path in sorted((ROOT / "supabase/tests/database").glob("*.test.sql"))}
OPENING = (
    b"begin; create extension if not exists pgtap with schema extensions; set local search_path to public, extensions;"
)


@pytest.fixture(scope="session")
async def with_pgtap(server: ProjectFactory) -> AsyncIterator[str]:
    """The address of a database with the migrations and pgTAP, which its files leave as it was."""
    pgtap = server_with_pgtap()
    async with server.database("postgres") as name:
        url = server.server.url(name)
        await apply_migrations(url, MIGRATIONS)
        if server.server.binaries.has_own("pgtap"):
            # by the role that applies migrations, as each file would do it
            async with connect(url) as connection:
                await connection.execute(b"create extension pgtap with schema extensions")
        else:
            # it is SQL and nothing else, so a server may have it from another one's folder
            folders = f"$system:{extensions_folder()}:{pgtap.extensions.parent}"
            async with connect(server.server.url(name, SUPERUSER)) as connection:
                await connection.execute(b"select set_config('extension_control_path', %s, false)", (folders,))
                await connection.execute(b"create extension pgtap with schema extensions")
        yield url


async def run(url: str, script: bytes) -> list[str]:
    """Runs one file as psql would; an error of SQL is a complaint like another."""
    async with connect(url) as connection:
        try:
            complaints = complaints_of(await answers(connection, script))
        except psycopg.Error as error:
            complaints = [describe(error, script)]
        assert connection.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS, "the file did not roll back"
    return complaints


async def answers(connection: Connection, script: bytes) -> list[str]:
    """Every text that the script's statements answer."""
    cursor = await connection.execute(script)
    found: list[str] = []
    more: bool | None = True
    while more:
        if cursor.description:
            found += [value for row in await cursor.fetchall() for value in row if isinstance(value, str)]
        more = cursor.nextset()
    return found


@pytest.mark.parametrize("name", ["constraints.test", "rights.test", "row_level_security.test"])
async def test_every_pgtap_test_passes(with_pgtap: str, name: str) -> None:
    assert await run(with_pgtap, SCRIPTS[name]) == []


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        (b"select plan(1); select is(1, 2, 'one is two');", "not ok 1 - one is two"),
        (b"select plan(2); select ok(true);", "planned [2] tests, ran 1"),
        (b"select plan(1); select no_such_test();", "line 1: function no_such_test()"),
    ],
)
async def test_what_is_wrong_fails(with_pgtap: str, script: bytes, complaint: str) -> None:
    complaints = await run(with_pgtap, OPENING + script + b"select * from finish(); rollback")
    assert any(one.startswith(complaint) for one in complaints), complaints
