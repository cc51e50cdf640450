-- scheduler_active_mentors_page: who is active, page by page, in the order of their ids.
begin;
create extension if not exists pgtap with schema extensions;
set local search_path to public, extensions;

select plan(9);

delete from public.peer_mentors;
insert into public.peer_mentors (user_id, status, segments, onboarding_completed_at, paused_until) values
  ('00000000-0000-4000-8000-000000000001', 'active', '{}', now(), null),
  ('00000000-0000-4000-8000-000000000002', 'active', '{youth}', null, null),
  ('00000000-0000-4000-8000-000000000003', 'left', '{}', now(), null),
  ('00000000-0000-4000-8000-000000000004', 'paused', '{}', now(), now() - interval '1 day'),
  ('00000000-0000-4000-8000-000000000005', 'paused', '{}', now(), now() + interval '1 day'),
  ('00000000-0000-4000-8000-000000000006', 'paused', '{}', now(), null),
  ('00000000-0000-4000-8000-000000000007', 'active', '{}', now(), null);

create function pg_temp.users_after(p_after uuid, p_rows integer) returns setof text
language sql as $$
  select right(user_id, 1)
    from json_array_elements(public.scheduler_active_mentors_page(p_after, p_rows) -> 'groups') as alike
   cross join json_array_elements_text(alike -> 'user_ids') as user_id
   order by 1
$$;

select results_eq(
  $$select pg_temp.users_after(null, 100)$$, array['1', '2', '4', '7'],
  'who is active, and whose pause is over'
);
select is(
  (public.scheduler_active_mentors_page(null, 100) ->> 'is_last')::boolean, true,
  'a page that is not full is the last'
);
select results_eq($$select pg_temp.users_after(null, 2)$$, array['1', '2'], 'a page is as long as was asked');
select is((public.scheduler_active_mentors_page(null, 2) ->> 'is_last')::boolean, false, 'and not the last');
select results_eq(
  $$select pg_temp.users_after('00000000-0000-4000-8000-000000000002', 100)$$, array['4', '7'],
  'the next begins after the last of the one before'
);
select is_empty($$select pg_temp.users_after('00000000-0000-4000-8000-000000000007', 100)$$, 'nobody comes after the last');
select is(
  (select jsonb_agg(alike -> 'segments' order by alike ->> 'segments')
     from jsonb_array_elements(public.scheduler_active_mentors_page(null, 100)::jsonb -> 'groups') as alike),
  '[["established"], ["onboarding", "youth"]]', 'those who share their segments are one group'
);
select results_eq($$select pg_temp.users_after(null, 0)$$, array['1'], 'none asked for is not none left');
select is(
  public.scheduler_active_mentors(array[
    '00000000-0000-4000-8000-000000000002', '00000000-0000-4000-8000-000000000003'
  ]::uuid[]),
  '[{"user_id": "00000000-0000-4000-8000-000000000002", "segments": ["onboarding", "youth"]}]',
  'asked about by name, only who is active is answered'
);

select * from finish();
rollback;
