-- What an installation is beside its tables: cron jobs, what Vault holds, and the schedule that it was last installed with.
-- Each step may be repeated, and a deployment that was broken off continues with the next one.

-- As given to prepare_schedule and connect; null: not installed.
alter table scheduler.settings add column schedule text;

create function scheduler.schedule_jobs() returns void
language plpgsql set search_path = '' as $$
begin
  perform cron.schedule(jobs.name, jobs.schedule, jobs.command) from scheduler.cron_jobs() as jobs;
end
$$;

-- To be called before a function with another schedule is deployed: that one begins with its first slot from now on. Its
-- latest slot is otherwise taken for one that was missed and caught up, on a day on which the old schedule ran already.
-- Returns whether the schedule is another.
create function scheduler.prepare_schedule(p_schedule text) returns boolean
language plpgsql set search_path = '' as $$
begin
  update scheduler.settings
     set slot_high_water_mark = greatest(slot_high_water_mark, clock_timestamp())
   where schedule is distinct from p_schedule;
  return found;
end
$$;

-- Stores one secret in Vault. Returns whether it was another before.
create function scheduler.upsert_secret(p_name text, p_value text) returns boolean
language plpgsql set search_path = '' as $$
declare
  v_id uuid;
  v_value text;
begin
  select id, decrypted_secret into v_id, v_value from vault.decrypted_secrets where name = p_name;
  if v_value = p_value then
    return false;
  elsif v_id is null then
    perform vault.create_secret(p_value, p_name);
  else
    perform vault.update_secret(v_id, p_value);
  end if;
  return true;
end
$$;

-- To be called once the function is deployed: from now on the database calls it there, with this token. The next dispatch calls
-- it to learn when its next slot is due, which may be sooner than what is stored; one that is past is kept, and shows which slots
-- of a pause no call has seen. An engine pause ends at once: the engine's
-- address or its token may just have been fixed. Returns whether Vault held something else.
create function scheduler.connect(p_function_url text, p_invoke_token text, p_schedule text) returns boolean
language plpgsql set search_path = '' as $$
declare
  v_has_changes boolean;
begin
  if coalesce(p_function_url, '') !~ '^https?://[^/]' or coalesce(p_invoke_token, '') = '' then
    -- Neither value is shown: the token may stand in the place of the URL.
    raise exception 'expected the URL of the function, http:// or https://, and an invoke token; one of them is something else'
      using errcode = 'invalid_parameter_value';
  end if;
  v_has_changes := scheduler.upsert_secret('scheduler_function_url', rtrim(p_function_url, '/') || '/');
  v_has_changes := scheduler.upsert_secret('scheduler_invoke_token', p_invoke_token) or v_has_changes;
  update scheduler.settings
     set schedule = p_schedule,
         next_due_at = case when next_due_at <= clock_timestamp() then next_due_at end,
         engine_paused_until = null,
         engine_outages = 0
   where singleton;
  perform scheduler.schedule_jobs();
  return v_has_changes;
end
$$;

-- The database does not call the function any more, and what pg_net and pg_cron keep of earlier calls is deleted; the scheduler's
-- tables stay as they are. Returns how many calls pg_net is still sending: it holds their rows until their answers are there.
-- Calling it again deletes those answers as well; calling it once more changes nothing.
create function scheduler.disconnect() returns integer
language plpgsql set search_path = '' as $$
declare
  v_under_way integer;
begin
  if to_regclass('net._http_response') is not null then
    -- Before the settings are locked, the order in which scheduler_end_slice locks: the two would deadlock.
    perform scheduler.collect_responses();
  end if;
  -- From here on request_slices waits, and finds nothing in Vault afterwards: no further request is queued.
  update scheduler.settings set schedule = null, next_due_at = null where singleton;
  perform cron.unschedule(jobid) from cron.job where jobname in (select jobs.name from scheduler.cron_jobs() as jobs);
  delete from vault.secrets where name in ('scheduler_function_url', 'scheduler_invoke_token');
  delete from cron.job_run_details
   where database = current_database() and command in (select jobs.command from scheduler.cron_jobs() as jobs);
  if to_regclass('net._http_response') is null then
    return 0;
  end if;

  -- The header besides the number: pg_net counts from one again after a crash.
  delete from net.http_request_queue
   where id in (
     select queued.id
       from net.http_request_queue as queued
       join scheduler.dispatches as d
         on d.request_id = queued.id and queued.headers ->> 'X-Scheduler-Dispatch' = d.id::text
        for update of queued skip locked
   );
  -- Only what has been recorded: an answer that came since is deleted by the next call.
  delete from net._http_response
   where id in (
     select answer.id
       from net._http_response as answer
       join scheduler.dispatches as d on d.request_id = answer.id and scheduler.is_answer_to(d, answer.created)
      where d.status_code is not null or d.error is not null
   );
  select count(*) into v_under_way
    from scheduler.dispatches as d
   where exists (
           select from net.http_request_queue as queued
            where queued.id = d.request_id and queued.headers ->> 'X-Scheduler-Dispatch' = d.id::text
         )
      or exists (
           select from net._http_response as answer
            where answer.id = d.request_id and scheduler.is_answer_to(d, answer.created)
         );
  return v_under_way;
end
$$;

revoke all on function
  scheduler.schedule_jobs(),
  scheduler.prepare_schedule(text),
  scheduler.upsert_secret(text, text),
  scheduler.connect(text, text, text),
  scheduler.disconnect()
from public, anon, authenticated, service_role;

select scheduler.schedule_jobs();
