-- The schedule and its pause, the last scheduled run, the cron jobs and the last calls with their answers: psql "$DATABASE_URL" --file supabase/state.sql
set timezone = 'UTC';
select format('schedule     %s, next slot due %s', coalesce(schedule, 'none'), coalesce(next_due_at::text, 'not known yet'))
  from scheduler.settings;
select format('paused       since %s by %s, until %s', paused_at, paused_by, coalesce(paused_until::text, 'it is resumed'))
  from scheduler.settings where paused_at is not null;
select format('last run     %s: %s', scheduled_for, concat_ws(', ', status, error_code)) from public.scheduler_invocations
 where trigger = 'schedule' and deleted_at is null order by invoked_at desc limit 1;
select format('cron job     %s, %s%s', jobname, schedule, case when not active then ', NOT ACTIVE' end)
  from cron.job where jobname like 'scheduler-%' order by jobname;
select format('call         %s: %s', requested_at, coalesce(status_code::text, error, 'no answer yet'))
  from (select * from scheduler.dispatches order by id desc limit 3) as newest order by id;
