"""What a run's size costs those who look at all of it, and what it costs to forget one."""

from __future__ import annotations

import time

from tests.emulator.connections import Connection
from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project

OPEN_BATCHES = (10_000, 100_000)

# Batches of one user, as the enumeration queues them: their number is what counts here.
QUEUE = b"""
select public.scheduler_enqueue(%s, null, null, true, (
  select jsonb_agg(jsonb_build_array(jsonb_build_object(
           'scenario_types', jsonb_build_array('milestone_reached'),
           'user_ids', jsonb_build_array(md5('upkeep-' || n)::uuid)
         )))
    from generate_series(1, %s::integer) as n
), '{}')
"""
OPEN = b"""
insert into public.scheduler_invocations
  (idempotency_key, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
values ('slot:upkeep', 'schedule', 'running', now(), now(), now() + interval '1 day', 'slot:upkeep') returning id
"""
CLAIM = b"select public.scheduler_claim(1, 600, false)"
LOOKED_AT = {
    "dispatch": b"select scheduler.dispatch()",
    "claim": CLAIM,
    "describe": b"select scheduler.describe_invocation(id) from public.scheduler_invocations",
    "finish": b"select public.scheduler_finish(id) from public.scheduler_invocations",
}
TIMES = 5

OLD_ROWS = 1_000_000
OLD_RUN = b"""
insert into public.scheduler_invocations
  (idempotency_key, triggered_by, status, scheduled_for, started_at, finished_at, expires_at, engine_scope,
   enumeration_done)
select 'slot:old-' || n, 'schedule', 'succeeded', at, at, at, at, 'slot:old-' || n, true
  from (values (1, now() - interval '400 days'), (2, now())) as run (n, at)
returning id
"""
OLD_RESULTS = b"""
insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome, attempts)
select id, md5('old-' || n)::uuid, 'milestone_reached', 'triggered', 1
  from public.scheduler_invocations, generate_series(1, %s::integer) as n
 where idempotency_key = 'slot:old-1'
"""


async def measure_upkeep(project: Project, open_batches: int) -> dict[str, float]:
    """Milliseconds of the database for each of these, the best of some, with so many batches open."""
    async with project.connect() as connection:
        await _queue(connection, open_batches)
        return {
            name: min([await _milliseconds(connection, query) for _ in range(TIMES)])
            for name, query in LOOKED_AT.items()
        }


async def _queue(connection: Connection, batches: int) -> None:
    """One run with so many batches open, and nothing else."""
    await connection.execute(
        b"truncate public.scheduler_invocations, public.scheduler_invocation_batches, scheduler.dispatches cascade"
    )
    await connection.execute(b"select pgmq.purge_queue(queue_name) from pgmq.list_queues()")
    row = await (await connection.execute(OPEN)).fetchone()
    assert row is not None
    await connection.execute(QUEUE, (row[0], batches))
    await connection.execute(b"vacuum analyze public.scheduler_invocation_batches, pgmq.q_scenario_evaluation_batches")


async def measure_prune(project: Project) -> float:
    """Seconds in which a million results of an old run are deleted."""
    async with project.connect() as connection:
        await connection.execute(
            b"truncate public.scheduler_invocations, public.scheduler_invocation_batches, public.scheduler_evaluations"
            b" cascade"
        )
        await connection.execute(OLD_RUN)
        await connection.execute(OLD_RESULTS, (OLD_ROWS,))
        started = time.perf_counter()
        await connection.execute(b"call scheduler.prune()")
        seconds = time.perf_counter() - started
        left = await (await connection.execute(b"select count(*) from public.scheduler_evaluations")).fetchone()
    if left != (0,):
        raise EmulatorError(f"{left} old results are still there")
    return seconds * 1_000_000 / OLD_ROWS


async def _milliseconds(connection: Connection, query: bytes) -> float:
    """As the database sees it, without planning."""
    row = await (await connection.execute(b"explain (analyze, timing off, format json) " + query)).fetchone()
    assert row is not None
    return float(row[0][0]["Execution Time"])
