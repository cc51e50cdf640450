-- Row level security is on for every table of ours and no policy lets a role past it: what a mistaken grant would open
-- stays empty.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(39);

create temporary table guarded (name text) on commit drop;
insert into guarded values
  ('public.peer_mentors'),
  ('public.scheduler_invocations'),
  ('public.scheduler_invocation_batches'),
  ('public.scheduler_evaluations'),
  ('public.scenario_evaluation_config'),
  ('public.scheduler_audit'),
  ('scheduler.settings'),
  ('scheduler.dispatches'),
  ('scheduler.engine_permits'),
  ('scheduler.engine_ceiling'),
  ('scheduler.alerts'),
  ('pgmq.q_scenario_evaluation_batches'),
  ('pgmq.a_scenario_evaluation_batches'),
  ('pgmq.q_scenario_evaluation_batches_manual'),
  ('pgmq.a_scenario_evaluation_batches_manual'),
  ('pgmq.q_scenario_evaluation_batches_poison'),
  ('pgmq.a_scenario_evaluation_batches_poison');

select ok((select relrowsecurity from pg_class where oid = name::regclass), 'row level security is on for ' || name)
  from guarded;

select is_empty(format('select polname from pg_policy where polrelid = %L::regclass', name), name || ' has no policy')
  from guarded;

select is_empty(
  $$
    select oid::regclass from pg_class
     where relkind in ('r', 'p')
       and not relrowsecurity
       and (relnamespace = 'scheduler'::regnamespace
            or relnamespace = 'public'::regnamespace and relname ~ '^(scheduler|scenario)_'
            or relnamespace = 'pgmq'::regnamespace and relname ~ '^[qa]_scenario_evaluation_batches')
  $$,
  'and there is no table of ours without it'
);

-- A grant by mistake shows nothing, and takes nothing.
insert into public.peer_mentors (user_id) values ('00000000-0000-4000-8000-000000000001');
grant select, insert on public.peer_mentors to anon, authenticated;

select lives_ok(
  format(
    $$
      set local role %I;
      do 'begin if exists (select from public.peer_mentors) then raise ''a row was seen''; end if; end';
      reset role
    $$,
    role
  ),
  role || ' sees no row in spite of a grant'
)
  from unnest(array['anon', 'authenticated']) as role;

select throws_ok(
  format('set local role %I; insert into public.peer_mentors (user_id) values (gen_random_uuid())', role),
  '42501', null, role || ' adds no row in spite of a grant'
)
  from unnest(array['anon', 'authenticated']) as role;

select * from finish();
rollback;
