-- The total of calls to the engine that all processes together may have in flight. Each process bounds its own calls
-- (ENGINE_MAX_CONCURRENCY); permits bound the requests that may call. A permit is for as many calls as a process makes at most, and
-- belongs to one request (a slice, a manual slice or an evaluation-batch). A process that serves several requests may hold
-- several permits, but its own limit still bounds its calls: so the calls never exceed the permits. Where no total is set
-- nothing here is called.
--
-- ENGINE_MAX_CALLS_PER_MINUTE is shared out in the same way. The holder of a permit has its calls begin so far apart that they
-- are per_minute in any minute, and its first one so long after it took the permit. So a permit that is returned, or whose holder
-- was killed, serves the next one at once, and the calls of all its holders in a minute are never more.

create table scheduler.engine_permits (
  id uuid primary key,
  calls integer not null,
  is_manual boolean not null,
  -- Null: its process knows no limit.
  per_minute integer,
  -- After the time budget of the request, and with it the last of its calls. Until then a killed process keeps it.
  expires_at timestamptz not null,
  constraint a_permit_allows_calls check (calls >= 1 and per_minute >= 1)
);
alter table scheduler.engine_permits enable row level security;
revoke all on scheduler.engine_permits from public, anon, authenticated, service_role;

-- The lock under which permits are taken, its one row. Not an advisory lock: those have no owner, and any database role
-- could hold this one and stop every slice.
create table scheduler.engine_ceiling (
  singleton boolean primary key default true,
  constraint engine_ceiling_is_one_row check (singleton)
);
alter table scheduler.engine_ceiling enable row level security;
revoke all on scheduler.engine_ceiling from public, anon, authenticated, service_role;

insert into scheduler.engine_ceiling default values;

-- Takes a permit for p_calls calls of the p_total, for p_seconds; scheduler_end_slice returns it. Returns false where none is free:
-- the last p_calls of the total serve only manual slices and evaluation-batches (p_is_manual), so that a scheduled run never
-- blocks a manual one. Nor where the permits would allow more calls a minute than p_total_per_minute (null: no limit), with which
-- none is taken beside a permit without a limit: settings change while processes run. Called again with the id of a permit that
-- is held, it changes nothing and returns true.
create function public.scheduler_take_permit(
  p_permit_id uuid,
  p_calls integer,
  p_total integer,
  p_is_manual boolean,
  p_seconds double precision,
  p_per_minute integer,
  p_total_per_minute integer
) returns boolean
language plpgsql security definer set search_path = '' as $$
declare
  v_is_locked boolean;
  v_taken integer;
  v_scheduled integer;
  v_per_minute bigint;
begin
  -- One at a time, to the end of the transaction. Strict: without the row nothing would keep the total. The DELETE can wait
  -- for the end of a slice that is returning an expired permit, which holds nothing else that is waited for here.
  select singleton into strict v_is_locked from scheduler.engine_ceiling where singleton for no key update;
  delete from scheduler.engine_permits where expires_at <= clock_timestamp();
  if exists (select from scheduler.engine_permits where id = p_permit_id) then
    return true;
  end if;
  select coalesce(sum(calls), 0), coalesce(sum(calls) filter (where not is_manual), 0),
         coalesce(sum(coalesce(per_minute, p_total_per_minute)), 0)
    into v_taken, v_scheduled, v_per_minute
    from scheduler.engine_permits;
  if v_taken + p_calls > p_total
     or (not p_is_manual and v_scheduled + p_calls > p_total - p_calls)
     or v_per_minute + p_per_minute > p_total_per_minute
  then
    return false;
  end if;
  insert into scheduler.engine_permits (id, calls, is_manual, per_minute, expires_at)
  values (p_permit_id, p_calls, p_is_manual, p_per_minute, clock_timestamp() + make_interval(secs => p_seconds));
  return true;
end
$$;

revoke all on function public.scheduler_take_permit(uuid, integer, integer, boolean, double precision, integer, integer)
from public, anon, authenticated;
grant execute on function public.scheduler_take_permit(uuid, integer, integer, boolean, double precision, integer, integer)
to service_role;
