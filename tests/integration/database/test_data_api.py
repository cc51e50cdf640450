"""The same rights from outside: what the Data API answers to whom."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import jwt
import pytest

from shared.database import PATIENCE_SECONDS, Database
from shared.database import connect as connect_to_data_api
from tests.emulator.connections import connect
from tests.emulator.project import Project, ProjectFactory

NOBODY = "00000000-0000-4000-8000-000000000000"


def strangers(project: Project) -> Iterator[tuple[str, dict[str, str]]]:
    """Everybody who is not the service role, as request headers."""
    yield "nobody", {}
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
    # whoever gets past the gateway is refused by the database itself
    assert who == "nobody" or answer.json()["code"] == "42501", (who, answer.request.url, answer.text)


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
    """Every function that the Data API serves, with the names of its parameters; it does not serve nameless ones."""
    async with project.connect() as database:
        cursor = await database.execute(
            b"select proname, coalesce(proargnames[1:pronargs], '{}') from pg_proc"
            b" where pronamespace = 'public'::regnamespace and prorettype <> 'trigger'::regtype"
        )
        found = await cursor.fetchall()
    assert len(found) >= 8
    return [(name, list(arguments)) for name, arguments in found]


async def test_strangers_read_and_write_no_table(project: Project, http: httpx.AsyncClient) -> None:
    found = await relations(project)
    for who, headers in strangers(project):
        for relation, column in found.items():
            url = f"{project.rest_url}/{relation}"
            assert_refused(await http.get(url, headers=headers), who)
            assert_refused(await http.post(url, headers=headers, json={column: NOBODY}), who)
            assert_refused(await http.patch(f"{url}?{column}=not.is.null", headers=headers, json={column: NOBODY}), who)
            assert_refused(await http.delete(f"{url}?{column}=not.is.null", headers=headers), who)


@pytest.mark.parametrize(
    ("forgotten", "route"),
    [
        ("create table public.forgotten (id integer)", "forgotten"),
        ("create view public.forgotten as select 1 as id", "forgotten"),
        (
            "create function public.forgotten() returns integer language sql set search_path = '' return 1",
            "rpc/forgotten",
        ),
    ],
)
async def test_what_somebody_forgot_to_close_would_be_seen(
    projects: ProjectFactory, http: httpx.AsyncClient, forgotten: str, route: str
) -> None:
    async with projects.database() as name, connect(projects.server.url(name)) as database:
        await database.execute(forgotten.encode())
        project = Project(projects.server, name, label=f"-{name}")
        try:
            await project.start()
            known = {*await relations(project), *(f"rpc/{function}" for function, _ in await functions(project))}
            answer = await http.get(f"{project.rest_url}/{route}", headers={"apikey": project.publishable_key})
        finally:
            await project.stop()
    assert route in known
    with pytest.raises(AssertionError):
        assert_refused(answer, "publishable key")


async def test_strangers_call_no_function(project: Project, http: httpx.AsyncClient) -> None:
    for name, arguments in await functions(project):
        for who, headers in strangers(project):
            url = f"{project.rest_url}/rpc/{name}"
            assert_refused(await http.post(url, headers=headers, json=dict.fromkeys(arguments)), who)
            assert_refused(await http.get(url, headers=headers, params=dict.fromkeys(arguments, "1")), who)


@pytest.mark.parametrize("schema", ["scheduler", "pgmq", "vault", "net", "cron"])
async def test_private_schemas_are_not_served_even_to_the_service_role(
    project: Project, http: httpx.AsyncClient, schema: str
) -> None:
    for headers in (as_service_role(project), {"apikey": project.publishable_key}):
        answer = await http.get(f"{project.rest_url}/settings", headers={**headers, "Accept-Profile": schema})
        assert answer.status_code == 406
        assert answer.json()["code"] == "PGRST106"


async def test_the_service_role_reads_every_table_and_writes_none_of_the_schedulers(
    project: Project, http: httpx.AsyncClient
) -> None:
    headers = as_service_role(project)
    for relation, column in (await relations(project)).items():
        url = f"{project.rest_url}/{relation}"
        answer = await http.get(url, headers=headers)
        assert (answer.status_code, answer.json()) == (200, []), relation
        if relation.startswith("scheduler_"):
            for refused in (
                await http.post(url, headers=headers, json={column: NOBODY}),
                await http.patch(f"{url}?{column}=not.is.null", headers=headers, json={column: NOBODY}),
                await http.delete(f"{url}?{column}=not.is.null", headers=headers),
            ):
                assert (refused.status_code, refused.json()["code"]) == (403, "42501"), refused.text


async def test_the_service_role_may_call_the_functions(project: Project, http: httpx.AsyncClient) -> None:
    answer = await http.post(
        f"{project.rest_url}/rpc/scheduler_claim",
        headers=as_service_role(project),
        json={"p_quantity": 5, "p_visibility_seconds": 60, "p_manual_only": False},
    )
    assert (answer.status_code, answer.json()) == (
        200,
        {"batches": [], "stale": 0, "engine_paused_until": None, "poison_waits": False},
    )


async def test_a_function_missing_from_the_schema_cache_is_called_again(project: Project) -> None:
    """As right after a migration: PostgREST hears of it while the call waits for its next attempt."""
    async with project.connect() as database:
        await database.execute(
            b"create function public.newest() returns integer language sql set search_path = '' return 1"
        )

        async def reload_meanwhile(_: float) -> None:
            await database.execute(b"notify pgrst, 'reload schema'")

        client = connect_to_data_api(project.supabase_url, project.secret_key, connections=1)
        data_api = Database(client, patience_seconds=PATIENCE_SECONDS, sleep=reload_meanwhile)
        assert await data_api.call("newest") == 1
