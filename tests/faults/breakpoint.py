"""Stops the database at a chosen statement, so that a test can act at exactly that moment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import psycopg
from psycopg import sql

from tests.emulator.connections import Connection
from tests.emulator.project import Project
from tests.integration.scheduled_runs.harness import eventually

NUMBER = 4711

STOP = b"""
create schema if not exists faults;
create or replace function faults.stop() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform pg_advisory_xact_lock_shared(4711);
  return null;
end
$$;
"""

WAITING = b"""
select
  from pg_locks
 where locktype = 'advisory' and objid = %s and not granted
   and database = (select oid from pg_database where datname = current_database())
having count(*) >= %s
"""


class Breakpoint:
    """Statements wait here until `release()`; each for 8 seconds at most, the Data API's lock time-out."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def until_reached(self, times: int = 1) -> None:
        """Return when so many statements wait."""

        async def is_reached() -> bool:
            cursor = await self._connection.execute(WAITING, (NUMBER, times))
            return await cursor.fetchone() is not None

        await eventually(is_reached)

    async def release(self) -> None:
        """Let through whatever waits or comes."""
        await self._connection.execute(b"select pg_advisory_unlock_all()")


AFTER_STATEMENT = """
create or replace trigger faults_stop after {} on {}
for each statement execute function faults.stop()
"""


@contextlib.asynccontextmanager
async def breakpoint_at(project: Project, table: str, event: str) -> AsyncIterator[Breakpoint]:
    """A stop after every statement that does this (`insert`, `update`) to a table, within its transaction."""
    async with project.connect(superuser=True) as connection:
        await connection.execute(STOP)
        await connection.execute(b"select pg_advisory_lock(%s)", (NUMBER,))
        await connection.execute(sql.SQL(AFTER_STATEMENT).format(sql.SQL(event), sql.Identifier(*table.split("."))))
        try:
            yield Breakpoint(connection)
        finally:
            with contextlib.suppress(psycopg.OperationalError):
                await connection.execute(b"select pg_advisory_unlock_all()")
