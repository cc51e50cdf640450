-- Dispatch, level-triggered: every minute it reads the tables and requests slices of the function where something is due,
-- waiting or left behind. So a lost tick, a second tick and a crash are the same case.

-- The calls to the function and its answers. pg_net keeps answers for six hours and loses them in a crash, and pg_cron calls
-- a job succeeded once its request is queued: only this table shows whether a run really took place.
create table scheduler.dispatches (
  id bigint generated always as identity primary key,
  request_id bigint,
  requested_at timestamptz not null default clock_timestamp(),
  -- When its request was last seen in pg_net's queue after the minute it was posted in: pg_net is late.
  seen_queued_at timestamptz,
  -- When the slice reported its end, or else when dispatch found its answer. When that answer came is not known.
  ended_at timestamptz,
  status_code integer,
  error text
);
create index dispatches_under_way on scheduler.dispatches (requested_at) where ended_at is null;
create index dispatches_newest on scheduler.dispatches (requested_at desc);
alter table scheduler.dispatches enable row level security;
revoke all on scheduler.dispatches from public, anon, authenticated, service_role;

-- Whether pg_net's answer to the number of a dispatch's request, of a round that began at p_created, is the answer to it. pg_net
-- counts its requests from one again after a crash, so the answer to another request may have the same number. A crash empties
-- pg_net's answers as well, and the dispatch's own round began before the dispatch was abandoned, which takes a tick more at most.
create function scheduler.is_answer_to(p_dispatch scheduler.dispatches, p_created timestamptz) returns boolean
language sql stable set search_path = '' as $$
  select p_created <= greatest(p_dispatch.requested_at, p_dispatch.seen_queued_at)
    + make_interval(secs => 90 + (select time_budget_seconds from scheduler.settings))
$$;

-- Reads the answers to earlier posts. One that got none within the time budget and half a minute is abandoned, but not while
-- pg_net still holds its request: it will be sent, and another post beside it would be one slice too many.
--
-- pg_net works in rounds, and a round is one transaction: requests leave the queue and answers are seen when its slowest request
-- has ended, and `created` is when it began, before any of its requests was sent.
create function scheduler.collect_responses() returns void
language sql set search_path = '' as $$
  update scheduler.dispatches as d
     set seen_queued_at = clock_timestamp()
    from net.http_request_queue as queued
   where d.ended_at is null
     and queued.id = d.request_id
     -- The number alone may be another's, see scheduler.is_answer_to.
     and queued.headers ->> 'X-Scheduler-Dispatch' = d.id::text;
  update scheduler.dispatches as d
     set ended_at = coalesce(d.ended_at, clock_timestamp()),
         status_code = answer.status_code,
         error = left(answer.error_msg, 300)
    from net._http_response as answer
   where answer.id = d.request_id
     and d.status_code is null
     and d.error is null
     and scheduler.is_answer_to(d, answer.created);
  update scheduler.dispatches
     set ended_at = clock_timestamp(),
         error = coalesce(error, 'no_answer')
   where ended_at is null
     and greatest(requested_at, seen_queued_at)
       < now() - make_interval(secs => 30 + (select time_budget_seconds from scheduler.settings));
$$;

-- The headers of a request for a slice. The token is read from Vault inside the statement, so that it is in no job, no log and
-- no table of schema scheduler. A separate function: where a statement is cut off, the server logs the text of the PL/pgSQL statement.
create function scheduler.slice_headers(p_dispatch_id bigint) returns jsonb
language sql volatile set search_path = '' as $$
  select jsonb_build_object(
    'Content-Type', 'application/json',
    'X-Scheduler-Dispatch', p_dispatch_id::text,
    -- Of a trace that begins here. A version 4 UUID has no digits that are all zero, nor has its first half.
    'traceparent', format(
      '00-%s-%s-01', replace(gen_random_uuid()::text, '-', ''), left(replace(gen_random_uuid()::text, '-', ''), 16)
    ),
    'Authorization', 'Bearer ' || (
      select decrypted_secret from vault.decrypted_secrets where name = 'scheduler_invoke_token'
    )
  )
$$;

-- Calls the function once. Raises no_data_found where Vault lacks the URL or the token.
create function scheduler.request_slice(p_time_budget_seconds integer) returns void
language plpgsql set search_path = '' as $$
declare
  v_function_url text;
  v_dispatch_id bigint;
begin
  select url.decrypted_secret into strict v_function_url
    from vault.decrypted_secrets as url
    join vault.decrypted_secrets as token on token.name = 'scheduler_invoke_token'
   where url.name = 'scheduler_function_url';
  insert into scheduler.dispatches default values returning id into v_dispatch_id;
  update scheduler.dispatches
     set request_id = net.http_post(
       url => v_function_url,
       body => '{}'::jsonb,
       headers => scheduler.slice_headers(v_dispatch_id),
       timeout_milliseconds => (p_time_budget_seconds + 15) * 1000
     )
   where id = v_dispatch_id;
end
$$;

-- Posts as many slices as there is work for, at most max_workers being under way at a time. Returns how many were posted.
create function scheduler.request_slices() returns integer
language plpgsql set search_path = '' as $$
declare
  v_settings scheduler.settings;
  v_wanted integer := 0;
  v_error text;
begin
  -- Locked, so that two dispatches at once do not both count the same workers.
  select * into v_settings from scheduler.settings for no key update;
  if (v_settings.engine_paused_until is null or v_settings.engine_paused_until <= clock_timestamp())
     and exists (select 1 from public.scheduler_invocations where status in ('pending', 'running'))
  then
    -- One even when no batch is visible: an enumeration or a finish may have been left behind.
    v_wanted := greatest(1, least(v_settings.max_workers, scheduler.visible_batches(v_settings.max_workers)));
  end if;
  if v_settings.next_due_at is null
     or v_settings.next_due_at <= clock_timestamp()
     or scheduler.alert_is_stale()
     or exists (select from public.scheduler_invocations where finished_at is not null and not end_is_logged)
  then
    v_wanted := greatest(1, v_wanted);
  end if;
  v_wanted := v_wanted - (select count(*) from scheduler.dispatches where ended_at is null);
  if v_wanted <= 0 then
    return 0;
  end if;

  -- An error of Vault or pg_net must not roll back what the caller did before: runs have to expire, and slices have to end,
  -- without them too.
  begin
    perform scheduler.request_slice(v_settings.time_budget_seconds) from generate_series(1, v_wanted);
    return v_wanted;
  exception
    when no_data_found then
      v_error := 'vault_secret_missing';
    when others then
      -- The message is left out: it may quote the URL.
      v_error := 'post_failed: ' || sqlstate;
  end;
  insert into scheduler.dispatches (ended_at, error) values (clock_timestamp(), v_error);
  raise warning 'scheduler: work is waiting, but the function could not be called: %', v_error;
  return 0;
end
$$;

create function scheduler.dispatch() returns integer
language plpgsql set search_path = '' as $$
begin
  -- Invocations before dispatches, the order in which scheduler_end_slice locks.
  perform scheduler.expire();
  perform scheduler.requeue_orphaned_batches();
  perform scheduler.collect_responses();
  -- After all that locks invocations.
  perform scheduler.raise_late_alerts();
  perform scheduler.abandon_alerts();
  perform scheduler.end_pause();
  return scheduler.request_slices();
end
$$;

-- The end of a slice. p_dispatch_id: the dispatch it answers, if any. p_progressed: it queued or recorded something, so the
-- next slice is requested at once; one that found nothing to do leaves that to the minute's tick, or two idle workers would
-- request each other without end. p_engine_answers: the engine served it, so an earlier outage is over. p_engine_error
-- ('engine_unavailable' or 'engine_rejected'): the engine is down; all workers pause, from 15 seconds on and
-- twice as long each time up to five minutes, or for p_retry_after_seconds where that is longer, an hour at most.
-- An answer does not end a pause that is still on: it may be older than the pause.
-- No pair fails by it: the batches stay queued, and the open invocations show the error code.
-- p_engine_permit_id: the permit of a request that has no call in flight any more (null: it has none).
create function public.scheduler_end_slice(
  p_dispatch_id bigint,
  p_progressed boolean,
  p_engine_answers boolean,
  p_engine_error text,
  p_retry_after_seconds integer,
  p_engine_permit_id uuid default null,
  p_engine_message text default null
) returns void
language plpgsql security definer set search_path = '' as $$
declare
  v_open uuid[];
begin
  -- Before anything else is locked: scheduler_take_permit may be deleting it as well.
  delete from scheduler.engine_permits where id = p_engine_permit_id;
  if p_engine_error is not null or p_engine_answers then
    select array_agg(locked.id) into v_open
      from (
        select id from public.scheduler_invocations
         where status in ('pending', 'running')
           and (error_code, error_message) is distinct from (p_engine_error, left(p_engine_message, 300))
           and (error_code is null or error_code in ('engine_unavailable', 'engine_rejected'))
           -- A slice that the engine answered before an outage does not clear the cause of the outage.
           and (p_engine_error is not null or not exists (
             select from scheduler.settings where engine_paused_until > clock_timestamp()
           ))
         order by id
           for no key update
      ) as locked;
    update public.scheduler_invocations
       set error_code = p_engine_error, error_message = left(p_engine_message, 300)
     where id = any(v_open);
  end if;
  update scheduler.dispatches set ended_at = clock_timestamp() where id = p_dispatch_id and ended_at is null;
  if p_engine_error is not null then
    -- Of several workers that meet the same outage only the first lengthens the pause.
    update scheduler.settings
       set engine_outages = engine_outages + 1,
           engine_paused_until = clock_timestamp() + make_interval(secs => least(300, 15 * power(2, least(engine_outages, 10))))
     where engine_paused_until is null or engine_paused_until <= clock_timestamp();
    -- A Retry-After for one worker holds for all.
    update scheduler.settings
       set engine_paused_until = greatest(
         engine_paused_until,
         clock_timestamp() + make_interval(secs => least(coalesce(p_retry_after_seconds, 0), 3600))
       )
     where singleton;
    return;
  end if;
  if p_engine_answers then
    update scheduler.settings
       set engine_outages = 0, engine_paused_until = null
     where (engine_outages > 0 or engine_paused_until is not null)
       and (engine_paused_until is null or engine_paused_until <= clock_timestamp());
  end if;
  if p_progressed then
    perform scheduler.request_slices();
  end if;
end
$$;

revoke all on function
  scheduler.is_answer_to(scheduler.dispatches, timestamptz), scheduler.collect_responses(), scheduler.slice_headers(bigint),
  scheduler.request_slice(integer), scheduler.request_slices(), scheduler.dispatch()
from public, anon, authenticated, service_role;
revoke all on function public.scheduler_end_slice(bigint, boolean, boolean, text, integer, uuid, text) from public, anon, authenticated;
grant execute on function public.scheduler_end_slice(bigint, boolean, boolean, text, integer, uuid, text) to service_role;
