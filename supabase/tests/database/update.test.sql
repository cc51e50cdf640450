-- scheduler_update: cancelling, and the note.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(15);

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

create function pg_temp.update(p_cancel boolean, p_set_note boolean default false, p_note text default null) returns jsonb
language sql as $$
  select public.scheduler_update('00000000-0000-4000-8000-00000000000a', p_cancel, p_set_note, p_note)
$$;
create temporary table answered (name text, answer jsonb) on commit drop;

select is(pg_temp.update(false, true, 'watched') -> 'invocation' ->> 'note', 'watched', 'a note may be set while it runs');
select is(pg_temp.update(false) -> 'invocation' ->> 'note', 'watched', 'and stays if it is not mentioned');
select is(pg_temp.update(false) -> 'invocation' ->> 'status', 'running', 'which changes nothing else');

insert into answered select 'cancelled', pg_temp.update(true);
select is((select answer -> 'invocation' ->> 'status' from answered), 'cancelled', 'it is cancelled');
select is((select answer -> 'ended_otherwise' from answered), 'false', 'as was asked');
select is((select answer -> 'invocation' -> 'counts' ->> 'not_evaluated' from answered), '4', 'nobody in it was evaluated');
select results_eq(
  'select distinct state from public.scheduler_invocation_batches', array['abandoned'],
  'its batches are abandoned'
);
select is_empty('select 1 from pgmq.q_scenario_evaluation_batches', 'and their messages are gone');
select is(
  (select answer -> 'invocation' -> 'scenarios' from answered),
  '{"milestone": {"not_evaluated": 1}, "contact_lapsed": {"not_evaluated": 3}}', 'which is told by scenario'
);
select is(pg_temp.update(true) -> 'ended_otherwise', 'false', 'it may be cancelled again');
select is(pg_temp.update(false, true, null) -> 'invocation' -> 'note', 'null', 'a note may be taken away after the end');

update public.scheduler_invocations set status = 'succeeded';
select is(pg_temp.update(true, true, 'too late') -> 'ended_otherwise', 'true', 'what has ended otherwise is not cancelled');
select is((select note from public.scheduler_invocations), null, 'nor is anything else changed then');
update public.scheduler_invocations set deleted_at = now();
select is(pg_temp.update(false, true, 'deleted'), null, 'what was deleted is not there');
select is(public.scheduler_update('00000000-0000-4000-8000-00000000000f', true, false, null), null, 'nor is what never was');

select * from finish();
rollback;
