-- scheduler.prune: what it relies on. It commits as it goes, so it cannot run to its end inside of a test's transaction.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(10);

-- Whatever is there is out of the way until the rollback.
delete from public.scheduler_invocations;
delete from pgmq.q_scenario_evaluation_batches;
delete from pgmq.q_scenario_evaluation_batches_manual;
delete from pgmq.q_scenario_evaluation_batches_poison;

insert into public.scheduler_invocations
  (id, idempotency_key, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
values
  ('00000000-0000-4000-8000-00000000000a', 'slot:pgtap', 'schedule', 'running', now(), now(), now() + interval '1 hour',
   'slot:pgtap');

select public.scheduler_enqueue('00000000-0000-4000-8000-00000000000a', null, null, true, '[
  [{"scenario_types": ["contact_lapsed"],
    "user_ids": ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]}],
  [{"scenario_types": ["contact_lapsed", "milestone"], "user_ids": ["00000000-0000-4000-8000-000000000003"]}]
]', '{}');

select public.scheduler_complete('00000000-0000-4000-8000-00000000000a', 1, 1,
  '[{"scenario_type": "contact_lapsed", "outcome": "triggered", "attempts": 1,
     "user_ids": ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]}]',
  '{"contact_lapsed": {"triggered": 2}}', 5, 'pgtap');
select public.scheduler_update('00000000-0000-4000-8000-00000000000a', true, false, null);
insert into scheduler.alerts (invocation_id, reason) values ('00000000-0000-4000-8000-00000000000a', 'late');
update public.scheduler_invocations set finished_at = now() - interval '10 years';

select is_procedure('scheduler', 'prune', '{}'::name[], 'it is a procedure, which may commit');
select isnt_definer('scheduler', 'prune', '{}'::name[], 'with the rights of its caller');
select throws_ok('call scheduler.prune()', '2D000', null, 'it commits as soon as it has found something');
select is((select count(*) from public.scheduler_evaluations), 2::bigint, 'broken off there, nothing is lost');
select is((select deleted_at from public.scheduler_invocations), null, 'and nothing is begun');

delete from public.scheduler_invocations;
select is_empty('select 1 from public.scheduler_invocation_batches', 'with an invocation go its batches');
select is_empty('select 1 from public.scheduler_evaluations', 'what came of them');
select is_empty(
  $$select 1 from scheduler.alerts where invocation_id = '00000000-0000-4000-8000-00000000000a'$$,
  'and its alert'
);

-- The last night that went well is kept: the dead-man's check asks for it.
insert into public.scheduler_invocations
  (id, idempotency_key, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
values
  ('00000000-0000-4000-8000-00000000000a', 'slot:pgtap', 'schedule', 'running', now(), now(), now() + interval '1 hour',
   'slot:pgtap');

select public.scheduler_enqueue('00000000-0000-4000-8000-00000000000a', null, null, true, '[]', '{"no_scenario_applies": 3}');
select public.scheduler_finish('00000000-0000-4000-8000-00000000000a');
update public.scheduler_invocations set finished_at = now() - interval '10 years', deleted_at = now() - interval '9 years';
select is(
  (scheduler.last_good_run()).id, '00000000-0000-4000-8000-00000000000a',
  'a good night is remembered though it was deleted'
);
select is(
  public.scheduler_last_good_run() -> 'run' ->> 'status', 'succeeded', 'and told to whoever asks when the last one was'
);

select * from finish();
rollback;
