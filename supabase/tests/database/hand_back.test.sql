-- scheduler_hand_back: how a slice ends, and what becomes of an engine that is away.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(15);

-- Whatever is there is out of the way until the rollback.
delete from public.scheduler_invocations;
delete from pgmq.q_scenario_evaluation_batches;
delete from pgmq.q_scenario_evaluation_batches_manual;
delete from pgmq.q_scenario_evaluation_batches_poison;

update scheduler.settings
   set slot_high_water_mark = now() - interval '7 days', next_due_at = null, engine_paused_until = null, engine_outages = 0;

delete from scheduler.dispatches;
insert into public.scheduler_invocations
  (id, idempotency_key, triggered_by, status, scheduled_for, started_at, expires_at, engine_scope)
values
  ('00000000-0000-4000-8000-00000000000a', 'slot:pgtap', 'schedule', 'running', now(), now(), now() + interval '1 hour',
   'slot:pgtap');

-- Somewhere to post to: the request is taken back with everything else before it is sent.
select scheduler.connect('https://function.invalid', 'an invoke token', '0 2 * * * UTC');
insert into scheduler.dispatches (id, request_id) overriding system value values (900001, 900001);
create function pg_temp.pause_in_seconds() returns integer
language sql as $$select round(extract(epoch from engine_paused_until - clock_timestamp()))::integer from scheduler.settings$$;

select public.scheduler_hand_back(900001, false, false, null, null);
select isnt((select ended_at from scheduler.dispatches where id = 900001), null, 'its dispatch has ended');
select is((select count(*) from scheduler.dispatches), 1::bigint, 'a slice that found nothing to do asks for no other');
select public.scheduler_hand_back(null, true, true, null, null);
select is((select count(*) from scheduler.dispatches), 2::bigint, 'one that got on does');
select is((select count(*) from net.http_request_queue where url = 'https://function.invalid/'), 1::bigint, 'by one request');
select is_empty(
  $$select 1 from scheduler.dispatches where to_jsonb(dispatches)::text ~ 'an invoke token'$$,
  'without the token in a table of ours'
);

-- An outage.
select public.scheduler_hand_back(null, true, false, 'engine_unavailable', null);
select is(pg_temp.pause_in_seconds(), 15, 'everybody pauses, at first for a quarter of a minute');
select is((select error from public.scheduler_invocations), 'engine_unavailable', 'what is open says why it waits');
select is((select count(*) from scheduler.dispatches), 2::bigint, 'nobody is asked to go on');
select public.scheduler_hand_back(null, true, false, 'engine_unavailable', null);
select is(pg_temp.pause_in_seconds(), 15, 'the second who meets the same outage does not lengthen the pause');
select public.scheduler_hand_back(null, true, true, null, null);
select is(pg_temp.pause_in_seconds(), 15, 'nor does whoever was served before end it');
update scheduler.settings set engine_paused_until = clock_timestamp();
select public.scheduler_hand_back(null, true, false, 'engine_unavailable', null);
select is(pg_temp.pause_in_seconds(), 30, 'the next pause is twice as long');
select public.scheduler_hand_back(null, true, false, 'engine_rejected', 120);
select is(pg_temp.pause_in_seconds(), 120, 'or as long as the engine asks');
update scheduler.settings set engine_paused_until = clock_timestamp();
select public.scheduler_hand_back(null, false, true, null, null);
select is((select engine_outages from scheduler.settings), 0, 'an engine that answers again has no outages');
select is((select error from public.scheduler_invocations), null, 'and nothing waits for it');

select public.scheduler_take_permit('00000000-0000-4000-8000-00000000000c', 4, 8, false, 60);
select public.scheduler_hand_back(null, false, false, null, null, '00000000-0000-4000-8000-00000000000c');
select is_empty(
  $$select 1 from scheduler.engine_permits where id = '00000000-0000-4000-8000-00000000000c'$$,
  'a permit that is not needed any more is returned'
);

select * from finish();
rollback;
