"""The state in which every contender starts: this many active mentors, and an empty table for the results."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from tests.emulator.connections import value
from tests.emulator.migrations import run_script
from tests.emulator.project import Project

RESULTS_TABLE = Path(__file__).with_name("results_table.sql")
# The mentors of supabase/seed.sql, all of them active: there one in eight is not, and a round number is wanted.
PLANT = b"""
insert into public.peer_mentors (user_id, onboarding_completed_at)
select md5('peer-mentor-' || n)::uuid, now() from generate_series(1, %s::integer) as n on conflict do nothing
"""


async def prepare(project: Project, mentors: int) -> None:
    """Leaves exactly this many active mentors and an empty `benchmark_results` that the Data API knows."""
    planted = await count(project, b"select count(*) from public.peer_mentors")
    async with project.connect() as connection:
        if planted != mentors:
            await connection.execute(b"truncate public.peer_mentors cascade")
            await connection.execute(PLANT, (mentors,))
            # or autovacuum does it during a measurement
            await connection.execute(b"vacuum (analyze) public.peer_mentors")
    await run_script(project.database_url, RESULTS_TABLE)
    headers = {"apikey": project.secret_key}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client, asyncio.timeout(10):
        table = f"{project.rest_url}/benchmark_results?limit=1"
        while (await client.get(table)).status_code != httpx.codes.OK:  # noqa: ASYNC110  # it has no Event to set
            await asyncio.sleep(0.05)


async def user_ids(project: Project) -> list[str]:
    async with project.connect() as connection:
        cursor = await connection.execute(b"select user_id::text from public.active_peer_mentors order by user_id")
        return [row[0] for row in await cursor.fetchall()]


async def count_rows(project: Project) -> int:
    return await count(project, b"select count(*) from public.benchmark_results")


async def count(project: Project, query: bytes, *parameters: str) -> int:
    async with project.connect() as connection:
        return int(await value(connection, query, *parameters))
