-- Manual runs: all active mentors or chosen ones, all scenario types or some, dry or not, or a retry of what another run left
-- unfinished. They have no slot; a client's key makes a repeated request the same run.

-- p_invocation_id: chosen by the caller, so that a call repeated after a lost answer finds what it opened itself.
-- p_idempotency_key and p_request_hash: the client's key (null: none) and a digest of the request.
-- p_retry_of: evaluate what is left of that run's chain of retries (scheduler.retry_source), with the keys that the engine saw then.
-- p_triggered_by, p_requested_by and p_reason: the authenticated caller, the person that the request names, and why.
-- p_request_slice: the caller will not work on it, so request a slice at once.
-- p_config: also which scenario types apply to which mentors, by version p_scenario_version of their table. A retry evaluates by
-- its source's, and what has been switched off since is skipped.
-- Returns {"outcome", "invocation", "canary", "engine_answered_recently", "work"}; the outcome is one of
--   types_refused (by p_is_refused: the caller finds the request's types switched off, and the key stands for nothing),
--   scenarios_changed (the table has another version, and is there as "scenario_config"; nothing was opened),
--   opened, same (the key's invocation), other_request (the key stands for another request), deleted (the key's invocation was),
--   retry_source_unknown, retry_source_open, retry_already_open, nothing_to_retry, retry_window_closed;
-- the invocation is null unless it is opened or the same, the canary unless it is opened; the last two are there only where this
-- call opened it.
-- Raises MV001 instead of opening anything where the mentors' view has the wrong columns.
create function public.scheduler_open(
  p_invocation_id uuid,
  p_idempotency_key text,
  p_request_hash text,
  p_request jsonb,
  p_dry_run boolean,
  p_retry_of uuid,
  p_note text,
  p_triggered_by text,
  p_requested_by text,
  p_reason text,
  p_config jsonb,
  p_expires_after_hours integer,
  p_engine_key_ttl_hours integer,
  p_time_budget_seconds integer,
  p_request_slice boolean,
  p_scenario_version text,
  p_is_refused boolean
) returns jsonb
language plpgsql security definer set search_path = '' set statement_timeout = '50s' as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_key constant text := coalesce('key:' || p_idempotency_key, 'id:' || p_invocation_id);
  v_known public.scheduler_invocations;
  v_named public.scheduler_invocations;
  v_source public.scheduler_invocations;
  v_first_run uuid;
  v_dry_run boolean := p_dry_run;
  v_config jsonb := p_config;
  v_scenario_config jsonb;
  v_scope text := 'manual:' || p_invocation_id;
  v_scope_since timestamptz := v_now;
  v_expires_at timestamptz := v_now + make_interval(hours => p_expires_after_hours);
begin
  -- A retry whose source has expired, or whose predecessor has, must not wait for the next tick.
  perform scheduler.expire();

  select * into v_known from public.scheduler_invocations where idempotency_key = v_key;
  if found then
    return scheduler.outcome_of_known_key(v_known, p_invocation_id, p_request_hash);
  end if;
  perform public.scheduler_check_mentors_view();
  v_scenario_config := scheduler.changed_scenario_config(p_scenario_version);
  if v_scenario_config is not null then
    return jsonb_build_object(
      'outcome', 'scenarios_changed', 'invocation', null, 'canary', null, 'scenario_config', v_scenario_config
    );
  end if;
  if p_is_refused then
    return jsonb_build_object('outcome', 'types_refused', 'invocation', null, 'canary', null);
  end if;

  if p_retry_of is not null then
    select coalesce(i.first_run, i.id) into v_first_run from public.scheduler_invocations as i where i.id = p_retry_of;
    -- Held until the retry is there to be seen: no other is opened, and ended, between the choice of its source and its own opening,
    -- and what it reads from is not pruned. All that is shown of the chain, because its first run may be pruned already; none that
    -- is open, because those are locked before, where they expire; none that was deleted, because scheduler.prune() locks such a run
    -- before its retries.
    perform from public.scheduler_invocations as i
      where v_first_run in (i.id, i.first_run) and i.finished_at is not null and i.deleted_at is null
      order by i.id
        for no key update;
    select * into v_named from public.scheduler_invocations where id = p_retry_of and deleted_at is null;
    select * into v_source from scheduler.retry_source(v_named);
    v_dry_run := p_dry_run or v_named.dry_run;
    case
      when v_named.id is null then
        return jsonb_build_object('outcome', 'retry_source_unknown', 'invocation', null, 'canary', null);
      when v_named.finished_at is null then
        return jsonb_build_object('outcome', 'retry_source_open', 'invocation', null, 'canary', null);
      when not scheduler.has_left(v_source, coalesce((p_request -> 'include_unknown')::boolean, false)) then
        return jsonb_build_object('outcome', 'nothing_to_retry', 'invocation', null, 'canary', null);
      -- What was ended early may still be in a worker's hands for a time budget and ten seconds to record. Without idempotency the
      -- engine would act twice on what that worker sends meanwhile.
      when not coalesce(p_config -> 'engine_supports' ? 'idempotency', true)
        and not v_dry_run
        and v_source.finished_at > v_now - make_interval(secs => p_time_budget_seconds + 10)
        and exists (
          select from public.scheduler_invocation_batches where invocation_id = v_source.id and state = 'abandoned'
        )
      then
        return jsonb_build_object('outcome', 'retry_source_open', 'invocation', null, 'canary', null);
      else
        v_config := jsonb_set(v_config, '{scenarios,source}', coalesce(
          v_source.config -> 'scenarios' -> 'source', v_source.config -> 'scenarios'
        ));
    end case;
    if not v_dry_run then
      -- The keys of the first run of this scope: the engine repeats what it did then, and does nothing twice. So all must be
      -- over before it forgets the first of them.
      v_scope := v_source.engine_scope;
      v_scope_since := v_source.engine_scope_since;
      v_expires_at := least(v_expires_at, v_scope_since + make_interval(hours => p_engine_key_ttl_hours));
      if v_expires_at <= v_now then
        return jsonb_build_object('outcome', 'retry_window_closed', 'invocation', null, 'canary', null);
      end if;
    end if;
  end if;
  if v_dry_run then
    v_scope := 'dry:' || p_invocation_id;
  end if;

  perform set_config('scheduler.actor', p_triggered_by, true);
  insert into public.scheduler_invocations
    (id, idempotency_key, request_hash, trigger, triggered_by, requested_by, reason, scheduled_for, invoked_at, expires_at, dry_run,
     retry_of, first_run, request, config, engine_scope, engine_scope_since, note)
  values
    (p_invocation_id, v_key, p_request_hash, case when p_retry_of is null then 'manual' else 'retry' end, p_triggered_by,
     p_requested_by, p_reason, v_now, v_now, v_expires_at, v_dry_run, v_source.id, v_first_run, p_request, v_config, v_scope,
     v_scope_since, p_note)
  on conflict do nothing;
  if not found then
    -- Another call was faster, by the key or by the one retry of its chain that may be open.
    select * into v_known from public.scheduler_invocations where idempotency_key = v_key;
    if found then
      return scheduler.outcome_of_known_key(v_known, p_invocation_id, p_request_hash);
    end if;
    return jsonb_build_object('outcome', 'retry_already_open', 'invocation', null, 'canary', null);
  end if;
  if p_request_slice then
    perform scheduler.request_slices();
  end if;
  return jsonb_build_object(
    'outcome', 'opened',
    'invocation', scheduler.describe_invocation(p_invocation_id),
    'canary', scheduler.canary(),
    'engine_answered_recently', scheduler.engine_answered_since(v_now - make_interval(secs => p_time_budget_seconds)),
    'work', (select scheduler.describe_work(i) from public.scheduler_invocations as i where i.id = p_invocation_id)
  );
end
$$;

-- The run whose remains a retry of p_named evaluates: the newest of the chain that has ended and was not dry; where all are dry, the
-- newest. A retry carries with it all that its source left, so nothing is left of the chain but what is left of that run. One that
-- was deleted counts as long as one before it is shown, which is as long as scheduler.prune() leaves it whole.
create function scheduler.retry_source(p_named public.scheduler_invocations) returns public.scheduler_invocations
language sql stable set search_path = '' as $$
  select i.*
    from public.scheduler_invocations as i
   where coalesce(p_named.first_run, p_named.id) in (i.id, i.first_run)
     and i.finished_at >= (
       select min(shown.finished_at)
         from public.scheduler_invocations as shown
        where coalesce(p_named.first_run, p_named.id) in (shown.id, shown.first_run) and shown.deleted_at is null
     )
   order by i.dry_run, i.finished_at desc
   limit 1
$$;

-- Whether a retry that reads from this run finds something to evaluate; p_include_unknown: pairs as well whose outcome the engine
-- left unknown, and may have acted on. What was not read counts as something.
create function scheduler.has_left(p_source public.scheduler_invocations, p_include_unknown boolean) returns boolean
language sql stable set search_path = '' as $$
  select not p_source.enumeration_done or exists (
    select from public.scheduler_invocation_batches as b
     where b.invocation_id = p_source.id and (b.mentors_left > 0 or (p_include_unknown and b.mentors_unknown > 0))
  )
$$;

create function scheduler.outcome_of_known_key(
  p_known public.scheduler_invocations, p_invocation_id uuid, p_request_hash text
) returns jsonb
language sql stable set search_path = '' as $$
  select case
    when p_known.deleted_at is not null then jsonb_build_object('outcome', 'deleted', 'invocation', null, 'canary', null)
    when p_known.request_hash is distinct from p_request_hash then
      jsonb_build_object('outcome', 'other_request', 'invocation', null, 'canary', null)
    else jsonb_build_object(
      'outcome', case p_known.id when p_invocation_id then 'opened' else 'same' end,
      'invocation', scheduler.describe_invocation(p_known.id),
      'canary', null
    ) || case p_known.id when p_invocation_id then jsonb_build_object('work', scheduler.describe_work(p_known)) else '{}' end
  end
$$;

-- Which of these mentors are active, and in which segments: [{"user_id", "segments"}, …]. One jsonb, because the Data API
-- cuts rows; not a definer's, because the view shows what its reader may see.
-- Where a mentor's rows have more than 200,000 bytes of segments as JSON, they are returned as {null}, here and below, which the
-- function skips as invalid_segments: so 50 mentors always fit in the 16 MiB that it reads of an answer.
-- This and what follows is PL/pgSQL for the check: a language sql body fails on a column of the wrong type before it runs.
create function public.scheduler_active_mentors(p_user_ids uuid[]) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  perform public.scheduler_check_mentors_view();
  return (
    select coalesce(jsonb_agg(distinct jsonb_build_object(
          'user_id', mentor.user_id,
          'segments', case when mentor.bytes > 200000 then '{null}' else mentor.segments end
        )), '[]')
      from (
        select active.user_id, active.segments,
               sum(octet_length(to_json(active.segments)::text)) over (partition by active.user_id) as bytes
          from public.active_peer_mentors as active
         where active.user_id = any (p_user_ids)
      ) as mentor
  );
end
$$;

-- A keyset page of the active mentors: about p_rows rows of the view from after p_after (null: from the start), in one answer
-- that the Data API does not cut, and grouped by their segments, which many share. Returns {"groups": [{"segments",
-- "user_ids"}, …], "is_last": no row comes after it}. A mentor's rows are all in one page.
-- Not SECURITY DEFINER, because the view shows what its reader may see. A team's view may be slow.
create function public.scheduler_active_mentors_page(p_after uuid, p_rows integer) returns json
language plpgsql stable set search_path = '' set statement_timeout = '30s' as $$
begin
  perform public.scheduler_check_mentors_view();
  return (
  with page as materialized (
    select mentor.user_id, mentor.segments
      from public.active_peer_mentors as mentor
     where mentor.user_id >= coalesce(p_after, '00000000-0000-0000-0000-000000000000')
       and mentor.user_id is distinct from p_after
     order by mentor.user_id
     -- An empty page is not the end.
     fetch first greatest(p_rows, 1) rows with ties
  ), sized as (
    select page.*, sum(octet_length(to_json(page.segments)::text)) over (partition by page.user_id) as bytes from page
  ), alike as (
    select part.segments, array_agg(distinct part.user_id) as user_ids
      from sized
     cross join lateral (
       select case when sized.bytes > 200000 then '{null}' else sized.segments end as segments, sized.user_id
     ) as part
     group by part.segments
  )
  select json_build_object(
    'groups', coalesce((select json_agg(alike) from alike), '[]'),
    'is_last', (select count(*) < greatest(p_rows, 1) from page)
  )
  );
end
$$;

-- How many rows of the view have no user_id: they are in no page. Apart from the pages, because it may read the view in whole.
create function public.scheduler_mentors_without_user_id() returns integer
language plpgsql stable set search_path = '' set statement_timeout = '30s' as $$
begin
  perform public.scheduler_check_mentors_view();
  return (select count(*) from public.active_peer_mentors as mentor where mentor.user_id is null);
end
$$;

-- What a run left, some p_mentors of them from after user p_after_user_id: failed, not evaluated, or skipped by a retry because its
-- type was off or its outcome unknown.
-- Returns {"mentors": [{"user_id", "scenario_types", "unknown_types": those of them that failed as outcome_unknown and were not
-- evaluated since, "active": whether still active, "organizations": of p_organizations}, …], "last_user_id": the last user of the page,
-- null when none is left, "remaining": the run's own enumeration, which may have been cut off}, or null when there is no such run. One
-- that was deleted still has its rows until they are pruned, and a retry under way continues.
-- A page holds whole ranges of users as they were enumerated, and not batches: one that is recorded late may still fall into
-- parts, and its users must not come a second time with the later of them.
create function public.scheduler_unfinished(
  p_invocation_id uuid, p_after_user_id uuid, p_mentors integer, p_organizations text[] default '{}'
) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  perform public.scheduler_check_mentors_view();
  return (
  with unfinished as (
    select b.first_user_id, b.last_user_id,
           sum(least(b.mentors_left + b.mentors_unknown, b.mentors)) as at_most
      from public.scheduler_invocation_batches as b
     where b.invocation_id = p_invocation_id
       and b.first_user_id >= coalesce(p_after_user_id, '00000000-0000-0000-0000-000000000000')
       and b.first_user_id is distinct from p_after_user_id
       and b.state <> 'open'
       and (b.mentors_left > 0 or b.mentors_unknown > 0)
     group by b.first_user_id, b.last_user_id
     order by b.first_user_id
     -- An empty page is not the end.
     limit greatest(p_mentors, 1)
  ), page as (
    select counted.*
      from (select unfinished.*, sum(at_most) over (order by first_user_id) - at_most as before from unfinished) as counted
     where counted.before < greatest(p_mentors, 1)
  ), pair as (
    select user_id::uuid as user_id, scenario_type,
           coalesce(grouped.value -> 'unknown' ? scenario_type, false) as is_unknown
      from page
      join public.scheduler_invocation_batches as b
        on b.invocation_id = p_invocation_id and b.first_user_id = page.first_user_id and b.state = 'abandoned'
     cross join jsonb_array_elements(b.pairs) as grouped
     cross join jsonb_array_elements_text(grouped.value -> 'user_ids') as user_id
     cross join jsonb_array_elements_text(grouped.value -> 'scenario_types') as scenario_type
    union all
    select e.user_id, e.scenario_type, e.error_code = 'outcome_unknown'
      from page
      join public.scheduler_evaluations as e
        on e.invocation_id = p_invocation_id
       and e.user_id between page.first_user_id and page.last_user_id
       and (e.outcome = 'failed' or (e.outcome = 'skipped' and e.error_code in ('scenario_disabled', 'outcome_unknown')))
  ), mentor as (
    select user_id,
           jsonb_agg(scenario_type order by scenario_type) as scenario_types,
           jsonb_agg(scenario_type order by scenario_type) filter (where is_unknown) as unknown_types
      from pair
     group by user_id
  )
  select jsonb_build_object(
      'mentors', (
        select coalesce(jsonb_agg(jsonb_build_object(
            'user_id', mentor.user_id,
            'scenario_types', mentor.scenario_types,
            'unknown_types', coalesce(mentor.unknown_types, '[]'),
            'active', exists (select from public.active_peer_mentors as active where active.user_id = mentor.user_id),
            'organizations', (
              select coalesce(jsonb_agg(name), '[]')
                from unnest(p_organizations) as name
               where exists (
                 select from public.active_peer_mentors as active
                  where active.user_id = mentor.user_id and 'org:' || name = any (active.segments)
               )
            )
          ) order by mentor.user_id), '[]')
          from mentor
      ),
      'last_user_id', (select last_user_id from page order by first_user_id desc limit 1),
      'remaining', jsonb_build_object(
        'trigger', i.trigger, 'retry_of', i.retry_of, 'request', i.request,
        'enumeration_cursor', i.enumeration_cursor, 'enumeration_done', i.enumeration_done
      )
    )
    from public.scheduler_invocations as i
   where i.id = p_invocation_id
  );
end
$$;

revoke all on function
  scheduler.outcome_of_known_key(public.scheduler_invocations, uuid, text),
  scheduler.retry_source(public.scheduler_invocations), scheduler.has_left(public.scheduler_invocations, boolean)
from public, anon, authenticated, service_role;
revoke all on function
  public.scheduler_open(
    uuid, text, text, jsonb, boolean, uuid, text, text, text, text, jsonb, integer, integer, integer, boolean, text, boolean
  ),
  public.scheduler_active_mentors(uuid[]),
  public.scheduler_active_mentors_page(uuid, integer),
  public.scheduler_mentors_without_user_id(),
  public.scheduler_unfinished(uuid, uuid, integer, text[])
from public, anon, authenticated;
grant execute on function
  public.scheduler_open(
    uuid, text, text, jsonb, boolean, uuid, text, text, text, text, jsonb, integer, integer, integer, boolean, text, boolean
  ),
  public.scheduler_active_mentors(uuid[]),
  public.scheduler_active_mentors_page(uuid, integer),
  public.scheduler_mentors_without_user_id(),
  public.scheduler_unfinished(uuid, uuid, integer, text[])
to service_role;
