-- scheduler_enqueue: a page of the enumeration becomes batches and messages, once.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(13);

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

create function pg_temp.enqueue(
  p_expected text, p_next text, p_done boolean, p_batches jsonb, p_skipped integer default 0
) returns boolean
language sql as $$
  select (public.scheduler_enqueue(
    '00000000-0000-4000-8000-00000000000a', p_expected, p_next, p_done, p_batches, jsonb_build_object('no_scenario_applies', p_skipped)
  ) ->> 'accepted')::boolean
$$;
create temporary table page (batches jsonb) on commit drop;
insert into page values ('[
  [{"scenario_types": ["contact_lapsed"],
    "user_ids": ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]}],
  [{"scenario_types": ["contact_lapsed", "milestone"], "user_ids": ["00000000-0000-4000-8000-000000000003"]}]
]');

select is(pg_temp.enqueue(null, 'after 3', false, (select batches from page), 5), true, 'the first page is taken');
select is(
  pg_temp.enqueue(null, 'after 3', false, (select batches from page), 5), false,
  'whoever read the same page comes too late'
);
select results_eq(
  $$
    select batch_no, mentors, evaluations, state from public.scheduler_invocation_batches
     where invocation_id = '00000000-0000-4000-8000-00000000000a' order by batch_no
  $$,
  $$values (1, 2, 2, 'open'), (2, 1, 2, 'open')$$,
  'each batch is there once, with the number of its mentors and pairs'
);
select results_eq(
  'select first_user_id, last_user_id from public.scheduler_invocation_batches order by batch_no',
  $$
    values ('00000000-0000-4000-8000-000000000001'::uuid, '00000000-0000-4000-8000-000000000002'::uuid),
           ('00000000-0000-4000-8000-000000000003'::uuid, '00000000-0000-4000-8000-000000000003'::uuid)
  $$,
  'and with the range of its users'
);
select set_eq(
  'select message from pgmq.q_scenario_evaluation_batches',
  $$
    select jsonb_build_object('invocation_id', '00000000-0000-4000-8000-00000000000a', 'batch_no', n)
      from generate_series(1, 2) as n
  $$,
  'each has one message, which holds the two numbers and nobody''s id'
);
select is_empty('select 1 from pgmq.q_scenario_evaluation_batches_manual', 'the queue of manual runs has none of a night''s');
select is((select enumeration_cursor from public.scheduler_invocations), 'after 3', 'the cursor moves on');
select is((select mentors_skipped from public.scheduler_invocations), 5, 'those to whom nothing applies are counted');

select is(pg_temp.enqueue('elsewhere', 'x', false, '[]'), false, 'a page from elsewhere is not taken');
select is(pg_temp.enqueue('after 3', null, true, '[]'), true, 'the last page may be empty');
select is((select enumeration_done from public.scheduler_invocations), true, 'and ends the enumeration');
select is(pg_temp.enqueue('after 3', 'x', false, (select batches from page)), false, 'nothing is added afterwards');
select is(
  (public.scheduler_enqueue('00000000-0000-4000-8000-00000000000f', null, null, true, '[]', '{}') ->> 'accepted')::boolean, false,
  'nor to an invocation that is not there'
);

select * from finish();
rollback;
