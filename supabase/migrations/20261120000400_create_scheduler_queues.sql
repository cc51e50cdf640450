-- One message for each open batch: {"invocation_id": …, "batch_no": …} and nothing else, so that no personal data waits in
-- a queue. Manual runs have a queue of their own, which is claimed first: a person never waits behind a night.

select pgmq.create('scenario_evaluation_batches');
select pgmq.create('scenario_evaluation_batches_manual');

alter table pgmq.q_scenario_evaluation_batches enable row level security;
alter table pgmq.a_scenario_evaluation_batches enable row level security;
alter table pgmq.q_scenario_evaluation_batches_manual enable row level security;
alter table pgmq.a_scenario_evaluation_batches_manual enable row level security;
revoke all on
  pgmq.q_scenario_evaluation_batches, pgmq.a_scenario_evaluation_batches,
  pgmq.q_scenario_evaluation_batches_manual, pgmq.a_scenario_evaluation_batches_manual
from public, anon, authenticated, service_role;

create function scheduler.queue_of(p_triggered_by text) returns text
language sql immutable set search_path = '' as $$
  select case p_triggered_by
    when 'schedule' then 'scenario_evaluation_batches'
    else 'scenario_evaluation_batches_manual'
  end
$$;

-- Counts no further than it has to: the answer decides how many workers to ask for.
create function scheduler.visible_batches(p_at_most integer) returns integer
language sql volatile set search_path = '' as $$
  select count(*)::integer
    from (
      (select 1 from pgmq.q_scenario_evaluation_batches where vt <= clock_timestamp() limit p_at_most)
      union all
      (select 1 from pgmq.q_scenario_evaluation_batches_manual where vt <= clock_timestamp() limit p_at_most)
    ) as visible
$$;

-- How often a message was read so far: tells a worker's own delivery from a later one of the same batch. Locks the message,
-- so that a claim that is just taking it is waited for and seen.
create function scheduler.lock_message(p_queue text, p_msg_id bigint) returns integer
language plpgsql volatile set search_path = '' as $$
declare
  v_read_count integer;
begin
  if p_queue = 'scenario_evaluation_batches' then
    select read_ct into v_read_count from pgmq.q_scenario_evaluation_batches where msg_id = p_msg_id for update;
  else
    select read_ct into v_read_count from pgmq.q_scenario_evaluation_batches_manual where msg_id = p_msg_id for update;
  end if;
  return v_read_count;
end
$$;

-- A message that somebody put into the queue by hand must not make every claim fail: what is no uuid, or no number, is no
-- batch.
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
  scheduler.uuid_or_null(text), scheduler.integer_or_null(text), scheduler.queue_of(text), scheduler.visible_batches(integer), scheduler.lock_message(text, bigint)
from public, anon, authenticated, service_role;
