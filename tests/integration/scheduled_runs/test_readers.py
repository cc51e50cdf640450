"""Callers of the REST API wait for each other, and no scheduled run waits for them."""

from __future__ import annotations

import asyncio

from shared.database import READER_CONNECTIONS
from tests.faults.breakpoint import breakpoint_at
from tests.integration.scheduled_runs.harness import Harness

READERS = 16
HELD = b"""
create table public.asked_for (id uuid);
create or replace function public.scheduler_delete(p_invocation_id uuid, p_actor text) returns text
language plpgsql security definer set search_path = '' set lock_timeout = 0 as $$
begin
  insert into public.asked_for values (p_invocation_id);
  return null;
end
$$;
"""


async def test_a_run_ends_while_all_readers_wait(harness: Harness) -> None:
    await harness.add_mentors(100)
    function = await harness.start_function({"EVALUATION_BATCH_SIZE": "10"})
    await harness.execute(HELD)
    url = f"{function.url}/api/v1/scheduler-invocations/00000000-0000-4000-8000-000000000000"
    headers = {"Authorization": f"Bearer {harness.project.admin_token}"}
    async with breakpoint_at(harness.project, "public.asked_for", "insert") as held:
        readers = [asyncio.create_task(harness.http.delete(url, headers=headers)) for _ in range(READERS)]
        await held.until_reached(READER_CONNECTIONS)
        answer = await harness.fire(function)
        assert not any(reader.done() for reader in readers)
    assert (answer.status_code, answer.json()["status"]) == (200, "success")
    assert {reader.status_code for reader in await asyncio.gather(*readers)} == {404}
