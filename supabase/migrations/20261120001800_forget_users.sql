-- Erasure: one person's id is replaced in all runs that have ended. The replacement sorts where the id did, so counts, ranges
-- of batches, sorted lists and keyset positions stay true.

-- A UUID as a number, and the reverse.
create function scheduler.number_of_id(p_id uuid) returns numeric
language sql immutable set search_path = '' as $$
  select sum(
      ('x' || substr(replace(p_id::text, '-', ''), 1 + 8 * part, 8))::bit(32)::bigint
      * trunc(power(2::numeric, 32 * (3 - part)))
    )
    from generate_series(0, 3) as part
$$;

create function scheduler.id_of_number(p_number numeric) returns uuid
language sql immutable set search_path = '' as $$
  select string_agg(lpad(to_hex(
      mod(div(p_number, trunc(power(2::numeric, 32 * (3 - part)))), 4294967296)::bigint
    ), 8, '0'), '' order by part)::uuid
    from generate_series(0, 3) as part
$$;

-- A random id after the one and before the other (null: no bound). Null where fewer than 2^32 lie between them: ids made of
-- consecutive numbers are so close. One between two of those may be another person's, and its place alone says whose it was.
create function scheduler.id_between(p_after uuid, p_before uuid) returns uuid
language plpgsql volatile set search_path = '' as $$
declare
  v_after constant numeric := scheduler.number_of_id(coalesce(p_after, '00000000-0000-0000-0000-000000000000'));
  v_before constant numeric := scheduler.number_of_id(coalesce(p_before, 'ffffffff-ffff-ffff-ffff-ffffffffffff'));
  v_room constant numeric := v_before - v_after - 1;
begin
  if v_room < 4294967296 then
    return null;
  end if;
  return scheduler.id_of_number(v_after + 1 + mod(scheduler.number_of_id(gen_random_uuid()), v_room));
end
$$;

-- What a run keeps of people outside its batches, apart from the position of its enumeration: the persons that its request names, the
-- user who opened it, and texts of callers and of the engine.
create function scheduler.texts_of(p_invocation public.scheduler_invocations) returns text
language sql stable set search_path = '' as $$
  select concat_ws(' ', p_invocation.idempotency_key, p_invocation.triggered_by, p_invocation.requested_by, p_invocation.reason,
    p_invocation.note, p_invocation.error_message, p_invocation.request::text)
$$;

create function scheduler.replace_id(p_text text, p_id uuid, p_replacement uuid) returns text
language sql immutable set search_path = '' as $$
  select regexp_replace(p_text, p_id::text, p_replacement::text, 'gi')
$$;

-- The batches of a run that hold a user, or whose range the user begins or ends. Found as by scheduler.results_of_user.
create function scheduler.batches_with_user(p_invocation_id uuid, p_user_id uuid) returns setof integer
language sql stable set search_path = '' as $$
  select b.batch_no
    from (
      select first_user_id from public.scheduler_invocation_batches
       where invocation_id = p_invocation_id and first_user_id <= p_user_id
       order by first_user_id desc
       limit 1
    ) as enumerated
    join public.scheduler_invocation_batches as b
      on b.invocation_id = p_invocation_id and b.first_user_id = enumerated.first_user_id
   where p_user_id in (b.first_user_id, b.last_user_id)
      or exists (
        select from jsonb_array_elements(b.pairs) as grouped where grouped.value -> 'user_ids' ? p_user_id::text
      )
$$;

-- All runs that hold a user. By indexes, where a run has millions of evaluations.
create function scheduler.runs_with_user(p_user_id uuid) returns setof uuid
language sql stable set search_path = '' set enable_seqscan = off set enable_bitmapscan = off as $$
  select i.id
    from public.scheduler_invocations as i
   where concat_ws(' ', i.enumeration_cursor, scheduler.texts_of(i)) ~* p_user_id::text
      or exists (select from scheduler.batches_with_user(i.id, p_user_id))
      -- No EXISTS: it may be planned as a search of all evaluations.
      or (
        select true from public.scheduler_evaluations as e
         where e.invocation_id = i.id and e.user_id = p_user_id
         limit 1
      )
$$;

-- Ids of a run among which are the next before and the next after a user's. The first range that begins before the user holds
-- the next before, be it the user's own or not.
create function scheduler.ids_around(p_invocation_id uuid, p_user_id uuid) returns setof uuid
language sql stable set search_path = '' as $$
  select user_id::uuid
    from public.scheduler_invocation_batches as b
   cross join jsonb_array_elements(b.pairs) as grouped
   cross join jsonb_array_elements_text(grouped.value -> 'user_ids') as user_id
   where b.invocation_id = p_invocation_id
     and b.first_user_id in (
       (
         select first_user_id from public.scheduler_invocation_batches
          where invocation_id = p_invocation_id and first_user_id <= p_user_id
          order by first_user_id desc
          limit 1
       ),
       (
         select first_user_id from public.scheduler_invocation_batches
          where invocation_id = p_invocation_id and first_user_id < p_user_id
          order by first_user_id desc
          limit 1
       )
     )
  union all
  (
    select first_user_id from public.scheduler_invocation_batches
     where invocation_id = p_invocation_id and first_user_id > p_user_id
     order by first_user_id
     limit 1
  )
  union all
  select chosen.user_id::uuid
    from public.scheduler_invocations as i
   cross join lateral (
     select right(i.enumeration_cursor, 36) as user_id
     union all
     select jsonb_path_query(i.request, '$.user_ids[*] ? (@ != null)') #>> '{}'
   ) as chosen
   where i.id = p_invocation_id
$$;

-- Replaces a user's id in one run, which its caller has locked. Returns how many rows were changed.
create function scheduler.replace_user(
  p_invocation_id uuid,
  p_user_id uuid,
  p_replacement uuid,
  out invocations integer,
  out batches integer,
  out evaluations integer
)
language plpgsql set search_path = '' set enable_seqscan = off set enable_bitmapscan = off as $$
declare
  v_first uuid;
  v_last uuid;
begin
  update public.scheduler_invocations as i
     set request = scheduler.replace_id(i.request::text, p_user_id, p_replacement)::jsonb,
         enumeration_cursor = scheduler.replace_id(i.enumeration_cursor, p_user_id, p_replacement),
         -- A digest of what named the person would prove it to those who know the id.
         request_hash = case when scheduler.texts_of(i) ~* p_user_id::text then null else i.request_hash end,
         idempotency_key = scheduler.replace_id(i.idempotency_key, p_user_id, p_replacement),
         triggered_by = scheduler.replace_id(i.triggered_by, p_user_id, p_replacement),
         requested_by = scheduler.replace_id(i.requested_by, p_user_id, p_replacement),
         reason = scheduler.replace_id(i.reason, p_user_id, p_replacement),
         note = scheduler.replace_id(i.note, p_user_id, p_replacement),
         error_message = scheduler.replace_id(i.error_message, p_user_id, p_replacement)
   where i.id = p_invocation_id
     and concat_ws(' ', i.enumeration_cursor, scheduler.texts_of(i)) ~* p_user_id::text;
  get diagnostics invocations = row_count;

  select b.first_user_id, b.last_user_id into v_first, v_last
    from scheduler.batches_with_user(p_invocation_id, p_user_id) as held (batch_no)
    join public.scheduler_invocation_batches as b on b.invocation_id = p_invocation_id and b.batch_no = held.batch_no
   limit 1;
  update public.scheduler_invocation_batches as b
     set first_user_id = case b.first_user_id when p_user_id then p_replacement else b.first_user_id end,
         last_user_id = case b.last_user_id when p_user_id then p_replacement else b.last_user_id end,
         pairs = scheduler.replace_id(b.pairs::text, p_user_id, p_replacement)::jsonb
    from scheduler.batches_with_user(p_invocation_id, p_user_id) as held (batch_no)
   where b.invocation_id = p_invocation_id and b.batch_no = held.batch_no;
  get diagnostics batches = row_count;

  -- Of the others only what the engine said of them may name the person, and only where they may have shared a call. Locked in
  -- the order in which scheduler.prune() deletes: the two cannot deadlock.
  with held as materialized (
    select e.ctid as place
      from public.scheduler_evaluations as e
     where e.invocation_id = p_invocation_id
       and e.user_id between coalesce(v_first, p_user_id) and coalesce(v_last, p_user_id)
       and (e.user_id = p_user_id or e.error_message ~* p_user_id::text)
     order by e.ctid
       for update
  )
  update public.scheduler_evaluations as e
     set user_id = case e.user_id when p_user_id then p_replacement else e.user_id end,
         -- Marks it for scheduler.canary. The cause of a failure, or of a skip, is counted and stays.
         error_code = case
           when e.user_id = p_user_id and e.outcome in ('triggered', 'suppressed') then 'forgotten'
           else e.error_code
         end,
         error_message = case
           when e.user_id <> p_user_id then scheduler.replace_id(e.error_message, p_user_id, p_replacement)
         end,
         -- The engine knows whose it is.
         notification_id = case when e.user_id <> p_user_id then e.notification_id end
    from held
   where e.ctid = held.place;
  get diagnostics evaluations = row_count;
end
$$;

-- Replaces a person's id by a random one wherever the scheduler keeps it, in one transaction: in runs that have ended, also in
-- those that were deleted and are not pruned yet. A run and its retries get one id, because positions in a retry are places
-- among the ids of its source; other runs each get another. Returns how many rows were changed: {"scheduler_audit",
-- "scheduler_invocations", "scheduler_invocation_batches", "scheduler_evaluations"}. What it raises has changed nothing, and it
-- may be called again:
-- 55000: the person is still among the mentors, or no id fits (scheduler.id_between);
-- 55006: an open run holds the person or may still read them, or a worker may still record one that was ended early;
-- 55P03: other transactions hold the runs for longer than ten seconds; MV001: the mentors' view has the wrong columns.
create function scheduler.forget_user(p_user_id uuid) returns jsonb
language plpgsql strict set search_path = '' set lock_timeout = '10s' as $$
declare
  v_mentors uuid[];
  v_runs uuid[];
  v_waited_for uuid[];
  v_family uuid[];
  v_replacement uuid;
  v_changed record;
  v_invocations integer := 0;
  v_batches integer := 0;
  v_evaluations integer := 0;
  v_actor constant uuid := gen_random_uuid();
  v_entries integer;
begin
  perform public.scheduler_check_mentors_view();
  -- Those beside the person as well: where an enumeration was cut off, its position is a place among the mentors.
  v_mentors := array(
    (select m.user_id from public.active_peer_mentors as m where m.user_id <= p_user_id order by m.user_id desc limit 1)
    union all
    (select m.user_id from public.active_peer_mentors as m where m.user_id > p_user_id order by m.user_id limit 1)
  );
  if v_mentors @> array[p_user_id] then
    raise exception using
      errcode = 'object_not_in_prerequisite_state',
      message = 'this person is still in public.active_peer_mentors, and the next run would store the id again: nothing was '
        'changed. Remove the person there, and call again.';
  end if;

  -- No run is opened, enumerated or ended meanwhile: a retry would read what is being replaced. Batches are claimed and recorded
  -- all the same. Before any batch is locked, the order of all others.
  lock table public.scheduler_invocations in exclusive mode;
  v_runs := array(select scheduler.runs_with_user(p_user_id));

  v_waited_for := array(
    select i.id
      from public.scheduler_invocations as i
     where case
       when i.finished_at is null then
         i.id = any (v_runs)
         -- It may have read the person's row, and not queued it yet. What was not chosen is read in the order of ids.
         or (
           not i.enumeration_done
           and jsonb_typeof(i.request -> 'user_ids') is distinct from 'array'
           and coalesce(right(i.enumeration_cursor, 36)::uuid < p_user_id, true)
         )
       else
         i.id = any (v_runs)
         and i.finished_at > clock_timestamp() - make_interval(secs => 10 + (select time_budget_seconds from scheduler.settings))
         and exists (
           select from public.scheduler_invocation_batches as b where b.invocation_id = i.id and b.state = 'abandoned'
         )
     end
     order by i.invoked_at
  );
  if v_waited_for <> '{}' then
    raise exception using
      errcode = 'object_in_use',
      message = format(
        'expected no open run that holds this person or may still read them, and none that was ended early within the last %s '
        'seconds, found %s, the first of them %s: nothing was changed. Call again later.',
        10 + (select time_budget_seconds from scheduler.settings), cardinality(v_waited_for), v_waited_for[1]
      );
  end if;

  -- Allows it to change the audit, which does not record what it does.
  perform set_config('scheduler.maintenance', 'on', true);
  for v_family in
    select array_agg(i.id)
      from public.scheduler_invocations as i
     where i.id = any (v_runs)
     group by coalesce(i.first_run, i.id)
  loop
    select coalesce(
        scheduler.id_between((array_agg(id order by id desc) filter (where id < p_user_id))[1], p_user_id),
        scheduler.id_between(p_user_id, (array_agg(id order by id) filter (where id > p_user_id))[1])
      ) into v_replacement
      from (
        select scheduler.ids_around(run_id, p_user_id) as id from unnest(v_family) as run_id
        union all
        select unnest(v_mentors)
      ) as known;
    if v_replacement is null then
      raise exception using
        errcode = 'object_not_in_prerequisite_state',
        message = format(
          'the ids beside this person''s in the invocations %s leave no room for another: nothing was changed. Delete these '
          'invocations and prune (docs/operations.md), and call again.',
          array_to_string(v_family, ', ')
        );
    end if;
    for v_changed in
      select replaced.*
        from unnest(v_family) as run_id
       cross join lateral scheduler.replace_user(run_id, p_user_id, v_replacement) as replaced
    loop
      v_invocations := v_invocations + v_changed.invocations;
      v_batches := v_batches + v_changed.batches;
      v_evaluations := v_evaluations + v_changed.evaluations;
    end loop;
  end loop;
  -- Who paused the schedule, where that is a user who signed in, and in which words.
  update scheduler.settings
     set paused_by = scheduler.replace_id(paused_by, p_user_id, v_actor),
         pause_reason = scheduler.replace_id(pause_reason, p_user_id, gen_random_uuid())
   where concat_ws(' ', paused_by, pause_reason) ~* p_user_id::text;
  -- What the person did stays one actor's; texts about the person get an id each, like runs.
  update public.scheduler_audit as a
     set actor = scheduler.replace_id(a.actor, p_user_id, v_actor),
         before = scheduler.replace_id(a.before::text, p_user_id, gen_random_uuid())::jsonb,
         after = scheduler.replace_id(a.after::text, p_user_id, gen_random_uuid())::jsonb
   where concat_ws(' ', a.actor, a.before, a.after) ~* p_user_id::text;
  get diagnostics v_entries = row_count;
  perform set_config('scheduler.maintenance', '', true);
  return jsonb_build_object(
    'scheduler_audit', v_entries,
    'scheduler_invocations', v_invocations,
    'scheduler_invocation_batches', v_batches,
    'scheduler_evaluations', v_evaluations
  );
end
$$;

-- No role of the API: not even the function's.
revoke all on function
  scheduler.number_of_id(uuid), scheduler.id_of_number(numeric), scheduler.id_between(uuid, uuid),
  scheduler.texts_of(public.scheduler_invocations), scheduler.replace_id(text, uuid, uuid),
  scheduler.batches_with_user(uuid, uuid), scheduler.runs_with_user(uuid), scheduler.ids_around(uuid, uuid),
  scheduler.replace_user(uuid, uuid, uuid), scheduler.forget_user(uuid)
from public, anon, authenticated, service_role;
