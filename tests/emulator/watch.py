"""Looks at every run of a project while it is up, whoever asked for it: the night, and what is tried by hand."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Any, NoReturn

import psycopg

from .connections import Connection
from .progress import Shows, has_ended
from .project import Project

LOOK_SECONDS = 0.2
# Of a database that is away, or being started again.
AWAY_SECONDS = 1.0

# What is open, and what was opened and has ended since the last look.
UNDER_WAY_OR_NEW = b"""
select id::text, scheduler.describe_invocation(id)
from public.scheduler_invocations
where id = any(%(under_way)s::uuid[])
   or status in ('pending', 'running')
   or (created_at > %(after)s and id <> all(%(known)s::uuid[]))
order by created_at
"""


class RunWatch:
    """Shows each run from its opening to its end.

    Args:
        project: whose runs.
        progress: who is told.
        since: runs that had ended by then are history.
    """

    def __init__(self, project: Project, progress: Shows, since: datetime) -> None:
        self._project = project
        self._progress = progress
        self._since = since
        self._known: set[str] = set()
        self._under_way: set[str] = set()

    async def watch(self) -> NoReturn:
        """For as long as it is let, also across a restart of the database."""
        while True:
            with contextlib.suppress(psycopg.OperationalError, OSError):
                async with self._project.connect() as database:
                    while True:
                        await self._look(database)
                        await asyncio.sleep(LOOK_SECONDS)
            await asyncio.sleep(AWAY_SECONDS)

    async def _look(self, database: Connection) -> None:
        found: dict[str, dict[str, Any]] = dict(
            await (
                await database.execute(
                    UNDER_WAY_OR_NEW,
                    {"under_way": list(self._under_way), "after": self._since, "known": list(self._known)},
                )
            ).fetchall()
        )
        self._known |= found.keys()
        self._under_way = {run_id for run_id, run in found.items() if not has_ended(run)}
        for run in found.values():
            self._progress.show(run)
