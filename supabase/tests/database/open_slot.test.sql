-- scheduler_open_slot: one slot, one invocation, however often it is fired.
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

-- Of a slot of ten minutes ago, and the one after it, as a worker whose clock is right asks.
create function pg_temp.open_slot(p_requested timestamptz default null, p_due_minutes_ago integer default 10) returns jsonb
language sql as $$
  select public.scheduler_open_slot(
    date_trunc('minute', now()) - make_interval(mins => p_due_minutes_ago),
    date_trunc('minute', now()) + interval '1 hour', p_requested, 12, 20, 4, 25, 90, '{"batch_size": 100}'
  )
$$;
create temporary table answered (name text, answer jsonb) on commit drop;

insert into answered select 'first', pg_temp.open_slot();
insert into answered select 'second', pg_temp.open_slot();

select is((select (answer ->> 'opened')::boolean from answered where name = 'first'), true, 'the first call opens the slot');
select is((select answer -> 'invocation' ->> 'status' from answered where name = 'first'), 'running', 'and it runs at once');
select is((select (answer ->> 'opened')::boolean from answered where name = 'second'), false, 'the second opens nothing');
select is(
  (select answer -> 'invocation' ->> 'id' from answered where name = 'second'),
  (select answer -> 'invocation' ->> 'id' from answered where name = 'first'),
  'and is told of the same invocation'
);
select is((select count(*) from public.scheduler_invocations), 1::bigint, 'there is one');
select is(
  (select jsonb_array_length(answer -> 'open') from answered where name = 'second'), 1, 'which is what there is to work on'
);
select is(
  (select idempotency_key from public.scheduler_invocations),
  scheduler.slot_key(date_trunc('minute', now()) - interval '10 minutes'),
  'it is named by its slot'
);
select is((select max_workers from scheduler.settings), 4, 'the function''s settings are kept for dispatch');
select is(
  (select next_due_at from scheduler.settings), date_trunc('minute', now()) + interval '1 hour', 'and so is the next slot'
);

-- While it is still open the next slot falls due.
select is(
  (pg_temp.open_slot(p_due_minutes_ago => 2) -> 'invocation' ->> 'error'), 'overlap',
  'a slot that falls due while the last one is open is skipped, and says why'
);

-- What is no slot.
select is(
  (pg_temp.open_slot(p_requested => now() - interval '3 days') ->> 'not_a_slot')::boolean, true,
  'a request that names no slot is told so'
);
select is((select count(*) from public.scheduler_invocations), 2::bigint, 'and opens nothing');
select is(
  (pg_temp.open_slot(p_requested => date_trunc('minute', now()) - interval '10 minutes') -> 'invocation' ->> 'status'),
  'running',
  'a slot that was opened before may be named'
);

-- It is spent even when nothing is left of it.
delete from public.scheduler_invocations;
select is(
  (pg_temp.open_slot(p_due_minutes_ago => 2) ->> 'opened')::boolean, false,
  'a slot whose invocation was deleted is not opened again'
);
select is((pg_temp.open_slot(p_due_minutes_ago => 1) ->> 'opened')::boolean, true, 'a later one is');

-- A clock that is off, and a slot of too long ago.
select is(
  (select array_agg(key) from jsonb_object_keys(public.scheduler_open_slot(
    now() + interval '1 hour', now() + interval '2 hours', null, 12, 20, 4, 25, 90, '{}'
  )) as key),
  array['clock'], 'whose clock is off is only told the time'
);
update scheduler.settings set slot_high_water_mark = now() - interval '7 days';
delete from public.scheduler_invocations;
select is(
  (pg_temp.open_slot(p_due_minutes_ago => 13 * 60) ->> 'opened')::boolean, false,
  'a slot of longer ago than is caught up is not'
);

select * from finish();
rollback;
