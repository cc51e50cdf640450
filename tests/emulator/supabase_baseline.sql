-- What Supabase gives a project before its first migration, as far as this project can notice it.
--
-- Run once per cluster by the superuser `supabase_admin`, in the database `postgres`. A migration that works here
-- and not on a hosted project (or the other way round) is an error of this file.
--
-- :password is replaced by the emulator; it is the same for all roles that may log in.

-- The password is random and long: to hash it 4,096 times costs each connection most of its time. From PostgreSQL 16 on.
select set_config('scram_iterations', '1', false) where current_setting('scram_iterations', true) is not null;
alter role supabase_admin password :password;

-- The role that runs migrations is no superuser: one would hide every missing grant.
create role postgres login createdb createrole replication bypassrls password :password;
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator login noinherit password :password;

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, pg_monitor, pg_read_all_data, pg_signal_backend to postgres;

-- PostgREST logs in as authenticator and then sets the role: it is authenticator's limit that service_role feels.
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';
alter role authenticated set statement_timeout = '8s';
alter role anon set statement_timeout = '3s';
alter role postgres set search_path = "$user", public, extensions;
alter role supabase_admin set search_path = "$user", public, extensions;

-- Through the Data API an UPDATE or DELETE without a WHERE is refused, also inside SECURITY DEFINER functions. Role postgres
-- loads the same library and has it off; a session of its may switch it on. Where the library could not be compiled there is
-- no folder (tests/emulator/safeupdate.py).
do $$
begin
  if exists (select from pg_ls_dir('emulator_libraries', true, false)) then
    alter role authenticator set session_preload_libraries = 'safeupdate';
    alter role postgres set session_preload_libraries = 'safeupdate';
    alter role postgres set safeupdate.enabled = off;
    grant set on parameter safeupdate.enabled to postgres;
  end if;
end
$$;

alter database postgres owner to postgres;

create schema extensions;
grant usage on schema extensions to anon, authenticated, service_role;
grant all on schema extensions to postgres;

grant usage on schema public to postgres, anon, authenticated, service_role;

-- The classic default privileges: whatever a migration creates in `public` is open to anon unless it revokes by name.
-- New projects are being moved off them; the emulator keeps the open variant, because it is the one that bites.
alter default privileges for role postgres in schema public
  grant all on tables to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on functions to anon, authenticated, service_role;
alter default privileges for role postgres in schema public
  grant all on sequences to anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges for role supabase_admin in schema public
  grant all on sequences to postgres, anon, authenticated, service_role;

-- Installed in every new project. `create extension ... with schema vault` needs the schema to be there.
create schema vault;
create extension supabase_vault with schema vault;

do $$
declare
  wanted text;
begin
  foreach wanted in array array['pgcrypto', 'uuid-ossp', 'pg_stat_statements'] loop
    if exists (select from pg_available_extensions where name = wanted) then
      execute format('create extension %I with schema extensions', wanted);
    end if;
  end loop;

  -- A real pg_cron may be created by a superuser only, where it is preloaded; a migration's
  -- `create extension if not exists` then finds it. The stand-in is created by the migration itself.
  if 'pg_cron' = any (string_to_array(replace(current_setting('shared_preload_libraries'), ' ', ''), ',')) then
    create extension pg_cron;
    grant usage on schema cron to postgres with grant option;
    grant all on all functions in schema cron to postgres with grant option;
    grant all on cron.job_run_details to postgres with grant option;
    revoke trigger on cron.job_run_details from postgres;
    grant select on cron.job to postgres with grant option;
  end if;
end
$$;
