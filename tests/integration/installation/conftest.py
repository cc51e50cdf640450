"""One database as Supabase makes them, what is applied to it, and what is in it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Self

import pytest
from psycopg import sql

from tests.emulator.connections import connect
from tests.emulator.errors import EmulatorError
from tests.emulator.migrations import apply_migrations
from tests.emulator.postgres import SUPERUSER, PostgresServer
from tests.emulator.project import MIGRATIONS, ProjectFactory
from tests.emulator.staging import ROOT
from tests.integration.database.sql_core import Session

EMPTY = "postgres"
UNINSTALL = ROOT / "supabase" / "uninstall.sql"
# A new one each time: it keeps psql from being tricked by what it restores.
RANDOM_LINES = (b"\\restrict ", b"\\unrestrict ")


class Installation:
    """A database, as the role that owns it sees it: `owner` is its session."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self.server = server
        self.database = database
        self._connections = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        # A migration that is refused would stand in the server's log in full, and others search that for secrets: the
        # names of headers in it look like some.
        async with connect(self.server.url(self.database, SUPERUSER)) as superuser:
            await superuser.execute(
                sql.SQL("alter database {} set log_min_error_statement = 'panic'").format(sql.Identifier(self.database))
            )
        self.owner = Session(await self._connections.enter_async_context(connect(self.url)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._connections.aclose()

    @property
    def url(self) -> str:
        return self.server.url(self.database)

    async def push(self, migrations: Path = MIGRATIONS) -> list[str]:
        """Applies what is new, as `supabase db push` does; returns the versions that were."""
        return await apply_migrations(self.url, migrations)

    async def refusal(self, migrations: Path = MIGRATIONS) -> str:
        """Returns why the migrations are refused; nothing was changed by them."""
        before = await self.dump()
        try:
            applied = await self.push(migrations)
        except EmulatorError as error:
            assert await self.dump() == before
            return str(error)
        raise AssertionError(f"applied {applied}")

    async def uninstall(self, versions: Iterable[str]) -> None:
        """Removes everything, as `./deploy.sh --uninstall --delete-data` does; `versions`: of the migrations."""
        await self._run("psql", "--set", f"versions={','.join(versions)}", "--file", UNINSTALL, self.url)

    async def dump(self, *options: str) -> str:
        """Everything in it, but for the history of migrations."""
        url = self.server.url(self.database, SUPERUSER)
        output = await self._run("pg_dump", "--exclude-schema=supabase_migrations", *options, url)
        return b"\n".join(line for line in output.splitlines() if not line.startswith(RANDOM_LINES)).decode()

    async def _run(self, program: str, *arguments: str | Path) -> bytes:
        process = await asyncio.create_subprocess_exec(
            self.server.binaries.bin / program,
            *arguments,
            env={"PATH": os.defpath, "LC_ALL": "C"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        assert process.returncode == 0, errors.decode()
        return output


@pytest.fixture
async def empty(server: ProjectFactory) -> AsyncIterator[Installation]:
    async with server.database(EMPTY) as name, Installation(server.server, name) as installation:
        yield installation
