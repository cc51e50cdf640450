-- Retention. Deleting a run of a million mentors takes longer than the Data API allows a statement, and one transaction
-- for all of it would hold back vacuum and replicas. So this runs from cron, in chunks; a procedure that commits cannot be
-- SECURITY DEFINER nor set its search_path, hence the full names. Interrupted anywhere, it continues the next day.

-- The jobs of pg_cron. Its log outlives them, and an installation that is repeated gives them new ids: the log's rows are
-- recognized by their command and their database.
create function scheduler.cron_jobs() returns table (name text, schedule text, command text)
language sql immutable set search_path = '' as $$
  values ('scheduler-dispatch', '* * * * *', 'select scheduler.dispatch()'),
         ('scheduler-prune', '17 3 * * *', 'call scheduler.prune()')
$$;

create procedure scheduler.prune()
language plpgsql as $$
declare
  c_chunk constant integer := 20000;
  v_keep constant interval := pg_catalog.make_interval(days => (select retention_days from scheduler.settings));
  v_queue text;
  v_id uuid;
  v_is_needed boolean;
begin
  -- First what is small: hosted Supabase gives a statement two minutes, and a CALL is one, whatever it commits.
  delete from scheduler.dispatches where requested_at < pg_catalog.now() - v_keep;
  commit;
  -- Nothing here archives a message, but the dashboard offers it.
  foreach v_queue in array scheduler.queues() loop
    execute pg_catalog.format('delete from pgmq.%I where archived_at < $1', 'a_' || v_queue) using pg_catalog.now() - v_keep;
  end loop;
  commit;
  -- pg_cron never prunes its own log: a minute's job writes half a million rows a year.
  delete from cron.job_run_details
   -- A crash leaves rows without an end.
   where coalesce(end_time, start_time) < pg_catalog.now() - interval '7 days'
     and database = pg_catalog.current_database()
     and command in (select jobs.command from scheduler.cron_jobs() as jobs);
  commit;
  loop
    -- Allows it, see scheduler.refuse_audit_change; until the commit.
    perform pg_catalog.set_config('scheduler.maintenance', 'on', true);
    delete from public.scheduler_audit
     where id = any (array(
       select a.id from public.scheduler_audit as a where a.at < pg_catalog.now() - v_keep order by a.at limit c_chunk
     ));
    exit when not found;
    commit;
  end loop;
  commit;

  for v_id in
    select i.id
      from public.scheduler_invocations as i
     where (i.deleted_at is not null or i.finished_at < pg_catalog.now() - v_keep)
       -- The dead-man's check needs the last successful run.
       and i.id is distinct from (scheduler.last_success()).id
     order by i.finished_at
  loop
    -- Out of the API before its rows go, or it would be shown, and retried, with a part of them. A transaction that
    -- opens a retry of it has locked it, and is waited for here.
    perform from public.scheduler_invocations where id = v_id for update;
    -- No person deletes it.
    perform pg_catalog.set_config('scheduler.maintenance', 'on', true);
    update public.scheduler_invocations as i
       set deleted_at = coalesce(i.deleted_at, pg_catalog.clock_timestamp())
     where i.id = v_id;
    -- What a retry still has to read stays. One that was cut off is read by its own retry, up to here. So does a retry as long as a
    -- run before it in its chain is shown: what it settled must not be evaluated again.
    v_is_needed := exists (
      select from public.scheduler_invocations as i
        join public.scheduler_invocations as other
          on (other.retry_of = i.id and not other.enumeration_done)
          or (i.first_run in (other.id, other.first_run) and other.deleted_at is null and other.finished_at < i.finished_at)
       where i.id = v_id
    );
    commit;
    continue when v_is_needed;

    loop
      delete from public.scheduler_evaluations
       where ctid = any (array(
         select e.ctid from public.scheduler_evaluations as e where e.invocation_id = v_id limit c_chunk
       ));
      exit when not found;
      commit;
    end loop;

    -- In the order in which a worker that records late can be waited for: it holds its batch, and waits for the invocation.
    perform from public.scheduler_invocations where id = v_id for no key update;
    perform from public.scheduler_invocation_batches where invocation_id = v_id for update;
    delete from public.scheduler_invocations where id = v_id;
    commit;
  end loop;
end
$$;

revoke all on function scheduler.cron_jobs() from public, anon, authenticated, service_role;
revoke all on procedure scheduler.prune() from public, anon, authenticated, service_role;
