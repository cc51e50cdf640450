-- Retention. A night of a million mentors takes longer to delete than the Data API allows a statement, so this runs from
-- cron, one invocation to a transaction; a procedure that commits cannot be SECURITY DEFINER nor set its search_path, hence
-- the full names.

create procedure scheduler.prune()
language plpgsql as $$
declare
  v_keep constant interval := pg_catalog.make_interval(days => (select retention_days from scheduler.settings));
  v_id uuid;
begin
  for v_id in
    select i.id
      from public.scheduler_invocations as i
     where (i.deleted_at is not null or i.finished_at < pg_catalog.now() - v_keep)
       -- What a retry still reads from stays.
       and not exists (
         select from public.scheduler_invocations as retry
          where retry.retry_of = i.id and retry.status in ('pending', 'running')
       )
     order by i.finished_at
  loop
    delete from public.scheduler_invocations where id = v_id;
    commit;
  end loop;
  delete from scheduler.dispatches where requested_at < pg_catalog.now() - v_keep;
  commit;
  -- pg_cron never prunes its own log: a minute's job writes half a million rows a year.
  delete from cron.job_run_details
   -- A crash leaves rows without an end.
   where coalesce(end_time, start_time) < pg_catalog.now() - interval '7 days'
     and jobid in (select jobid from cron.job where jobname in ('scheduler-dispatch', 'scheduler-prune'));
end
$$;

revoke all on procedure scheduler.prune() from public, anon, authenticated, service_role;

select cron.schedule('scheduler-prune', '17 3 * * *', 'call scheduler.prune()');
