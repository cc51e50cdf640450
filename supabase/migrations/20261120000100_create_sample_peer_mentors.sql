-- Who may be evaluated: the sample application's mentors, and the one view through which the scheduler sees them.
--
-- The view public.active_peer_mentors is the seam. The scheduler reads its two columns and nothing else. A team with a schema
-- of its own writes the view over its own tables, before this or afterwards: docs/adapting.md. What it has is left alone:
-- where the view is there this changes nothing (the next migration checks its columns), and where only a table named
-- peer_mentors is there, this stops before it begins.
--
-- Dropping and creating a view anew loses its rights, and Supabase's default privileges then open it to anon: repeat the
-- revoke and the grant at the end whenever you replace it that way.

-- Looks before anything is changed: raises what stands in the way, and what to do about it. The Supabase CLI shows its user
-- the message and then the statement that failed, and no hint: so the message says it all, and a statement of one line raises it.
create function pg_temp.preflight() returns void
language plpgsql as $$
declare
  found_columns constant text := (
    select string_agg(format('%I %s', a.attname, format_type(a.atttypid, null)), ', ' order by a.attnum)
      from pg_attribute as a
     where a.attrelid = to_regclass('public.peer_mentors')
       and a.attnum > 0
       and not a.attisdropped
  );
begin
  if to_regclass('scheduler.settings') is not null and to_regclass('public.scheduler_invocations') is not null then
    raise exception using
      errcode = 'duplicate_schema',
      message = 'the scheduler is in this database already, but the history of its migrations is not: nothing was changed. Say '
        'which migrations were applied, `supabase migration repair --status applied VERSION…`, and push again '
        '(docs/deployment.md).';
  elsif to_regnamespace('scheduler') is not null or to_regclass('public.scheduler_invocations') is not null then
    raise exception using
      errcode = 'duplicate_schema',
      message = 'a schema scheduler or a table public.scheduler_invocations is here and is not ours: nothing was changed. '
        'Rename it: the scheduler''s names are fixed (docs/adapting.md).';
  end if;

  if to_regclass('public.active_peer_mentors') is null
    and to_regclass('public.peer_mentors') is not null
    and coalesce(obj_description(to_regclass('public.peer_mentors'), 'pg_class'), '') not like 'Sample application: %'
  then
    raise exception using
      errcode = 'duplicate_table',
      message = format(
        'public.peer_mentors is a table of your own (%s), and there is no view public.active_peer_mentors yet: nothing was '
        'changed. Create the view over your tables first, as docs/adapting.md shows, and apply the migrations again.',
        coalesce(found_columns, 'no columns')
      );
  end if;
end
$$;

select pg_temp.preflight();
drop function pg_temp.preflight();

do $$
begin
  if to_regclass('public.active_peer_mentors') is not null then
    return;
  end if;

  if to_regclass('public.peer_mentors') is null then
    create table public.peer_mentors (
      user_id uuid primary key,
      status text not null default 'active',
      -- What the programme sorts its mentors by: 'region:north', 'weekend', 'youth', 'bereavement', ...
      segments text[] not null default '{}',
      joined_at timestamptz not null default now(),
      onboarding_completed_at timestamptz,
      -- Null in a pause without an agreed end.
      paused_until timestamptz,
      last_contact_at timestamptz,
      -- Null: the mentor has no certificate.
      certification_expires_at timestamptz,
      contacts_logged integer not null default 0,

      constraint peer_mentors_status_is_known check (status in ('active', 'paused', 'left')),
      constraint peer_mentors_only_a_pause_has_an_end check (paused_until is null or status = 'paused'),
      constraint peer_mentors_segments_have_names check (array_position(segments, null) is null),
      constraint peer_mentors_contacts_logged_is_a_count check (contacts_logged >= 0)
    );
    -- Marks the table as the sample's: see above.
    comment on table public.peer_mentors is
      'Sample application: the volunteers of the programme. The scheduler never reads it, only public.active_peer_mentors.';

    -- The enumeration of a scheduled run walks the view in user_id order. People who left stay in the table for the programme's
    -- statistics and outnumber the present ones after some years: the walk must not step over them.
    create index peer_mentors_present_by_user_id on public.peer_mentors (user_id) where status <> 'left';

    -- Row level security without a policy shuts out every role but those that bypass it. The revokes name each role because
    -- Supabase's default privileges grant to anon and authenticated directly: revoking from public alone would leave both in.
    alter table public.peer_mentors enable row level security;
    revoke all on table public.peer_mentors from public, anon, authenticated, service_role;
    grant select, insert, update, delete on table public.peer_mentors to service_role;
  end if;

  -- security_invoker: the reader needs rights on the table as well, so the view can never show more than its reader may see.
  create view public.active_peer_mentors with (security_invoker = true) as
  select
    mentor.user_id,
    -- The stage is derived, so that completing the onboarding moves a mentor from one set of scenarios to the other.
    array[case when mentor.onboarding_completed_at is null then 'onboarding' else 'established' end]
      || case when mentor.certification_expires_at is not null then array['certified'] else '{}' end
      || mentor.segments as segments
  from public.peer_mentors as mentor
  where
    mentor.status = 'active'
    -- A pause ends by itself, without an update of the status.
    or (mentor.status = 'paused' and mentor.paused_until <= now());

  comment on view public.active_peer_mentors is
    'The seam: user_id and segments of every mentor to be evaluated. Rewrite it over your own schema and repeat its revokes: '
    'replacing a view by drop and create loses them, and default privileges then grant it to anon.';

  revoke all on table public.active_peer_mentors from public, anon, authenticated, service_role;
  grant select on table public.active_peer_mentors to service_role;
end
$$;
