"""Callers of the REST API wait for each other, and no scheduled run waits for them."""

from __future__ import annotations

import asyncio

from shared.database import READER_CONNECTIONS
from tests.integration.nightly.night import Night, eventually

READERS = 16
HELD = b"""
create or replace function public.scheduler_get(p_invocation_id uuid) returns jsonb
language plpgsql set search_path = '' set lock_timeout = 0 as $$
begin
  perform pg_advisory_xact_lock_shared(4711);
  return null;
end
$$;
"""
WAITING = b"""
select from pg_locks
 where locktype = 'advisory' and objid = 4711 and not granted
   and database = (select oid from pg_database where datname = current_database())
"""


async def test_a_run_ends_while_all_readers_wait(night: Night) -> None:
    await night.add_mentors(100)
    function = await night.start_function({"EVALUATION_BATCH_SIZE": "10"})
    await night.execute(HELD)
    url = f"{function.url}/api/v1/scheduler-invocations/00000000-0000-4000-8000-000000000000"
    headers = {"Authorization": f"Bearer {night.project.admin_token}"}
    async with night.project.connect() as connection:
        await connection.execute(b"select pg_advisory_lock(4711)")
        readers = [asyncio.create_task(night.http.get(url, headers=headers)) for _ in range(READERS)]

        async def are_waiting() -> bool:
            return len(await night.rows(WAITING)) == READER_CONNECTIONS

        await eventually(are_waiting)
        answer = await night.fire(function)
        assert not any(reader.done() for reader in readers)
        await connection.execute(b"select pg_advisory_unlock_all()")
    assert (answer.status_code, answer.json()["status"]) == (200, "succeeded")
    assert {reader.status_code for reader in await asyncio.gather(*readers)} == {404}
