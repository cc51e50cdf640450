-- scheduler_claim: visible batches, each to one worker, those of people before those of nights.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(13);

-- Whatever is there is out of the way until the rollback.
delete from public.scheduler_invocations;
delete from pgmq.q_scenario_evaluation_batches;
delete from pgmq.q_scenario_evaluation_batches_manual;
delete from pgmq.q_scenario_evaluation_batches_poison;

update scheduler.settings
   set slot_high_water_mark = now() - interval '7 days', next_due_at = null, engine_paused_until = null, engine_outages = 0;

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

create temporary table answered (name text, answer jsonb) on commit drop;

insert into answered select 'one', public.scheduler_claim(1, 600, false);
select is(
  (select jsonb_array_length(answer -> 'batches') from answered where name = 'one'), 1,
  'no more are handed out than were asked for'
);
select is(
  (select (answer -> 'batches' -> 0) - 'scheduled_for' from answered where name = 'one'),
  '{"invocation_id": "00000000-0000-4000-8000-00000000000a", "batch_no": 1, "read_count": 1, "deliveries": 1, "dry_run": false, "is_poison": false,
    "engine_scope": "slot:pgtap", "pairs": [
      {"scenario_types": ["contact_lapsed"],
       "user_ids": ["00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"]}
    ]}',
  'a batch comes with its frozen pairs and all that the engine has to be told'
);

insert into answered select 'others', public.scheduler_claim(10, 600, false);
select is(
  (select answer -> 'batches' -> 0 ->> 'batch_no' from answered where name = 'others'), '2',
  'another worker is handed another'
);
select is((select jsonb_array_length(answer -> 'batches') from answered where name = 'others'), 1, 'and nobody the same');
select is((public.scheduler_claim(10, 600, false) -> 'batches')::jsonb, '[]', 'then none is left');

-- Its worker died: the message is visible again.
update pgmq.q_scenario_evaluation_batches set vt = clock_timestamp() where message ->> 'batch_no' = '1';
insert into answered select 'again', public.scheduler_claim(10, 600, false);
select is(
  (select answer -> 'batches' -> 0 ->> 'deliveries' from answered where name = 'again'), '2',
  'a second delivery is counted'
);

-- A manual run of somebody who waits.
insert into public.scheduler_invocations
  (id, idempotency_key, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
values
  ('00000000-0000-4000-8000-00000000000b', 'id:pgtap', 'manual', 'running', now(), now(), now() + interval '1 hour',
   'manual:pgtap');
select public.scheduler_enqueue('00000000-0000-4000-8000-00000000000b', null, null, true, '[
  [{"scenario_types": ["contact_lapsed", "milestone"], "user_ids": ["00000000-0000-4000-8000-000000000003"]}]
]', '{}');
update pgmq.q_scenario_evaluation_batches set vt = clock_timestamp();
insert into answered select 'manual', public.scheduler_claim(1, 600, false);
select is(
  (select answer -> 'batches' -> 0 ->> 'invocation_id' from answered where name = 'manual'),
  '00000000-0000-4000-8000-00000000000b',
  'a manual run goes before a night'
);
select is((public.scheduler_claim(10, 600, true) -> 'batches')::jsonb, '[]', 'who asks for manual ones only is handed no night''s');

-- Messages without an open batch.
update public.scheduler_invocation_batches
   set state = 'abandoned', not_evaluated = evaluations, finished_at = now()
 where invocation_id = '00000000-0000-4000-8000-00000000000a' and batch_no = 1;
select pgmq.send('scenario_evaluation_batches', '{"invocation_id": "nonsense", "batch_no": "x"}');
insert into answered select 'stale', public.scheduler_claim(10, 600, false);
select is((select answer -> 'stale' from answered where name = 'stale'), '2', 'messages without an open batch are told of');
select is(
  (select jsonb_array_length(answer -> 'batches') from answered where name = 'stale'), 1,
  'the others are handed out beside them'
);
select is((select count(*) from pgmq.q_scenario_evaluation_batches), 1::bigint, 'and they are gone');

-- The engine is away, for everyone.
update pgmq.q_scenario_evaluation_batches set vt = clock_timestamp();
update scheduler.settings set engine_paused_until = clock_timestamp() + interval '1 minute';
select is((public.scheduler_claim(10, 600, false) -> 'batches')::jsonb, '[]', 'while the engine is paused nobody is handed anything');
select isnt(public.scheduler_claim(10, 600, false) ->> 'engine_paused_until', null, 'and is told for how long');
update scheduler.settings set engine_paused_until = null;

select * from finish();
rollback;
