-- scheduler.dispatch: every minute, what the tables say; what has expired ends, and tells the truth.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(17);

-- Whatever is there is out of the way until the rollback.
delete from public.scheduler_invocations;
delete from pgmq.q_scenario_evaluation_batches;
delete from pgmq.q_scenario_evaluation_batches_manual;
delete from pgmq.q_scenario_evaluation_batches_poison;

update scheduler.settings
   set slot_high_water_mark = now() - interval '7 days', next_due_at = null, engine_paused_until = null, engine_outages = 0;

delete from scheduler.dispatches;
-- Somewhere to post to: the request is taken back with everything else before it is sent.
select scheduler.connect('https://function.invalid', 'an invoke token', '0 2 * * * UTC');
-- Whether a call is made, once all that is under way has ended.
create function pg_temp.posts() returns integer
language plpgsql as $$
begin
  update scheduler.dispatches set ended_at = clock_timestamp() where ended_at is null;
  return scheduler.dispatch();
end
$$;

select is(pg_temp.posts(), 1, 'a function that was never heard of is asked');
update scheduler.settings set next_due_at = now() + interval '1 hour';
select is(pg_temp.posts(), 0, 'nothing is due: nobody is called');
update scheduler.settings set next_due_at = now() - interval '1 minute';
select is(pg_temp.posts(), 1, 'a slot is due: one call');
select is(scheduler.dispatch(), 0, 'which is under way, so there is no other');
update scheduler.settings set next_due_at = now() + interval '1 hour', max_workers = 2;
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

select is(pg_temp.posts(), 2, 'batches wait: as many as may work on them');
select public.scheduler_claim(10, 600, false);
select is(pg_temp.posts(), 1, 'all are claimed: one, in case that something was left lying');
update scheduler.settings set engine_paused_until = clock_timestamp() + interval '1 minute';
select is(pg_temp.posts(), 0, 'the engine is away: none');
update scheduler.settings set engine_paused_until = null;

-- Somebody emptied the queue.
delete from pgmq.q_scenario_evaluation_batches;
select is(pg_temp.posts(), 2, 'batches that lost their messages are work as well');
select is((select count(*) from pgmq.q_scenario_evaluation_batches), 2::bigint, 'and are queued again');

-- A call without an answer, that pg_net does not hold any more.
delete from net.http_request_queue where true;
update scheduler.dispatches set ended_at = null, requested_at = now() - interval '10 minutes', error = null
 where id = (select max(id) from scheduler.dispatches);
select scheduler.dispatch();
select is(
  (select error from scheduler.dispatches where requested_at < now() - interval '9 minutes'), 'no_answer',
  'a call without an answer is given up'
);

-- Its time is over, one of two batches is done.
select public.scheduler_complete(
  '00000000-0000-4000-8000-00000000000a', 1, 1, '[]', '{"contact_lapsed": {"not_triggered": 2}}', 5, 'pgtap'
);
update public.scheduler_invocations set expires_at = now() - interval '1 second';
select is(pg_temp.posts(), 0, 'what has expired is nothing to work on');
select is((select status || ': ' || error from public.scheduler_invocations), 'partial: expired', 'it ends as what it came to');
select is(
  scheduler.describe_invocation('00000000-0000-4000-8000-00000000000a') -> 'counts' ->> 'not_evaluated', '2',
  'who was not evaluated is counted'
);
select is_empty('select 1 from pgmq.q_scenario_evaluation_batches', 'and nothing of it waits any more');

-- Vault without a token.
delete from vault.secrets where name = 'scheduler_invoke_token';
update scheduler.settings set next_due_at = now() - interval '1 minute';
select is(pg_temp.posts(), 0, 'without a token nobody is called');
select is(
  (select error from scheduler.dispatches order by id desc limit 1), 'vault_secret_missing',
  'and it is written down why'
);

select set_eq(
  $$select jobname::text, schedule::text, command::text from cron.job where jobname like 'scheduler-%'$$,
  $$
    values ('scheduler-dispatch', '* * * * *', 'select scheduler.dispatch()'),
           ('scheduler-prune', '17 3 * * *', 'call scheduler.prune()')
  $$,
  'cron runs it every minute, and prune every day'
);

select * from finish();
rollback;
