-- What a worker does with batches: put them in the queue, claim them, record them, give them back. Every function may be
-- called again after an answer was lost; none of them then counts or queues anything twice.

-- Freezes one page of the enumeration: the batches, their messages and the new cursor, in one transaction. A compare and
-- set on the cursor: of two workers that read the same page one is told that it came too late.
-- p_batches: [[{"scenario_types": […], "user_ids": […]}, …], …], one element for each batch.
create function public.scheduler_enqueue(
  p_invocation_id uuid,
  p_expected_cursor text,
  p_next_cursor text,
  p_done boolean,
  p_batches jsonb,
  p_mentors_skipped integer
) returns jsonb
language plpgsql security definer set search_path = '' set statement_timeout = '30s' as $$
declare
  v_invocation public.scheduler_invocations;
  v_batches constant integer := jsonb_array_length(p_batches);
  v_messages bigint[] := '{}';
begin
  select * into v_invocation from public.scheduler_invocations where id = p_invocation_id for no key update;
  if not found
     or v_invocation.status not in ('pending', 'running')
     or v_invocation.enumeration_done
     or v_invocation.enumeration_cursor is distinct from p_expected_cursor
  then
    return jsonb_build_object('accepted', false);
  end if;

  if v_batches > 0 then
    select array_agg(sent.msg_id order by sent.msg_id) into v_messages
      from pgmq.send_batch(scheduler.queue_of(v_invocation.triggered_by), (
        select array_agg(jsonb_build_object('invocation_id', p_invocation_id, 'batch_no', batch_no) order by batch_no)
          from generate_series(v_invocation.next_batch_no, v_invocation.next_batch_no + v_batches - 1) as batch_no
      )) as sent (msg_id);
    insert into public.scheduler_invocation_batches
      (invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, msg_id)
    select p_invocation_id, v_invocation.next_batch_no + batch.ordinal - 1, batch.pairs, size.first_user_id::uuid,
           size.last_user_id::uuid, size.mentors, size.evaluations, v_messages[batch.ordinal]
      from jsonb_array_elements(p_batches) with ordinality as batch (pairs, ordinal)
     cross join lateral (
       -- Each group's users are in order, so its ends are enough. In "C", text orders as the uuids that it stands for.
       select min((grouped.value -> 'user_ids' ->> 0) collate "C") as first_user_id,
              max((grouped.value -> 'user_ids' ->> -1) collate "C") as last_user_id,
              sum(jsonb_array_length(grouped.value -> 'user_ids')) as mentors,
              sum(jsonb_array_length(grouped.value -> 'user_ids') * jsonb_array_length(grouped.value -> 'scenario_types'))
                as evaluations
         from jsonb_array_elements(batch.pairs) as grouped
     ) as size;
  end if;

  update public.scheduler_invocations
     set enumeration_cursor = coalesce(p_next_cursor, enumeration_cursor),
         enumeration_done = p_done,
         next_batch_no = next_batch_no + v_batches,
         mentors_skipped = mentors_skipped + p_mentors_skipped,
         status = 'running',
         started_at = coalesce(started_at, clock_timestamp())
   where id = p_invocation_id;
  return jsonb_build_object('accepted', true);
end
$$;

-- Hands out visible batches, those of manual runs first (p_manual_only: and no others), and hides them for
-- p_visibility_seconds. Messages whose batch is not open any more are deleted here, or they would come back for ever; "stale"
-- says how many, because an empty answer with stale messages is not an empty queue.
create function public.scheduler_claim(p_quantity integer, p_visibility_seconds integer, p_manual_only boolean) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_queue text;
  v_msg_ids bigint[];
  v_reads integer[];
  v_messages jsonb[];
  v_stale_ids bigint[];
  v_found jsonb;
  v_batches jsonb := '[]';
  v_stale integer := 0;
  v_paused_until timestamptz;
begin
  select engine_paused_until into v_paused_until from scheduler.settings where engine_paused_until > clock_timestamp();
  if v_paused_until is not null then
    return jsonb_build_object('batches', v_batches, 'stale', 0, 'engine_paused_until', v_paused_until);
  end if;

  foreach v_queue in array array['scenario_evaluation_batches_manual', 'scenario_evaluation_batches'] loop
    exit when jsonb_array_length(v_batches) >= p_quantity
      or (p_manual_only and v_queue <> 'scenario_evaluation_batches_manual');
    -- A statement of its own: joined in one statement, the batches would be read with a snapshot older than the one in
    -- which pgmq finds its messages, and the message of a batch committed in between would be deleted as stale.
    select array_agg(m.msg_id), array_agg(m.read_ct), array_agg(m.message) into v_msg_ids, v_reads, v_messages
      from pgmq.read(v_queue, p_visibility_seconds, p_quantity - jsonb_array_length(v_batches)) as m;
    continue when v_msg_ids is null;

    select coalesce(jsonb_agg(jsonb_build_object(
             'invocation_id', b.invocation_id, 'batch_no', b.batch_no, 'pairs', b.pairs,
             'read_count', taken.reads, 'deliveries', taken.reads - b.handed_back,
             'scheduled_for', i.scheduled_for, 'dry_run', i.dry_run, 'engine_scope', i.engine_scope
           )) filter (where b.batch_no is not null), '[]'),
           array_agg(taken.msg_id) filter (where b.batch_no is null)
      into v_found, v_stale_ids
      from unnest(v_msg_ids, v_reads, v_messages) as taken (msg_id, reads, message)
      left join public.scheduler_invocation_batches as b
        on b.invocation_id = scheduler.uuid_or_null(taken.message ->> 'invocation_id')
       and b.batch_no = scheduler.integer_or_null(taken.message ->> 'batch_no')
       and b.msg_id = taken.msg_id
       and b.state = 'open'
      left join public.scheduler_invocations as i on i.id = b.invocation_id;
    v_batches := v_batches || v_found;
    if v_stale_ids is not null then
      perform pgmq.delete(v_queue, v_stale_ids);
      v_stale := v_stale + cardinality(v_stale_ids);
    end if;
  end loop;
  return jsonb_build_object('batches', v_batches, 'stale', v_stale, 'engine_paused_until', null);
end
$$;

-- Records a batch: its notable results, its counts and the acknowledgement of its message, in one transaction. The first
-- to record wins. A result of an abandoned batch is recorded as well: it happened.
-- The arrays hold one element for each result but 'not_triggered', which is only counted. p_scenario_counts counts every
-- result: {"SCENARIO_TYPE": {"OUTCOME": n}}. Answers 'done', 'already_done' or 'gone'.
create function public.scheduler_complete(
  p_invocation_id uuid,
  p_batch_no integer,
  p_deliveries integer,
  p_user_ids uuid[],
  p_scenario_types text[],
  p_outcomes text[],
  p_attempts integer[],
  p_error_codes text[],
  p_error_messages text[],
  p_notification_ids text[],
  p_scenario_counts jsonb,
  p_duration_ms integer,
  p_worker text
) returns text
language plpgsql security definer set search_path = '' set statement_timeout = '30s' as $$
declare
  v_batch public.scheduler_invocation_batches;
  v_triggered_by text;
  v_counts jsonb;
begin
  select * into v_batch from public.scheduler_invocation_batches
   where invocation_id = p_invocation_id and batch_no = p_batch_no
     for update;
  if not found then
    return 'gone';
  end if;
  if v_batch.state = 'done' then
    return 'already_done';
  end if;

  select jsonb_object_agg(counted.outcome, counted.n) into v_counts
    from (
      select outcome.key as outcome, sum(outcome.value::integer) as n
        from jsonb_each(p_scenario_counts) as scenario
       cross join jsonb_each_text(scenario.value) as outcome
       group by outcome.key
    ) as counted;
  if cardinality(p_user_ids) <> v_batch.evaluations - coalesce((v_counts ->> 'not_triggered')::integer, 0) then
    raise exception 'batch % of invocation %: expected a row for each of its % pairs but the % not triggered, found % rows',
      p_batch_no, p_invocation_id, v_batch.evaluations, coalesce(v_counts ->> 'not_triggered', '0'), cardinality(p_user_ids)
      using errcode = 'data_exception';
  end if;

  insert into public.scheduler_evaluations
    (invocation_id, user_id, scenario_type, outcome, attempts, error_code, error_message, notification_id)
  select p_invocation_id, result.*
    from unnest(p_user_ids, p_scenario_types, p_outcomes, p_attempts, p_error_codes, p_error_messages, p_notification_ids)
      as result;
  update public.scheduler_invocation_batches
     set state = 'done',
         deliveries = p_deliveries,
         triggered = coalesce((v_counts ->> 'triggered')::integer, 0),
         not_triggered = coalesce((v_counts ->> 'not_triggered')::integer, 0),
         suppressed = coalesce((v_counts ->> 'suppressed')::integer, 0),
         skipped = coalesce((v_counts ->> 'skipped')::integer, 0),
         failed = coalesce((v_counts ->> 'failed')::integer, 0),
         not_evaluated = 0,
         scenario_counts = p_scenario_counts,
         duration_ms = p_duration_ms,
         worker = p_worker,
         finished_at = clock_timestamp()
   where invocation_id = p_invocation_id and batch_no = p_batch_no;

  select triggered_by into v_triggered_by from public.scheduler_invocations where id = p_invocation_id;
  perform pgmq.delete(scheduler.queue_of(v_triggered_by), v_batch.msg_id);
  return 'done';
end
$$;

-- Gives a batch back, to be visible again after p_delay_seconds. p_blameless: the batch had no part in it (time was up
-- before its turn, the engine was away), so it does not count as a delivery. Answers false, and does nothing, when the
-- batch is not open any more or when another worker has claimed it since (its message was read more than p_read_count
-- times): that one's visibility is not ours to change.
create function public.scheduler_release(
  p_invocation_id uuid,
  p_batch_no integer,
  p_read_count integer,
  p_delay_seconds integer,
  p_blameless boolean
) returns boolean
language plpgsql security definer set search_path = '' as $$
declare
  v_batch public.scheduler_invocation_batches;
  v_queue text;
begin
  select * into v_batch from public.scheduler_invocation_batches
   where invocation_id = p_invocation_id and batch_no = p_batch_no and state = 'open'
     for update;
  if not found then
    return false;
  end if;
  select scheduler.queue_of(triggered_by) into v_queue from public.scheduler_invocations where id = p_invocation_id;
  if scheduler.lock_message(v_queue, v_batch.msg_id) is distinct from p_read_count then
    return false;
  end if;
  if p_blameless and v_batch.handed_back_read < p_read_count then
    update public.scheduler_invocation_batches
       set handed_back = handed_back + 1, handed_back_read = p_read_count
     where invocation_id = p_invocation_id and batch_no = p_batch_no;
  end if;
  perform pgmq.set_vt(v_queue, v_batch.msg_id, p_delay_seconds);
  return true;
end
$$;

revoke all on function
  public.scheduler_enqueue(uuid, text, text, boolean, jsonb, integer),
  public.scheduler_claim(integer, integer, boolean),
  public.scheduler_complete(
    uuid, integer, integer, uuid[], text[], text[], integer[], text[], text[], text[], jsonb, integer, text
  ),
  public.scheduler_release(uuid, integer, integer, integer, boolean)
from public, anon, authenticated;
grant execute on function
  public.scheduler_enqueue(uuid, text, text, boolean, jsonb, integer),
  public.scheduler_claim(integer, integer, boolean),
  public.scheduler_complete(
    uuid, integer, integer, uuid[], text[], text[], integer[], text[], text[], text[], jsonb, integer, text
  ),
  public.scheduler_release(uuid, integer, integer, integer, boolean)
to service_role;
