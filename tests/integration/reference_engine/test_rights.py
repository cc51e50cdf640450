"""Nothing of the sample application or of the engine is open to anybody but service_role."""

from __future__ import annotations

import httpx
import pytest

from tests.emulator.project import Project

ROUTES = [
    ("GET", "peer_mentors"),
    ("GET", "active_peer_mentors"),
    ("GET", "engagement_notifications"),
    ("POST", "rpc/evaluate_scenarios"),
]


async def answer(project: Project, key: str, method: str, route: str) -> httpx.Response:
    empty: dict[str, list[str]] = {"user_ids": [], "scenario_types": [], "idempotency_keys": []}
    async with httpx.AsyncClient(base_url=f"{project.rest_url}/", headers={"apikey": key}) as client:
        return await client.request(method, route, json=empty if method == "POST" else None)


@pytest.mark.parametrize(("method", "route"), ROUTES)
async def test_closed_to_anon(engine_project: Project, method: str, route: str) -> None:
    refused = await answer(engine_project, engine_project.publishable_key, method, route)
    # 200 with an empty list is what row level security alone would answer: the grant must be gone as well.
    assert (refused.status_code, refused.json()["code"]) == (401, "42501")


@pytest.mark.parametrize(("method", "route"), ROUTES)
async def test_open_to_service_role(engine_project: Project, method: str, route: str) -> None:
    assert (await answer(engine_project, engine_project.secret_key, method, route)).status_code == 200


@pytest.mark.parametrize("role", ["anon", "authenticated"])
@pytest.mark.parametrize("relation", ["peer_mentors", "active_peer_mentors", "engagement_notifications"])
async def test_no_privilege_of_any_kind_is_left_to_a_public_role(
    engine_project: Project, role: str, relation: str
) -> None:
    async with engine_project.connect() as database:
        cursor = await database.execute(
            b"select has_table_privilege(%s, 'public.' || %s, %s)",
            (role, relation, "select, insert, update, delete, truncate, references, trigger"),
        )
        assert await cursor.fetchone() == (False,)


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
async def test_the_rules_can_be_asked_through_the_engine_only(engine_project: Project, role: str) -> None:
    async with engine_project.connect() as database:
        cursor = await database.execute(
            b"select has_function_privilege(%s, oid, 'execute') from pg_proc"
            b" where proname in ('scenario_is_due', 'scenario_was_sent')",
            (role,),
        )
        assert await cursor.fetchall() == [(False,), (False,)]
