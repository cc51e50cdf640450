-- Who did what: an entry for each change that a person or a client makes, written by triggers in the transaction of the change. So
-- there is no change without its entry, be it made through the API, in SQL or in Studio. What the scheduler does by itself (scheduled
-- runs, ends, expiry, retention) has none: the runs show it.

create table public.scheduler_audit (
  -- No counter: the entries of two projects can be in one table.
  id uuid primary key default scheduler.time_ordered_id(),
  at timestamptz not null default clock_timestamp(),
  -- The authenticated caller of the API; of a change in SQL or in Studio, the database role.
  actor text not null,
  action text not null,
  -- No foreign key: the entry outlives the run.
  invocation_id uuid,
  scenario_type text,
  -- The members that changed. Of a run only how many users were chosen, not which.
  before jsonb,
  after jsonb,
  constraint action_is_known check (
    action in (
      'run', 'retry', 'cancel', 'fail', 'status_change', 'note', 'delete', 'restore', 'scenario_change', 'pause', 'resume',
      'engine_retry'
    )
  ),
  constraint actor_is_bounded check (char_length(actor) between 1 and 64)
);
create index scheduler_audit_newest on public.scheduler_audit (at desc, id);
create index scheduler_audit_of_run on public.scheduler_audit (invocation_id, at desc, id) where invocation_id is not null;
alter table public.scheduler_audit enable row level security;
revoke all on public.scheduler_audit from public, anon, authenticated, service_role;
grant select on public.scheduler_audit to service_role;

-- Append-only, for its owner as well. scheduler.prune() and scheduler.forget_user() set this for the time that they change it. It guards
-- against mistakes and what runs through the Data API: a role that may alter the table can switch its triggers off.
create function scheduler.refuse_audit_change() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'scheduler_audit: expected no %, only scheduler.prune() and scheduler.forget_user() change it', tg_op
    using errcode = 'insufficient_privilege';
end
$$;

create trigger refuse_audit_change before update or delete or truncate on public.scheduler_audit
for each statement when (current_setting('scheduler.maintenance', true) is distinct from 'on')
execute function scheduler.refuse_audit_change();

-- The members of p_of that are another or missing in p_other; and the organization, which says what the others are about.
create function scheduler.changed_members(p_of jsonb, p_other jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select jsonb_object_agg(member.key, member.value)
    from jsonb_each(p_of) as member
   where member.value <> coalesce(p_other -> member.key, 'null')
      or (member.key = 'organization' and member.value <> 'null')
$$;

-- Nothing where nothing changed. The functions below have their owner's rights, and so current_user is the owner: the role that was
-- set, or else the session's, is who changes something.
create function scheduler.write_audit(
  p_action text, p_invocation_id uuid, p_scenario_type text, p_before jsonb, p_after jsonb
) returns void
language sql volatile set search_path = '' as $$
  insert into public.scheduler_audit (actor, action, invocation_id, scenario_type, before, after)
  select coalesce(
           nullif(current_setting('scheduler.actor', true), ''), nullif(current_setting('role'), 'none'), session_user
         ),
         p_action, p_invocation_id, p_scenario_type, changed.before, changed.after
    from (
      select scheduler.changed_members(p_before, p_after) as before, scheduler.changed_members(p_after, p_before) as after
    ) as changed
   where changed.before is distinct from changed.after
     and current_setting('scheduler.maintenance', true) is distinct from 'on'
$$;

-- A definer's, like the other two: a role may change one of these tables, and has no right to write here.
create function scheduler.audit_invocation() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  case tg_op
    when 'INSERT' then
      perform scheduler.write_audit(
        case new.trigger when 'retry' then 'retry' else 'run' end, new.id, null, null,
        jsonb_build_object(
          'dry_run', new.dry_run, 'retry_of', new.retry_of, 'reason', new.reason, 'requested_by', new.requested_by,
          'note', new.note, 'scenario_types', new.request -> 'scenario_types',
          'include_unknown', nullif(new.request -> 'include_unknown', 'false'),
          'users', case jsonb_typeof(new.request -> 'user_ids')
            when 'array' then jsonb_array_length(new.request -> 'user_ids')
          end
        )
      );
    when 'UPDATE' then
      perform scheduler.write_audit(
        case
          when old.deleted_at is distinct from new.deleted_at
            then case when new.deleted_at is null then 'restore' else 'delete' end
          when old.status = new.status then 'note'
          else case new.status when 'cancelled' then 'cancel' when 'failed' then 'fail' else 'status_change' end
        end,
        new.id, null,
        jsonb_build_object(
          'status', old.status, 'error_message', old.error_message, 'note', old.note, 'deleted_at', old.deleted_at
        ),
        jsonb_build_object(
          'status', new.status, 'error_message', new.error_message, 'note', new.note, 'deleted_at', new.deleted_at
        )
      );
    when 'DELETE' then
      perform scheduler.write_audit(
        'delete', old.id, null,
        jsonb_build_object(
          'trigger', old.trigger, 'triggered_by', old.triggered_by, 'scheduled_for', old.scheduled_for, 'status', old.status,
          'dry_run', old.dry_run, 'note', old.note
        ),
        null
      );
    else
      perform scheduler.write_audit('delete', null, null, jsonb_build_object('all_of', tg_table_name), null);
  end case;
  return null;
end
$$;

-- Decided by WHEN, before any function is called: each page and each batch of a run changes its row.
create trigger audit_opened after insert on public.scheduler_invocations
for each row when (new.trigger <> 'schedule' and new.finished_at is null)
execute function scheduler.audit_invocation();

-- A status is the scheduler's own where it begins a run, and where it ends one: scheduler_finish marks it as logged, and what
-- expires is overdue.
create trigger audit_changed after update of status, note, deleted_at on public.scheduler_invocations
for each row when (
  old.note is distinct from new.note
  or old.deleted_at is distinct from new.deleted_at
  or (
    old.status <> new.status
    and (
      old.finished_at is not null
      or new.status = 'cancelled'
      or new.error_code = 'marked_failed'
      or (
        new.finished_at is not null
        and not new.end_is_logged
        and new.expires_at > clock_timestamp()
        and new.error_code is distinct from 'no_enabled_scenarios'
      )
    )
  )
)
execute function scheduler.audit_invocation();

-- What is out of the API already has its entry; scheduler.prune() deletes nothing else.
create trigger audit_deleted after delete on public.scheduler_invocations
for each row when (old.deleted_at is null)
execute function scheduler.audit_invocation();

create trigger audit_truncated after truncate on public.scheduler_invocations
for each statement execute function scheduler.audit_invocation();

create function scheduler.audit_scenario_config() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  v_left_out constant text[] := array['id', 'updated_at', 'updated_by', 'due_after'];
begin
  if tg_op = 'TRUNCATE' then
    perform scheduler.write_audit('scenario_change', null, null, jsonb_build_object('all_of', tg_table_name), null);
  else
    perform scheduler.write_audit(
      'scenario_change', null, coalesce(new.scenario_type, old.scenario_type), to_jsonb(old) - v_left_out, to_jsonb(new) - v_left_out
    );
  end if;
  return null;
end
$$;

-- Not of due_after, which opening a run raises.
create trigger audit_scenario_config
after insert or delete or update of scenario_type, organization, enabled, segments, schedule on public.scenario_evaluation_config
for each row execute function scheduler.audit_scenario_config();

create trigger audit_truncated after truncate on public.scenario_evaluation_config
for each statement execute function scheduler.audit_scenario_config();

create function scheduler.audit_settings() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  -- A pause that is over ends by itself, be it the engine's or a person's.
  if old.engine_paused_until > clock_timestamp() and new.engine_paused_until is null then
    perform scheduler.write_audit(
      'engine_retry', null, null, jsonb_build_object('engine_paused_until', old.engine_paused_until), null
    );
  end if;
  if new.paused_at is not null or old.paused_until is null or old.paused_until > clock_timestamp() then
    perform scheduler.write_audit(
      case when new.paused_at is null then 'resume' else 'pause' end, null, null,
      -- Without the end of a pause that is over, which is left in the settings.
      jsonb_build_object(
        'paused_at', old.paused_at, 'paused_until', case when old.paused_at is not null then old.paused_until end,
        'pause_reason', old.pause_reason
      ),
      jsonb_build_object(
        'paused_at', new.paused_at, 'paused_until', case when new.paused_at is not null then new.paused_until end,
        'pause_reason', new.pause_reason
      )
    );
  end if;
  return null;
end
$$;

create trigger audit_settings after update of engine_paused_until, paused_at, paused_until, pause_reason on scheduler.settings
for each row execute function scheduler.audit_settings();

-- The entries, the newest first, p_limit of them from after (p_after_at, p_after_id). A null filter is none.
create function public.scheduler_audit_page(
  p_invocation_id uuid, p_actor text, p_action text, p_limit integer, p_after_at timestamptz, p_after_id uuid
) returns jsonb
language sql stable security definer set search_path = '' set statement_timeout = '20s' as $$
  select coalesce(jsonb_agg(to_jsonb(entry) order by entry.at desc, entry.id), '[]')
    from (
      select a.*
        from public.scheduler_audit as a
       where (p_invocation_id is null or a.invocation_id = p_invocation_id)
         and (p_actor is null or a.actor = p_actor)
         and (p_action is null or a.action = p_action)
         -- Where the index is entered, also by a generic plan.
         and a.at <= coalesce(p_after_at, 'infinity')
         and (p_after_at is null or a.at < p_after_at or a.id > p_after_id)
       order by a.at desc, a.id
       limit p_limit
    ) as entry
$$;

revoke all on function
  scheduler.refuse_audit_change(), scheduler.changed_members(jsonb, jsonb), scheduler.write_audit(text, uuid, text, jsonb, jsonb),
  scheduler.audit_invocation(), scheduler.audit_scenario_config(), scheduler.audit_settings()
from public, anon, authenticated, service_role;
revoke all on function public.scheduler_audit_page(uuid, text, text, integer, timestamptz, uuid) from public, anon, authenticated;
grant execute on function public.scheduler_audit_page(uuid, text, text, integer, timestamptz, uuid) to service_role;
