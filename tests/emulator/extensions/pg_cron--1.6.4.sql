-- Stand-in for pg_cron (https://github.com/citusdata/pg_cron), used where the server has none: the same tables and
-- functions, without its background worker. The emulator process runs the jobs; see tests/emulator/pg_cron.py.
-- Whole minutes only, as in pg_cron before 1.5: a schedule such as '30 seconds' is refused.

create schema cron;

create sequence cron.jobid_seq;
create table cron.job (
  jobid bigint primary key default nextval('cron.jobid_seq'),
  schedule text not null,
  command text not null,
  nodename text not null default 'localhost',
  nodeport int not null default coalesce(inet_server_port(), current_setting('port')::int),
  database text not null default current_database(),
  username text not null default current_user,
  active boolean not null default true,
  jobname text,
  constraint jobname_username_uniq unique (jobname, username)
);
alter table cron.job enable row level security;
create policy cron_job_policy on cron.job using (username = current_user);

create sequence cron.runid_seq;
create table cron.job_run_details (
  jobid bigint,
  runid bigint primary key default nextval('cron.runid_seq'),
  job_pid integer,
  database text,
  username text,
  command text,
  status text,
  return_message text,
  start_time timestamptz,
  end_time timestamptz
);
alter table cron.job_run_details enable row level security;
create policy cron_job_run_details_policy on cron.job_run_details using (username = current_user);

create function cron._require_schedule(schedule text) returns void
language plpgsql set search_path = ''
as $$
declare
  field constant text := '[0-9a-zA-Z*/,-]+';
begin
  if schedule !~ ('^\s*' || field || '(\s+' || field || '){4}\s*$') then
    raise exception 'invalid schedule: %', schedule
      using hint = 'five fields in UTC, whole minutes: minute hour day month weekday';
  end if;
end
$$;

-- The public functions run as their caller, because the job belongs to the caller; the private ones run as the owner,
-- because on hosted Supabase role postgres may read cron.job and not write it.
create function cron._schedule(job_name text, new_schedule text, new_command text, owner text) returns bigint
language plpgsql security definer set search_path = ''
as $$
declare
  id bigint;
begin
  perform cron._require_schedule(new_schedule);
  insert into cron.job (jobname, schedule, command, username)
  values (job_name, new_schedule, new_command, owner)
  on conflict (jobname, username) do update set schedule = excluded.schedule, command = excluded.command
  returning jobid into id;
  return id;
end
$$;

create function cron._unschedule(job_id bigint, job_name text, owner text) returns boolean
language plpgsql security definer set search_path = ''
as $$
begin
  delete from cron.job where (jobid = job_id or jobname = job_name) and username = owner;
  if not found then
    raise exception 'could not find valid entry for job ''%''', coalesce(job_id::text, job_name);
  end if;
  return true;
end
$$;

create function cron._alter_job(job_id bigint, new_schedule text, new_command text, new_active boolean, owner text)
returns void
language plpgsql security definer set search_path = ''
as $$
begin
  if new_schedule is not null then
    perform cron._require_schedule(new_schedule);
  end if;
  update cron.job
  set schedule = coalesce(new_schedule, schedule),
      command = coalesce(new_command, command),
      active = coalesce(new_active, active)
  where jobid = job_id and username = owner;
  if not found then
    raise exception 'Job % does not exist or you don''t own it', job_id;
  end if;
end
$$;

create function cron.schedule(job_name text, schedule text, command text) returns bigint
language sql set search_path = ''
return cron._schedule(job_name, schedule, command, current_user::text);

create function cron.unschedule(job_name text) returns boolean
language sql set search_path = ''
return cron._unschedule(null, job_name, current_user::text);

create function cron.unschedule(job_id bigint) returns boolean
language sql set search_path = ''
return cron._unschedule(job_id, null, current_user::text);

create function cron.alter_job(
  job_id bigint, schedule text default null, command text default null, active boolean default null
) returns void
language sql set search_path = ''
return cron._alter_job(job_id, schedule, command, active, current_user::text);

-- pg_cron's own grants; without USAGE on the schema they are out of reach.
grant select on cron.job to public;
grant select, delete on cron.job_run_details to public;
grant select on all sequences in schema cron to public;
revoke all on function
  cron.alter_job, cron._require_schedule, cron._schedule, cron._unschedule, cron._alter_job
from public;

-- What Supabase adds when the extension is created.
grant usage on schema cron to postgres with grant option;
grant all on all functions in schema cron to postgres with grant option;
grant all on cron.job_run_details to postgres with grant option;
revoke trigger on cron.job_run_details from postgres;
grant select on cron.job to postgres with grant option;
