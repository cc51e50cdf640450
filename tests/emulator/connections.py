"""Connections of the emulator itself, which no project's setting may slow down or stop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    """A connection in which each statement commits, and that a server which is gone does not hold up for long."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


async def has_table(connection: Connection, name: str) -> bool:
    row = await (await connection.execute(b"select to_regclass(%s) is not null", (name,))).fetchone()
    return bool(row and row[0])
