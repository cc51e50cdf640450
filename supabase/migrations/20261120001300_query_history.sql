-- Queries: the list of invocations, one of them in detail, one mentor's history, and the last scheduled run that ended well.

-- The results of one mentor in one run: [{"scenario_type", "outcome", "error_code", "error_message", "notification_id"}, …], the
-- outcome null while it is open; null when the mentor is not in it. The batch is found by the range that it was enumerated with, which
-- other batches may share; the outcome of pairs without a row follows from the batch.
create function scheduler.results_of_user(p_invocation_id uuid, p_user_id uuid) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_agg(jsonb_build_object(
      'scenario_type', scenario.value,
      'outcome', coalesce(e.outcome, case b.state when 'done' then 'not_triggered' when 'abandoned' then 'not_evaluated' end),
      'error_code', e.error_code,
      'error_message', e.error_message,
      'notification_id', e.notification_id
    ) order by scenario.value)
    from (
      select first_user_id from public.scheduler_invocation_batches
       where invocation_id = p_invocation_id and first_user_id <= p_user_id
       order by first_user_id desc
       limit 1
    ) as enumerated
    join public.scheduler_invocation_batches as b
      on b.invocation_id = p_invocation_id and b.first_user_id = enumerated.first_user_id
   cross join jsonb_array_elements(b.pairs) as grouped
   cross join jsonb_array_elements_text(grouped.value -> 'scenario_types') as scenario
    left join public.scheduler_evaluations as e
      on e.invocation_id = p_invocation_id and e.user_id = p_user_id and e.scenario_type = scenario.value
   where b.last_user_id >= p_user_id
     and grouped.value -> 'user_ids' ? p_user_id::text
$$;

-- The newest first, p_limit of them from after (p_after_invoked_at, p_after_id): a position that stays where it is when newer
-- ones are opened meanwhile. A null filter is none. p_user_id: only runs with this mentor, each with their "results".
-- Only batches show which runs a mentor was in, so such a page searches 2,000 runs at most. The next page begins after the
-- last one searched, and the page may have fewer items than p_limit, even none.
-- p_offset: how many to pass over first; with a position or a mentor it is 0.
-- Returns {"items": […], "next": {"invoked_at", "id"}, or null at the end, "total": how many match the filters, null with p_user_id}.
create function public.scheduler_list(
  p_statuses text[],
  p_trigger text[],
  p_triggered_by text[],
  p_scheduled_from timestamptz,
  p_scheduled_to timestamptz,
  p_user_id uuid,
  p_limit integer,
  p_offset integer,
  p_after_invoked_at timestamptz,
  p_after_id uuid
) returns jsonb
language sql stable security definer set search_path = '' set statement_timeout = '20s' as $$
  with matching as not materialized (
    select i.id, i.invoked_at
      from public.scheduler_invocations as i
     where i.deleted_at is null
       and (p_statuses is null or i.status = any (p_statuses))
       and (p_trigger is null or i.trigger = any (p_trigger))
       and (p_triggered_by is null or i.triggered_by = any (p_triggered_by))
       and (p_scheduled_from is null or i.scheduled_for >= p_scheduled_from)
       and (p_scheduled_to is null or i.scheduled_for <= p_scheduled_to)
  ), found as (
    select looked_into.id,
           looked_into.invoked_at,
           results.results,
           p_user_id is null or results.results is not null as is_listed,
           looked_into.is_last,
           row_number() over (order by looked_into.invoked_at desc, looked_into.id) as position
      from (
        select i.id,
               i.invoked_at,
               p_user_id is not null and row_number() over (order by i.invoked_at desc, i.id) = 2000 as is_last
          from matching as i
           -- Where the index is entered, also by a generic plan, which is made without the position.
         where i.invoked_at <= coalesce(p_after_invoked_at, 'infinity')
           and (p_after_invoked_at is null or i.invoked_at < p_after_invoked_at or i.id > p_after_id)
         order by i.invoked_at desc, i.id
         limit case when p_user_id is null then p_limit + 1 else 2000 end
        offset p_offset
      ) as looked_into
     cross join lateral (
       select case when p_user_id is not null then scheduler.results_of_user(looked_into.id, p_user_id) end as results
     ) as results
     where p_user_id is null or results.results is not null or looked_into.is_last
     order by looked_into.invoked_at desc, looked_into.id
     limit p_limit + 1
  )
  select jsonb_build_object(
    'items', coalesce(
      jsonb_agg(
        scheduler.summarize_invocation(found.id)
          || case when p_user_id is null then '{}' else jsonb_build_object('results', found.results) end
        order by found.position
      ) filter (where found.position <= p_limit and found.is_listed), '[]'
    ),
    'next', case when count(*) > p_limit or bool_or(found.is_last) then (
      select jsonb_build_object('invoked_at', last.invoked_at, 'id', last.id)
        from found as last
       where last.position <= p_limit
       order by last.position desc
       limit 1
    ) end,
    'total', case when p_user_id is null then (select count(*) from matching) end
  )
    from found
$$;

-- The used slots from p_from to p_to, both included, the newest first, each with the schedule that was in force:
-- [{"scheduled_for", "schedule", "timezone"}, …]. Of runs that were deleted as well: theirs were not missed. At most 1,000 and
-- the latest before them: a gap has two ends. A slot's key sorts as its time does, so the keys' index is the slots'.
create function public.scheduler_used_slots(p_from timestamptz, p_to timestamptz) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
      'scheduled_for', spent.scheduled_for,
      'schedule', spent.config -> 'evaluation_schedule',
      'timezone', spent.config -> 'evaluation_timezone'
    ) order by spent.scheduled_for desc), '[]')
    from (
      select i.scheduled_for, i.config
        from public.scheduler_invocations as i
       where i.idempotency_key between scheduler.slot_key(p_from) and scheduler.slot_key(p_to)
       order by i.idempotency_key desc
       limit 1001
    ) as spent
$$;

-- The stored results of a run, in the order of users and scenario types, from after (p_after_user_id, p_after_scenario_type): all
-- outcomes but not_triggered and not_evaluated, which have no rows. A null filter is none. A page searches 50,000 rows at most
-- and holds some 8 MB at most, so it may be short, or empty, before the end. By the index only: a bitmap, or a search of the whole
-- table, would be made anew for each page.
-- Returns {"is_open": whether the run is, "items": […], "next": ["USER_ID", "SCENARIO_TYPE"], or null at the end}; null when there
-- is no such run.
create function public.scheduler_evaluations_page(
  p_invocation_id uuid,
  p_outcomes text[],
  p_code text,
  p_scenario_type text,
  p_limit integer,
  p_after_user_id uuid,
  p_after_scenario_type text
) returns json
language sql stable security definer set search_path = '' set statement_timeout = '20s'
set enable_seqscan = off set enable_bitmapscan = off as $$
  with searched as materialized (
    select e.*, row_number() over (order by e.user_id, e.scenario_type) as position
      from public.scheduler_evaluations as e
     where e.invocation_id = p_invocation_id
       -- Where the index is entered, also by a plan that does not know whether there is a position to go on from.
       and (e.user_id, e.scenario_type)
         > (coalesce(p_after_user_id, '00000000-0000-0000-0000-000000000000'), coalesce(p_after_scenario_type, ''))
     order by e.user_id, e.scenario_type
     -- What is not filtered is not searched.
     limit case when coalesce(p_outcomes[1], p_code, p_scenario_type) is null then p_limit + 1 else 50000 end
  ), found as (
    select searched.*,
           row_number() over (order by position) as listed,
           sum(150 + octet_length(concat(error_message, notification_id))) over (order by position) as bytes
      from searched
     where (p_outcomes is null or outcome = any (p_outcomes))
       and (p_code is null or error_code = p_code)
       and (p_scenario_type is null or scenario_type = p_scenario_type)
  ), page as (
    select * from found where listed <= p_limit and (bytes <= 8000000 or listed = 1)
  ), last as (
    -- The last row of a page that is cut, otherwise the last one searched.
    select case when (select count(*) from page) < (select count(*) from found)
             then (select max(position) from page) else (select max(position) from searched)
           end as position
  )
  select json_build_object(
      'is_open', i.finished_at is null,
      'items', (
        select coalesce(json_agg(json_build_object(
            'user_id', user_id, 'scenario_type', scenario_type, 'outcome', outcome, 'attempts', attempts,
            'error_code', error_code, 'error_message', error_message, 'notification_id', notification_id
          ) order by position), '[]')
          from page
      ),
      'next', (
        select json_build_array(searched.user_id, searched.scenario_type)
          from last
          join searched on searched.position = last.position
         where searched.position < (select max(position) from searched) or searched.position = 50000
      )
    )
    from public.scheduler_invocations as i
   where i.id = p_invocation_id and i.deleted_at is null
$$;

-- One invocation with everything that is known of it, or null: its description, its first 1,000 batches, the request (of
-- chosen users how many, and ten of them) and the settings, ten of the users who were not evaluated, whether all mentors were
-- read, what a retry would evaluate (null where none can be opened), and the function's answers to the calls for slices while it
-- was due or open. Those calls are not made for one run, so all of that time are shown, counted by answer: the 20 latest answers,
-- because pg_net's errors say how many milliseconds something took.
create function public.scheduler_get(p_invocation_id uuid, p_engine_key_ttl_hours integer) returns jsonb
language sql stable security definer set search_path = '' set statement_timeout = '20s' as $$
  select scheduler.describe_invocation(i.id) || jsonb_build_object(
      'request', jsonb_build_object(
        'users', case jsonb_typeof(i.request -> 'user_ids') when 'array' then jsonb_array_length(i.request -> 'user_ids') end,
        'sample_user_ids', jsonb_path_query_array(i.request, '$.user_ids[0 to 9] ? (@ != null)'),
        'scenario_types', i.request -> 'scenario_types'
      ),
      'config', i.config,
      'enumeration_done', i.enumeration_done,
      'retry', (
        select jsonb_build_object('invocation_id', source.id, 'mentors', case when source.enumeration_done then (
            select sum(b.mentors_left) from public.scheduler_invocation_batches as b where b.invocation_id = source.id
          ) end)
          from scheduler.retry_source(i) as source
         where i.finished_at is not null
           and not exists (
             select from public.scheduler_invocations as retry
              where retry.first_run = coalesce(i.first_run, i.id) and retry.finished_at is null
           )
           and (i.dry_run or source.engine_scope_since + make_interval(hours => p_engine_key_ttl_hours) > clock_timestamp())
           and scheduler.has_left(source, false)
      ),
      'not_evaluated_user_ids', (
        select coalesce(jsonb_agg(distinct waiting.user_id), '[]')
          from (
            select user_id
              from (
                select b.pairs from public.scheduler_invocation_batches as b
                 where b.invocation_id = i.id and b.state = 'abandoned'
                 order by b.batch_no
                 limit 10
              ) as abandoned
             cross join jsonb_array_elements(abandoned.pairs) as grouped
             cross join jsonb_array_elements_text(grouped.value -> 'user_ids') as user_id
             limit 10
          ) as waiting
      ),
      'batch_results', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'batch_index', b.batch_no, 'user_count', b.mentors,
            'notifications_sent', case when i.dry_run then 0 else b.triggered end,
            'failed', b.failed, 'duration_ms', b.duration_ms, 'status', b.state
          ) order by b.batch_no), '[]')
          from (
            select * from public.scheduler_invocation_batches where invocation_id = i.id order by batch_no limit 1000
          ) as b
      ),
      'dispatches', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'status_code', answer.status_code, 'error', answer.error, 'count', answer.n,
            'first_at', answer.first_at, 'last_at', answer.last_at
          ) order by answer.last_at desc), '[]')
          from (
            select d.status_code, d.error, count(*) as n, min(d.requested_at) as first_at, max(d.requested_at) as last_at
              from scheduler.dispatches as d
             where d.requested_at >= i.scheduled_for
               and d.requested_at <= coalesce(i.finished_at, 'infinity')
             group by d.status_code, d.error
             order by last_at desc
             limit 20
          ) as answer
      )
    )
    from public.scheduler_invocations as i
   where i.id = p_invocation_id and i.deleted_at is null
$$;

-- The last scheduled run that ended well: not dry, and at least partly done. One without mentors has failed, unless its
-- configuration calls that a success. It counts also if it was deleted since.
create function scheduler.last_success() returns public.scheduler_invocations
language sql stable set search_path = '' as $$
  select i.*
    from public.scheduler_invocations as i
   where i.finished_at is not null
     and i.trigger = 'schedule'
     and not i.dry_run
     and i.status in ('success', 'partial')
   order by i.finished_at desc
   limit 1
$$;

-- For a dead-man's check. Returns {"clock": now, "run": {"scheduled_for", "finished_at", "status"}, or null where there is none,
-- "paused_at": since when the schedule is paused, or null}: with the time, because the age of a run must not depend on a caller's
-- clock.
create function public.scheduler_last_success() returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object('clock', now(), 'run', (
      select jsonb_build_object('scheduled_for', good.scheduled_for, 'finished_at', good.finished_at, 'status', good.status)
        from scheduler.last_success() as good
       where good.id is not null
    ), 'paused_at', (select paused_at from scheduler.settings where coalesce(paused_until > now(), true)))
$$;

revoke all on function scheduler.results_of_user(uuid, uuid), scheduler.last_success()
from public, anon, authenticated, service_role;
revoke all on function
  public.scheduler_list(
    text[], text[], text[], timestamptz, timestamptz, uuid, integer, integer, timestamptz, uuid
  ),
  public.scheduler_evaluations_page(uuid, text[], text, text, integer, uuid, text),
  public.scheduler_used_slots(timestamptz, timestamptz),
  public.scheduler_get(uuid, integer),
  public.scheduler_last_success()
from public, anon, authenticated;
grant execute on function
  public.scheduler_list(
    text[], text[], text[], timestamptz, timestamptz, uuid, integer, integer, timestamptz, uuid
  ),
  public.scheduler_evaluations_page(uuid, text[], text, text, integer, uuid, text),
  public.scheduler_used_slots(timestamptz, timestamptz),
  public.scheduler_get(uuid, integer),
  public.scheduler_last_success()
to service_role;
