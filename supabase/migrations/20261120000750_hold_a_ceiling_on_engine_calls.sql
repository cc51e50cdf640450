-- How many calls to the engine all workers together may have in flight. Each process of the function sees only its own, so
-- each holds a lease: it never has more in flight than it was granted, and what is granted never adds up to more than the
-- ceiling. Where no ceiling is set nobody comes here: no lock is taken, no row is written.

create table scheduler.engine_leases (
  -- Of one process of the function, from its first slice to the moment at which it has none left.
  id uuid primary key,
  -- Counts the renewals: which answer a process has heard of, and which it has not.
  version integer not null,
  granted integer not null,
  wanted integer not null,
  -- Not before the time budget of each slice of the process ends, and with it the last of its calls.
  expires_at timestamptz not null,
  constraint grant_is_not_negative check (granted >= 0),
  constraint something_is_wanted check (wanted >= 1)
);
alter table scheduler.engine_leases enable row level security;
revoke all on scheduler.engine_leases from public, anon, authenticated, service_role;

-- The lock under which leases are renewed, its one row. Not an advisory lock: those have no owner, and any database role
-- could hold this one and stop every claim.
create table scheduler.engine_ceiling (
  singleton boolean primary key default true,
  constraint engine_ceiling_is_one_row check (singleton)
);
alter table scheduler.engine_ceiling enable row level security;
revoke all on scheduler.engine_ceiling from public, anon, authenticated, service_role;

insert into scheduler.engine_ceiling default values;

-- Grants or renews a lease, always as part of a claim, which costs no round trip of its own.
-- p_lease: {"id", "version": of the last answer that reached the process, 0: none did, "holds": how many calls it may have in
-- flight until this answer reaches it, "wants": how many it could use, "ceiling", "seconds": after which none of its calls is in
-- flight any more}. Answers {"version", "calls": how many it may have in flight from now on; 0: none at present}.
--
-- Everybody has his fair share as long as somebody has less than his; else whoever asks first has what is left over. Nothing
-- is taken from a process that may still use it: one that is to have less hears so now, and what it has given up by its next
-- renewal is free then. Nor does a claim take anything away that was given up, sent again and arrives after later ones: its
-- version shows that it knows nothing of them.
create function scheduler.renew_engine_lease(p_lease jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  v_id constant uuid := p_lease ->> 'id';
  v_wants constant integer := p_lease ->> 'wants';
  v_ceiling constant integer := p_lease ->> 'ceiling';
  v_is_locked boolean;
  v_now timestamptz;
  v_mine scheduler.engine_leases;
  v_others integer;
  v_fair_share integer;
  v_calls integer;
  v_kept integer := 0;
begin
  -- One after another, up to the end of the transaction. A claim takes this lock first, and the INSERT below can wait for a
  -- dispatch or the end of a slice that is deleting this lease. Neither waits for anything that a claim has locked, so this
  -- order cannot deadlock. Strict: without the row nothing would keep the ceiling.
  select singleton into strict v_is_locked from scheduler.engine_ceiling where singleton for no key update;
  v_now := clock_timestamp();

  select coalesce(sum(granted), 0), greatest(1, v_ceiling / (count(*) + 1)) into v_others, v_fair_share
    from scheduler.engine_leases
   where id <> v_id and expires_at > v_now;
  v_calls := least(v_wants, greatest(0, v_ceiling - v_others));
  if exists (
    select from scheduler.engine_leases
     where id <> v_id and expires_at > v_now and granted < least(wanted, v_fair_share)
  ) then
    v_calls := least(v_calls, v_fair_share);
  end if;

  select * into v_mine from scheduler.engine_leases where id = v_id and expires_at > v_now;
  if found then
    v_kept := case
      when v_mine.version = (p_lease ->> 'version')::integer then least(v_mine.granted, (p_lease ->> 'holds')::integer)
      else v_mine.granted
    end;
  end if;
  insert into scheduler.engine_leases as lease (id, version, granted, wanted, expires_at)
  values (
    v_id, 1, greatest(v_calls, v_kept), v_wants,
    greatest(v_mine.expires_at, v_now + make_interval(secs => (p_lease ->> 'seconds')::double precision))
  )
  on conflict (id) do update
     set version = lease.version + 1,
         granted = excluded.granted,
         wanted = excluded.wanted,
         expires_at = excluded.expires_at
  returning lease.version into v_mine.version;
  return jsonb_build_object('version', v_mine.version, 'calls', v_calls);
end
$$;

revoke all on function scheduler.renew_engine_lease(jsonb) from public, anon, authenticated, service_role;
