-- scheduler_complete: results, counts, state and acknowledgement in one, and once.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(20);

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

select public.scheduler_claim(10, 600, false);

create function pg_temp.complete(p_batch_no integer, p_results jsonb, p_counts jsonb, p_rest uuid[] default null)
returns text
language sql as $$
  select public.scheduler_complete(
    '00000000-0000-4000-8000-00000000000a', p_batch_no, 1, p_results, p_counts, 5, 'pgtap', p_rest
  )
$$;

-- Rows that do not fit to what is said of them.
select throws_ok(
  $$select pg_temp.complete(1, '[]', '{"contact_lapsed": {"triggered": 2}}')$$, '22000', null,
  'counts without the rows that they count are refused'
);
select throws_ok(
  $$select pg_temp.complete(1, '[]', '{"contact_lapsed": {"not_triggered": 1}}')$$, null, null,
  'a batch of two is not recorded as one'
);
select is((select state from public.scheduler_invocation_batches where batch_no = 1), 'open', 'it is open as before');

create temporary table results (batch_no integer, results jsonb, counts jsonb) on commit drop;
insert into results values
  (1, '[{"scenario_type": "contact_lapsed", "outcome": "triggered", "attempts": 1,
         "user_ids": ["00000000-0000-4000-8000-000000000001"], "notification_ids": ["n1"]}]',
   '{"contact_lapsed": {"triggered": 1, "not_triggered": 1}}'),
  (2, '[{"scenario_type": "milestone", "outcome": "failed", "attempts": 3, "error_code": "user_unknown",
         "error_message": "nobody", "user_ids": ["00000000-0000-4000-8000-000000000003"]}]',
   '{"contact_lapsed": {"not_triggered": 1}, "milestone": {"failed": 1}}');

select is(pg_temp.complete(1, results, counts), 'done', 'results that add up are recorded') from results where batch_no = 1;
select is(pg_temp.complete(1, results, counts), 'already_done', 'the first to record wins') from results where batch_no = 1;
select is(
  (select array[triggered, not_triggered, suppressed, skipped, failed, not_evaluated]
     from public.scheduler_invocation_batches where batch_no = 1),
  array[1, 1, 0, 0, 0, 0], 'they are counted once'
);
select results_eq(
  'select user_id, outcome, notification_id from public.scheduler_evaluations',
  $$values ('00000000-0000-4000-8000-000000000001'::uuid, 'triggered', 'n1')$$,
  'what is notable has a row, the rest has none'
);
select results_eq(
  $$select message ->> 'batch_no' from pgmq.q_scenario_evaluation_batches$$, array['2'],
  'its message is acknowledged, the other''s is not'
);

select is(pg_temp.complete(2, results, counts), 'done', 'one failure is a result like another') from results where batch_no = 2;
select results_eq(
  $$select error_code, error_message, attempts from public.scheduler_evaluations where outcome = 'failed'$$,
  $$values ('user_unknown', 'nobody', 3)$$,
  'and is kept with its cause'
);
select is(
  scheduler.describe_invocation('00000000-0000-4000-8000-00000000000a') -> 'counts' ->> 'evaluations', '4',
  'all pairs are accounted for'
);
select is(
  (select status from public.scheduler_invocations), 'running',
  'recording the last batch does not end the run: finish does'
);
select is(pg_temp.complete(9, '[]', '{}'), 'gone', 'a batch that is not there is gone');

-- The time did not suffice for one of two users.
update public.scheduler_invocations set enumeration_done = false;
select public.scheduler_enqueue('00000000-0000-4000-8000-00000000000a', null, null, true, '[
  [{"scenario_types": ["contact_lapsed"],
    "user_ids": ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]}]
]', '{}');
delete from public.scheduler_evaluations;
select throws_ok(
  $$
    select pg_temp.complete(3, '[]', '{}', array[
      '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002'
    ]::uuid[])
  $$,
  '22000', null, 'a rest of everybody is no rest'
);
select is(
  pg_temp.complete(3, '[]', '{"contact_lapsed": {"not_triggered": 1}}', array['00000000-0000-4000-8000-000000000002']::uuid[]),
  'done', 'whoever is through is recorded'
);
select results_eq(
  'select batch_no, state, mentors, evaluations from public.scheduler_invocation_batches where batch_no > 2 order by batch_no',
  $$values (3, 'done', 1, 1), (4, 'open', 1, 1)$$,
  'and who is not goes on in a batch of her own'
);
select is(
  (select pairs -> 0 -> 'user_ids' from public.scheduler_invocation_batches where batch_no = 4),
  '["00000000-0000-4000-8000-000000000002"]',
  'with her pairs'
);
select results_eq(
  $$select message ->> 'batch_no' from pgmq.q_scenario_evaluation_batches$$, array['4'], 'and a message of her own'
);

-- A result that arrives after the end.
select public.scheduler_update('00000000-0000-4000-8000-00000000000a', true, false, null);
select is(
  pg_temp.complete(4, '[]', '{"contact_lapsed": {"not_triggered": 1}}'), 'done',
  'a result that arrives after the end is recorded'
);
select is((select status from public.scheduler_invocations), 'cancelled', 'and moves the counts, not the status');

select * from finish();
rollback;
