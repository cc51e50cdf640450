-- Stand-in for pg_net (https://github.com/supabase/pg_net): the same tables and columns, and http_post, without params and
-- without a background worker. The emulator process takes the requests out of the queue; see tests/emulator/pg_net.py.
--
-- Trusted, so that role postgres may create it and a superuser owns what it creates, as on hosted Supabase: postgres cannot
-- revoke what is granted here.

create schema net;

create domain net.http_method as text
  constraint http_method_check check (value ilike 'get' or value ilike 'post' or value ilike 'delete');

-- Unlogged like the real ones: a crash of the server empties both.
create unlogged table net.http_request_queue (
  id bigserial,
  method net.http_method not null,
  url text not null,
  headers jsonb,
  body bytea,
  timeout_milliseconds int not null
);

create unlogged table net._http_response (
  id bigint,
  status_code integer,
  content_type text,
  headers jsonb,
  content text,
  timed_out boolean,
  error_msg text,
  -- When the round of the request began, before it was sent: a round is one transaction.
  created timestamptz not null default now()
);
create index on net._http_response (created);

-- A notification leaves the transaction only when it commits: neither does the request.
create function net._wake_driver() returns trigger
language plpgsql set search_path = ''
as $$
begin
  perform pg_catalog.pg_notify('emulator_pg_net', '');
  return null;
end
$$;

create trigger wake_driver
after insert on net.http_request_queue
for each statement execute function net._wake_driver();

create function net.http_post(
  url text,
  body jsonb default '{}',
  params jsonb default '{}',
  headers jsonb default '{"Content-Type": "application/json"}',
  timeout_milliseconds int default 5000
) returns bigint
language plpgsql volatile parallel safe set search_path = ''
as $$
declare
  content_type text := (
    select header.value from jsonb_each_text(headers) as header where lower(header.key) = 'content-type' limit 1
  );
  request_id bigint;
begin
  if params <> '{}' then
    raise exception 'the stand-in for pg_net sends no params';
  end if;
  if content_type is null then
    headers := coalesce(headers, '{}') || '{"Content-Type": "application/json"}';
  elsif content_type <> 'application/json' then
    raise exception 'Content-Type header must be "application/json"';
  end if;
  insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
  values ('POST', url, headers, convert_to(body::text, 'UTF8'), timeout_milliseconds)
  returning id into request_id;
  return request_id;
end
$$;

-- Any role that runs SQL of its own reads the headers of queued requests. The Data API does not expose the schema.
grant usage on schema net to public;
grant all on all tables in schema net to public;
grant all on all sequences in schema net to public;
