-- Sample mentors that look like a real programme's, for `supabase db reset` and for the local emulator.
--
-- As many as the setting seed.mentors says (`set seed.mentors = '100000'`), 500 without it. Mentor n is the same person on
-- every machine: all that looks random is cut out of hashes of n, and times count back from now(), so that the same people
-- are overdue whenever the seed is planted. Planting it again, or with a larger number, adds only those who are missing.

with programme as (
  select coalesce(nullif(current_setting('seed.mentors', true), ''), '500')::integer as mentors
),

hashed as materialized (
  select
    n,
    md5('peer-mentor-' || n)::uuid as user_id,
    sha256(('peer-mentor-' || n)::bytea) as hash
  from programme, generate_series(1, programme.mentors) as n
),

-- Eight independent numbers in [0, 1) from the byte pairs of one hash. Materialized both, or each mention of a draw
-- would hash its mentor anew: a minute for a million of them instead of seconds.
drawn as materialized (
  select
    user_id,
    (get_byte(hash, 0) * 256 + get_byte(hash, 1)) / 65536::double precision as status_draw,
    (get_byte(hash, 2) * 256 + get_byte(hash, 3)) / 65536::double precision as pause_draw,
    (get_byte(hash, 4) * 256 + get_byte(hash, 5)) / 65536::double precision as stage_draw,
    (get_byte(hash, 6) * 256 + get_byte(hash, 7)) / 65536::double precision as tenure_draw,
    (get_byte(hash, 8) * 256 + get_byte(hash, 9)) / 65536::double precision as contact_draw,
    (get_byte(hash, 10) * 256 + get_byte(hash, 11)) / 65536::double precision as activity_draw,
    (get_byte(hash, 12) * 256 + get_byte(hash, 13)) / 65536::double precision as region_draw,
    (get_byte(hash, 14) * 256 + get_byte(hash, 15)) / 65536::double precision as interest_draw
  from hashed
),

-- The programme has grown: squaring the draw makes recent joiners the most frequent. Every eighth mentor is still
-- in onboarding.
staged as (
  select
    drawn.*,
    stage_draw >= 0.12 as established,
    case
      when stage_draw < 0.12 then tenure_draw * 29
      else 22 + tenure_draw * tenure_draw * 1800
    end as days_since_joining
  from drawn
),

-- Gaps between contacts fall off exponentially, as waiting times do: with a mean of 17 days, one mentor in six has
-- been silent for more than 30. A few of the established have never had a contact at all.
engaged as (
  select
    staged.*,
    case
      when established and contact_draw < 0.98
        then least(-ln(1 - contact_draw / 0.98) * 17, days_since_joining - 1)
    end as days_since_contact
  from staged
)

insert into public.peer_mentors (
  user_id, status, segments, joined_at, onboarding_completed_at, paused_until, last_contact_at, certification_expires_at,
  contacts_logged
)
select
  user_id,
  case when status_draw < 0.85 then 'active' when status_draw < 0.95 then 'paused' else 'left' end,
  array['region:' || (array['north', 'south', 'east', 'west'])[1 + floor(region_draw * 4)::integer]]
    || case when interest_draw < 0.30 then array['weekend'] else '{}' end
    || case when interest_draw between 0.20 and 0.35 then array['youth'] else '{}' end
    || case when interest_draw >= 0.90 then array['bereavement'] else '{}' end,
  now() - days_since_joining * interval '1 day',
  case when established then now() - (days_since_joining - 2 - region_draw * 19) * interval '1 day' end,
  -- One pause in ten has no agreed end, and about a quarter of the others have run out.
  case
    when status_draw >= 0.85 and status_draw < 0.95 and pause_draw >= 0.1
      then now() + (pause_draw * 80 - 26) * interval '1 day'
  end,
  now() - days_since_contact * interval '1 day',
  -- Two in three of the established are certified, for two years at a time: one in 24 of these has a month left.
  case when established and interest_draw < 0.67 then now() + pause_draw * interval '730 days' end,
  case
    when days_since_contact is null then 0
    -- One in fourteen sits on a milestone that fits the time since joining.
    when activity_draw < 0.07
      then (array[1, 10, 25, 50, 100, 250])[1 + floor(least(days_since_joining / 200, 5))::integer]
    else 1 + floor(activity_draw * days_since_joining / 4)::integer
  end
from engaged
on conflict (user_id) do nothing;

analyze public.peer_mentors;
