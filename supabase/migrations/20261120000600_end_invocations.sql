-- How an invocation ends. Locks are taken everywhere in the order invocation, batch, message, dispatch, settings; several
-- invocations in the order of their ids. An invocation is locked FOR NO KEY UPDATE: recording a batch holds its batch when
-- the foreign key of the evaluations takes KEY SHARE on the invocation, and FOR UPDATE would deadlock with it.

-- The status that follows from the recorded outcomes; `cancelled` is set by the caller of this function.
create function scheduler.final_status(p_invocation public.scheduler_invocations) returns text
language sql stable set search_path = '' as $$
  select case
    when not p_invocation.enumeration_done and evaluated = 0 then 'failed'
    when not p_invocation.enumeration_done then 'partial'
    when mentors = 0
      and p_invocation.trigger = 'schedule'
      -- Rows without a user id are a broken view and no empty one.
      and (p_invocation.config ->> 'empty_roster' is distinct from 'success'
           or (p_invocation.skip_reasons ->> 'user_id_missing')::integer > 0)
      then 'failed'
    -- Mentors whose rows cannot be used were not left out on purpose.
    when evaluated = 0 and (p_invocation.skip_reasons ->> 'invalid_segments')::integer > 0 then 'failed'
    when failed + not_evaluated = 0 then 'success'
    when evaluated = 0 then 'failed'
    else 'partial'
  end
    from (
      select coalesce(sum(b.failed), 0) as failed,
             coalesce(sum(b.not_evaluated), 0) as not_evaluated,
             coalesce(sum(b.triggered + b.not_triggered + b.suppressed), 0) as evaluated,
             -- Rows without a user id are no mentors.
             coalesce(sum(b.mentors), 0) + (p_invocation.skip_reasons ->> 'no_scenario_applies')::integer as mentors
        from public.scheduler_invocation_batches as b
       where b.invocation_id = p_invocation.id
    ) as counted
$$;

-- The error code of an invocation whose enumeration is done. A scheduled run without any mentor means a key without rights
-- or an empty view, and is no success unless EMPTY_ROSTER says so; nor is one that could use no row of the view.
create function scheduler.final_error(p_invocation public.scheduler_invocations, p_status text) returns text
language sql stable set search_path = '' as $$
  select case
    when p_status <> 'failed' then null
    when p_invocation.next_batch_no = 1 and (p_invocation.skip_reasons ->> 'no_scenario_applies')::integer = 0
      then 'no_active_mentors'
    when (p_invocation.skip_reasons ->> 'invalid_segments')::integer > 0 and not exists (
      select from public.scheduler_invocation_batches as b where b.invocation_id = p_invocation.id and b.failed > 0
    )
      then 'mentors_view_invalid'
  end
$$;

-- Ends an invocation whose every batch is recorded. A call of its own, never part of scheduler_complete: two workers that
-- record the last two batches at the same time each see the other's still open, and the run would not end.
-- Returns {"ended_now": whether this call ended it, "invocation": its summary as it is afterwards, null when there is none,
-- "failures": their commonest causes, null unless this call ended it}. p_waits_for_view: the mentors' view cannot be read, which
-- an open run shows until it can.
create function public.scheduler_finish(p_invocation_id uuid, p_waits_for_view boolean default false) returns jsonb
language plpgsql security definer set search_path = '' set statement_timeout = '30s' as $$
declare
  v_invocation public.scheduler_invocations;
  v_status text;
begin
  select * into v_invocation from public.scheduler_invocations where id = p_invocation_id for no key update;
  if v_invocation.status in ('pending', 'running')
     and v_invocation.enumeration_done
     and not exists (
       select 1 from public.scheduler_invocation_batches where invocation_id = p_invocation_id and state = 'open'
     )
  then
    v_status := scheduler.final_status(v_invocation);
    update public.scheduler_invocations
       set status = v_status,
           finished_at = clock_timestamp(),
           error_code = scheduler.final_error(v_invocation, v_status),
           error_message = null,
           -- The caller logs it.
           end_is_logged = true
     where id = p_invocation_id;
  elsif p_waits_for_view then
    update public.scheduler_invocations
       set error_code = 'mentors_view_invalid'
     where id = p_invocation_id and status in ('pending', 'running') and not enumeration_done and error_code is null;
  end if;
  return jsonb_build_object(
    'ended_now', v_status is not null,
    'invocation', scheduler.summarize_invocation(p_invocation_id),
    'failures', case when v_status is not null then scheduler.commonest_causes(p_invocation_id) end
  );
end
$$;

-- Abandons the open batches of an invocation that its caller has locked: their pairs are not evaluated. Returns how many.
create function scheduler.abandon_batches(p_invocation public.scheduler_invocations) returns integer
language plpgsql set search_path = '' as $$
declare
  v_queue text;
  v_messages bigint[];
  v_abandoned integer := 0;
begin
  for v_queue, v_messages in with abandoned as (
    update public.scheduler_invocation_batches as b
       set state = 'abandoned',
           finished_at = clock_timestamp(),
           not_evaluated = b.evaluations,
           scenario_counts = (
             select coalesce(jsonb_object_agg(waiting.scenario_type, jsonb_build_object('not_evaluated', waiting.n)), '{}')
               from (
                 select scenario_type, sum(jsonb_array_length(grouped.value -> 'user_ids')) as n
                   from jsonb_array_elements(b.pairs) as grouped
                  cross join jsonb_array_elements_text(grouped.value -> 'scenario_types') as scenario_type
                  group by scenario_type
               ) as waiting
           )
     where b.invocation_id = p_invocation.id and b.state = 'open'
    returning b.queue, b.msg_id
  )
  select queue, array_agg(msg_id) from abandoned group by queue
  loop
    perform pgmq.delete(v_queue, v_messages);
    v_abandoned := v_abandoned + cardinality(v_messages);
  end loop;
  return v_abandoned;
end
$$;

-- Ends an invocation early and abandons what is open, in one transaction. p_verdict: an operator's, 'cancelled' or 'failed'
-- (with p_message, the reason); null: it has expired. A worker that is still at one of its batches may record it afterwards:
-- what happened is counted, but moves neither status nor finished_at.
create function scheduler.terminate(p_invocation_id uuid, p_verdict text default null, p_message text default null) returns void
language plpgsql set search_path = '' as $$
declare
  v_invocation public.scheduler_invocations;
  v_abandoned integer;
  v_status text := p_verdict;
  v_error text;
begin
  select * into v_invocation from public.scheduler_invocations where id = p_invocation_id for no key update;
  if not found or v_invocation.status not in ('pending', 'running') then
    return;
  end if;
  v_abandoned := scheduler.abandon_batches(v_invocation);
  v_error := case p_verdict when 'failed' then 'marked_failed' else v_invocation.error_code end;
  if p_verdict is null then
    v_status := scheduler.final_status(v_invocation);
    v_error := case
      -- Only the end was missing: nothing was lost by the time.
      when v_invocation.enumeration_done and v_abandoned = 0
        then scheduler.final_error(v_invocation, v_status)
      else coalesce(v_error, 'expired')
    end;
  end if;
  update public.scheduler_invocations
     set status = v_status,
         finished_at = clock_timestamp(),
         error_code = v_error,
         error_message = case
           when p_verdict = 'failed' then p_message
           when v_error = v_invocation.error_code then error_message
         end
   where id = p_invocation_id;
end
$$;

-- Changes what a caller may change of an invocation: ends it with a verdict (p_status 'cancelled', or 'failed' with
-- p_error_message; null: none), sets its note (p_note null: removes it), or both or neither. Returns {"ended_otherwise": it
-- has ended already, and nothing was changed; "invocation": as it is afterwards}, or null when there is none. One that was
-- cancelled before may be cancelled again. p_actor: the authenticated caller, here and below, for the audit.
create function public.scheduler_update(
  p_invocation_id uuid, p_status text, p_error_message text, p_set_note boolean, p_note text, p_actor text
) returns jsonb
language plpgsql security definer set search_path = '' set statement_timeout = '50s' as $$
declare
  v_status text;
begin
  select status into v_status from public.scheduler_invocations
   where id = p_invocation_id and deleted_at is null
     for no key update;
  if not found then
    return null;
  end if;
  if p_status is not null
     and v_status not in ('pending', 'running')
     and not (p_status = 'cancelled' and v_status = 'cancelled')
  then
    return jsonb_build_object('ended_otherwise', true, 'invocation', scheduler.describe_invocation(p_invocation_id));
  end if;
  perform set_config('scheduler.actor', p_actor, true);
  if p_status is not null then
    perform scheduler.terminate(p_invocation_id, p_status, p_error_message);
  end if;
  if p_set_note then
    update public.scheduler_invocations set note = p_note where id = p_invocation_id;
  end if;
  return jsonb_build_object('ended_otherwise', false, 'invocation', scheduler.describe_invocation(p_invocation_id));
end
$$;

-- Removes an invocation that has ended from the API. Its rows stay until scheduler.prune(), and with them its slot and its
-- idempotency key stay used. Returns 'deleted', 'open' (nothing was done), or null when there is none.
create function public.scheduler_delete(p_invocation_id uuid, p_actor text) returns text
language plpgsql security definer set search_path = '' as $$
declare
  v_status text;
begin
  select status into v_status from public.scheduler_invocations
   where id = p_invocation_id and deleted_at is null
     for no key update;
  if not found then
    return null;
  end if;
  if v_status in ('pending', 'running') then
    return 'open';
  end if;
  perform set_config('scheduler.actor', p_actor, true);
  update public.scheduler_invocations set deleted_at = clock_timestamp() where id = p_invocation_id;
  return 'deleted';
end
$$;

-- Everything works only after this, so one run that cannot be ended must not keep the others from it. In the order in
-- which scheduler_end_slice locks, too.
create function scheduler.expire() returns void
language plpgsql set search_path = '' as $$
declare
  v_id uuid;
begin
  for v_id in
    select id from public.scheduler_invocations
     where status in ('pending', 'running') and expires_at <= now()
     order by id
  loop
    begin
      perform scheduler.terminate(v_id);
    exception when others then
      raise warning 'scheduler: invocation % has expired but cannot be ended: %', v_id, sqlerrm;
    end;
  end loop;
end
$$;

revoke all on function
  scheduler.final_status(public.scheduler_invocations),
  scheduler.final_error(public.scheduler_invocations, text),
  scheduler.abandon_batches(public.scheduler_invocations),
  scheduler.terminate(uuid, text, text),
  scheduler.expire()
from public, anon, authenticated, service_role;
revoke all on function
  public.scheduler_finish(uuid, boolean), public.scheduler_update(uuid, text, text, boolean, text, text),
  public.scheduler_delete(uuid, text)
from public, anon, authenticated;
grant execute on function
  public.scheduler_finish(uuid, boolean), public.scheduler_update(uuid, text, text, boolean, text, text),
  public.scheduler_delete(uuid, text)
to service_role;
