-- Where contenders other than this function store their results, empty.
create table if not exists public.benchmark_results (
  user_id uuid not null,
  scenario_type text not null,
  outcome text not null,
  notification_id text,
  attempts integer not null,
  primary key (user_id, scenario_type)
);
revoke all on table public.benchmark_results from anon, authenticated;
-- For a contender that sends results as this function does.
create or replace function public.benchmark_upsert(p_results jsonb) returns void
language sql volatile set search_path = '' as $$
  insert into public.benchmark_results (user_id, scenario_type, outcome, notification_id, attempts)
  select member.user_id::uuid, grouped.scenario_type, grouped.outcome, member.notification_id, grouped.attempts
    from jsonb_to_recordset(p_results) as grouped (
      scenario_type text, outcome text, attempts integer, user_ids jsonb, notification_ids jsonb
    )
   cross join lateral rows from (
     jsonb_array_elements_text(grouped.user_ids), jsonb_array_elements_text(grouped.notification_ids)
   ) as member (user_id, notification_id)
  on conflict (user_id, scenario_type) do update
    set outcome = excluded.outcome, notification_id = excluded.notification_id, attempts = excluded.attempts
$$;
revoke all on function public.benchmark_upsert(jsonb) from public, anon, authenticated;
grant execute on function public.benchmark_upsert(jsonb) to service_role;
truncate public.benchmark_results;
notify pgrst, 'reload schema';
