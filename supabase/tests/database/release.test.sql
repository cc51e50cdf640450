-- scheduler_release: a batch goes back to the queue, for the next worker.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(12);

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

select public.scheduler_claim(1, 600, false);

create function pg_temp.release(p_batch_no integer, p_read_count integer, p_delay integer, p_blameless boolean)
returns boolean
language sql as $$
  select public.scheduler_release('00000000-0000-4000-8000-00000000000a', p_batch_no, p_read_count, p_delay, p_blameless)
$$;
create function pg_temp.reclaimed() returns jsonb
language sql as $$select public.scheduler_claim(1, 600, false)::jsonb -> 'batches' -> 0$$;
-- The other batch is out of the way.
update pgmq.q_scenario_evaluation_batches set vt = clock_timestamp() + interval '1 hour' where message ->> 'batch_no' = '2';

select is(pg_temp.reclaimed(), null, 'what is claimed is hidden');
select is(pg_temp.release(1, 1, 0, true), true, 'it is given back');
select is(pg_temp.release(1, 1, 0, true), true, 'and may be once more, if the answer was lost');
select is(
  (select array[handed_back, handed_back_read] from public.scheduler_invocation_batches where batch_no = 1), array[1, 1],
  'which counts once'
);
select is(pg_temp.reclaimed() ->> 'deliveries', '1', 'the next worker has it at once, and the batch is not blamed');
select is(pg_temp.release(1, 1, 0, true), false, 'who had it before cannot give it back any more');
select is(pg_temp.reclaimed(), null, 'so it stays hidden');
select is(pg_temp.release(1, 2, 0, false), true, 'one that is to blame is given back, too');
select is(pg_temp.reclaimed() ->> 'deliveries', '2', 'and is blamed');
select is(pg_temp.release(1, 3, 600, true), true, 'with a delay');
select is(pg_temp.reclaimed(), null, 'nobody has it before');

update public.scheduler_invocation_batches
   set state = 'abandoned', not_evaluated = evaluations, finished_at = now() where batch_no = 1;
select is(pg_temp.release(1, 3, 0, true), false, 'one that is not open is not given back');

select * from finish();
rollback;
