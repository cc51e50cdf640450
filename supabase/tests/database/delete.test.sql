-- scheduler_delete: out of the API, while slot and key stay spent.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(9);

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

select is(public.scheduler_delete('00000000-0000-4000-8000-00000000000a'), 'open', 'what is open is not deleted');
select is((select deleted_at from public.scheduler_invocations), null, 'and stays as it is');
update public.scheduler_invocations set status = 'succeeded', finished_at = now();
select is(public.scheduler_delete('00000000-0000-4000-8000-00000000000a'), 'deleted', 'what has ended is');
select is(public.scheduler_delete('00000000-0000-4000-8000-00000000000a'), null, 'and then it is not there');
select is(public.scheduler_get('00000000-0000-4000-8000-00000000000a'), null, 'for nobody');
select is(
  public.scheduler_list(null, null, null, null, null, 10, null, null), '{"next": null, "items": []}', 'nor is it in the list'
);
select is((select count(*) from public.scheduler_invocations), 1::bigint, 'its row stays until it is pruned');
select throws_ok(
  $$
    insert into public.scheduler_invocations (idempotency_key, triggered_by, scheduled_for, expires_at, engine_scope)
    values ('slot:pgtap', 'schedule', now(), now(), 'slot:pgtap')
  $$,
  '23505', null, 'so its slot is spent'
);
select is(public.scheduler_delete('00000000-0000-4000-8000-00000000000f'), null, 'what never was is not there');

select * from finish();
rollback;
