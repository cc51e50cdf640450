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

-- The 20 commonest causes of an invocation's failures, the commonest first: [{"code", "count", "is_lower_bound"}, …]. Added up
-- from what each batch keeps, so the cost grows with the batches and not with the rows of evaluations. A batch that has more
-- causes than it keeps may have dropped any that is not among those it keeps: the count of such a cause is a lower bound.
create function scheduler.commonest_causes(p_invocation_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  with failing as (
    select b.failure_counts,
           b.failed > (select coalesce(sum(kept.value::integer), 0) from jsonb_each_text(b.failure_counts) as kept) as dropped
      from public.scheduler_invocation_batches as b
     where b.invocation_id = p_invocation_id and b.failed > 0
  ), cause as (
    select kept.key as code, sum(kept.value::integer) as pairs,
           count(*) filter (where failing.dropped) < (select count(*) from failing where dropped) as is_lower_bound
      from failing
     cross join jsonb_each_text(failing.failure_counts) as kept
     group by kept.key
     order by pairs desc, kept.key collate "C"
     limit 20
  )
  select coalesce(jsonb_agg(
      jsonb_build_object('code', code, 'count', pairs, 'is_lower_bound', is_lower_bound) order by pairs desc, code collate "C"
    ), '[]')
    from cause
$$;

-- What is shown of a cause: a message, and the ids of at most 10 users to start looking from. Read from the causes' index, also
-- where the plan was made when the table was small, or the statistics say that a run has one code only: the table, or all rows
-- of the run, would be searched for the first ten. A range of one code, because a constant is not sorted by.
create function scheduler.sample_of_cause(p_invocation_id uuid, p_code text) returns jsonb
language sql stable set search_path = '' set enable_seqscan = off set enable_bitmapscan = off as $$
  select jsonb_build_object(
      'message', min(sample.error_message),
      'sample_user_ids', coalesce(jsonb_agg(distinct sample.user_id), '[]')
    )
    from (
      select e.user_id, e.error_message
        from public.scheduler_evaluations as e
       where e.invocation_id = p_invocation_id and e.outcome = 'failed' and e.error_code >= p_code and e.error_code <= p_code
       order by e.error_code
       limit 10
    ) as sample
$$;

-- An invocation in a list: how it stands and its counts, and nothing that would have to be searched for. No user ids.
create function scheduler.summarize_invocation(p_invocation_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'id', i.id,
    'trigger', i.trigger,
    'triggered_by', i.triggered_by,
    'requested_by', i.requested_by,
    'reason', i.reason,
    'status', i.status,
    'dry_run', i.dry_run,
    'scheduled_for', i.scheduled_for,
    'invoked_at', i.invoked_at,
    'started_at', i.started_at,
    'finished_at', i.finished_at,
    'expires_at', i.expires_at,
    'duration_ms', round(extract(epoch from i.finished_at - i.started_at) * 1000)::bigint,
    'lateness_seconds', round(extract(epoch from i.started_at - i.scheduled_for))::bigint,
    'retry_of', i.retry_of,
    'note', i.note,
    'error_code', i.error_code,
    'error_message', i.error_message,
    'skip_reasons', i.skip_reasons,
    'pages_processed', i.pages_processed
  ) || (
    select jsonb_build_object(
        'users_evaluated', coalesce(sum(b.users_evaluated), 0),
        -- A dry run sends none.
        'notifications_dispatched', case when i.dry_run then 0 else coalesce(sum(b.triggered), 0) end,
        'mentors_remaining', coalesce(sum(b.mentors) filter (where b.state <> 'done'), 0),
        'counts', jsonb_build_object(
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
      )
      from public.scheduler_invocation_batches as b
     where b.invocation_id = i.id
  )
    from public.scheduler_invocations as i
   where i.id = p_invocation_id
$$;

-- A single invocation: its summary, its outcomes by scenario type, and why pairs failed. `other_failures` counts the failed
-- pairs that the counts of the shown causes do not hold, so that both together are `counts.failed`.
create function scheduler.describe_invocation(p_invocation_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select found.summary || jsonb_build_object(
      'scenarios', scheduler.count_by_scenario(p_invocation_id),
      'failures', (
        select coalesce(jsonb_agg(
            cause.value || scheduler.sample_of_cause(p_invocation_id, cause.value ->> 'code') order by cause.position
          ), '[]')
          from jsonb_array_elements(found.causes) with ordinality as cause (value, position)
      ),
      'other_failures', jsonb_build_object('count', (found.summary -> 'counts' ->> 'failed')::bigint - (
        select coalesce(sum((cause.value ->> 'count')::bigint), 0) from jsonb_array_elements(found.causes) as cause
      ))
    )
    from (
      select scheduler.summarize_invocation(p_invocation_id) as summary, scheduler.commonest_causes(p_invocation_id) as causes
      offset 0
    ) as found
$$;

revoke all on function
  scheduler.slot_key(timestamptz), scheduler.count_by_scenario(uuid), scheduler.commonest_causes(uuid),
  scheduler.sample_of_cause(uuid, text), scheduler.summarize_invocation(uuid), scheduler.describe_invocation(uuid)
from public, anon, authenticated, service_role;
