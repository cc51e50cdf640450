-- One message for each open batch: {"invocation_id": …, "batch_no": …} and nothing else, so that no personal data waits in
-- a queue.

-- The names of the queues, in the order in which they are claimed from: manual runs first, so that their callers never wait
-- behind a scheduled run; poison batches last.
create function scheduler.queues() returns text[]
language sql immutable set search_path = '' as $$
  select array[
    'scenario_evaluation_batches_manual', 'scenario_evaluation_batches', 'scenario_evaluation_batches_poison'
  ]
$$;

-- Where the batches of an invocation are queued when they are enumerated.
create function scheduler.queue_of(p_trigger text) returns text
language sql immutable set search_path = '' as $$
  select (scheduler.queues())[case p_trigger when 'schedule' then 2 else 1 end]
$$;

create function scheduler.poison_queue() returns text
language sql immutable set search_path = '' as $$
  select (scheduler.queues())[3]
$$;

alter table public.scheduler_invocation_batches
  add constraint queue_is_known check (queue = any (scheduler.queues()));

do $$
declare
  v_queue text;
  v_table text;
begin
  foreach v_queue in array scheduler.queues() loop
    perform pgmq.create(v_queue);
    foreach v_table in array array['q_' || v_queue, 'a_' || v_queue] loop
      execute format('alter table pgmq.%I enable row level security', v_table);
      execute format('revoke all on pgmq.%I from public, anon, authenticated, service_role', v_table);
    end loop;
  end loop;
end
$$;

-- Whether a message of the queue can be claimed that has waited for so long.
create function scheduler.has_visible(p_queue text, p_waited interval default '0') returns boolean
language plpgsql volatile set search_path = '' as $$
declare
  v_found boolean;
begin
  execute format(
    'select exists (select from pgmq.%I where vt <= clock_timestamp() and enqueued_at <= clock_timestamp() - $1)',
    'q_' || p_queue
  ) into v_found using p_waited;
  return v_found;
end
$$;

-- Counts no further than p_at_most: the answer decides how many workers to request.
create function scheduler.visible_batches(p_at_most integer) returns integer
language plpgsql volatile set search_path = '' as $$
declare
  v_queue text;
  v_visible integer;
  v_all integer := 0;
begin
  foreach v_queue in array scheduler.queues() loop
    execute format(
      'select count(*) from (select from pgmq.%I where vt <= clock_timestamp() limit $1) as visible', 'q_' || v_queue
    ) into v_visible using p_at_most;
    v_all := v_all + v_visible;
  end loop;
  return v_all;
end
$$;

-- How often a message was read so far: distinguishes a worker's own delivery from a later one of the same batch. Locks the message,
-- so that a claim that is just taking it is waited for and seen.
create function scheduler.lock_message(p_queue text, p_msg_id bigint) returns integer
language plpgsql volatile set search_path = '' as $$
declare
  v_read_count integer;
begin
  execute format('select read_ct from pgmq.%I where msg_id = $1 for update', 'q_' || p_queue)
    into v_read_count using p_msg_id;
  return v_read_count;
end
$$;

-- A message that was put into the queue by hand must not make every claim fail: these return null for what is no uuid, or
-- no number.
create function scheduler.uuid_or_null(p_text text) returns uuid
language sql immutable set search_path = '' as $$
  select case
    when p_text ~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then p_text::uuid
  end
$$;

create function scheduler.integer_or_null(p_text text) returns integer
language sql immutable set search_path = '' as $$
  select case when p_text ~ '^[0-9]{1,9}$' then p_text::integer end
$$;

revoke all on function
  scheduler.queues(), scheduler.queue_of(text), scheduler.poison_queue(), scheduler.has_visible(text, interval),
  scheduler.visible_batches(integer), scheduler.lock_message(text, bigint),
  scheduler.uuid_or_null(text), scheduler.integer_or_null(text)
from public, anon, authenticated, service_role;
