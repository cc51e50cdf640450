-- What SQL has to know about the function and cannot read from its environment: when the next slot falls due, how many
-- workers to ask for, how long a slice may take. The function writes it whenever it opens a slot. All of it lives in a
-- private schema: the Data API does not expose it, and no API role may use it.

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
  -- The newest slot that was ever opened. A slot at or before it is spent, even when its invocation was deleted. Null
  -- until the function's first start, which sets it to that moment: installing at noon notifies nobody for last night.
  slot_high_water_mark timestamptz,
  -- Null: the function was never heard of, so it has to be asked.
  next_due_at timestamptz,
  max_workers integer not null default 1,
  time_budget_seconds integer not null default 25,
  retention_days integer not null default 90,
  -- The circuit breaker that all workers share: nobody claims a batch before this time.
  engine_paused_until timestamptz,
  engine_outages integer not null default 0,
  constraint settings_is_one_row check (singleton),
  constraint at_least_one_worker check (max_workers >= 1),
  constraint time_budget_is_positive check (time_budget_seconds >= 1),
  constraint retention_is_positive check (retention_days >= 1)
);
alter table scheduler.settings enable row level security;
revoke all on scheduler.settings from public, anon, authenticated, service_role;

insert into scheduler.settings default values;
