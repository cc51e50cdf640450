-- Pause and resume: while the schedule is paused no slot opens a run, and nothing of the pause is caught up afterwards. Open runs
-- go on, and manual runs are opened. What a slot does in a pause is in public.scheduler_open_slot.

-- Ends a pause whose end has come, or at once where p_is_resumed: the only place that does. The high-water mark rises to just before
-- that moment, and never falls: a slot exactly at the end is due. Locks the settings, which its callers lock last of all.
create function scheduler.end_pause(p_is_resumed boolean default false) returns void
language sql set search_path = '' as $$
  update scheduler.settings as s
     set slot_high_water_mark = greatest(s.slot_high_water_mark, least(s.paused_until, clock.now) - interval '1 microsecond'),
         paused_until = least(s.paused_until, clock.now),
         paused_at = null,
         pause_reason = null,
         paused_by = null
    from (select clock_timestamp() as now) as clock
   where s.paused_at is not null
     and (p_is_resumed or s.paused_until <= clock.now)
$$;

-- Reads the pauses of the schedule and of the engine, and changes first what p_changes has, of {"paused", "until", "reason",
-- "retry_engine"}: true begins a pause, or changes the end and the reason of the one that is on; false ends it. What is not given
-- keeps its value, null removes it. "retry_engine": true ends the engine's pause and requests a slice. p_actor: the authenticated
-- caller. Returns {"clock": now, "pause": {"paused_at", "paused_by", "until", "reason"} or null, "engine_pause": {"until",
-- "outages"} or null}; null where "until" is not within ten years from now, and nothing was changed.
create function public.scheduler_schedule(p_changes jsonb, p_actor text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_until constant timestamptz := p_changes ->> 'until';
begin
  -- Before there is an actor: what ends by itself was ended by none.
  perform scheduler.end_pause();
  if v_until is not null and v_until not between clock_timestamp() and clock_timestamp() + interval '10 years' then
    return null;
  end if;
  perform set_config('scheduler.actor', p_actor, true);
  if (p_changes ->> 'paused')::boolean then
    update scheduler.settings
       set paused_at = coalesce(paused_at, clock_timestamp()),
           paused_by = coalesce(paused_by, p_actor),
           paused_until = case when p_changes ? 'until' then v_until when paused_at is not null then paused_until end,
           pause_reason = case when p_changes ? 'reason' then p_changes ->> 'reason' else pause_reason end
     where singleton;
  elsif p_changes ? 'paused' then
    perform scheduler.end_pause(p_is_resumed => true);
  end if;
  if (p_changes ->> 'retry_engine')::boolean then
    update scheduler.settings set engine_paused_until = null, engine_outages = 0 where singleton;
    perform scheduler.request_slices();
  end if;
  return (
    select jsonb_build_object(
        'clock', clock_timestamp(),
        'pause', case when paused_at is not null then jsonb_build_object(
          'paused_at', paused_at, 'paused_by', paused_by, 'until', paused_until, 'reason', pause_reason
        ) end,
        'engine_pause', case when engine_paused_until > clock_timestamp() then jsonb_build_object(
          'until', engine_paused_until, 'outages', engine_outages
        ) end
      )
      from scheduler.settings
  );
end
$$;

revoke all on function scheduler.end_pause(boolean) from public, anon, authenticated, service_role;
revoke all on function public.scheduler_schedule(jsonb, text) from public, anon, authenticated;
grant execute on function public.scheduler_schedule(jsonb, text) to service_role;
