-- Each named CHECK, and each unique index that encodes a rule, refuses what it names; and what it is for passes.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(59);

create temporary table refused (constraint_name text, statement text) on commit drop;

-- An invocation that nothing is wrong with, and a batch of it: the statements below spoil one thing each.
insert into public.scheduler_invocations
  (id, idempotency_key, trigger, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
values
  ('00000000-0000-4000-8000-00000000000a', 'id:constraints', 'manual', 'admin', 'running', now(), now(),
   now() + interval '1 hour', 'manual:constraints');
insert into public.scheduler_invocation_batches
  (invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, queue, msg_id)
values
  ('00000000-0000-4000-8000-00000000000a', 1, '[]', '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002',
   2, 2, 'scenario_evaluation_batches', 1);
insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome)
values ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000001', 'contact_lapsed', 'triggered');
insert into scheduler.alerts (invocation_id, reason) values ('00000000-0000-4000-8000-00000000000a', 'failed');
insert into scheduler.engine_permits (id, calls, is_manual, expires_at)
values ('00000000-0000-4000-8000-00000000000b', 1, false, now());
insert into public.peer_mentors (user_id) values ('00000000-0000-4000-8000-000000000001');
insert into public.scenario_evaluation_config (scenario_type) values ('contact_lapsed');

insert into refused values
  ('peer_mentors_status_is_known', $$update public.peer_mentors set status = 'retired'$$),
  ('peer_mentors_only_a_pause_has_an_end', $$update public.peer_mentors set status = 'active', paused_until = now()$$),
  ('peer_mentors_segments_have_names', $$update public.peer_mentors set segments = array['youth', null]$$),
  ('peer_mentors_contacts_logged_is_a_count', $$update public.peer_mentors set contacts_logged = -1$$),

  ('settings_is_one_row', $$update scheduler.settings set singleton = false$$),
  ('at_least_one_worker', $$update scheduler.settings set max_workers = 0$$),
  ('time_budget_is_positive', $$update scheduler.settings set time_budget_seconds = 0$$),
  ('retention_is_positive', $$update scheduler.settings set retention_days = 0$$),
  ('pause_has_an_author', $$update scheduler.settings set paused_at = now()$$),
  ('only_a_pause_has_a_reason', $$update scheduler.settings set pause_reason = 'why'$$),
  ('pause_times_are_dates', $$update scheduler.settings set paused_until = 'infinity'$$),
  ('pause_texts_are_bounded', $$update scheduler.settings set paused_at = now(), paused_by = ''$$),

  ('trigger_is_known', $$update public.scheduler_invocations set trigger = 'cron'$$),
  ('status_is_known', $$update public.scheduler_invocations set status = 'done', finished_at = now()$$),
  ('error_code_is_known', $$update public.scheduler_invocations set error_code = 'it broke'$$),
  ('error_message_explains_an_error_code',
   $$update public.scheduler_invocations set error_code = null, error_message = 'why'$$),
  ('error_message_is_bounded',
   $$update public.scheduler_invocations set error_code = 'engine_unavailable', error_message = repeat('x', 301)$$),
  ('ended_has_a_time', $$update public.scheduler_invocations set status = 'success', finished_at = null$$),
  ('running_has_started',
   $$update public.scheduler_invocations set status = 'running', started_at = null, finished_at = null$$),
  ('only_a_retry_has_a_source', $$update public.scheduler_invocations set retry_of = id where trigger = 'manual'$$),
  ('only_what_has_ended_is_deleted',
   $$update public.scheduler_invocations set deleted_at = now() where finished_at is null$$),
  ('note_is_bounded', $$update public.scheduler_invocations set note = repeat('x', 2001)$$),
  ('reason_is_bounded', $$update public.scheduler_invocations set reason = repeat('x', 301)$$),
  ('triggered_by_is_bounded', $$update public.scheduler_invocations set triggered_by = ''$$),
  ('requested_by_is_bounded', $$update public.scheduler_invocations set requested_by = repeat('x', 101)$$),

  ('queue_is_known', $$update public.scheduler_invocation_batches set queue = 'another'$$),
  ('only_its_users_are_evaluated', $$update public.scheduler_invocation_batches set users_evaluated = mentors + 1$$),
  ('only_its_mentors_are_left', $$update public.scheduler_invocation_batches set mentors_unknown = mentors + 1$$),
  ('batch_has_pairs', $$update public.scheduler_invocation_batches set evaluations = 0$$),
  ('users_are_in_order',
   $$update public.scheduler_invocation_batches set last_user_id = '00000000-0000-4000-8000-000000000000'$$),
  ('state_is_known',
   $$update public.scheduler_invocation_batches set state = 'lost', not_evaluated = evaluations, finished_at = now()$$),
  ('ended_batch_has_a_time',
   $$update public.scheduler_invocation_batches set state = 'abandoned', not_evaluated = evaluations, finished_at = null$$),
  ('counts_add_up',
   $$update public.scheduler_invocation_batches set state = 'done', triggered = evaluations - 1, finished_at = now()$$),

  ('outcome_is_notable', $$update public.scheduler_evaluations set outcome = 'not_triggered'$$),
  ('failed_has_a_cause', $$update public.scheduler_evaluations set outcome = 'failed', error_code = null$$),
  ('texts_are_bounded', $$update public.scheduler_evaluations set error_code = repeat('x', 65)$$),

  ('scenario_type_is_bounded', $$update public.scenario_evaluation_config set scenario_type = 'a type'$$),
  ('organization_is_bounded', $$update public.scenario_evaluation_config set organization = ''$$),
  ('organization_is_a_bare_name', $$update public.scenario_evaluation_config set organization = 'org:north'$$),
  ('times_are_dates', $$update public.scenario_evaluation_config set due_after = 'infinity'$$),
  ('segments_are_bounded', $$update public.scenario_evaluation_config set segments = array_fill('x'::text, array[101])$$),
  ('schedule_is_bounded', $$update public.scenario_evaluation_config set schedule = repeat('*', 101)$$),

  ('action_is_known', $$insert into public.scheduler_audit (actor, action) values ('admin', 'look')$$),
  ('actor_is_bounded', $$insert into public.scheduler_audit (actor, action) values ('', 'run')$$),

  ('engine_ceiling_is_one_row', $$update scheduler.engine_ceiling set singleton = false$$),
  ('a_permit_allows_calls', $$update scheduler.engine_permits set calls = 0$$),

  ('reason_is_known', $$update scheduler.alerts set reason = 'odd'$$),
  ('sent_or_given_up', $$update scheduler.alerts set sent_at = now(), given_up_at = now()$$);

select throws_matching(
  statement, format('violates check constraint "%s"', constraint_name), constraint_name || ' refuses what it names'
)
  from refused;

select set_eq(
  $$
    select conname::text from pg_constraint
     where contype = 'c'
       and (conrelid::regclass::text in ('peer_mentors', 'public.peer_mentors')
            or connamespace = 'scheduler'::regnamespace
            or conrelid::regclass::text ~ '^(public\.)?(scheduler|scenario)_')
  $$,
  'select constraint_name from refused',
  'no CHECK of ours is left out'
);

-- Two open scheduled runs, two open retries of one run, one slot or one mentor twice.
update public.scheduler_invocations set status = 'cancelled', finished_at = now() where finished_at is null;

select throws_matching(
  $$
    insert into public.scheduler_invocations (idempotency_key, trigger, triggered_by, scheduled_for, expires_at, engine_scope)
    values ('slot:one', 'schedule', 'pg_cron', now(), now(), 'slot:one'),
           ('slot:two', 'schedule', 'pg_cron', now(), now(), 'slot:two')
  $$,
  'scheduler_invocations_one_scheduled_run', 'two scheduled runs are never open at once'
);
select throws_matching(
  $$
    insert into public.scheduler_invocations
      (idempotency_key, trigger, triggered_by, first_run, scheduled_for, expires_at, engine_scope)
    select 'id:' || n, 'retry', 'admin', '00000000-0000-4000-8000-00000000000a', now(), now(), 'manual:' || n
      from generate_series(1, 2) as n
  $$,
  'scheduler_invocations_one_retry', 'two retries in one chain are never open at once'
);
select throws_matching(
  $$
    insert into public.scheduler_invocations
      (idempotency_key, trigger, triggered_by, status, scheduled_for, finished_at, expires_at, engine_scope)
    select 'slot:same', 'schedule', 'pg_cron', 'skipped', now(), now(), now(), 'slot:same' from generate_series(1, 2)
  $$,
  'scheduler_invocations_idempotency_key_key', 'a slot has one invocation, even when both have ended'
);
select throws_matching(
  $$insert into public.scenario_evaluation_config (scenario_type) values ('contact_lapsed')$$,
  'scenario_is_configured_once', 'a scenario type has one row for all organizations'
);
select throws_ok(statement, '42501', null, 'the audit is append-only for its owner, too: ' || statement)
  from unnest(array[
    'update public.scheduler_audit set at = now()', 'delete from public.scheduler_audit', 'truncate public.scheduler_audit'
  ]) as statement;
select throws_ok('insert into scheduler.settings default values', '23505', null, 'there is one row of settings');
select throws_ok(
  $$
    insert into public.scheduler_evaluations (invocation_id, user_id, scenario_type, outcome)
    values ('00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-000000000001', 'contact_lapsed', 'suppressed')
  $$,
  '23505', null, 'a mentor has one outcome for a scenario type in an invocation'
);
select throws_ok(
  $$
    insert into public.scheduler_invocation_batches
      (invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, queue, msg_id)
    values ('00000000-0000-4000-8000-00000000000f', 1, '[]', gen_random_uuid(), gen_random_uuid(), 1, 1, 'scenario_evaluation_batches', 1)
  $$,
  null, null, 'a batch belongs to an invocation'
);

select * from finish();
rollback;
