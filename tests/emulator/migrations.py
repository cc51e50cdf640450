"""The project's own SQL, applied as `supabase db push` applies it: in name order, each file in one transaction."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path

import psycopg

from .connections import connect
from .errors import EmulatorError

FILE_NAME = re.compile(r"(\d+)_(.+)\.sql")

HISTORY = b"""
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text primary key,
  statements text[],
  name text
);
"""
NOTE = b"insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s)"


async def apply_migrations(database_url: str, folder: Path, *, refuse_changed: bool = False) -> list[str]:
    """Applies what was not applied yet, byte for byte and as a plain role, and returns the versions that were new.

    `refuse_changed` raises `EmulatorError` for a file that is not as this function applied it; the Supabase CLI records
    other texts.
    """
    applied = []
    async with connect(database_url) as connection:
        await connection.execute(HISTORY)
        cursor = await connection.execute(b"select version, statements from supabase_migrations.schema_migrations")
        known = dict(await cursor.fetchall())
        for path in await asyncio.to_thread(lambda: sorted(folder.glob("*.sql"))):
            match, text = FILE_NAME.fullmatch(path.name), await asyncio.to_thread(path.read_bytes)
            if match is None:
                continue
            version, name = match.groups()
            if version in known:
                if refuse_changed and known[version] != [text.decode()]:
                    raise EmulatorError(
                        f"{path.name} has changed since it was applied to this database: name another --data-dir"
                    )
                continue
            try:
                async with connection.transaction():
                    await connection.execute(text)
                    await connection.execute(NOTE, (version, [text.decode()], name))
                # a `set` must not leak into the next file
                await connection.execute(b"reset all")
            except psycopg.Error as error:
                raise EmulatorError(f"{path.name}: {describe(error, text)}") from error
            applied.append(version)
    return applied


async def run_script(database_url: str, path: Path, settings: Mapping[str, str] | None = None) -> None:
    """Runs one file in one transaction, with settings that it may read through current_setting()."""
    text = await asyncio.to_thread(path.read_bytes)
    async with connect(database_url) as connection:
        for name, value in (settings or {}).items():
            await connection.execute(b"select set_config(%s, %s, false)", (name, value))
        try:
            async with connection.transaction():
                await connection.execute(text)
        except psycopg.Error as error:
            raise EmulatorError(f"{path.name}: {describe(error, text)}") from error


def describe(error: psycopg.Error, text: bytes) -> str:
    """Returns PostgreSQL's message, with the line of the file that it is about."""
    diagnostic = error.diag
    message = diagnostic.message_primary or str(error).strip()
    if diagnostic.statement_position:
        line = text.decode().count("\n", 0, int(diagnostic.statement_position)) + 1
        message = f"line {line}: {message}"
    return "; ".join(part for part in (message, diagnostic.message_detail, diagnostic.message_hint) if part)
