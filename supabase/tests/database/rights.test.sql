-- Who may do what, object by object: anon and authenticated nothing at all, service_role what the function needs and no more.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(82);

-- Schemas -----------------------------------------------------------------------------------------------------------------

select schema_privs_are('scheduler', role, '{}') from unnest(array['anon', 'authenticated', 'service_role']) as role;

-- Relations ---------------------------------------------------------------------------------------------------------------

select table_privs_are(kept.schema, kept.name, role, '{}')
  from (values
    ('public', 'peer_mentors'),
    ('public', 'active_peer_mentors'),
    ('public', 'scheduler_invocations'),
    ('public', 'scheduler_invocation_batches'),
    ('public', 'scheduler_evaluations'),
    ('public', 'scenario_evaluation_config'),
    ('public', 'scheduler_audit'),
    ('scheduler', 'settings'),
    ('scheduler', 'dispatches'),
    ('scheduler', 'engine_permits'),
    ('scheduler', 'engine_ceiling'),
    ('scheduler', 'alerts'),
    ('pgmq', 'q_scenario_evaluation_batches'),
    ('pgmq', 'a_scenario_evaluation_batches'),
    ('pgmq', 'q_scenario_evaluation_batches_manual'),
    ('pgmq', 'a_scenario_evaluation_batches_manual'),
    ('pgmq', 'q_scenario_evaluation_batches_poison'),
    ('pgmq', 'a_scenario_evaluation_batches_poison')
  ) as kept (schema, name)
 cross join unnest(array['anon', 'authenticated']) as role;

select table_privs_are(kept.schema, kept.name, 'service_role', kept.privileges)
  from (values
    ('public', 'peer_mentors', array['SELECT', 'INSERT', 'UPDATE', 'DELETE']),
    ('public', 'active_peer_mentors', array['SELECT']),
    ('public', 'scheduler_invocations', array['SELECT']),
    ('public', 'scheduler_invocation_batches', array['SELECT']),
    ('public', 'scheduler_evaluations', array['SELECT']),
    ('public', 'scenario_evaluation_config', array['SELECT']),
    ('public', 'scheduler_audit', array['SELECT']),
    ('scheduler', 'settings', '{}'),
    ('scheduler', 'dispatches', '{}'),
    ('scheduler', 'engine_permits', '{}'),
    ('scheduler', 'engine_ceiling', '{}'),
    ('scheduler', 'alerts', '{}'),
    ('pgmq', 'q_scenario_evaluation_batches', '{}'),
    ('pgmq', 'a_scenario_evaluation_batches', '{}'),
    ('pgmq', 'q_scenario_evaluation_batches_manual', '{}'),
    ('pgmq', 'a_scenario_evaluation_batches_manual', '{}'),
    ('pgmq', 'q_scenario_evaluation_batches_poison', '{}'),
    ('pgmq', 'a_scenario_evaluation_batches_poison', '{}')
  ) as kept (schema, name, privileges);

select sequence_privs_are('scheduler', 'dispatches_id_seq', role, '{}')
  from unnest(array['anon', 'authenticated', 'service_role']) as role;

select tables_are(
  'scheduler', array['settings', 'dispatches', 'engine_permits', 'engine_ceiling', 'alerts'],
  'no table of ours is left out above'
);

select is_empty(
  $$
    select attribute.attrelid::regclass, attribute.attname
      from pg_attribute as attribute
      join pg_class as relation on relation.oid = attribute.attrelid
     where attribute.attacl is not null
       and (
         relation.relnamespace = 'scheduler'::regnamespace
         or relation.oid::regclass::text ~ '^(public\.)?(scheduler_|scenario_|(active_)?peer_mentors)'
       )
  $$,
  'no single column is granted to any role'
);

select is(
  (select reloptions from pg_class where oid = 'public.active_peer_mentors'::regclass),
  array['security_invoker=true'],
  'the view shows a reader no more than that reader may see'
);

-- Routines ----------------------------------------------------------------------------------------------------------------

select set_eq(
  $$
    select proname::text
      from pg_proc
     where pronamespace = 'public'::regnamespace
       and proname like 'scheduler\_%'
       and has_function_privilege('service_role', oid, 'execute')
  $$,
  array[
    'scheduler_active_mentors', 'scheduler_active_mentors_page', 'scheduler_audit_page', 'scheduler_check_mentors_view',
    'scheduler_claim', 'scheduler_claim_alert', 'scheduler_complete', 'scheduler_configure_scenario', 'scheduler_delete', 'scheduler_enqueue',
    'scheduler_evaluations_page', 'scheduler_finish', 'scheduler_get',
    'scheduler_end_slice', 'scheduler_last_success', 'scheduler_list', 'scheduler_mentors_view_fault',
    'scheduler_mentors_without_user_id', 'scheduler_open',
    'scheduler_open_slot', 'scheduler_release', 'scheduler_scenario_config', 'scheduler_schedule', 'scheduler_settle_alert',
    'scheduler_used_slots',
    'scheduler_split', 'scheduler_take_permit', 'scheduler_unfinished', 'scheduler_update'
  ],
  'service_role may call exactly these functions'
);

select is_empty(
  format(
    $$
      select oid::regprocedure
        from pg_proc
       where (pronamespace = 'scheduler'::regnamespace
              or pronamespace = 'public'::regnamespace and proname like 'scheduler\_%%')
         and has_function_privilege(%L, oid, 'execute')
    $$,
    role
  ),
  role || ' may call no function of ours'
)
  from unnest(array['public', 'anon', 'authenticated']) as role;

select is_empty(
  $$
    select oid::regprocedure from pg_proc
     where pronamespace = 'scheduler'::regnamespace and has_function_privilege('service_role', oid, 'execute')
  $$,
  'service_role may call nothing of the private schema'
);

select is_empty(
  $$
    select oid::regprocedure from pg_proc
     where prosecdef
       -- The audit's triggers write where the role that changes something may not.
       and (pronamespace = 'scheduler'::regnamespace and proname not like 'audit\_%'
            or proname in ('scheduler_active_mentors', 'scheduler_active_mentors_page', 'scheduler_check_mentors_view',
                         'scheduler_mentors_view_fault', 'scheduler_mentors_without_user_id', 'scheduler_unfinished'))
  $$,
  'what is private, or reads the view, does so with its caller''s rights'
);

select is_empty(
  $$
    select oid::regprocedure from pg_proc
     where (pronamespace = 'scheduler'::regnamespace
            or pronamespace = 'public'::regnamespace and proname like 'scheduler\_%')
       -- It commits, so it may not set one; it names everything in full.
       and oid <> 'scheduler.prune()'::regprocedure
       and not coalesce(proconfig && array['search_path=""', 'search_path='], false)
  $$,
  'every function has an empty search_path'
);

-- What the catalogue says is what happens ---------------------------------------------------------------------------------

select throws_ok(
  format('set local role %I; %s', attempt.role, attempt.statement), '42501', null,
  format('%s is refused: %s', attempt.role, attempt.statement)
)
  from (values
    ('anon', 'select 1 from public.active_peer_mentors'),
    ('anon', 'select public.scheduler_last_success()'),
    ('authenticated', 'select 1 from public.scheduler_evaluations'),
    ('authenticated', 'select public.scheduler_claim(1, 1, false)'),
    ('service_role', 'update public.scheduler_invocations set note = null'),
    ('service_role', 'delete from public.scheduler_evaluations'),
    ('service_role', $$insert into public.scheduler_audit (actor, action) values ('admin', 'run')$$),
    ('service_role', 'select scheduler.dispatch()'),
    ('service_role', 'call scheduler.prune()'),
    ('service_role', $$select pgmq.read('scenario_evaluation_batches', 1, 1)$$)
  ) as attempt (role, statement);

select lives_ok(
  format('set local role service_role; %s; reset role', statement), 'service_role may: ' || statement
)
  from unnest(array[
    'select 1 from public.active_peer_mentors',
    'select public.scheduler_claim(1, 1, false)'
  ]) as statement;

select * from finish();
rollback;
