-- Has the database call the function: psql runs this file, ./deploy.sh does, and so can a person. The token comes from the
-- environment variable INVOKE_TOKEN:
--   INVOKE_TOKEN=… psql "$DATABASE_URL" --set function_url=https://… --set schedule='0 2 * * * UTC' --file supabase/connect.sql
-- Without a schedule the last one stays. It has to reach the server as COPY's data: a literal, a psql variable and a bound
-- parameter can each end up in pg_stat_statements or in the server's log. Prints whether Vault held something else.
\set ON_ERROR_STOP 1
\if :{?schedule}
\else
  \set schedule ''
\endif
\if :{?function_url}
\else
  \set function_url ''
\endif

begin;
create temporary table given (invoke_token text not null) on commit drop;
-- Delimiter and quote are characters that no token has, so that it arrives as it is.
\copy given from program 'printenv INVOKE_TOKEN' with (format csv, delimiter e'\x01', quote e'\x02')
select scheduler.connect(
  :'function_url', invoke_token, coalesce(nullif(:'schedule', ''), (select schedule from scheduler.settings))
) from given;
commit;
