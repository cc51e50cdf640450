-- Alerts about scheduled runs: raised in the transaction that ends the run, and sent by slices of the function until they have
-- arrived or are abandoned. Locks: an alert after its invocation and before the settings.

create table scheduler.alerts (
  -- One alert for an invocation, whatever else happens to it.
  invocation_id uuid primary key references public.scheduler_invocations on delete cascade,
  reason text not null,
  raised_at timestamptz not null default clock_timestamp(),
  -- Tries that were begun. Each is counted when it begins: one that ends with its worker's crash counts, too.
  attempts integer not null default 0,
  -- No attempt before this time: the lease of an attempt under way, and the delay after one that failed.
  next_attempt_at timestamptz not null default clock_timestamp(),
  sent_at timestamptz,
  given_up_at timestamptz,
  -- Why the last try failed: a code, never the webhook's words or its URL.
  error text,
  constraint reason_is_known check (reason in ('failed', 'partial', 'late', 'summary')),
  constraint sent_or_given_up check (sent_at is null or given_up_at is null)
);
create index alerts_waiting on scheduler.alerts (next_attempt_at) where sent_at is null and given_up_at is null;
alter table scheduler.alerts enable row level security;
revoke all on scheduler.alerts from public, anon, authenticated, service_role;

-- After which time an invocation is late, by the settings that were in force when it was opened.
create function scheduler.late_after(p_invocation public.scheduler_invocations) returns interval
language sql immutable set search_path = '' as $$
  select make_interval(mins => (p_invocation.config ->> 'alert_late_above_minutes')::integer)
$$;

-- Why an invocation that has ended is worth an alert, or null: trouble, or with ALERT_ON=always a summary. Only scheduled runs
-- are: callers of manual runs read the answer.
create function scheduler.reason_for_alert(p_invocation public.scheduler_invocations) returns text
language sql stable set search_path = '' as $$
  select case
    when p_invocation.trigger <> 'schedule' or p_invocation.dry_run
      -- Its operator knows.
      or p_invocation.error_code = 'marked_failed'
      or (p_invocation.config ->> 'alerts')::boolean is not true
      then null
    when p_invocation.status = 'failed' then 'failed'
    when p_invocation.status = 'partial' and (
      -- How many were never read is unknown.
      not p_invocation.enumeration_done
      or (
        select sum(b.failed + b.not_evaluated) > (p_invocation.config ->> 'alert_partial_above')::numeric * sum(b.evaluations)
          from public.scheduler_invocation_batches as b
         where b.invocation_id = p_invocation.id
      )
    ) then 'partial'
    when p_invocation.status in ('success', 'partial')
      and p_invocation.finished_at - p_invocation.scheduled_for > scheduler.late_after(p_invocation)
      then 'late'
    when p_invocation.status in ('success', 'partial') and p_invocation.config ->> 'alert_on' = 'always' then 'summary'
  end
$$;

-- Raises the alert in the transaction that ends the invocation, so that it cannot be lost; nor can it keep it from ending.
create function scheduler.raise_alert() returns trigger
language plpgsql set search_path = '' as $$
begin
  insert into scheduler.alerts (invocation_id, reason)
  select new.id, reason
    from scheduler.reason_for_alert(new) as reason
   where reason is not null
  on conflict do nothing;
  return null;
exception when others then
  raise warning 'scheduler: cannot decide whether invocation % is worth an alert: %', new.id, sqlerrm;
  return null;
end
$$;

create trigger raise_alert after update of status on public.scheduler_invocations
for each row when (old.finished_at is null and new.finished_at is not null)
execute function scheduler.raise_alert();

-- A run that does not end raises its alert while it is open. One that began late has as much time again, so that its only
-- alert can say how it ended. Called by dispatch, after all that locks invocations.
create function scheduler.raise_late_alerts() returns void
language sql set search_path = '' as $$
  insert into scheduler.alerts (invocation_id, reason)
  select i.id, 'late'
    from public.scheduler_invocations as i
   where i.status in ('pending', 'running')
     and i.trigger = 'schedule'
     and not i.dry_run
     and (i.config ->> 'alerts')::boolean
     and clock_timestamp() - greatest(i.scheduled_for, i.started_at) > scheduler.late_after(i)
     and not exists (select from scheduler.alerts as a where a.invocation_id = i.id)
  on conflict do nothing
$$;

-- Abandons alerts that could not be sent for a day. Their rows stay, and show it.
create function scheduler.abandon_alerts() returns void
language sql set search_path = '' as $$
  update scheduler.alerts
     set given_up_at = clock_timestamp()
   where invocation_id in (
     select invocation_id from scheduler.alerts
      where sent_at is null and given_up_at is null
        and next_attempt_at <= clock_timestamp()
        and raised_at < clock_timestamp() - interval '24 hours'
        for update skip locked
   )
$$;

-- Whether an alert waits to be sent by the next slice.
create function scheduler.alert_is_due() returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from scheduler.alerts
     where sent_at is null and given_up_at is null and next_attempt_at <= clock_timestamp()
  )
$$;

-- Whether a slice has to be requested for an alert. A fresh one is left to the slice that ended the run, which sends it after
-- its work.
create function scheduler.alert_is_stale() returns boolean
language sql stable set search_path = '' as $$
  select exists (
    select from scheduler.alerts
     where sent_at is null and given_up_at is null
       and next_attempt_at <= clock_timestamp() - case attempts when 0 then interval '20 seconds' else interval '0' end
  )
$$;

-- Takes the alert that is due the longest, for as long as an attempt may last: without a result it is due again after
-- a minute, then two, and so on up to an hour. Returns null, or {"webhook_id": the same in each attempt, "attempts": this
-- one included, "last": there will be no other, "reason", "invocation": its summary, "failures": their commonest causes}.
create function public.scheduler_claim_alert() returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  v_alert scheduler.alerts;
begin
  select * into v_alert
    from scheduler.alerts
   where sent_at is null and given_up_at is null and next_attempt_at <= clock_timestamp()
   order by next_attempt_at, invocation_id
   limit 1
     for update skip locked;
  if not found then
    return null;
  end if;
  update scheduler.alerts
     set attempts = attempts + 1,
         next_attempt_at = clock_timestamp() + make_interval(mins => least(60, power(2, least(attempts, 10))::integer))
   where invocation_id = v_alert.invocation_id
  returning * into v_alert;
  return jsonb_build_object(
    'webhook_id', 'alert_' || v_alert.invocation_id,
    'attempts', v_alert.attempts,
    'last', v_alert.next_attempt_at >= v_alert.raised_at + interval '24 hours',
    'reason', v_alert.reason,
    'invocation', scheduler.summarize_invocation(v_alert.invocation_id),
    'failures', scheduler.commonest_causes(v_alert.invocation_id)
  );
end
$$;

-- Records the result of an attempt. p_error: a code; null: it was sent. A late failure does not revoke another's success.
create function public.scheduler_settle_alert(p_invocation_id uuid, p_error text) returns void
language sql security definer set search_path = '' as $$
  update scheduler.alerts
     set sent_at = case when p_error is null then clock_timestamp() end,
         given_up_at = case when p_error is not null then given_up_at end,
         error = p_error
   where invocation_id = p_invocation_id and sent_at is null
$$;

revoke all on function
  scheduler.late_after(public.scheduler_invocations), scheduler.reason_for_alert(public.scheduler_invocations),
  scheduler.raise_alert(), scheduler.raise_late_alerts(), scheduler.abandon_alerts(), scheduler.alert_is_due(),
  scheduler.alert_is_stale()
from public, anon, authenticated, service_role;
revoke all on function public.scheduler_claim_alert(), public.scheduler_settle_alert(uuid, text)
from public, anon, authenticated;
grant execute on function public.scheduler_claim_alert(), public.scheduler_settle_alert(uuid, text) to service_role;
