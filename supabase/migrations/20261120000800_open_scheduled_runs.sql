-- One slot, one invocation, however often and however simultaneously it is fired.

-- One pair that the engine has answered before, for telling an engine that is down from a user it cannot serve. Looked for in
-- the newest batches that have one: of the newest the rows may just be pruned. None of a forgotten person, of which the engine knows
-- nothing (scheduler.replace_user). By indexes only, as scheduler.sample_of_cause.
create function scheduler.canary() returns jsonb
language sql stable set search_path = '' set enable_seqscan = off set enable_bitmapscan = off as $$
  select jsonb_build_object('user_id', e.user_id, 'scenario_type', e.scenario_type)
    from (
      select b.invocation_id, b.first_user_id, b.last_user_id
        from public.scheduler_invocation_batches as b
       where b.triggered + b.suppressed > 0
       order by b.finished_at desc
       limit 10
    ) as answered
   cross join lateral (
     select pair.user_id, pair.scenario_type
       from public.scheduler_evaluations as pair
      where pair.invocation_id = answered.invocation_id
        and pair.user_id between answered.first_user_id and answered.last_user_id
        and pair.outcome in ('triggered', 'suppressed')
        and pair.error_code is null
      order by pair.user_id
      limit 1
   ) as e
   limit 1
$$;

-- Whether the engine evaluated a user after p_since, as far as is recorded: an engine that is down did not.
create function scheduler.engine_answered_since(p_since timestamptz) returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from public.scheduler_invocation_batches as b where b.users_evaluated > 0 and b.finished_at >= p_since
  )
$$;

-- The runs that SQL ended (expired, cancelled, marked as failed) and no slice has logged, 50 at most, with who ended them (null:
-- they expired); from now on they are logged. Rows that another transaction has locked are left to the next slice.
-- PL/pgSQL, because the audit's table is made later.
create function scheduler.take_unlogged_ends() returns jsonb
language plpgsql volatile set search_path = '' as $$
declare
  v_ended jsonb;
begin
  with taken as (
    update public.scheduler_invocations as i
       set end_is_logged = true
     where i.id in (
       select ended.id
         from public.scheduler_invocations as ended
        where ended.finished_at is not null and not ended.end_is_logged
        order by ended.finished_at
        limit 50
          for no key update skip locked
     )
    returning i.id, i.finished_at
  )
  select coalesce(jsonb_agg(jsonb_build_object(
      'invocation', scheduler.summarize_invocation(taken.id),
      'failures', scheduler.commonest_causes(taken.id),
      'ended_by', (
        select a.actor from public.scheduler_audit as a
         where a.invocation_id = taken.id and a.action in ('cancel', 'fail')
         order by a.at desc
         limit 1
      )
    ) order by taken.finished_at), '[]')
    into v_ended
    from taken;
  return v_ended;
end
$$;

-- What one slice is given to enumerate and to finish, the oldest first: all that is open, but not more than 50 runs, nor more
-- chosen users and configurations than about a megabyte, whatever waits. The scheduled run, of which there is one at most, comes first,
-- however many manual runs wait. What needs a slice comes before what only waits for its batches,
-- which any slice works on; so each slice takes some of what needs one away, and the next slice gets the others.
create function scheduler.open_for_a_slice() returns setof public.scheduler_invocations
language sql stable set search_path = '' as $$
  select i.*
    from (
      select waiting.id, sum(waiting.size) over (order by waiting.position) - waiting.size as size_before
        from (
          select open.id,
                 case when open.enumeration_done then 0 else pg_column_size(open.request) + pg_column_size(open.config) end as size,
                 row_number() over (
                   order by open.trigger <> 'schedule', open.enumeration_done and exists (
                     select from public.scheduler_invocation_batches as b
                      where b.invocation_id = open.id and b.state = 'open'
                   ), open.invoked_at, open.id
                 ) as position
            from public.scheduler_invocations as open
           where open.status in ('pending', 'running')
           order by position
           limit 50
        ) as waiting
    ) as given
    join public.scheduler_invocations as i on i.id = given.id
   where given.size_before < 1000000
$$;

-- An open run as a slice needs it. What its enumeration needs, and may be long, is there until all mentors are read.
create function scheduler.describe_work(p_invocation public.scheduler_invocations) returns jsonb
language sql immutable set search_path = '' as $$
  select jsonb_build_object(
    'id', p_invocation.id,
    'scheduled_for', p_invocation.scheduled_for,
    'trigger', p_invocation.trigger,
    'retry_of', p_invocation.retry_of,
    'enumeration_cursor', p_invocation.enumeration_cursor,
    'enumeration_done', p_invocation.enumeration_done
  ) || case
    when p_invocation.enumeration_done then '{}'
    else jsonb_build_object('request', p_invocation.request, 'scenarios', p_invocation.config -> 'scenarios')
  end
$$;

-- p_due_slot and p_next_slot are the schedule's latest fire time and the one after it, as the caller's clock has them; the
-- database's clock decides. Where the two clocks disagree about the slot nothing is done and the answer is only
-- {"clock": now}: the caller repeats the call with slots computed from that. So the usual case is one round trip.
--
-- Where the table of scenario types has another version than p_scenario_version, nothing is done either, and the answer has
-- "scenario_config", the table; the caller repeats the call with a p_config made from that.
--
-- Otherwise the answer is {"clock", "opened", "not_a_slot", "invocation", "open", "more_open", "canary",
-- "engine_answered_recently", "alert_due", "poison_overdue", "ended"}: whether
-- this call opened the slot, whether p_requested_slot names no slot, the slot's invocation (its summary; null: none), what is
-- open to work on, whether more is than this slice is given, a canary, whether an alert waits to be sent, and whether a poison
-- batch has waited for so long that it comes before all else, or it would wait for as long as other work does not end, and which
-- runs ended since the last slice without one that logged it. p_triggered_by: the caller, kept with what this call opens. The run
-- of a slot whose mentors' view has the wrong columns is opened as pending: reading the view is refused, and the run begins once
-- the view is fixed. Until then it is visible, raises an alert when it is late, and expires.
--
-- A slot that falls due in a pause, or is due and not open when the pause begins, is recorded as skipped, however late a call sees
-- it. That none has yet is known by next_due_at, as the end of the pause raises the high-water mark.
create function public.scheduler_open_slot(
  p_due_slot timestamptz,
  p_next_slot timestamptz,
  p_requested_slot timestamptz,
  p_missed_slot_max_gap_hours integer,
  p_expires_after_hours integer,
  p_max_workers integer,
  p_time_budget_seconds integer,
  p_retention_days integer,
  p_triggered_by text,
  p_config jsonb,
  p_scenario_version text,
  p_fires jsonb
) returns jsonb
language plpgsql security definer set search_path = '' set statement_timeout = '50s' as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_scenario_config constant jsonb := scheduler.changed_scenario_config(p_scenario_version);
  v_settings scheduler.settings;
  v_invocation_id uuid;
  v_opened boolean := false;
  v_known boolean;
  v_has_changes boolean;
  v_is_paused boolean;
  v_view_is_invalid boolean;
  v_open jsonb;
begin
  if not (p_due_slot <= v_now and v_now < p_next_slot) then
    return jsonb_build_object('clock', v_now);
  end if;
  if v_scenario_config is not null then
    return jsonb_build_object('clock', v_now, 'scenario_config', v_scenario_config);
  end if;

  select * into v_settings from scheduler.settings;
  v_has_changes := (v_settings.next_due_at, v_settings.max_workers, v_settings.time_budget_seconds, v_settings.retention_days)
      is distinct from (p_next_slot, p_max_workers, p_time_budget_seconds, p_retention_days)
    or v_settings.slot_high_water_mark is null
    or v_settings.slot_high_water_mark < p_due_slot;
  if v_has_changes then
    -- The unique index waits for a transaction that is changing the open run; wait for it before locking the settings that it
    -- may need next. Together with those that are about to expire, because all are locked in the order of their ids.
    perform 1 from public.scheduler_invocations
     where status in ('pending', 'running') and (trigger = 'schedule' or expires_at <= now())
     order by id
       for no key update;
  end if;
  perform scheduler.expire();

  if v_has_changes then
    perform scheduler.end_pause();
    select * into v_settings from scheduler.settings for no key update;
    v_is_paused := v_settings.paused_at is not null
      or coalesce(p_due_slot < v_settings.paused_until and p_due_slot <= v_settings.slot_high_water_mark, false);
    -- The slots of a pause take the schedules that are due at them. Where no call has seen the last ones none did, and the marks
    -- rise here: nothing of a pause is caught up. A row that another transaction is changing is left, as in take_due_scenarios.
    update public.scenario_evaluation_config
       set due_after = v_settings.paused_until - interval '1 microsecond'
     where id in (
       select c.id from public.scenario_evaluation_config as c
        where v_settings.next_due_at < v_settings.paused_until
          and v_settings.paused_until <= p_due_slot
          and c.schedule is not null
          and c.due_after < v_settings.paused_until
          for no key update skip locked
     );
    v_known := p_requested_slot is null or p_requested_slot = p_due_slot;
    if v_known
       and (
         (p_due_slot > v_settings.slot_high_water_mark
          and p_due_slot >= v_now - make_interval(hours => p_missed_slot_max_gap_hours))
         or (v_is_paused and p_due_slot >= v_settings.next_due_at)
       )
    then
      if not v_is_paused then
        v_view_is_invalid := public.scheduler_mentors_view_fault() is not null;
        insert into public.scheduler_invocations
          (idempotency_key, trigger, triggered_by, status, scheduled_for, started_at, expires_at, config, engine_scope, error_code)
        values
          (scheduler.slot_key(p_due_slot), 'schedule', p_triggered_by,
           case when v_view_is_invalid then 'pending' else 'running' end, p_due_slot,
           case when not v_view_is_invalid then v_now end, v_now + make_interval(hours => p_expires_after_hours), p_config,
           scheduler.slot_key(p_due_slot), case when v_view_is_invalid then 'mentors_view_invalid' end)
        on conflict do nothing;
        v_opened := found;
      end if;
      if v_opened then
        update public.scheduler_invocations
           set config = jsonb_set(config, '{scenarios,not_due}', scheduler.take_due_scenarios(p_due_slot, p_fires))
         where idempotency_key = scheduler.slot_key(p_due_slot);
        -- An update, and no other insert: ending a run raises its alert.
        update public.scheduler_invocations
           set status = 'failed', error_code = 'no_enabled_scenarios', started_at = v_now, finished_at = v_now,
               enumeration_done = true
         where idempotency_key = scheduler.slot_key(p_due_slot)
           and not jsonb_path_exists(config, '$.scenarios.types[*] ? (@.enabled == true)');
      else
        -- The schedule is paused; or the slot is already there, or the one scheduled run that may be open is still open. A slot that is
        -- skipped for that takes no schedule: those are due at the next slot that opens a run, and in no retry of this one. Of a pause
        -- nothing is caught up, so its slot takes those that are due.
        insert into public.scheduler_invocations
          (idempotency_key, trigger, triggered_by, status, scheduled_for, finished_at, expires_at, config, engine_scope, error_code,
           end_is_logged)
        values
          (scheduler.slot_key(p_due_slot), 'schedule', p_triggered_by, 'skipped', p_due_slot, v_now, v_now,
           jsonb_set(p_config, '{scenarios,not_due}', case
             when v_is_paused then scheduler.take_due_scenarios(p_due_slot, p_fires)
             else (
               select coalesce(jsonb_agg(jsonb_build_array(fire -> 'scenario_type', fire -> 'organization')), '[]')
                 from jsonb_array_elements(p_fires) as fire
             )
           end),
           scheduler.slot_key(p_due_slot), case when v_is_paused then 'paused' else 'overlap' end, true)
        on conflict (idempotency_key) do nothing;
        v_opened := found;
      end if;
      v_settings.slot_high_water_mark := greatest(v_settings.slot_high_water_mark, p_due_slot);
    end if;
    v_settings.slot_high_water_mark := coalesce(v_settings.slot_high_water_mark, v_now);
    update scheduler.settings
       set slot_high_water_mark = v_settings.slot_high_water_mark,
           -- A slot that is due but was not requested stays due.
           next_due_at = case when v_known then p_next_slot else next_due_at end,
           max_workers = p_max_workers,
           time_budget_seconds = p_time_budget_seconds,
           retention_days = p_retention_days
     where singleton;
  end if;

  select id into v_invocation_id
    from public.scheduler_invocations
   where idempotency_key = scheduler.slot_key(coalesce(p_requested_slot, p_due_slot))
     and deleted_at is null;

  select coalesce(jsonb_agg(scheduler.describe_work(i) order by i.invoked_at), '[]')
    into v_open
    from scheduler.open_for_a_slice() as i;

  return jsonb_build_object(
    'clock', v_now,
    'opened', v_opened,
    -- The latest used slot whose invocation was deleted is still a slot; one that was missed for good is not.
    'not_a_slot', v_invocation_id is null
      and p_requested_slot is not null
      and not (p_requested_slot = p_due_slot and p_due_slot <= v_settings.slot_high_water_mark),
    'invocation', scheduler.summarize_invocation(v_invocation_id),
    'open', v_open,
    'more_open', jsonb_array_length(v_open) < (
      select count(*) from public.scheduler_invocations where status in ('pending', 'running')
    ),
    'canary', scheduler.canary(),
    'engine_answered_recently', scheduler.engine_answered_since(v_now - make_interval(secs => p_time_budget_seconds)),
    'alert_due', scheduler.alert_is_due(),
    'poison_overdue', scheduler.has_visible(scheduler.poison_queue(), interval '10 minutes'),
    'ended', scheduler.take_unlogged_ends()
  );
end
$$;

revoke all on function
  scheduler.canary(), scheduler.engine_answered_since(timestamptz), scheduler.take_unlogged_ends(), scheduler.open_for_a_slice(),
  scheduler.describe_work(public.scheduler_invocations)
from public, anon, authenticated, service_role;
revoke all on function public.scheduler_open_slot(
  timestamptz, timestamptz, timestamptz, integer, integer, integer, integer, integer, text, jsonb, text, jsonb
) from public, anon, authenticated;
grant execute on function public.scheduler_open_slot(
  timestamptz, timestamptz, timestamptz, integer, integer, integer, integer, integer, text, jsonb, text, jsonb
) to service_role;
