-- Settings of the function that SQL needs and cannot read from its environment: when the next slot falls due, how many
-- workers to request, how long a slice may take. The function writes it whenever it opens a slot. All of it lives in a
-- private schema: the Data API does not expose it, and no API role may use it.

-- What is wrong with the columns of public.active_peer_mentors, or null: which column, what was expected and what was found.
-- The types are exact: segments of type text would be read letter by letter, and citext[] would mix up segments that
-- differ in case. Reads the catalogue only, so it is cheap enough before each slot and each page.
-- Here and not beside the sample's view: this goes with the scheduler when it is uninstalled, and comes back with it.
create function public.scheduler_mentors_view_fault() returns text
language sql stable set search_path = '' as $$
  with seam as (
    select c.oid
      from pg_catalog.pg_class as c
     where c.oid = to_regclass('public.active_peer_mentors') and c.relkind in ('v', 'm', 'r', 'p', 'f')
  ), fault as (
    select format('column %s: expected %s, found %s', expected.name, expected.type,
             coalesce(format_type(a.atttypid, a.atttypmod), 'none')) as words
      from (values ('user_id', 'uuid'::regtype), ('segments', 'text[]'::regtype)) as expected (name, type)
      left join pg_catalog.pg_attribute as a
        on a.attrelid = (select oid from seam) and a.attname = expected.name and not a.attisdropped
     where a.atttypid is distinct from expected.type::oid
  )
  select case
    when not exists (select from seam) then
      'public.active_peer_mentors: expected a view with the columns user_id uuid and segments text[], found none'
    else 'public.active_peer_mentors, ' || (select string_agg(words, '; ' order by words desc) from fault)
  end || '; change the view as docs/adapting.md shows'
$$;

-- Raises MV001, an SQLSTATE of the scheduler's own, where there is such a fault.
create function public.scheduler_check_mentors_view() returns void
language plpgsql stable set search_path = '' as $$
declare
  v_fault constant text := public.scheduler_mentors_view_fault();
begin
  if v_fault is not null then
    raise exception using errcode = 'MV001', message = v_fault;
  end if;
end
$$;

revoke all on function public.scheduler_mentors_view_fault(), public.scheduler_check_mentors_view()
from public, anon, authenticated;
grant execute on function public.scheduler_mentors_view_fault(), public.scheduler_check_mentors_view() to service_role;

-- Before anything else: a view of the team's own that cannot be read stops the installation, and keeps its rights.
select public.scheduler_check_mentors_view();
revoke all on table public.active_peer_mentors from public, anon, authenticated, service_role;
grant select on table public.active_peer_mentors to service_role;

-- `create extension if not exists` is not enough: on hosted Supabase it runs the platform's own scripts around an extension that
-- is there already, and one of those cannot be run twice.
do $$
declare
  v_wanted text;
begin
  foreach v_wanted in array array['pgmq', 'supabase_vault', 'pg_cron'] loop
    if not exists (select from pg_extension where extname = v_wanted) then
      execute format('create extension %I', v_wanted);
    end if;
  end loop;
  if not exists (select from pg_extension where extname = 'pg_net') then
    create extension pg_net with schema extensions;
  end if;
end
$$;

create schema scheduler;
revoke all on schema scheduler from public, anon, authenticated, service_role;

-- Every update of the one row says `where singleton`: Supabase loads safeupdate for the Data API's role, which refuses an
-- UPDATE or DELETE without a WHERE (21000), also inside SECURITY DEFINER functions.
create table scheduler.settings (
  singleton boolean primary key default true,
  -- The newest slot that was ever opened. A slot at or before it is used, even when its invocation was deleted. Null until
  -- the function's first start, which sets it to that moment: an installation does not catch up the slot before it.
  slot_high_water_mark timestamptz,
  -- Null: the function never started, so dispatch has to call it.
  next_due_at timestamptz,
  max_workers integer not null default 1,
  time_budget_seconds integer not null default 25,
  retention_days integer not null default 90,
  -- The circuit breaker that all workers share: no batch is claimed before this time.
  engine_paused_until timestamptz,
  engine_outages integer not null default 0,
  paused_at timestamptz,
  paused_until timestamptz,
  pause_reason text,
  paused_by text,
  constraint settings_is_one_row check (singleton),
  constraint at_least_one_worker check (max_workers >= 1),
  constraint time_budget_is_positive check (time_budget_seconds >= 1),
  constraint retention_is_positive check (retention_days >= 1)
);
alter table scheduler.settings enable row level security;
revoke all on scheduler.settings from public, anon, authenticated, service_role;

insert into scheduler.settings default values;
