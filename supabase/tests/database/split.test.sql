-- scheduler_split: a batch that may kill its workers becomes one for each of its users, in the poison queue.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(11);

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

create function pg_temp.split(p_batch_no integer, p_read_count integer) returns boolean
language sql as $$
  select public.scheduler_split('00000000-0000-4000-8000-00000000000a', p_batch_no, p_read_count)
$$;

select is(pg_temp.split(1, 9), false, 'not by somebody who does not hold it');
select is(pg_temp.split(1, 1), true, 'a batch of two users is split');
select is(pg_temp.split(1, 1), false, 'and then it is not there any more');
select is(pg_temp.split(3, 0), false, 'nor is one split that is in the poison queue');
select results_eq(
  'select batch_no, mentors, evaluations, deliveries_before, queue from public.scheduler_invocation_batches order by batch_no',
  $$values (2, 1, 2, 0, 'scenario_evaluation_batches'), (3, 1, 1, 2, 'scenario_evaluation_batches_poison'),
           (4, 1, 1, 2, 'scenario_evaluation_batches_poison')$$,
  'each user has a batch in the poison queue, which counts as delivered twice'
);
select results_eq(
  $$select pairs -> 0 -> 'user_ids' ->> 0 from public.scheduler_invocation_batches where batch_no > 2 order by batch_no$$,
  array['00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002'],
  'nobody is lost'
);
select results_eq(
  'select distinct first_user_id, last_user_id from public.scheduler_invocation_batches where batch_no > 2',
  $$values ('00000000-0000-4000-8000-000000000001'::uuid, '00000000-0000-4000-8000-000000000002'::uuid)$$,
  'they keep the range that they were enumerated with'
);
select set_eq(
  $$select message ->> 'batch_no' from pgmq.q_scenario_evaluation_batches_poison$$, array['3', '4'],
  'messages are exchanged with the batches'
);
select is(
  scheduler.describe_invocation('00000000-0000-4000-8000-00000000000a') -> 'counts' ->> 'evaluations', '4',
  'there are as many pairs as before'
);
select is(
  (select array[answer ->> 'poison_waits', answer -> 'batches' ->> 0] from public.scheduler_claim(10, 600, false) as answer),
  array['true', null], 'an ordinary claim returns none of them, but says that they are there'
);
select results_eq(
  $$select (batch ->> 'deliveries')::integer, (batch ->> 'is_poison')::boolean
      from jsonb_array_elements(public.scheduler_claim(10, 600, false, 'last')::jsonb -> 'batches') as batch$$,
  'values (3, true)', 'and one that asks for them returns one'
);

select * from finish();
rollback;
