-- The reference scenario trigger engine's share of the database: its outbox of notifications, and the one function that
-- decides for a whole call at once whether a scenario applies and queues what has to be sent.
--
-- Applied as postgres after the project's migrations, and again at every start: every statement can be repeated.

create table if not exists public.engagement_notifications (
  id uuid primary key default gen_random_uuid(),
  -- Null once the engine has forgotten the key. The notification outlives it: the cool-down and milestones need it.
  idempotency_key text unique,
  user_id uuid not null references public.peer_mentors on delete cascade,
  scenario_type text not null,
  milestone integer,
  created_at timestamptz not null default now(),
  -- Of the calendar year (UTC) in which a milestone is congratulated on.
  milestone_year integer,
  -- Set by whatever sends the push messages. Null: queued.
  delivered_at timestamptz,

  constraint engagement_notifications_only_milestones_have_a_number
    check ((scenario_type = 'milestone') = (milestone is not null) and (milestone is null) = (milestone_year is null))
);

-- A milestone is congratulated on once in a year, whatever key the call has.
create unique index if not exists engagement_notifications_once_per_milestone
  on public.engagement_notifications (user_id, milestone, milestone_year) where milestone is not null;

create index if not exists engagement_notifications_latest
  on public.engagement_notifications (user_id, scenario_type, created_at desc);

alter table public.engagement_notifications enable row level security;
revoke all on table public.engagement_notifications from public, anon, authenticated;
grant select on table public.engagement_notifications to service_role;

-- The rules. A mentor who left or paused since the call was made up is due for nothing; an unknown type has no rule: null.
--
--   inactivity            established, and 30 days without a logged contact, counted from joining if there never was one
--   milestone             sits on exactly 1, 10, 25, 50, 100, 250, 500 or a multiple of 1,000 logged contacts. A mentor
--                         who goes past one between two runs has missed it: stale numbers are not congratulated on
--   certification_expiry  a certificate that expires within 30 days, and has not expired
--
-- The cool-downs: scenario_was_sent.
--
-- A search_path of its own would keep the planner from inlining this expression, at three times the cost of a call. It
-- needs none: it names no table, and its only caller has set an empty one.
create or replace function public.scenario_is_due(mentor public.peer_mentors, scenario_type text)
returns boolean
language sql
stable
as $$
  select
    (mentor.status = 'active' or (mentor.status = 'paused' and coalesce(mentor.paused_until <= now(), false)))
    and case scenario_type
      when 'inactivity' then
        mentor.onboarding_completed_at is not null
        and coalesce(mentor.last_contact_at, mentor.joined_at) < now() - interval '30 days'
      when 'milestone' then
        mentor.contacts_logged in (1, 10, 25, 50, 100, 250, 500)
        or (mentor.contacts_logged > 0 and mentor.contacts_logged % 1000 = 0)
      when 'certification_expiry' then
        coalesce(
          mentor.certification_expires_at > now() and mentor.certification_expires_at < now() + interval '30 days', false
        )
    end
$$;

-- What keeps a scenario that applies from being sent: the same scenario within its type's cool-down, or the same milestone in
-- the same year. A mentor who still sits on ten contacts next month has been congratulated on them.
create or replace function public.scenario_was_sent(mentor public.peer_mentors, scenario_type text)
returns boolean
language sql
stable
set search_path = ''
as $$
  select exists (
    select
    from public.engagement_notifications as earlier
    where
      earlier.user_id = mentor.user_id
      and earlier.scenario_type = scenario_was_sent.scenario_type
      and (
        earlier.created_at > now() - case scenario_was_sent.scenario_type
          when 'certification_expiry' then interval '14 days'
          when 'milestone' then interval '1 day'
          else interval '7 days'
        end
        or (earlier.milestone, earlier.milestone_year)
          = (mentor.contacts_logged, extract(year from now() at time zone 'UTC')::integer)
      )
  )
$$;

revoke all on function public.scenario_is_due (public.peer_mentors, text)
from public, anon, authenticated, service_role;
revoke all on function public.scenario_was_sent (public.peer_mentors, text)
from public, anon, authenticated, service_role;

-- Evaluates pairs given as three arrays of equal length; answers a JSON array of results in their order. One array and not
-- a set of rows: the Data API cuts sets after 1,000 rows.
create or replace function public.evaluate_scenarios(
  user_ids uuid[],
  scenario_types text[],
  idempotency_keys text[],
  dry_run boolean default false
)
returns jsonb
language plpgsql
security definer
set search_path = ''
as $$
declare
  key_lifetime constant interval := '168 hours';
  known_types constant text[] := array['inactivity', 'milestone', 'certification_expiry'];
  due boolean[];
  results jsonb;
begin
  select array_agg(public.scenario_is_due(mentor, pair.scenario_type) order by pair.position)
  into due
  from unnest(user_ids, scenario_types) with ordinality as pair (user_id, scenario_type, position)
  left join public.peer_mentors as mentor on mentor.user_id = pair.user_id;

  if not dry_run then
    update public.engagement_notifications as forgotten
    set idempotency_key = null
    where forgotten.idempotency_key = any (idempotency_keys) and forgotten.created_at < now() - key_lifetime;

    -- Calls about the same mentor take turns from here on: the cool-down is a check before an insert, and two calls that
    -- both checked first would both notify. Locked in one order, so that they cannot block each other for good, and only
    -- where something may be queued, so that the many who are due for nothing cost no write. The insert below is a
    -- statement of its own and therefore sees what was committed while this one waited.
    perform
    from public.peer_mentors as mentor
    where
      mentor.user_id in (
        select pair.user_id from unnest(user_ids, due) as pair (user_id, due) where pair.due
      )
    order by mentor.user_id
    for no key update;

    insert into public.engagement_notifications (idempotency_key, user_id, scenario_type, milestone, milestone_year)
    select distinct on (pair.user_id, pair.scenario_type)
      pair.idempotency_key,
      pair.user_id,
      pair.scenario_type,
      case when pair.scenario_type = 'milestone' then mentor.contacts_logged end,
      case when pair.scenario_type = 'milestone' then extract(year from now() at time zone 'UTC')::integer end
    from unnest(user_ids, scenario_types, idempotency_keys, due) with ordinality
      as pair (user_id, scenario_type, idempotency_key, due, position)
    join public.peer_mentors as mentor on mentor.user_id = pair.user_id
    where
      pair.due
      and not public.scenario_was_sent(mentor, pair.scenario_type)
    order by pair.user_id, pair.scenario_type, pair.position
    on conflict do nothing;
  end if;

  -- A notification under the pair's own key was queued just now or by an earlier call: both answer `triggered`, and so a
  -- repeat looks like the first call.
  select jsonb_agg(
    jsonb_build_object('user_id', pair.user_id, 'scenario_type', pair.scenario_type) || case
      when pair.scenario_type <> all (known_types) then
        jsonb_build_object('outcome', 'failed', 'error', jsonb_build_object(
          'code', 'unknown_scenario_type', 'message', 'this engine has no rule for the scenario type', 'retryable', false
        ))
      when mentor.user_id is null then
        jsonb_build_object('outcome', 'failed', 'error', jsonb_build_object(
          'code', 'unknown_user', 'message', 'there is no mentor with this id', 'retryable', false
        ))
      when (own.user_id, own.scenario_type) = (pair.user_id, pair.scenario_type) then
        jsonb_build_object('outcome', 'triggered', 'notification_id', own.id)
      when own.id is not null then
        jsonb_build_object('outcome', 'failed', 'error', jsonb_build_object(
          'code', 'idempotency_key_reused', 'message', 'the key belongs to another pair', 'retryable', false
        ))
      when not pair.due then jsonb_build_object('outcome', 'not_triggered')
      when not dry_run or public.scenario_was_sent(mentor, pair.scenario_type) then
        jsonb_build_object('outcome', 'suppressed')
      else jsonb_build_object('outcome', 'triggered')
    end
    order by pair.position
  )
  into results
  from unnest(user_ids, scenario_types, idempotency_keys, due) with ordinality
    as pair (user_id, scenario_type, idempotency_key, due, position)
  left join public.peer_mentors as mentor on mentor.user_id = pair.user_id
  left join public.engagement_notifications as own
    on own.idempotency_key = pair.idempotency_key and not dry_run;

  return coalesce(results, '[]'::jsonb);
end
$$;

revoke all on function public.evaluate_scenarios (uuid[], text[], text[], boolean) from public, anon, authenticated;
grant execute on function public.evaluate_scenarios (uuid[], text[], text[], boolean) to service_role;
