-- Who may be evaluated: the sample application's mentors, and the one view through which the scheduler sees them.
--
-- The view public.active_peer_mentors is the seam. The scheduler reads its two columns and nothing else, so a team with
-- a schema of its own drops public.peer_mentors and rewrites the view over its own tables. Dropping and creating a view
-- anew loses its rights, and Supabase's default privileges then open it to anon: repeat the revokes and the grant below
-- whenever you replace it that way.

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
  contacts_logged integer not null default 0,

  constraint peer_mentors_status_is_known check (status in ('active', 'paused', 'left')),
  constraint peer_mentors_only_a_pause_has_an_end check (paused_until is null or status = 'paused'),
  constraint peer_mentors_segments_have_names check (array_position(segments, null) is null),
  constraint peer_mentors_contacts_logged_is_a_count check (contacts_logged >= 0)
);

comment on table public.peer_mentors is
  'Sample application: the volunteers of the programme. The scheduler never reads it, only public.active_peer_mentors.';

-- The nightly enumeration walks the view in user_id order. People who left stay in the table for the programme's
-- statistics and outnumber the present ones after some years: the walk must not step over them.
create index peer_mentors_present_by_user_id on public.peer_mentors (user_id) where status <> 'left';

-- security_invoker: the reader needs rights on the table as well, so the view can never show more than its reader may see.
create view public.active_peer_mentors with (security_invoker = true) as
select
  mentor.user_id,
  -- The stage is derived, so that completing the onboarding moves a mentor from one set of scenarios to the other.
  array[case when mentor.onboarding_completed_at is null then 'onboarding' else 'established' end]
    || mentor.segments as segments
from public.peer_mentors as mentor
where
  mentor.status = 'active'
  -- A pause ends by itself: nobody has to remember to set the status back.
  or (mentor.status = 'paused' and mentor.paused_until <= now());

comment on view public.active_peer_mentors is
  'The seam: user_id and segments of every mentor to be evaluated. Rewrite it over your own schema and repeat its revokes: '
  'replacing a view by drop and create loses them, and default privileges then grant it to anon.';

-- Row level security without a policy shuts out every role but those that bypass it. The revokes name each role because
-- Supabase's default privileges grant to anon and authenticated directly: revoking from public alone would leave both in.
alter table public.peer_mentors enable row level security;

revoke all on table public.peer_mentors from public, anon, authenticated, service_role;
grant select, insert, update, delete on table public.peer_mentors to service_role;

revoke all on table public.active_peer_mentors from public, anon, authenticated, service_role;
grant select on table public.active_peer_mentors to service_role;
