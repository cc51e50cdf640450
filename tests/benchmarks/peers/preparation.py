"""What every contender finds: as many active mentors as are asked for, and an empty table for the results."""

from __future__ import annotations

import asyncio

import httpx

from tests.emulator.project import Project

# The mentors of supabase/seed.sql, all of them active: there one in eight is not, and contenders are to be asked about a
# round number.
PLANT = b"""
insert into public.peer_mentors (user_id, onboarding_completed_at)
select md5('peer-mentor-' || n)::uuid, now() from generate_series(1, %s::integer) as n on conflict do nothing
"""
CREATE = b"""
create table if not exists public.benchmark_results (
  user_id uuid not null,
  scenario_type text not null,
  outcome text not null,
  notification_id text,
  attempts integer not null,
  primary key (user_id, scenario_type)
);
revoke all on table public.benchmark_results from anon, authenticated;
-- For who sends results as this function does.
create or replace function public.benchmark_upsert(p_results jsonb) returns void
language sql volatile set search_path = '' as $$
  insert into public.benchmark_results (user_id, scenario_type, outcome, notification_id, attempts)
  select member.user_id::uuid, grouped.scenario_type, grouped.outcome, member.notification_id, grouped.attempts
    from jsonb_to_recordset(p_results) as grouped (
      scenario_type text, outcome text, attempts integer, user_ids jsonb, notification_ids jsonb
    )
   cross join lateral rows from (
     jsonb_array_elements_text(grouped.user_ids), jsonb_array_elements_text(grouped.notification_ids)
   ) as member (user_id, notification_id)
  on conflict (user_id, scenario_type) do update
    set outcome = excluded.outcome, notification_id = excluded.notification_id, attempts = excluded.attempts
$$;
revoke all on function public.benchmark_upsert(jsonb) from public, anon, authenticated;
grant execute on function public.benchmark_upsert(jsonb) to service_role;
truncate public.benchmark_results;
notify pgrst, 'reload schema';
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
        await connection.execute(CREATE)
    headers = {"apikey": project.secret_key}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client, asyncio.timeout(10):
        table = f"{project.rest_url}/benchmark_results?limit=1"
        while (await client.get(table)).status_code != httpx.codes.OK:  # noqa: ASYNC110  # it has no Event to set
            await asyncio.sleep(0.05)


async def user_ids(project: Project) -> list[str]:
    """Of all mentors who are to be evaluated."""
    async with project.connect() as connection:
        cursor = await connection.execute(b"select user_id::text from public.active_peer_mentors order by user_id")
        return [row[0] for row in await cursor.fetchall()]


async def count_rows(project: Project) -> int:
    """Results that are stored."""
    return await count(project, b"select count(*) from public.benchmark_results")


async def count(project: Project, query: bytes, *parameters: str) -> int:
    """The one number that a query answers."""
    async with project.connect() as connection:
        row = await (await connection.execute(query, parameters)).fetchone()
    assert row is not None
    return int(row[0])
