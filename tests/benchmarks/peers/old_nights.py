"""Years of history, put into the database by SQL."""

from __future__ import annotations

from shared.invocation_records import Position
from tests.emulator.project import Project

MENTORS_PER_NIGHT = 25
TYPES_PER_NIGHT = 2
EVALUATIONS_PER_NIGHT = MENTORS_PER_NIGHT * TYPES_PER_NIGHT

# A minute apart, the last of them two days ago: their number matters here, and not their age.
NIGHTS = b"""
insert into public.scheduler_invocations (
  id, idempotency_key, triggered_by, status, scheduled_for, created_at, started_at, finished_at, expires_at,
  engine_scope, engine_scope_since, enumeration_done, next_batch_no
)
select
  scheduler.time_ordered_id(night.at), 'slot:old-night-' || n, 'schedule', 'succeeded', night.at, night.at, night.at,
  night.at + interval '10 seconds', night.at + interval '20 hours', 'slot:old-night-' || n, night.at, true, 2
from generate_series(1, %(nights)s::integer) as n
cross join lateral (select now() - interval '2 days' - make_interval(mins => n) as at) as night
"""
BATCHES = b"""
with users as (
  select jsonb_agg(user_id order by user_id) as ids, min(user_id::text)::uuid as first, max(user_id::text)::uuid as last
  from (select md5('peer-mentor-' || m)::uuid as user_id from generate_series(1, %(mentors)s::integer) as m) as chosen
)
insert into public.scheduler_invocation_batches (
  invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, queue, msg_id, state, deliveries,
  triggered, scenario_counts, duration_ms, worker, finished_at
)
select
  i.id, 1, jsonb_build_array(jsonb_build_object('scenario_types', %(types)s::jsonb, 'user_ids', users.ids)),
  users.first, users.last, %(mentors)s, %(evaluations)s, 'scenario_evaluation_batches', 0, 'done', 1, %(evaluations)s,
  (
    select jsonb_object_agg(type.value, jsonb_build_object('triggered', %(mentors)s::integer))
    from jsonb_array_elements_text(%(types)s::jsonb) as type
  ),
  500, 'old', i.finished_at
from public.scheduler_invocations as i
cross join users
where i.idempotency_key like 'slot:old-night-%%'
"""
EVALUATIONS = b"""
insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome, notification_id)
select i.id, md5('peer-mentor-' || m)::uuid, type.value, 'triggered', 'n-' || m
from public.scheduler_invocations as i
cross join generate_series(1, %(mentors)s::integer) as m
cross join jsonb_array_elements_text(%(types)s::jsonb) as type
where i.idempotency_key like 'slot:old-night-%%'
"""
FIND = b"select created_at, id from public.scheduler_invocations where idempotency_key = %s"
FORGET = b"delete from public.scheduler_invocations where idempotency_key not like 'slot:old-night-%'"
TABLES = b"public.scheduler_invocations, public.scheduler_invocation_batches, public.scheduler_evaluations"


async def plant_nights(project: Project, nights: int) -> None:
    """So many nights that succeeded, each with one batch and `EVALUATIONS_PER_NIGHT` rows."""
    values = {
        "nights": nights,
        "mentors": MENTORS_PER_NIGHT,
        "evaluations": EVALUATIONS_PER_NIGHT,
        "types": '["inactivity_30_days", "milestone_reached"]',
    }
    async with project.connect(superuser=True) as connection:
        # what is inserted here is consistent: to look each row's night up would take longer than all the rest
        await connection.execute(b"set session_replication_role = replica")
        for statement in (NIGHTS, BATCHES, EVALUATIONS):
            await connection.execute(statement, values)
        # nothing of this is to be left to autovacuum while somebody is measured
        await connection.execute(b"vacuum (analyze) " + TABLES)
        await connection.execute(b"checkpoint")


async def find_night(project: Project, number: int) -> Position:
    """An old night's place in the list; 1 is the newest."""
    async with project.connect() as connection:
        row = await (await connection.execute(FIND, (f"slot:old-night-{number}",))).fetchone()
    assert row is not None
    return Position(row[0].isoformat(), str(row[1]))


async def forget_new_nights(project: Project) -> None:
    """Leaves the old nights alone."""
    async with project.connect(superuser=True) as connection:
        await connection.execute(FORGET)
        await connection.execute(b"vacuum (analyze) " + TABLES)
    async with project.connect() as connection:
        await connection.execute(b"select pgmq.purge_queue(queue_name) from pgmq.list_queues()")
