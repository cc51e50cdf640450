"""Over HTTP: a stranger learns nothing, an invoke token starts runs and does nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from functions.invocation_routes import PREFIX
from shared.errors import DatabaseUnavailableError
from shared.version import VERSION
from tests.unit.environment import ADMIN_TOKEN
from tests.unit.functions.http_function import ADMIN, INVOKE, JSON, Function, problem_in
from tests.unit.functions.pretend_sql import RUN_ID
from tests.unit.log_lines import LogLines

ENDPOINTS = [
    ("GET", PREFIX),
    ("POST", PREFIX),
    ("GET", f"{PREFIX}/{RUN_ID}"),
    ("PUT", f"{PREFIX}/{RUN_ID}"),
    ("DELETE", f"{PREFIX}/{RUN_ID}"),
    ("GET", f"{PREFIX}/active-peer-mentors"),
    ("POST", f"{PREFIX}/evaluation-batch"),
]
NOT_SERVED = [("GET", "/"), ("PUT", "/"), ("GET", "/nowhere"), ("GET", "/health/"), ("GET", "/docs/")]


@pytest.mark.parametrize(("method", "path"), [("POST", "/"), *ENDPOINTS, *NOT_SERVED])
async def test_a_stranger_gets_401_everywhere_and_learns_nothing(function: Function, method: str, path: str) -> None:
    response = await function.http.request(method, path)
    problem_in(response, 401, "unauthorized")
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert function.sql.called() == []


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer wrong", f"Basic {ADMIN_TOKEN}", ADMIN_TOKEN, "Bearer \xff"]
)
async def test_what_is_no_known_token_makes_a_stranger(function: Function, authorization: str) -> None:
    headers = {"Authorization": authorization.encode("latin-1")}
    response = await function.http.get(PREFIX, headers=headers)  # type: ignore[arg-type]  # bytes are allowed
    problem_in(response, 401, "unauthorized")
    assert function.sql.called() == []


async def test_a_strangers_body_is_not_read(function: Function) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{}"

    problem_in(await function.http.post("/", content=body(), headers=JSON), 401, "unauthorized")
    assert read == 0


async def test_a_refused_token_is_not_in_the_log(function: Function, log: LogLines) -> None:
    await function.http.post("/", headers={"Authorization": "Bearer almost-a-known-token"})
    assert len(log.of("caller_refused")) == 1
    assert "almost" not in log.text


@pytest.mark.parametrize(("method", "path"), [*ENDPOINTS, *NOT_SERVED])
async def test_an_invoke_token_may_do_nothing_but_start(function: Function, method: str, path: str) -> None:
    problem_in(await function.http.request(method, path, headers=INVOKE), 403, "forbidden")
    assert function.sql.called() == []


@pytest.mark.parametrize("headers", [INVOKE, ADMIN])
async def test_both_kinds_of_token_may_start(function: Function, headers: dict[str, str]) -> None:
    assert (await function.http.post("/", headers=headers)).status_code == 200


@pytest.mark.parametrize("headers", [{}, INVOKE, ADMIN, {"Authorization": "Bearer wrong"}])
async def test_health_is_open_to_all_and_needs_no_database(function: Function, headers: dict[str, str]) -> None:
    function.broken_by = DatabaseUnavailableError("away")
    response = await function.http.get("/health", headers=headers)
    assert (response.status_code, response.json()) == (200, {"status": "ok", "version": VERSION})


async def test_a_monitor_may_ask_for_the_health_with_head(function: Function) -> None:
    response = await function.http.head("/health")
    assert (response.status_code, response.content) == (200, b"")
