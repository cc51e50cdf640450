-- Takes everything away that the migrations made, and what pg_net, pg_cron and Vault keep of it:
-- ./deploy.sh --uninstall --delete-data. What was recorded is gone; afterwards the migrations can be applied again.
-- Left are the mentors' table and view, which are the application's, the extensions, and what the server keeps of its
-- statements (pg_stat_statements, its log, backups). One transaction: broken off, it has done nothing and is run again.
-- By psql: --set versions=…, of all migrations but the first, separated by commas (docs/deployment.md has the command).
\set ON_ERROR_STOP 1
\if :{?versions}
\else
  do 'begin raise exception $$expected --set versions=…, see docs/deployment.md: nothing was changed$$; end';
\endif

begin;
-- Without the notices of what DROP … CASCADE drops.
set local client_min_messages = warning;

do $$
declare
  v_found text;
  v_under_way integer;
begin
  -- Neither it nor pgmq is there where an installation broke off before its last migration.
  if to_regprocedure('scheduler.disconnect()') is not null then
    v_under_way := scheduler.disconnect();
    if v_under_way > 0 then
      raise warning 'pg_net is sending % of the calls; it keeps their answers for six hours', v_under_way;
    end if;
  end if;
  if to_regnamespace('pgmq') is not null then
    for v_found in
      select queue_name from pgmq.list_queues()
       where queue_name in (
         'scenario_evaluation_batches_manual', 'scenario_evaluation_batches', 'scenario_evaluation_batches_poison'
       )
    loop
      perform pgmq.drop_queue(v_found);
    end loop;
  end if;
  drop schema if exists scheduler cascade;
  drop table if exists public.scheduler_evaluations, public.scheduler_invocation_batches, public.scheduler_invocations,
    public.scenario_evaluation_config, public.scheduler_audit cascade;
  for v_found in
    select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace and proname like 'scheduler\_%'
  loop
    execute format('drop routine %s', v_found);
  end loop;
end
$$;

delete from supabase_migrations.schema_migrations where version = any (string_to_array(:'versions', ','));

commit;
