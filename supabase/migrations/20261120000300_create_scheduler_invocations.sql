-- An invocation is one logical run, named by its slot. It is cut into batches; what became of each pair of mentor and
-- scenario type is counted in its batch and, unless nothing was to be done, kept as a row. Counts of an invocation are
-- derived from its batches and stored nowhere else, so they cannot disagree.

-- A UUID that begins with the millisecond it was made in (RFC 9562, section 5.7). The rows of a run follow those of earlier
-- runs in every index that begins with its id, so a run is recorded at an index's end, however long the history before it.
create function scheduler.time_ordered_id(p_at timestamptz default clock_timestamp()) returns uuid
language sql volatile set search_path = '' as $$
  select (
    lpad(to_hex(floor(extract(epoch from p_at) * 1000)::bigint), 12, '0')
    || '7'
    || right(replace(gen_random_uuid()::text, '-', ''), 19)
  )::uuid
$$;

create table public.scheduler_invocations (
  id uuid primary key default scheduler.time_ordered_id(),
  -- 'slot:…' for a slot, 'key:…' for a key that a client chose, 'id:…' where it chose none: none can collide with another.
  idempotency_key text not null unique,
  -- Digest of the request under a client's key: the same key with another request is an error.
  request_hash text,
  trigger text not null,
  -- The authenticated caller: 'pg_cron', 'cloud_scheduler', or the name of a token.
  triggered_by text not null,
  -- The person that a manual run's request names; a claim, not checked.
  requested_by text,
  -- Why a manual run was requested.
  reason text,
  status text not null default 'pending',
  scheduled_for timestamptz not null,
  invoked_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  expires_at timestamptz not null,
  dry_run boolean not null default false,
  -- What it reads what is left from; null once that is pruned.
  retry_of uuid references public.scheduler_invocations on delete set null,
  -- Of a retry the run that its chain of retries began with, kept when that is pruned: what follows must still be found.
  first_run uuid,
  -- {"user_ids": […] or null: all active mentors, "scenario_types": […] or null: all that apply}; {} is both.
  request jsonb not null default '{}',
  -- The settings in force when it was opened, and which scenario types apply to which mentors, as shared/scenario_config.py reads them;
  -- secrets are not among them.
  config jsonb not null default '{}',
  -- The first part of every idempotency key that the engine sees for this invocation.
  engine_scope text not null,
  -- Since when the engine may hold keys of this scope: a retry inherits both.
  engine_scope_since timestamptz not null default now(),
  -- Keyset position of the enumeration, in the terms of functions/runs/mentor_selection.py: all mentors up to here are in a
  -- batch or were skipped.
  enumeration_cursor text,
  enumeration_done boolean not null default false,
  next_batch_no integer not null default 1,
  pages_processed integer not null default 0,
  -- Rows of the mentors' view that led to no evaluation. no_scenario_applies and user_id_missing are in no batch; of
  -- invalid_segments the pairs are in a batch, and skipped, unless another row of the same user can be used.
  skip_reasons jsonb not null default '{"no_scenario_applies": 0, "user_id_missing": 0, "invalid_segments": 0}',
  -- Those in no batch.
  mentors_skipped integer not null generated always as (
    (skip_reasons ->> 'no_scenario_applies')::integer + (skip_reasons ->> 'user_id_missing')::integer
  ) stored,
  error_code text,
  -- Where the engine is the reason: what was wrong with its answers, such as a certificate that has expired.
  error_message text,
  note text,
  -- The function has logged its end. Runs that SQL ended are logged by the next slice.
  end_is_logged boolean not null default false,
  -- Gone from the API; its slot and its key stay used. The rows go with prune.
  deleted_at timestamptz,
  constraint trigger_is_known check (trigger in ('schedule', 'manual', 'retry')),
  constraint status_is_known check (
    status in ('pending', 'running', 'success', 'partial', 'failed', 'cancelled', 'skipped')
  ),
  constraint error_code_is_known check (
    error_code in (
      'engine_unavailable', 'engine_rejected', 'expired', 'marked_failed', 'no_active_mentors', 'no_enabled_scenarios',
      'mentors_view_invalid', 'overlap', 'paused'
    )
  ),
  constraint error_message_explains_an_error_code check (error_message is null or error_code is not null),
  constraint error_message_is_bounded check (char_length(error_message) <= 300),
  constraint ended_has_a_time check ((status in ('pending', 'running')) = (finished_at is null)),
  constraint running_has_started check (status <> 'running' or started_at is not null),
  constraint only_a_retry_has_a_source check (coalesce(retry_of, first_run) is null or trigger = 'retry'),
  constraint only_what_has_ended_is_deleted check (deleted_at is null or finished_at is not null),
  constraint note_is_bounded check (char_length(note) <= 2000),
  constraint reason_is_bounded check (char_length(reason) <= 300),
  constraint triggered_by_is_bounded check (char_length(triggered_by) between 1 and 64),
  constraint requested_by_is_bounded check (char_length(requested_by) <= 100)
);

create index scheduler_invocations_newest on public.scheduler_invocations (invoked_at desc, id) where deleted_at is null;
create index scheduler_invocations_deleted on public.scheduler_invocations (deleted_at) where deleted_at is not null;
create index scheduler_invocations_retries on public.scheduler_invocations (retry_of) where retry_of is not null;
create index scheduler_invocations_open on public.scheduler_invocations (expires_at)
where status in ('pending', 'running');
create index scheduler_invocations_ended on public.scheduler_invocations (finished_at)
where finished_at is not null;

create index scheduler_invocations_end_not_logged on public.scheduler_invocations (finished_at)
where finished_at is not null and not end_is_logged;

-- Overlap as a fact of the schema: two scheduled runs cannot be open at once, also in a race.
create unique index scheduler_invocations_one_scheduled_run on public.scheduler_invocations ((true))
where status in ('pending', 'running') and trigger = 'schedule';

create index scheduler_invocations_chain on public.scheduler_invocations (first_run) where first_run is not null;
-- Two retries in one chain would evaluate the same pairs at the same time.
create unique index scheduler_invocations_one_retry on public.scheduler_invocations (first_run)
where status in ('pending', 'running');

create table public.scheduler_invocation_batches (
  invocation_id uuid not null references public.scheduler_invocations on delete cascade,
  batch_no integer not null,
  -- The pairs as they were frozen at enumeration: [{"scenario_types": […], "user_ids": […]}, …], users in the order of their
  -- ids. A group with a "skip" is not evaluated; the reason is its outcome's. "unknown": of a retry, those of the types that failed
  -- as outcome_unknown before, whether it evaluates them or not.
  pairs jsonb not null,
  -- The range of users that was frozen together at enumeration. What is cut off from a batch or split from it keeps the
  -- range, so the ranges of an invocation are the same or disjoint: a user can only be in a batch of the last range that does
  -- not begin after the user's id.
  first_user_id uuid not null,
  last_user_id uuid not null,
  mentors integer not null,
  evaluations integer not null,
  -- Where its message is, see scheduler.queues().
  queue text not null,
  msg_id bigint not null,
  state text not null default 'open',
  -- Deliveries of the batch that it was split from: a batch that may crash its workers stays one.
  deliveries_before integer not null default 0,
  -- How often a worker released it without a result (time budget over, engine down): those deliveries are no evidence
  -- that the batch kills its workers.
  released_count integer not null default 0,
  -- The read of its message that was released last, so that a repeated call does not count again.
  last_released_read integer not null default 0,
  deliveries integer not null default 0,
  triggered integer not null default 0,
  not_triggered integer not null default 0,
  suppressed integer not null default 0,
  skipped integer not null default 0,
  failed integer not null default 0,
  not_evaluated integer not null default 0,
  -- Users with at least one pair that was evaluated: triggered, not_triggered or suppressed.
  users_evaluated integer not null default 0,
  -- Mentors of whom a retry evaluates a pair, if the run ends as the batch is: one that failed, was not evaluated, or was skipped
  -- by a retry because its type was off.
  mentors_left integer not null default 0,
  -- Mentors with a pair that failed as outcome_unknown, in this run or before: a retry evaluates it only on request.
  mentors_unknown integer not null default 0,
  -- {"SCENARIO_TYPE": {"OUTCOME": count, …}, …}
  scenario_counts jsonb not null default '{}',
  -- {"CODE": pairs, …}: the 20 commonest causes of its failures. How many pairs failed by other causes is `failed` less these.
  failure_counts jsonb not null default '{}',
  duration_ms integer,
  worker text,
  finished_at timestamptz,
  primary key (invocation_id, batch_no),
  constraint batch_has_pairs check (evaluations > 0),
  constraint only_its_users_are_evaluated check (users_evaluated between 0 and mentors),
  constraint only_its_mentors_are_left check (
    mentors_left between 0 and mentors and mentors_unknown between 0 and mentors
  ),
  constraint users_are_in_order check (first_user_id <= last_user_id),
  constraint state_is_known check (state in ('open', 'done', 'abandoned')),
  constraint ended_batch_has_a_time check ((state = 'open') = (finished_at is null)),
  constraint counts_add_up check (
    triggered + not_triggered + suppressed + skipped + failed + not_evaluated
    = case state when 'open' then 0 else evaluations end
  )
) with (fillfactor = 80);

-- Ids hardly shrink: PostgreSQL would try to compress each batch's, four fifths of the time of queueing it, and keep it as it
-- is (measured: 2.5 ms for five batches of 500 users against 0.5).
alter table public.scheduler_invocation_batches alter column pairs set storage external;

create index scheduler_invocation_batches_by_user on public.scheduler_invocation_batches (invocation_id, first_user_id);
create index scheduler_invocation_batches_open on public.scheduler_invocation_batches (invocation_id, batch_no)
where state = 'open';
-- For scheduler.canary, which must not search millions of evaluations after a run in which all failed.
create index scheduler_invocation_batches_answered on public.scheduler_invocation_batches (finished_at)
where triggered + suppressed > 0;
-- For scheduler.engine_answered_since.
create index scheduler_invocation_batches_evaluated on public.scheduler_invocation_batches (finished_at)
where users_evaluated > 0;

create table public.scheduler_evaluations (
  -- Of an invocation whose batch is held while the row is written (scheduler_complete). A foreign key would look that up once
  -- more for each row, which takes half of the time of recording a batch (measured: 3.0 ms of CPU for 300 rows against 1.5).
  invocation_id uuid not null,
  user_id uuid not null,
  scenario_type text not null,
  outcome text not null,
  attempts integer not null default 1,
  error_code text,
  error_message text,
  notification_id text,
  primary key (invocation_id, user_id, scenario_type),
  constraint outcome_is_notable check (outcome in ('triggered', 'suppressed', 'skipped', 'failed')),
  constraint failed_has_a_cause check (outcome <> 'failed' or error_code is not null),
  -- What an engine sends is cut by the function (shared/engine_response.py).
  constraint texts_are_bounded check (
    char_length(error_code) <= 64 and char_length(error_message) <= 300 and char_length(notification_id) <= 300
  )
);

-- What a foreign key's cascade would do. The batches went before, by theirs, and with them every transaction that could still add a row.
create function scheduler.delete_evaluations() returns trigger
language plpgsql set search_path = '' as $$
begin
  delete from public.scheduler_evaluations where invocation_id in (select gone.id from gone);
  return null;
end
$$;
revoke all on function scheduler.time_ordered_id(timestamptz), scheduler.delete_evaluations() from public, anon, authenticated, service_role;

create trigger delete_evaluations after delete on public.scheduler_invocations
referencing old table as gone
for each statement execute function scheduler.delete_evaluations();

create index scheduler_evaluations_failed on public.scheduler_evaluations (invocation_id, error_code)
where outcome = 'failed';

-- State changes go through the functions of the later migrations; the service role may look, not touch.
alter table public.scheduler_invocations enable row level security;
alter table public.scheduler_invocation_batches enable row level security;
alter table public.scheduler_evaluations enable row level security;
revoke all on public.scheduler_invocations, public.scheduler_invocation_batches, public.scheduler_evaluations
from public, anon, authenticated, service_role;
grant select on public.scheduler_invocations, public.scheduler_invocation_batches, public.scheduler_evaluations
to service_role;
