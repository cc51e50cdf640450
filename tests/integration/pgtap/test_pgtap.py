"""supabase/tests/database on a real PostgreSQL, the oldest and the newest: `supabase test db` without Docker."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import psycopg
import pytest

from tests.emulator.connections import connect
from tests.emulator.extensions import extensions_folder
from tests.emulator.migrations import apply_migrations
from tests.emulator.postgres import SUPERUSER
from tests.emulator.project import MIGRATIONS, ProjectFactory
from tests.emulator.staging import ROOT
from tests.faults.system_packages import server_with_pgtap

FILES = ROOT / "supabase" / "tests" / "database"


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


@pytest.mark.parametrize("name", ["constraints", "rights", "row_level_security"])
async def test_every_pgtap_test_passes(with_pgtap: str, name: str) -> None:
    answers: list[str] = []
    async with connect(with_pgtap) as connection:
        cursor = await connection.execute((FILES / f"{name}.test.sql").read_bytes())
        more: bool | None = True
        while more:
            if cursor.description:
                answers += [value for row in await cursor.fetchall() for value in row if isinstance(value, str)]
            more = cursor.nextset()
        assert connection.info.transaction_status != psycopg.pq.TransactionStatus.INTRANS, "the file did not roll back"
    results = [answer for answer in answers if re.match(r"(not )?ok \d", answer)]
    # The file's plan: one that ended early, or ran a test too many, has another number of results.
    assert f"1..{len(results)}" in answers
    assert [result for result in results if result.startswith("not")] == []
