-- Takes everything away that the migrations made, but for the mentors' table and view, which are the application's:
-- ./deploy.sh --uninstall --delete-data. What was recorded is gone; afterwards the migrations can be applied again.
-- :versions: those of the migrations that are undone, separated by commas.
begin;

do $$
declare
  v_found text;
begin
  if to_regnamespace('scheduler') is not null then
    perform scheduler.disconnect();
  end if;
  for v_found in
    select queue_name from pgmq.list_queues() where queue_name in ('scenario_evaluation_batches', 'scenario_evaluation_batches_manual')
  loop
    perform pgmq.drop_queue(v_found);
  end loop;
  drop schema if exists scheduler cascade;
  drop table if exists public.scheduler_evaluations, public.scheduler_invocation_batches, public.scheduler_invocations cascade;
  for v_found in
    select oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace and proname like 'scheduler\_%'
  loop
    execute format('drop routine %s', v_found);
  end loop;
end
$$;

delete from supabase_migrations.schema_migrations where version = any (string_to_array(:'versions', ','));

commit;
