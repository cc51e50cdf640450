-- scheduler_finish: an invocation ends when everything is recorded, and its status is the truth.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(15);

-- Whatever is there is out of the way until the rollback.
delete from public.scheduler_invocations;
delete from pgmq.q_scenario_evaluation_batches;
delete from pgmq.q_scenario_evaluation_batches_manual;
delete from pgmq.q_scenario_evaluation_batches_poison;

-- A scheduled run with one batch for each outcome that is given, recorded; it ends, and its status is the answer.
create function pg_temp.status_after(p_outcomes text[], p_enumerated boolean default true, p_skipped integer default 0)
returns text
language plpgsql as $$
declare
  v_id constant uuid := gen_random_uuid();
  v_answer jsonb;
begin
  update public.scheduler_invocations set status = 'cancelled', finished_at = now() where finished_at is null;
  insert into public.scheduler_invocations
    (id, idempotency_key, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
  values (v_id, 'slot:' || v_id, 'schedule', 'running', now(), now(), now() + interval '1 hour', 'slot:' || v_id);
  perform public.scheduler_enqueue(v_id, null, null, p_enumerated, (
    select coalesce(jsonb_agg(
        jsonb_build_array(jsonb_build_object(
          'scenario_types', jsonb_build_array('contact_lapsed'), 'user_ids', jsonb_build_array(gen_random_uuid())
        ))
      ), '[]')
      from unnest(p_outcomes)
  ), jsonb_build_object('no_scenario_applies', p_skipped));
  perform public.scheduler_complete(
      v_id, b.batch_no, 1,
      case when outcome = 'not_triggered' then '[]' else jsonb_build_array(jsonb_build_object(
        'scenario_type', 'contact_lapsed', 'outcome', outcome, 'attempts', 1, 'error_code', 'engine_error',
        'user_ids', b.pairs -> 0 -> 'user_ids'
      )) end,
      jsonb_build_object('contact_lapsed', jsonb_build_object(outcome, 1)), 5, 'pgtap'
    )
    from public.scheduler_invocation_batches as b
    join unnest(p_outcomes) with ordinality as given (outcome, ordinal) on given.ordinal = b.batch_no
   where b.invocation_id = v_id and outcome <> 'open';
  v_answer := public.scheduler_finish(v_id);
  return (v_answer -> 'invocation' ->> 'status') || coalesce(': ' || (v_answer -> 'invocation' ->> 'error'), '')
    || case when (v_answer ->> 'ended_now')::boolean then '' else ' still' end;
end
$$;

select is(pg_temp.status_after(outcomes), expected, format('%s is %s', outcomes, expected))
  from (values
    (array['triggered', 'not_triggered', 'suppressed'], 'succeeded'),
    (array['skipped'], 'succeeded'),
    (array['triggered', 'failed'], 'partial'),
    (array['not_triggered', 'failed'], 'partial'),
    (array['failed', 'failed'], 'failed'),
    (array['skipped', 'failed'], 'failed'),
    (array['triggered', 'open'], 'running still')
  ) as given (outcomes, expected);
select is(pg_temp.status_after('{}'), 'failed: no_active_mentors', 'a night that reads nobody at all is no quiet night');
select is(pg_temp.status_after('{}', p_skipped => 3), 'succeeded', 'one in which nothing applies to anybody is');
select is(
  pg_temp.status_after(array['triggered'], p_enumerated => false), 'running still', 'nothing ends before everybody is read'
);

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
  [{"scenario_types": ["contact_lapsed", "milestone"], "user_ids": ["00000000-0000-4000-8000-000000000003"]}]
]', '{}');
select public.scheduler_complete('00000000-0000-4000-8000-00000000000a', 1, 1, '[]',
  '{"contact_lapsed": {"not_triggered": 1}, "milestone": {"not_triggered": 1}}', 5, 'pgtap');
select is((public.scheduler_finish('00000000-0000-4000-8000-00000000000a') ->> 'ended_now')::boolean, true, 'one call ends it');
select is((public.scheduler_finish('00000000-0000-4000-8000-00000000000a') ->> 'ended_now')::boolean, false, 'and no other');
select isnt((select finished_at from public.scheduler_invocations), null, 'it has a time');
select is(
  scheduler.describe_invocation('00000000-0000-4000-8000-00000000000a') -> 'scenarios',
  '{"milestone": {"not_triggered": 1}, "contact_lapsed": {"not_triggered": 1}}', 'its counts are told by scenario'
);
select is(
  public.scheduler_finish('00000000-0000-4000-8000-00000000000f'), '{"ended_now": false, "invocation": null, "failures": null}',
  'of one that is not there nothing is told'
);

select * from finish();
rollback;
