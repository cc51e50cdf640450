"""Looks at every run of a project while it is up: the scheduled one, and those that are started by hand."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import NoReturn

import psycopg

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


async def watch(project: Project, progress: Shows, since: datetime) -> NoReturn:
    """Shows each run from its opening to its end, also across a restart of the database.

    Runs that had ended by `since` are history.
    """
    known: set[str] = set()
    under_way: list[str] = []
    while True:
        with contextlib.suppress(psycopg.OperationalError, OSError):
            async with project.connect() as database:
                while True:
                    asked = {"under_way": under_way, "after": since, "known": list(known)}
                    found = await (await database.execute(UNDER_WAY_OR_NEW, asked)).fetchall()
                    known |= {run_id for run_id, _ in found}
                    under_way = [run_id for run_id, run in found if not has_ended(run)]
                    for _, run in found:
                        progress.show(run)
                    await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(AWAY_SECONDS)
