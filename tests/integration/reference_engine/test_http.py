"""The engine's face: who may call, what is refused, and what an answer looks like."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.emulator.engine import EngineProcess
from tests.emulator.project import Project, ProjectFactory
from tests.emulator.reference_engine.outbox import data_api_client
from tests.integration.project_logs import project_without_leaks

from .programme import ESTABLISHED, INACTIVITY, SILENT, TYPES, Programme, body_for


async def test_answers_in_the_order_of_the_call(programme: Programme) -> None:
    users = [await programme.mentor(SILENT if n % 3 else ESTABLISHED) for n in range(100)]
    users.insert(50, str(uuid4()))
    results = await programme.call(users, ("made_up", *reversed(TYPES)))
    named = [(result["user_id"], result["scenario_type"]) for result in results]
    assert named == [(user, kind) for user in users for kind in ("made_up", *reversed(TYPES))]


async def test_unknown_users_and_scenario_types_fail_alone_and_for_good(programme: Programme) -> None:
    known, unknown = await programme.mentor(SILENT), str(uuid4())
    results = {
        (item["user_id"], item["scenario_type"]): item
        for item in await programme.call([known, unknown], (INACTIVITY, "?"))
    }
    assert results[known, INACTIVITY]["outcome"] == "triggered"
    for pair, code in [
        ((known, "?"), "unknown_scenario_type"),
        ((unknown, "?"), "unknown_scenario_type"),
        ((unknown, INACTIVITY), "unknown_user"),
    ]:
        assert results[pair]["outcome"] == "failed"
        assert (results[pair]["error"]["code"], results[pair]["error"]["retryable"]) == (code, False)


async def test_no_evaluations_have_no_results(programme: Programme) -> None:
    assert await programme.call([]) == []
    assert await programme.call([str(uuid4())], ()) == []


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer", "Bearer \xe4", "Basic {token}", "Bearer {token}x", "{token}"]
)
async def test_refuses_callers_without_the_token(
    programme: Programme, engine_project: Project, authorization: str | None
) -> None:
    del programme.engine.headers["authorization"]
    headers = {}
    if authorization is not None:
        headers["authorization"] = authorization.replace("{token}", engine_project.engine_token).encode("latin-1")
    response = await programme.send(body_for([]), headers=headers)
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert response.json()["error"]["code"] == "unauthorized"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[" * 200_000, b"null,"], ids=["none", "half", "bytes", "deep", "more"]
)
async def test_refuses_what_is_not_json(programme: Programme, body: bytes) -> None:
    response = await programme.engine.post("/v1/evaluations", content=body)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "malformed_json"


@asynccontextmanager
async def engine_with_key(project: Project, kind: str) -> AsyncIterator[str]:
    """The address of one more engine that has a key of this kind."""
    engine = EngineProcess(
        project.data_dir,
        {
            "SUPABASE_URL": project.supabase_url,
            "SUPABASE_SECRET_KEY": getattr(project, kind),
            "SCENARIO_ENGINE_TOKEN": project.engine_token,
        },
        name=f"engine-with-{kind}-{project.database}",
    )
    await engine.start()
    try:
        yield engine.url
    finally:
        await engine.stop()


def changed(**members: Any) -> dict[str, Any]:
    """A good call about one mentor with members of its evaluation changed."""
    body = body_for([str(uuid4())])
    body["evaluations"][0] |= members
    return body


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ([], "body"),
        ({"dry_run": False}, "evaluations"),
        ({"evaluations": []}, "dry_run"),
        ({"evaluations": [], "dry_run": "false"}, "dry_run"),
        ({"evaluations": {}, "dry_run": False}, "evaluations"),
        (changed(user_id="somebody"), "evaluations.0.user_id"),
        (changed(scenario_types="all"), "evaluations.0.scenario_types"),
        (changed(scenario_types=["a\0b"]), "evaluations.0.scenario_types.0"),
        (changed(idempotency_key_prefix=""), "evaluations.0.idempotency_key_prefix"),
        (changed(idempotency_key_prefix="a\0b"), "evaluations.0.idempotency_key_prefix"),
    ],
)
async def test_refuses_a_call_of_the_wrong_shape_and_says_where(programme: Programme, body: Any, where: str) -> None:
    response = await programme.send(body)
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_call"
    assert response.json()["error"]["message"].startswith(f"{where}: ")


async def test_refuses_a_body_over_one_mebibyte_sent_in_pieces(programme: Programme) -> None:
    async def pieces() -> Any:
        for _ in range(17):
            yield b" " * 65536

    response = await programme.engine.post("/v1/evaluations", content=pieces())
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"


async def test_other_routes_and_methods_are_refused_in_json(programme: Programme) -> None:
    assert (await programme.engine.get("/")).json()["error"]["code"] == "not_found"
    response = await programme.engine.get("/v1/evaluations")
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")


async def test_health_needs_no_token(programme: Programme) -> None:
    del programme.engine.headers["authorization"]
    assert (await programme.engine.get("/health")).status_code == 200


async def test_500_simultaneous_calls_are_all_answered(programme: Programme) -> None:
    users = [await programme.mentor(SILENT) for _ in range(100)]
    answers = await asyncio.gather(*(programme.call([users[n % 100]]) for n in range(500)))
    assert {item["outcome"] for answer in answers for item in answer if item["scenario_type"] == INACTIVITY} == {
        "triggered"
    }


@pytest.mark.parametrize("away", ["postgrest", "gateway"])
async def test_says_503_while_the_data_api_is_away_and_works_again_after(projects: ProjectFactory, away: str) -> None:
    async with project_without_leaks(projects) as project, project.connect() as database:
        await project.start_engine()
        async with Programme.of(project, database) as programme:
            user_id = await programme.mentor(SILENT)
            part = project.postgrest if away == "postgrest" else project.gateway
            await part.stop()
            response = await programme.send(body_for([user_id]))
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert response.json()["error"]["code"] == "database_unavailable"
            await part.start()
            assert await programme.outcome(user_id, INACTIVITY) == "triggered"


async def test_says_500_and_nothing_of_the_reason_with_a_key_without_rights(engine_project: Project) -> None:
    async with engine_project.connect() as database, engine_with_key(engine_project, "publishable_key") as url:
        user_id = await Programme(database, httpx.AsyncClient()).mentor(SILENT)
        headers = {"authorization": f"Bearer {engine_project.engine_token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as engine:
            response = await engine.post("/v1/evaluations", json=body_for([user_id]))
        assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
        assert "permission" not in response.text


async def test_takes_a_legacy_service_role_key(engine_project: Project) -> None:
    async with engine_project.connect() as database, engine_with_key(engine_project, "service_role_jwt") as url:
        headers = {"authorization": f"Bearer {engine_project.engine_token}"}
        async with httpx.AsyncClient(base_url=url, headers=headers) as engine:
            programme = Programme(database, engine)
            assert await programme.outcome(await programme.mentor(SILENT), INACTIVITY) == "triggered"


async def test_sends_a_jwt_as_a_bearer_token_as_well_and_an_opaque_key_never() -> None:
    async with (
        data_api_client("http://127.0.0.1:1", "eyJ.a.jwt") as legacy,
        data_api_client("http://127.0.0.1:1", "sb_secret_x") as opaque,
    ):
        assert (legacy.headers["apikey"], legacy.headers["authorization"]) == ("eyJ.a.jwt", "Bearer eyJ.a.jwt")
        assert opaque.headers["apikey"] == "sb_secret_x"
        assert "authorization" not in opaque.headers


async def test_names_everything_that_is_missing_in_its_environment() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.emulator.reference_engine", "--port", "1"),
        env={"PATH": os.defpath, "SUPABASE_URL": "http://127.0.0.1:1"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"missing in the environment: SUPABASE_SECRET_KEY, SCENARIO_ENGINE_TOKEN" in said
