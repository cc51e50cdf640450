"""The same rights from outside: what the Data API answers with which key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import jwt

from shared.database import LONGER_RETRY_SECONDS, Database
from shared.database import connect as connect_to_data_api
from tests.emulator.project import Project

# Every table and view that the Data API serves, with a column to filter by; every function, with its parameters' names.
RELATIONS = b"""
select c.relname, a.attname from pg_class as c join pg_attribute as a on a.attrelid = c.oid and a.attnum = 1
 where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
"""
FUNCTIONS = b"""
select proname, coalesce(proargnames[1:pronargs], '{}') from pg_proc
 where pronamespace = 'public'::regnamespace and prorettype <> 'trigger'::regtype
"""
NO_USER = "00000000-0000-4000-8000-000000000000"


def anonymous_callers(project: Project) -> Iterator[tuple[str, dict[str, str]]]:
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


def assert_refused(answer: httpx.Response, who: str) -> None:
    """`200 []` is what a table says that is open and has no policy, 404 what a wrong question gets: neither is a no."""
    assert answer.status_code in {401, 403}, (who, answer.request.url, answer.status_code, answer.text)
    # callers that get past the gateway are refused by the database itself
    assert who == "no key" or answer.json()["code"] == "42501", (who, answer.request.url, answer.text)


async def served(project: Project, query: bytes) -> list[tuple[Any, ...]]:
    async with project.connect() as database:
        return await (await database.execute(query)).fetchall()


async def test_anonymous_callers_reach_no_table_and_no_function(project: Project, http: httpx.AsyncClient) -> None:
    relations, functions = await served(project, RELATIONS), await served(project, FUNCTIONS)
    assert len(relations) >= 5
    assert len(functions) >= 20
    for who, headers in anonymous_callers(project):
        for relation, column in relations:
            url, row = f"{project.rest_url}/{relation}", {column: NO_USER}
            assert_refused(await http.get(url, headers=headers), who)
            assert_refused(await http.post(url, headers=headers, json=row), who)
            assert_refused(await http.patch(f"{url}?{column}=not.is.null", headers=headers, json=row), who)
            assert_refused(await http.delete(f"{url}?{column}=not.is.null", headers=headers), who)
        for name, arguments in functions:
            url = f"{project.rest_url}/rpc/{name}"
            assert_refused(await http.post(url, headers=headers, json=dict.fromkeys(arguments)), who)
            assert_refused(await http.get(url, headers=headers, params=dict.fromkeys(arguments, "1")), who)


async def test_a_function_missing_from_the_schema_cache_is_called_again(project: Project) -> None:
    """As right after a migration: PostgREST reads the schema anew while the call waits for its next attempt."""
    async with project.connect() as database:
        await database.execute(
            b"create function public.newest() returns integer language sql set search_path = '' return 1"
        )

        async def reload_meanwhile(_: float) -> None:
            await database.execute(b"notify pgrst, 'reload schema'")

        client = connect_to_data_api(project.supabase_url, project.secret_key, connections=1)
        data_api = Database(client, retry_seconds=LONGER_RETRY_SECONDS, sleep=reload_meanwhile)
        assert await data_api.call("newest") == 1
