-- Scenario types as operators configure them, without a deployment. What a row leaves null is as the row of all organizations
-- has it, and where that is null as well, or there is no such row, as the function's SCENARIO_TYPES.

create table public.scenario_evaluation_config (
  -- For editors of tables, which want a primary key; the key is the pair below.
  id uuid primary key default gen_random_uuid(),
  scenario_type text not null,
  -- Holds for mentors with the segment 'org:NAME'; null: for all mentors.
  organization text,
  -- False always holds, whatever another row says.
  enabled boolean,
  -- The type applies to mentors in one of these; none: to all.
  segments text[],
  -- A cron expression in EVALUATION_TIMEZONE; null: each slot.
  schedule text,
  updated_at timestamptz not null,
  updated_by text not null,
  -- The schedule is due at the first slot that it has fired at or before, and after this mark.
  due_after timestamptz not null,
  constraint scenario_is_configured_once unique nulls not distinct (scenario_type, organization),
  constraint scenario_type_is_bounded check (scenario_type ~ '^[A-Za-z0-9_.-]{1,100}$'),
  constraint organization_is_bounded check (char_length(organization) between 1 and 100),
  constraint organization_is_a_bare_name check (organization !~ '^(org:|\s)|\s$'),
  constraint segments_are_bounded check (
    cardinality(segments) <= 100 and char_length(array_to_string(segments, ',')) <= 4000
  ),
  constraint schedule_is_bounded check (char_length(schedule) <= 100),
  constraint times_are_dates check (isfinite(updated_at) and isfinite(due_after) and due_after >= '2000-01-01 00:00Z')
);
alter table public.scenario_evaluation_config enable row level security;
revoke all on public.scenario_evaluation_config from public, anon, authenticated, service_role;
grant select on public.scenario_evaluation_config to service_role;

-- Who changed the row, and since when its schedule counts: what fired before it was changed, or while the type was off, is not
-- caught up. A change made in Studio counts like one made through the API, where the caller's name is in scheduler.actor.
create function scheduler.stamp_scenario_config() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.updated_at := clock_timestamp();
  new.updated_by := coalesce(nullif(current_setting('scheduler.actor', true), ''), current_user);
  if tg_op = 'INSERT'
     or (new.scenario_type, new.organization, new.schedule) is distinct from (old.scenario_type, old.organization, old.schedule)
     or (old.enabled is false and new.enabled is not false)
  then
    new.due_after := clock_timestamp();
  end if;
  return new;
end
$$;

-- What is frozen with each run, and read by each slice that enumerates, is bounded: 500 rows, 2 MB.
create function scheduler.bound_scenario_config() returns trigger
language plpgsql set search_path = '' as $$
begin
  if (select count(*) > 500 from public.scenario_evaluation_config) then
    raise exception 'scenario_evaluation_config: expected at most 500 rows' using errcode = 'check_violation';
  end if;
  return null;
end
$$;

-- A type that is switched on again for all is so for each organization.
create function scheduler.restart_schedules_of_type() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'DELETE'
     or new.enabled is not false
     or (new.scenario_type, new.organization) is distinct from (old.scenario_type, old.organization)
  then
    update public.scenario_evaluation_config
       set due_after = clock_timestamp()
     where scenario_type = old.scenario_type and organization is not null;
  end if;
  return null;
end
$$;

-- Not of due_after, which opening a run raises.
create trigger stamp_scenario_config before insert or update of scenario_type, organization, enabled, segments, schedule
on public.scenario_evaluation_config
for each row execute function scheduler.stamp_scenario_config();

create trigger bound_scenario_config after insert on public.scenario_evaluation_config
for each statement execute function scheduler.bound_scenario_config();

create trigger restart_schedules_of_type after update of scenario_type, organization, enabled or delete
on public.scenario_evaluation_config
for each row when (old.organization is null and old.enabled is false)
execute function scheduler.restart_schedules_of_type();

-- The table: {"version", "rows"}, or null where its version is p_known_version. The version is a digest of what the rows say,
-- so every change counts, also one made in Studio; that of an empty table is ''.
create function scheduler.changed_scenario_config(p_known_version text) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object('version', config.version, 'rows', coalesce(config.rows, '[]'))
    from (
      select coalesce(md5(string_agg(
               jsonb_build_array(c.scenario_type, c.organization, c.enabled, c.segments, c.schedule)::text, ','
               order by c.scenario_type collate "C", c.organization collate "C"
             )), '') as version,
             jsonb_agg(to_jsonb(c) - 'id' order by c.scenario_type collate "C", c.organization collate "C" nulls first) as rows
        from public.scenario_evaluation_config as c
    ) as config
   where config.version is distinct from p_known_version
$$;

create function public.scheduler_scenario_config(p_known_version text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select scheduler.changed_scenario_config(p_known_version)
$$;

-- Changes the members of a row that p_changes has, of {"enabled", "segments", "schedule"}; null leaves one to the more general
-- row. p_organization null: the row of all organizations. p_updated_by: the authenticated caller. Returns the table, or
-- null where there is no such row and no room for one.
create function public.scheduler_configure_scenario(
  p_scenario_type text, p_organization text, p_changes jsonb, p_updated_by text
) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  if (select count(*) >= 500 from public.scenario_evaluation_config) and not exists (
    select from public.scenario_evaluation_config
     where scenario_type = p_scenario_type and organization is not distinct from p_organization
  ) then
    return null;
  end if;
  perform set_config('scheduler.actor', p_updated_by, true);
  insert into public.scenario_evaluation_config as c (scenario_type, organization, enabled, segments, schedule)
  select p_scenario_type, p_organization, changed.enabled, changed.segments, changed.schedule
    from jsonb_to_record(p_changes) as changed (enabled boolean, segments text[], schedule text)
  on conflict (scenario_type, organization) do update
     set enabled = case when p_changes ? 'enabled' then excluded.enabled else c.enabled end,
         segments = case when p_changes ? 'segments' then excluded.segments else c.segments end,
         schedule = case when p_changes ? 'schedule' then excluded.schedule else c.schedule end;
  return scheduler.changed_scenario_config(null);
end
$$;

-- Called where a slot opens a run, or a pause skips it: which schedules are not due at it, and the marks of the others are
-- raised. A schedule is due if it fired after its mark and not after the slot, so a fire that fell into a slot without a run is
-- due at the next one.
-- p_fires: [{"scenario_type", "organization", "fired_at"}, …]: the latest fire at or before the slot, of each schedule in force. A
-- row that is not among them keeps its mark: the run is without it, which during a deployment may be because the process that opens
-- the run does not know the type yet.
-- A row that another transaction is changing is left for the next slot: an editor's transaction, which may stay open for hours,
-- holds up no run, and the two cannot deadlock.
-- Returns [["SCENARIO_TYPE", "ORGANIZATION" or null], …].
create function scheduler.take_due_scenarios(p_slot timestamptz, p_fires jsonb) returns jsonb
language sql volatile set search_path = '' as $$
  with fire as (
    select * from jsonb_to_recordset(p_fires) as fire (scenario_type text, organization text, fired_at timestamptz)
  ), taken as (
    select c.id
      from public.scenario_evaluation_config as c
      join fire on fire.scenario_type = c.scenario_type and fire.organization is not distinct from c.organization
     where c.schedule is not null and c.due_after < fire.fired_at
       for no key update of c skip locked
  ), raised as (
    update public.scenario_evaluation_config as c
       set due_after = p_slot
      from taken
     where c.id = taken.id
    returning c.scenario_type, c.organization
  )
  select coalesce(jsonb_agg(
      jsonb_build_array(fire.scenario_type, fire.organization)
      order by fire.scenario_type collate "C", fire.organization collate "C" nulls first
    ), '[]')
    from fire
   where not exists (
     select from raised
      where raised.scenario_type = fire.scenario_type and raised.organization is not distinct from fire.organization
   )
$$;

revoke all on function
  scheduler.stamp_scenario_config(), scheduler.bound_scenario_config(), scheduler.restart_schedules_of_type(),
  scheduler.changed_scenario_config(text),
  scheduler.take_due_scenarios(timestamptz, jsonb)
from public, anon, authenticated, service_role;
revoke all on function
  public.scheduler_scenario_config(text), public.scheduler_configure_scenario(text, text, jsonb, text)
from public, anon, authenticated;
grant execute on function
  public.scheduler_scenario_config(text), public.scheduler_configure_scenario(text, text, jsonb, text)
to service_role;
