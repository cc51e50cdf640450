-- As many runs that succeeded as the setting benchmark.runs says, each with one batch of 25 mentors and their 50 results.

-- The rows are consistent: checking each row's run would take longer than everything else.
set local session_replication_role = replica;

-- A minute apart, the last of them two days ago: their number matters, not their age.
insert into public.scheduler_invocations (
  id, idempotency_key, trigger, triggered_by, status, scheduled_for, invoked_at, started_at, finished_at, expires_at,
  engine_scope, engine_scope_since, enumeration_done, next_batch_no, pages_processed, end_is_logged
)
select
  scheduler.time_ordered_id(run.at), 'slot:old-' || n, 'schedule', 'pg_cron', 'success', run.at, run.at, run.at,
  run.at + interval '10 seconds', run.at + interval '20 hours', 'slot:old-' || n, run.at, true, 2, 1, true
from generate_series(1, current_setting('benchmark.runs')::integer) as n
cross join lateral (select now() - interval '2 days' - make_interval(mins => n) as at) as run;

with users as (
  select jsonb_agg(user_id order by user_id) as ids, min(user_id::text)::uuid as first, max(user_id::text)::uuid as last
  from (select md5('peer-mentor-' || m)::uuid as user_id from generate_series(1, 25) as m) as chosen
)
insert into public.scheduler_invocation_batches (
  invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, queue, msg_id, state, deliveries,
  triggered, users_evaluated, scenario_counts, duration_ms, worker, finished_at
)
select
  i.id, 1, jsonb_build_array(jsonb_build_object(
    'scenario_types', '["inactivity", "milestone"]'::jsonb, 'user_ids', users.ids)),
  users.first, users.last, 25, 50, 'scenario_evaluation_batches', 0, 'done', 1, 50, 25,
  '{"inactivity": {"triggered": 25}, "milestone": {"triggered": 25}}', 500, 'old', i.finished_at
from public.scheduler_invocations as i
cross join users
where i.idempotency_key like 'slot:old-%';

insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome, notification_id)
select i.id, md5('peer-mentor-' || m)::uuid, type.value, 'triggered', 'n-' || m
from public.scheduler_invocations as i
cross join generate_series(1, 25) as m
cross join unnest(array['inactivity', 'milestone']) as type (value)
where i.idempotency_key like 'slot:old-%';
