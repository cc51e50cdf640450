"""The whole application over a fake database and a fake engine, as callers meet it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import SecretStr

from functions.http.app import create_app
from functions.http.invocations import PREFIX
from functions.runs.services import Services
from shared.auth import TokenCheck
from shared.fingerprint import Fingerprint
from shared.sign_in import SignIn
from tests.unit.clock import ManualClock
from tests.unit.environment import ADMIN_TOKEN, INVOKE_TOKEN
from tests.unit.functions.fake_engine import FakeEngine
from tests.unit.functions.fake_sql import FakeSql, make_services

ADMIN = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
INVOKE = {"Authorization": f"Bearer {INVOKE_TOKEN}"}
JSON = {"Content-Type": "application/json"}
FINGERPRINT = Fingerprint("c" * 40, "s" * 40, "0 2 * * * UTC")
NOW = datetime(2026, 11, 23, 2, 0, 30, tzinfo=UTC)


class Function:
    """The application; `broken_by` is what connecting to database and engine raises."""

    def __init__(
        self,
        *,
        rows: Sequence[dict[str, Any]] = (),
        engine: FakeEngine | None = None,
        sign_in: SignIn | None = None,
        **settings: str,
    ) -> None:
        self.sql = FakeSql(rows)
        self.engine = engine or FakeEngine(ManualClock())
        self.broken_by: Exception | None = None
        self.services = replace(make_services(self.sql.database, self.engine, **settings), now=lambda: NOW)
        tokens = TokenCheck([SecretStr(INVOKE_TOKEN)], [("anna", ADMIN_TOKEN)])
        self.app = create_app(self._connect, tokens, FINGERPRINT, sign_in)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="https://function.example.org")

    def _connect(self) -> Services:
        if self.broken_by is not None:
            raise self.broken_by
        return self.services

    async def start(self, body: object = None, **headers: str) -> httpx.Response:
        return await self.http.post("/", json=body, headers=INVOKE | headers)

    async def ask(
        self, method: str, path: str = "", *, body: object = None, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        content = None if body is None else json.dumps(body).encode()
        given = ADMIN | ({} if content is None else JSON) | (headers or {})
        return await self.http.request(method, PREFIX + path, content=content, headers=given, **options)


def problem_in(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["code"], problem["type"]) == (status, code, "about:blank"), problem
    assert problem["title"]
    assert problem["detail"]
    return problem


def in_json(described: dict[str, Any]) -> dict[str, Any]:
    """What the database describes, with times as the API writes them."""
    answered: dict[str, Any] = json.loads(json.dumps(described).replace("+00:00", "Z"))
    return answered
