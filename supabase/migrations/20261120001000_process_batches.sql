-- A worker's operations on batches: enqueue, claim, record, release, split. Every function
-- may be called again after an answer was lost; none of them then counts or queues anything twice.
-- An open batch and its message are only ever changed together, in one transaction that holds the batch.

-- One message for each of these batches, in the order of their numbers: the messages' ids.
create function scheduler.send_messages(p_queue text, p_invocation_id uuid, p_batch_nos integer[]) returns bigint[]
language sql volatile set search_path = '' as $$
  select array_agg(sent.msg_id order by sent.msg_id)
    from pgmq.send_batch(p_queue, (
      select array_agg(jsonb_build_object('invocation_id', p_invocation_id, 'batch_no', batch_no) order by batch_no)
        from unnest(p_batch_nos) as batch_no
    )) as sent (msg_id)
$$;

-- How many mentors and pairs are in a batch's pairs, which mentor is the first and which the last of them, and what is left of it
-- where it is not evaluated (see the table's columns).
create function scheduler.size_of_pairs(
  p_pairs jsonb, out first_user_id uuid, out last_user_id uuid, out mentors integer, out evaluations integer,
  out mentors_left integer, out mentors_unknown integer
)
language sql immutable set search_path = '' as $$
  select size.first_user_id, size.last_user_id,
         case when size.has_parts then distinct_users.mentors else size.users end::integer,
         size.evaluations,
         case when size.has_parts then distinct_users.mentors_left else size.users end::integer,
         distinct_users.mentors_unknown::integer
    from (
      -- Each group's users are in order, so its ends are enough. In "C", text orders as the uuids that it stands for.
      select min((grouped.value -> 'user_ids' ->> 0) collate "C")::uuid as first_user_id,
             max((grouped.value -> 'user_ids' ->> -1) collate "C")::uuid as last_user_id,
             sum(part.users) as users,
             sum(part.users * jsonb_array_length(grouped.value -> 'scenario_types'))::integer as evaluations,
             bool_or(grouped.value ->> 'skip' = 'scenario_disabled' or grouped.value ? 'unknown') as has_parts
        from jsonb_array_elements(p_pairs) as grouped
       cross join lateral (select jsonb_array_length(grouped.value -> 'user_ids') as users) as part
    ) as size
   cross join lateral (
     -- In a retry a mentor may be in several groups; elsewhere the ids need not be read for it.
     select count(distinct user_id) as mentors,
            count(distinct user_id) filter (
              where grouped.value -> 'unknown' is distinct from grouped.value -> 'scenario_types'
            ) as mentors_left,
            count(distinct user_id) filter (where grouped.value ? 'unknown') as mentors_unknown
       from jsonb_array_elements(p_pairs) as grouped
      cross join jsonb_array_elements_text(grouped.value -> 'user_ids') as user_id
      where size.has_parts
   ) as distinct_users
$$;

-- Queues batches of an invocation that its caller holds: their rows and their messages, visible at once.
-- p_batches: [[{"scenario_types": […], "user_ids": […]}, …], …], one element for each batch. p_part_of: the batch that they are
-- taken from, whose range they keep; null for what was just enumerated. p_queue: null is that of the invocation's enumeration.
create function scheduler.queue_batches(
  p_invocation public.scheduler_invocations,
  p_batches jsonb,
  p_part_of public.scheduler_invocation_batches default null,
  p_queue text default null,
  p_deliveries_before integer default 0
) returns void
language plpgsql set search_path = '' as $$
declare
  v_queue constant text := coalesce(p_queue, scheduler.queue_of(p_invocation.trigger));
  v_batches constant integer := jsonb_array_length(p_batches);
  v_messages bigint[];
begin
  if v_batches = 0 then
    return;
  end if;
  v_messages := scheduler.send_messages(v_queue, p_invocation.id, array(
    select generate_series(p_invocation.next_batch_no, p_invocation.next_batch_no + v_batches - 1)
  ));
  insert into public.scheduler_invocation_batches
    (invocation_id, batch_no, pairs, first_user_id, last_user_id, mentors, evaluations, mentors_left, mentors_unknown, queue, msg_id,
     deliveries_before)
  select p_invocation.id, p_invocation.next_batch_no + batch.ordinal - 1, batch.pairs,
         coalesce(p_part_of.first_user_id, size.first_user_id), coalesce(p_part_of.last_user_id, size.last_user_id),
         size.mentors, size.evaluations, size.mentors_left, size.mentors_unknown, v_queue, v_messages[batch.ordinal],
         p_deliveries_before
    from jsonb_array_elements(p_batches) with ordinality as batch (pairs, ordinal)
   cross join lateral scheduler.size_of_pairs(batch.pairs) as size;
  update public.scheduler_invocations set next_batch_no = next_batch_no + v_batches where id = p_invocation.id;
end
$$;

-- The part of a batch's pairs that is about these users, or about all others.
create function scheduler.part_of_pairs(p_pairs jsonb, p_user_ids uuid[], p_others boolean) returns jsonb
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_agg(
      grouped.value || jsonb_build_object('user_ids', part.user_ids) order by grouped.position
    ), '[]')
    from jsonb_array_elements(p_pairs) with ordinality as grouped (value, position)
   cross join lateral (
     select jsonb_agg(member.user_id order by member.position) as user_ids
       from jsonb_array_elements_text(grouped.value -> 'user_ids') with ordinality as member (user_id, position)
      where (member.user_id::uuid = any (p_user_ids)) <> p_others
   ) as part
   where part.user_ids is not null
$$;

-- Freezes one page of the enumeration: the batches, their messages and the new cursor, in one transaction. A compare and
-- set on the cursor: of two workers that read the same page, the second gets accepted: false.
-- p_batches: [[{"scenario_types": […], "user_ids": […]}, …], …], one element for each batch. p_skip_reasons: how many rows of
-- the page are to be added to each of the invocation's skip_reasons; what is left out is 0.
create function public.scheduler_enqueue(
  p_invocation_id uuid,
  p_expected_cursor text,
  p_next_cursor text,
  p_done boolean,
  p_batches jsonb,
  p_skip_reasons jsonb
) returns jsonb
language plpgsql security definer set search_path = '' set statement_timeout = '30s' as $$
declare
  v_invocation public.scheduler_invocations;
begin
  select * into v_invocation from public.scheduler_invocations where id = p_invocation_id for no key update;
  if not found
     or v_invocation.status not in ('pending', 'running')
     or v_invocation.enumeration_done
     or v_invocation.enumeration_cursor is distinct from p_expected_cursor
  then
    return jsonb_build_object('accepted', false);
  end if;

  perform scheduler.queue_batches(v_invocation, p_batches);
  update public.scheduler_invocations
     set enumeration_cursor = coalesce(p_next_cursor, enumeration_cursor),
         enumeration_done = p_done,
         -- The end comes without a page.
         pages_processed = pages_processed + (p_next_cursor is not null or p_batches <> '[]')::integer,
         skip_reasons = (
           select jsonb_object_agg(reason.key, reason.value::integer + coalesce((p_skip_reasons ->> reason.key)::integer, 0))
             from jsonb_each_text(skip_reasons) as reason
         ),
         status = 'running',
         started_at = coalesce(started_at, clock_timestamp()),
         -- The view was read.
         error_code = nullif(error_code, 'mentors_view_invalid')
   where id = p_invocation_id;
  return jsonb_build_object('accepted', true);
end
$$;

-- Returns visible batches, those of manual runs first (p_manual_only: and no others), and hides them for
-- p_visibility_seconds. Messages whose batch is not open any more are deleted here, or they would be redelivered without end; "stale"
-- says how many, because an empty answer with stale messages is not an empty queue.
-- p_poison: null: no poison batch, but "poison_waits" says whether nothing else was left and there are some; 'last': one batch at
-- most, and a poison batch only where nothing else is left; 'first': one at most, before all else. Never with p_manual_only.
create function public.scheduler_claim(
  p_quantity integer, p_visibility_seconds integer, p_manual_only boolean, p_poison text default null
) returns json
language plpgsql security definer set search_path = '' as $$
declare
  v_all constant text[] := scheduler.queues();
  v_queues constant text[] := case
    when p_manual_only then v_all[1:1]
    when p_poison = 'first' then v_all[3:3] || v_all[1:2]
    when p_poison = 'last' then v_all
    else v_all[1:2]
  end;
  -- A claim that may return a poison batch returns nothing beside it.
  v_quantity constant integer := case when p_poison is null then p_quantity else least(p_quantity, 1) end;
  v_queue text;
  v_msg_ids bigint[];
  v_reads integer[];
  v_messages jsonb[];
  v_stale_ids bigint[];
  v_found json[];
  v_batches json[] := '{}';
  v_stale integer := 0;
  v_paused_until timestamptz;
begin
  select engine_paused_until into v_paused_until from scheduler.settings where engine_paused_until > clock_timestamp();
  if v_paused_until is not null then
    return json_build_object(
      'batches', v_batches, 'stale', 0, 'engine_paused_until', v_paused_until, 'poison_waits', false
    );
  end if;

  foreach v_queue in array v_queues loop
    exit when cardinality(v_batches) >= v_quantity;
    -- A statement of its own: joined in one statement, the batches would be read with a snapshot older than the one in
    -- which pgmq finds its messages, and the message of a batch committed in between would be deleted as stale.
    select array_agg(m.msg_id), array_agg(m.read_ct), array_agg(m.message) into v_msg_ids, v_reads, v_messages
      from pgmq.read(v_queue, p_visibility_seconds, v_quantity - cardinality(v_batches)) as m;
    continue when v_msg_ids is null;

    select coalesce(array_agg(json_build_object(
             'invocation_id', b.invocation_id, 'batch_no', b.batch_no, 'pairs', b.pairs,
             'read_count', taken.reads, 'deliveries', taken.reads - b.released_count + b.deliveries_before,
             'scheduled_for', i.scheduled_for, 'dry_run', i.dry_run, 'engine_scope', i.engine_scope,
             'is_poison', v_queue = scheduler.poison_queue()
           ) order by taken.msg_id) filter (where b.batch_no is not null), '{}'),
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
  return json_build_object(
    'batches', v_batches, 'stale', v_stale, 'engine_paused_until', null,
    'poison_waits', cardinality(v_batches) = 0 and v_stale = 0 and not p_manual_only and p_poison is null
      and scheduler.has_visible(scheduler.poison_queue())
  );
end
$$;

-- The 20 commonest causes of the failures among a batch's results: {"CODE": pairs, …}. What keeps a run's description small,
-- whatever codes an engine returns.
create function scheduler.count_by_cause(p_results jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_object_agg(cause.error_code, cause.pairs), '{}')
    from (
      select (grouped.value ->> 'error_code') collate "C" as error_code,
             sum(jsonb_array_length(grouped.value -> 'user_ids')) as pairs
        from jsonb_array_elements(p_results) as grouped
       where grouped.value ->> 'outcome' = 'failed'
       group by 1
       order by pairs desc, error_code
       limit 20
    ) as cause
$$;

-- Records a batch: its stored rows, its counts and the acknowledgement of its message, in one transaction. The first
-- to record wins. A result of an abandoned batch is recorded as well: it happened.
-- p_results: the results but 'not_triggered', which are only counted; grouped by what they share, because a million users'
-- share little else than that: [{"scenario_type", "outcome", "attempts", "error_code"?, "error_message"?, "user_ids": […],
-- "notification_ids"?: […]}, …], the notifications' in the order of the users'. p_scenario_counts counts every result:
-- {"SCENARIO_TYPE": {"OUTCOME": n}}. p_users_evaluated: users with a pair that was evaluated. p_remaining: users of the batch
-- whose retries hit the deadline (null: none). They become a batch of their own without deliveries, because this one made
-- progress; if this one was abandoned meanwhile, so is theirs. Returns 'done', 'already_done' or 'gone' (the invocation was pruned, the batch was split).
create function public.scheduler_complete(
  p_invocation_id uuid,
  p_batch_no integer,
  p_deliveries integer,
  p_results jsonb,
  p_scenario_counts jsonb,
  p_users_evaluated integer,
  p_duration_ms integer,
  p_worker text,
  p_remaining uuid[] default null
) returns text
language plpgsql security definer set search_path = '' set statement_timeout = '30s' as $$
declare
  v_invocation public.scheduler_invocations;
  v_batch public.scheduler_invocation_batches;
  v_remaining jsonb;
  v_recorded jsonb;
  v_counts jsonb;
  v_rows integer;
begin
  if p_remaining is not null then
    select * into v_invocation from public.scheduler_invocations where id = p_invocation_id for no key update;
  end if;
  select * into v_batch from public.scheduler_invocation_batches
   where invocation_id = p_invocation_id and batch_no = p_batch_no
     for update;
  if not found then
    return 'gone';
  end if;
  if v_batch.state = 'done' then
    return 'already_done';
  end if;

  if p_remaining is not null then
    v_remaining := scheduler.part_of_pairs(v_batch.pairs, p_remaining, p_others => false);
    v_recorded := scheduler.part_of_pairs(v_batch.pairs, p_remaining, p_others => true);
    if v_remaining = '[]'
       or v_recorded = '[]'
       or exists (
         select
           from jsonb_array_elements(p_results) as grouped
          cross join jsonb_array_elements_text(grouped.value -> 'user_ids') as user_id
          where user_id::uuid = any (p_remaining)
       )
       or exists (
         select unnest(p_remaining)
         except
         select user_id::uuid
           from jsonb_array_elements(v_remaining) as grouped
          cross join jsonb_array_elements_text(grouped.value -> 'user_ids') as user_id
       )
    then
      raise exception 'batch % of invocation %: expected some but not all of its users to remain, and results of the others',
        p_batch_no, p_invocation_id
        using errcode = 'data_exception';
    end if;
    perform scheduler.queue_batches(v_invocation, jsonb_build_array(v_remaining), v_batch);
    v_batch.pairs := v_recorded;
    select size.mentors, size.evaluations into v_batch.mentors, v_batch.evaluations
      from scheduler.size_of_pairs(v_batch.pairs) as size;
  end if;

  select jsonb_object_agg(counted.outcome, counted.n) into v_counts
    from (
      select outcome.key as outcome, sum(outcome.value::integer) as n
        from jsonb_each(p_scenario_counts) as scenario
       cross join jsonb_each_text(scenario.value) as outcome
       group by outcome.key
    ) as counted;
  select count(distinct user_id) filter (where result.error_code <> 'outcome_unknown'),
         count(distinct user_id) filter (where result.error_code = 'outcome_unknown')
    into v_batch.mentors_left, v_batch.mentors_unknown
    from jsonb_to_recordset(p_results) as result (outcome text, error_code text, user_ids jsonb)
   cross join jsonb_array_elements_text(result.user_ids) as user_id
   where result.outcome = 'failed'
      or (result.outcome = 'skipped' and result.error_code in ('scenario_disabled', 'outcome_unknown'));
  -- No foreign key is looked up for each row: the batch is held, and goes before its invocation does.
  insert into public.scheduler_evaluations
    (invocation_id, user_id, scenario_type, outcome, attempts, error_code, error_message, notification_id)
  select p_invocation_id, member.user_id::uuid, grouped.scenario_type, grouped.outcome, grouped.attempts, grouped.error_code,
         grouped.error_message, member.notification_id
    from jsonb_to_recordset(p_results) as grouped (
      scenario_type text, outcome text, attempts integer, error_code text, error_message text, user_ids jsonb, notification_ids jsonb
    )
   cross join lateral rows from (
     jsonb_array_elements_text(grouped.user_ids), jsonb_array_elements_text(grouped.notification_ids)
   ) as member (user_id, notification_id);
  get diagnostics v_rows = row_count;
  if v_rows <> v_batch.evaluations - coalesce((v_counts ->> 'not_triggered')::integer, 0) then
    raise exception 'batch % of invocation %: expected a row for each of its % pairs but the % not triggered, found % rows',
      p_batch_no, p_invocation_id, v_batch.evaluations, coalesce(v_counts ->> 'not_triggered', '0'), v_rows
      using errcode = 'data_exception';
  end if;
  update public.scheduler_invocation_batches
     set state = 'done',
         pairs = case when p_remaining is null then pairs else v_batch.pairs end,
         mentors = v_batch.mentors,
         evaluations = v_batch.evaluations,
         deliveries = p_deliveries,
         triggered = coalesce((v_counts ->> 'triggered')::integer, 0),
         not_triggered = coalesce((v_counts ->> 'not_triggered')::integer, 0),
         suppressed = coalesce((v_counts ->> 'suppressed')::integer, 0),
         skipped = coalesce((v_counts ->> 'skipped')::integer, 0),
         failed = coalesce((v_counts ->> 'failed')::integer, 0),
         not_evaluated = 0,
         users_evaluated = p_users_evaluated,
         mentors_left = v_batch.mentors_left,
         mentors_unknown = v_batch.mentors_unknown,
         scenario_counts = p_scenario_counts,
         failure_counts = case when v_counts ? 'failed' then scheduler.count_by_cause(p_results) else '{}' end,
         duration_ms = p_duration_ms,
         worker = p_worker,
         finished_at = clock_timestamp()
   where invocation_id = p_invocation_id and batch_no = p_batch_no;

  perform pgmq.delete(v_batch.queue, v_batch.msg_id);
  if v_batch.state = 'abandoned' and p_remaining is not null then
    perform scheduler.abandon_batches(v_invocation);
  end if;
  return 'done';
end
$$;

-- Releases a batch: it is visible again after p_delay_seconds. p_count_delivery false: the batch had no part in it (time was
-- up before its turn, the engine was away), so it does not count as a delivery. Returns false, and does nothing, when the
-- batch is not open any more or when another worker has claimed it since (its message was read more than p_read_count
-- times): the visibility of that claim must not change.
create function public.scheduler_release(
  p_invocation_id uuid,
  p_batch_no integer,
  p_read_count integer,
  p_delay_seconds integer,
  p_count_delivery boolean
) returns boolean
language plpgsql security definer set search_path = '' as $$
declare
  v_batch public.scheduler_invocation_batches;
begin
  select * into v_batch from public.scheduler_invocation_batches
   where invocation_id = p_invocation_id and batch_no = p_batch_no and state = 'open'
     for update;
  if not found then
    return false;
  end if;
  if scheduler.lock_message(v_batch.queue, v_batch.msg_id) is distinct from p_read_count then
    return false;
  end if;
  if not p_count_delivery and v_batch.last_released_read < p_read_count then
    update public.scheduler_invocation_batches
       set released_count = released_count + 1, last_released_read = p_read_count
     where invocation_id = p_invocation_id and batch_no = p_batch_no;
  end if;
  perform pgmq.set_vt(v_batch.queue, v_batch.msg_id, p_delay_seconds);
  return true;
end
$$;

-- Replaces a batch that may kill its workers by one batch for each of its users, in the poison queue, whose batches are worked
-- on alone. They count as delivered twice before. Returns false, and does nothing, when the batch is not open any more, when
-- another worker has claimed it since (see scheduler_release), or when it is in the poison queue already.
create function public.scheduler_split(p_invocation_id uuid, p_batch_no integer, p_read_count integer) returns boolean
language plpgsql security definer set search_path = '' as $$
declare
  v_invocation public.scheduler_invocations;
  v_batch public.scheduler_invocation_batches;
  v_singles jsonb;
begin
  select * into v_invocation from public.scheduler_invocations where id = p_invocation_id for no key update;
  select * into v_batch from public.scheduler_invocation_batches
   where invocation_id = p_invocation_id and batch_no = p_batch_no and state = 'open'
     for update;
  if not found or v_batch.queue = scheduler.poison_queue() then
    return false;
  end if;
  if scheduler.lock_message(v_batch.queue, v_batch.msg_id) is distinct from p_read_count then
    return false;
  end if;
  select jsonb_agg(single.pairs order by single.user_id) into v_singles
    from (
      select member.user_id, jsonb_agg(
          grouped.value || jsonb_build_object('user_ids', jsonb_build_array(member.user_id)) order by grouped.position
        ) as pairs
        from jsonb_array_elements(v_batch.pairs) with ordinality as grouped (value, position)
       cross join jsonb_array_elements_text(grouped.value -> 'user_ids') as member (user_id)
       group by member.user_id
    ) as single;
  perform scheduler.queue_batches(v_invocation, v_singles, v_batch, scheduler.poison_queue(), p_deliveries_before => 2);
  delete from public.scheduler_invocation_batches where invocation_id = p_invocation_id and batch_no = p_batch_no;
  perform pgmq.delete(v_batch.queue, v_batch.msg_id);
  return true;
end
$$;

-- The open batches of an invocation whose message is not in their queue.
create function scheduler.orphaned_batches(p_invocation_id uuid) returns setof integer
language plpgsql stable set search_path = '' as $$
declare
  v_queue text;
begin
  foreach v_queue in array scheduler.queues() loop
    return query execute format(
      'select b.batch_no
         from public.scheduler_invocation_batches as b
        where b.invocation_id = $1
          and b.state = ''open''
          and b.queue = $2
          -- A queue that was restored or made anew may have given the number to another message. Not compared by "=", which
          -- would join by an expression that is expensive to compute, for every batch and every message.
          and not exists (
            select from pgmq.%I as m
             where m.msg_id = b.msg_id
               and m.message ->> ''batch_no'' is not distinct from b.batch_no::text
               and m.message ->> ''invocation_id'' is not distinct from b.invocation_id::text
          )',
      'q_' || v_queue
    ) using p_invocation_id, v_queue;
  end loop;
end
$$;

-- Sends messages of open batches again that are no longer in their queue, because it was emptied or restored from a backup.
-- The batches are the work; messages only distribute it. Rows that another transaction has locked are left to the next tick:
-- so this never waits, and this order cannot deadlock. An error of one invocation must not keep dispatch from the others.
create function scheduler.requeue_orphaned_batches() returns void
language plpgsql set search_path = '' as $$
declare
  v_invocation public.scheduler_invocations;
  v_queue text;
  v_orphaned integer[];
begin
  for v_invocation in select * from public.scheduler_invocations where status in ('pending', 'running') loop
    begin
      continue when not exists (select from scheduler.orphaned_batches(v_invocation.id));
      perform from public.scheduler_invocations
        where id = v_invocation.id and status in ('pending', 'running')
          for no key update skip locked;
      continue when not found;
      -- Looked for again: before the lock, another dispatch may have found and sent the same.
      for v_queue, v_orphaned in
        select locked.queue, array_agg(locked.batch_no order by locked.batch_no)
          from (
            select b.queue, b.batch_no
              from public.scheduler_invocation_batches as b
             where b.invocation_id = v_invocation.id
               and b.batch_no in (select scheduler.orphaned_batches(v_invocation.id))
               and b.state = 'open'
               for update skip locked
          ) as locked
         group by locked.queue
      loop
        -- The read count is gone with the message, and with it the releases that it counted.
        update public.scheduler_invocation_batches as b
           set msg_id = sent.msg_id, released_count = 0, last_released_read = 0
          from unnest(v_orphaned, scheduler.send_messages(v_queue, v_invocation.id, v_orphaned)) as sent (batch_no, msg_id)
         where b.invocation_id = v_invocation.id and b.batch_no = sent.batch_no;
        raise warning 'scheduler: % batches of invocation % had lost their messages and are queued again',
          cardinality(v_orphaned), v_invocation.id;
      end loop;
    exception when others then
      raise warning 'scheduler: the lost batches of invocation % cannot be queued again: %', v_invocation.id, sqlerrm;
    end;
  end loop;
end
$$;

revoke all on function
  scheduler.send_messages(text, uuid, integer[]),
  scheduler.size_of_pairs(jsonb),
  scheduler.queue_batches(public.scheduler_invocations, jsonb, public.scheduler_invocation_batches, text, integer),
  scheduler.part_of_pairs(jsonb, uuid[], boolean),
  scheduler.count_by_cause(jsonb),
  scheduler.orphaned_batches(uuid),
  scheduler.requeue_orphaned_batches()
from public, anon, authenticated, service_role;
revoke all on function
  public.scheduler_enqueue(uuid, text, text, boolean, jsonb, jsonb),
  public.scheduler_claim(integer, integer, boolean, text),
  public.scheduler_complete(uuid, integer, integer, jsonb, jsonb, integer, integer, text, uuid[]),
  public.scheduler_release(uuid, integer, integer, integer, boolean),
  public.scheduler_split(uuid, integer, integer)
from public, anon, authenticated;
grant execute on function
  public.scheduler_enqueue(uuid, text, text, boolean, jsonb, jsonb),
  public.scheduler_claim(integer, integer, boolean, text),
  public.scheduler_complete(uuid, integer, integer, jsonb, jsonb, integer, integer, text, uuid[]),
  public.scheduler_release(uuid, integer, integer, integer, boolean),
  public.scheduler_split(uuid, integer, integer)
to service_role;
