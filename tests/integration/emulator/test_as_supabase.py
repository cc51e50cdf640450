"""The local stack is as inconvenient as Supabase: what works on it works there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.emulator.connections import Connection, connect
from tests.emulator.project import Project, ProjectFactory
from tests.emulator.safeupdate import without_safeupdate
from tests.faults.system_packages import not_there
from tests.integration.scheduled_runs.harness import eventually
from tests.scripted_engine import ScriptedEngine, rules

BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"}
PASSED_ON, FORBIDDEN = (200, None), (401, "42501")

RIGHTS = """
create table public.forgotten (id int);
create function public.forgotten() returns int language sql return 1;
select name from (values
  ('anon: a table without revokes', has_table_privilege('anon', 'public.forgotten', 'select, update')),
  ('anon: a function without revokes', has_function_privilege('anon', 'public.forgotten()', 'execute')),
  ('anon: queued calls', has_table_privilege('anon', 'net.http_request_queue', 'select')),
  ('anon: their answers', has_table_privilege('anon', 'net._http_response', 'select')),
  ('service_role: Vault', has_table_privilege('service_role', 'vault.decrypted_secrets', 'select')),
  ('anon: cron', has_schema_privilege('anon', 'cron', 'usage')),
  ('anon: Vault', has_schema_privilege('anon', 'vault', 'usage')),
  ('postgres: writes jobs', has_table_privilege('postgres', 'cron.job', 'insert, update, delete')),
  ('postgres: writes secrets', has_table_privilege('postgres', 'vault.secrets', 'insert, update')),
  ('postgres: is superuser', (select rolsuper from pg_roles where rolname = 'postgres'))
) as rights (name, granted) where granted
"""

WITHOUT_WHERE = """
create function public.forget() returns void language sql security definer set search_path = '' as $$
  with gone as (delete from public.peer_mentors returning 1) select from gone $$;
grant execute on function public.forget() to service_role;
"""


async def rows(database: Connection, query: str, *parameters: object) -> list[tuple[object, ...]]:
    return await (await database.execute(query.encode(), parameters)).fetchall()


@pytest.mark.parametrize(
    ("apikey", "bearer", "browser", "expected"),
    [
        ("secret_key", None, {}, PASSED_ON),
        ("secret_key", "secret_key", {}, PASSED_ON),  # as supabase-py sends it
        ("secret_key", "anon_jwt", {}, FORBIDDEN),
        ("secret_key", None, BROWSER, (401, "Forbidden use of secret API key in browser")),
        ("publishable_key", None, BROWSER, FORBIDDEN),
        ("service_role_jwt", None, {}, PASSED_ON),
        ("anon_jwt", None, {}, FORBIDDEN),
        ("anon_jwt", "service_role_jwt", {}, PASSED_ON),
        ("sb_secret_guess_00000000", "service_role_jwt", {}, (401, "Invalid API key")),
        (None, "service_role_jwt", {}, (401, "No API key found in request")),
    ],
)
async def test_the_gateway_lets_each_key_do_what_it_may(
    shared_project: Project,
    http: httpx.AsyncClient,
    apikey: str | None,
    bearer: str | None,
    browser: dict[str, str],
    expected: tuple[int, str | None],
) -> None:
    keys = {name: getattr(shared_project, name, name) for name in (apikey, bearer) if name}
    headers = browser | ({"apikey": keys[apikey]} if apikey else {})
    headers |= {"authorization": f"Bearer {keys[bearer]}"} if bearer else {}
    answer = await http.get(f"{shared_project.rest_url}/peer_mentors?limit=1", headers=headers)
    body = answer.json()
    found = None if isinstance(body, list) else body.get("code") or body["message"]
    assert (answer.status_code, found) == expected


@pytest.fixture(scope="module")
async def shared_project(projects: ProjectFactory) -> AsyncIterator[Project]:
    """One for all keys: no request changes it."""
    async with projects.project() as project:
        yield project


async def test_roles_have_the_rights_that_bite_and_no_others(projects: ProjectFactory) -> None:
    async with projects.database() as name, connect(projects.server.url(name)) as database:
        *statements, query = RIGHTS.split(";\n")
        for statement in statements:
            await database.execute(statement.encode())
        assert [right for (right,) in await rows(database, query)] == [
            "anon: a table without revokes",
            "anon: a function without revokes",
            "anon: queued calls",
            "anon: their answers",
            "service_role: Vault",
        ]


@pytest.mark.parametrize(("role", "limit"), [("authenticator", "8s"), ("postgres", "2min")])
async def test_statements_have_the_time_that_supabase_gives(projects: ProjectFactory, role: str, limit: str) -> None:
    async with projects.database() as name, connect(projects.server.url(name, role)) as database:
        assert await rows(database, "show statement_timeout") == [(limit,)]


async def test_the_data_api_refuses_a_delete_without_where(projects: ProjectFactory, http: httpx.AsyncClient) -> None:
    if not projects.server.has_safeupdate:
        not_there("safeupdate was not compiled", without_safeupdate(projects.server.binaries.major))
    async with projects.database() as template:
        async with connect(projects.server.url(template)) as database:
            await database.execute(WITHOUT_WHERE.encode())
        async with projects.project(template) as project:
            answer = await http.post(f"{project.rest_url}/rpc/forget", headers={"apikey": project.secret_key})
            assert (answer.status_code, answer.json()["code"]) == (400, "21000")
            assert answer.json()["message"] == "DELETE requires a WHERE clause"


async def test_jobs_run_as_their_owner_and_failures_are_recorded(project: Project) -> None:
    async with project.connect(superuser=True) as superuser, project.connect() as owner:
        await superuser.execute(b"delete from cron.job")
        await owner.execute(
            b"select cron.schedule('who', '* * * * *', 'select 1 / (session_user = ''postgres'')::int')"
        )
        await owner.execute(b"select cron.schedule('asleep', '* * * * *', 'select 1')")
        await owner.execute(b"select cron.alter_job(jobid, active => false) from cron.job where jobname = 'asleep'")
        await owner.execute(b"select cron.schedule('bad', '* * * * *', 'select 1/0')")
        with pytest.raises(psycopg.Error, match="invalid schedule: 30 seconds"):
            await owner.execute(b"select cron.schedule('fast', '30 seconds', 'select 1')")
        await project.cron_driver().run_all()
        details = "select username, status, return_message from cron.job_run_details order by jobid"
        assert await rows(superuser, details) == [
            ("postgres", "succeeded", "SELECT 1"),
            ("postgres", "failed", "ERROR:  division by zero"),
        ]


async def test_calls_are_sent_at_commit_and_answered_with_the_slowest(project: Project) -> None:
    """Until then any role that runs SQL reads the headers of its calls, and no answer is there."""
    post = b"select net.http_post(%s, body => %s, headers => %s)"
    evaluation = {"user_id": str(UUID(int=1)), "scenario_types": ["a"], "idempotency_key_prefix": "a"}
    answers = "select status_code from net._http_response order by id"
    queued = "select count(*) from net.http_request_queue where headers ? 'Authorization'"
    slow_may_answer = asyncio.Event()
    async with (
        ScriptedEngine(rules=[rules.hold_until(slow_may_answer)]) as engine,
        project.connect() as database,
        project.connect() as anonymous,
    ):
        await anonymous.execute(b"set role anon")
        await project.start_net()
        headers = Jsonb({"Authorization": f"Bearer {engine.token}"})
        slow = {"dry_run": True, "evaluations": [evaluation]}
        async with database.transaction(force_rollback=True):
            await database.execute(post, (f"{engine.url}/v1/evaluations", Jsonb(slow), headers))
        async with database.transaction():
            for body in (slow, {}):
                await database.execute(post, (f"{engine.url}/v1/evaluations", Jsonb(body), headers))
        await engine.until(lambda seen: sorted(str(call.status) for call in seen.calls) == ["400", "None"])
        assert await rows(anonymous, answers) == []
        assert await rows(anonymous, queued) == [(2,)]
        slow_may_answer.set()
        assert await eventually(lambda: rows(anonymous, answers)) == [(200,), (400,)]
        assert await rows(anonymous, queued) == [(0,)]
