-- An invocation as callers see it: one JSON object, its counts derived from the batches.

create function scheduler.slot_key(p_slot timestamptz) returns text
language sql immutable set search_path = '' as $$
  select 'slot:' || to_char(p_slot at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
$$;

create function scheduler.count_by_scenario(p_invocation_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(per_type.scenario_type, per_type.outcomes), '{}')
    from (
      select counted.scenario_type, jsonb_object_agg(counted.outcome, counted.n) as outcomes
        from (
          select scenario.key as scenario_type, outcome.key as outcome, sum(outcome.value::integer) as n
            from public.scheduler_invocation_batches as b
           cross join jsonb_each(b.scenario_counts) as scenario
           cross join jsonb_each_text(scenario.value) as outcome
           where b.invocation_id = p_invocation_id
           group by scenario.key, outcome.key
        ) as counted
       group by counted.scenario_type
    ) as per_type
$$;

-- Failures grouped by cause, the commonest first, with the user ids of some of each to start looking from.
create function scheduler.failures_by_cause(p_invocation_id uuid, p_sample integer default 10) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(
      jsonb_build_object('code', cause.error_code, 'count', cause.n, 'message', cause.message, 'sample_user_ids', (
        select jsonb_agg(distinct sample.user_id)
          from (
            select e.user_id
              from public.scheduler_evaluations as e
             where e.invocation_id = p_invocation_id and e.outcome = 'failed' and e.error_code = cause.error_code
             limit p_sample
          ) as sample
      )) order by cause.n desc, cause.error_code), '[]')
    from (
      select e.error_code, count(*) as n, min(e.error_message) as message
        from public.scheduler_evaluations as e
       where e.invocation_id = p_invocation_id and e.outcome = 'failed'
       group by e.error_code
    ) as cause
$$;

create function scheduler.describe_invocation(p_invocation_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'id', i.id,
    'triggered_by', i.triggered_by,
    'status', i.status,
    'dry_run', i.dry_run,
    'scheduled_for', i.scheduled_for,
    'created_at', i.created_at,
    'started_at', i.started_at,
    'finished_at', i.finished_at,
    'expires_at', i.expires_at,
    'lateness_seconds', round(extract(epoch from i.started_at - i.scheduled_for))::bigint,
    'retry_of', i.retry_of,
    'note', i.note,
    'error', i.error,
    'counts', (
      select jsonb_build_object(
        'mentors', coalesce(sum(b.mentors), 0) + i.mentors_skipped,
        'mentors_skipped', i.mentors_skipped,
        'batches', count(*),
        'batches_done', count(*) filter (where b.state = 'done'),
        'evaluations', coalesce(sum(b.evaluations), 0),
        'triggered', coalesce(sum(b.triggered), 0),
        'not_triggered', coalesce(sum(b.not_triggered), 0),
        'suppressed', coalesce(sum(b.suppressed), 0),
        'skipped', coalesce(sum(b.skipped), 0),
        'failed', coalesce(sum(b.failed), 0),
        'not_evaluated', coalesce(sum(b.not_evaluated), 0)
      )
        from public.scheduler_invocation_batches as b
       where b.invocation_id = i.id
    ),
    'scenarios', scheduler.count_by_scenario(i.id),
    'failures', scheduler.failures_by_cause(i.id)
  )
    from public.scheduler_invocations as i
   where i.id = p_invocation_id
$$;

revoke all on function
  scheduler.slot_key(timestamptz), scheduler.count_by_scenario(uuid), scheduler.failures_by_cause(uuid, integer),
  scheduler.describe_invocation(uuid)
from public, anon, authenticated, service_role;
