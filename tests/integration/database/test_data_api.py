"""The same rights from outside: what the Data API answers with which key."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import jwt
import pytest

from shared.database import PATIENCE_SECONDS, Database
from shared.database import connect as connect_to_data_api
from tests.emulator.project import Project

NO_USER = "00000000-0000-4000-8000-000000000000"


def strangers(project: Project) -> Iterator[tuple[str, dict[str, str]]]:
    """Every caller that is not the service role, as request headers."""
    yield "no key", {}
    yield "publishable key", {"apikey": project.publishable_key}
    yield "anon jwt", {"apikey": project.anon_jwt, "Authorization": f"Bearer {project.anon_jwt}"}
    user = jwt.encode(
        {"role": "authenticated", "sub": "00000000-0000-4000-8000-000000000001", "exp": int(time.time()) + 600},
        project.keys.jwt_secret,
        algorithm="HS256",
    )
    yield "signed-in user", {"apikey": project.publishable_key, "Authorization": f"Bearer {user}"}


def as_service_role(project: Project) -> dict[str, str]:
    return {"apikey": project.secret_key}


def assert_refused(answer: httpx.Response, who: str) -> None:
    """`200 []` is what a table says that is open and has no policy, 404 what a wrong question gets: neither is a no."""
    assert answer.status_code in {401, 403}, (who, answer.request.url, answer.status_code, answer.text)
    # callers that get past the gateway are refused by the database itself
    assert who == "no key" or answer.json()["code"] == "42501", (who, answer.request.url, answer.text)


async def relations(project: Project) -> dict[str, str]:
    """Every table and view that the Data API serves, each with a column of its own to filter by."""
    async with project.connect() as database:
        cursor = await database.execute(
            b"select c.relname, a.attname from pg_class as c join pg_attribute as a on a.attrelid = c.oid"
            b" where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')"
            b" and a.attnum = 1 order by c.relname"
        )
        found: dict[str, str] = dict(await cursor.fetchall())
    assert found.keys() >= {"peer_mentors", "active_peer_mentors", "scheduler_invocations", "scheduler_evaluations"}
    return found


async def functions(project: Project) -> list[tuple[str, list[str]]]:
    """Every function that the Data API serves, with the names of its parameters."""
    async with project.connect() as database:
        cursor = await database.execute(
            b"select proname, coalesce(proargnames[1:pronargs], '{}') from pg_proc"
            b" where pronamespace = 'public'::regnamespace and prorettype <> 'trigger'::regtype"
        )
        found = await cursor.fetchall()
    assert len(found) >= 20
    return [(name, list(arguments)) for name, arguments in found]


async def writes(http: httpx.AsyncClient, url: str, headers: dict[str, str], column: str) -> list[httpx.Response]:
    return [
        await http.post(url, headers=headers, json={column: NO_USER}),
        await http.patch(f"{url}?{column}=not.is.null", headers=headers, json={column: NO_USER}),
        await http.delete(f"{url}?{column}=not.is.null", headers=headers),
    ]


async def test_strangers_reach_no_table_and_no_function(project: Project, http: httpx.AsyncClient) -> None:
    found = await relations(project)
    called = await functions(project)
    for who, headers in strangers(project):
        for relation, column in found.items():
            url = f"{project.rest_url}/{relation}"
            for answer in (await http.get(url, headers=headers), *await writes(http, url, headers, column)):
                assert_refused(answer, who)
        for name, arguments in called:
            url = f"{project.rest_url}/rpc/{name}"
            assert_refused(await http.post(url, headers=headers, json=dict.fromkeys(arguments)), who)
            assert_refused(await http.get(url, headers=headers, params=dict.fromkeys(arguments, "1")), who)


@pytest.mark.parametrize("schema", ["scheduler", "pgmq", "vault", "net", "cron"])
async def test_private_schemas_are_not_served(project: Project, http: httpx.AsyncClient, schema: str) -> None:
    for headers in (as_service_role(project), {"apikey": project.publishable_key}):
        answer = await http.get(f"{project.rest_url}/settings", headers={**headers, "Accept-Profile": schema})
        assert (answer.status_code, answer.json()["code"]) == (406, "PGRST106")


async def test_the_service_role_reads_and_calls_and_writes_nothing(project: Project, http: httpx.AsyncClient) -> None:
    headers = as_service_role(project)
    for relation, column in (await relations(project)).items():
        url = f"{project.rest_url}/{relation}"
        answer = await http.get(url, headers=headers)
        assert (answer.status_code, answer.json()) == (200, []), relation
        if relation.startswith("scheduler_"):
            for refused in await writes(http, url, headers, column):
                assert (refused.status_code, refused.json()["code"]) == (403, "42501"), refused.text
    body = {"p_quantity": 5, "p_visibility_seconds": 60, "p_manual_only": False}
    answer = await http.post(f"{project.rest_url}/rpc/scheduler_claim", headers=headers, json=body)
    assert (answer.status_code, answer.json()["batches"]) == (200, [])


async def test_a_function_missing_from_the_schema_cache_is_called_again(project: Project) -> None:
    """As right after a migration: PostgREST reads the schema anew while the call waits for its next attempt."""
    async with project.connect() as database:
        await database.execute(
            b"create function public.newest() returns integer language sql set search_path = '' return 1"
        )

        async def reload_meanwhile(_: float) -> None:
            await database.execute(b"notify pgrst, 'reload schema'")

        client = connect_to_data_api(project.supabase_url, project.secret_key, connections=1)
        data_api = Database(client, patience_seconds=PATIENCE_SECONDS, sleep=reload_meanwhile)
        assert await data_api.call("newest") == 1
