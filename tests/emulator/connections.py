"""Connections of the emulator itself, which no project's setting may slow down or stop."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@contextlib.asynccontextmanager
async def connect(url: str) -> AsyncIterator[Connection]:
    """Yields a connection in which each statement commits, and that gives up soon where the server is gone."""
    connection = await psycopg.AsyncConnection.connect(url, autocommit=True, connect_timeout=5)
    try:
        yield connection
    finally:
        await connection.close()


async def value(connection: Connection, query: bytes, *parameters: Any) -> Any:
    """Returns the first column of the first row, or None where there is no row."""
    row = await (await connection.execute(query, parameters)).fetchone()
    return row[0] if row else None


async def has_table(connection: Connection, name: str) -> bool:
    return bool(await value(connection, b"select to_regclass(%s) is not null", name))
