"""What a test says to the database and to the engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, LiteralString, Self
from uuid import uuid4

import httpx
from psycopg import sql
from pyreqwest.compatibility.httpx import HttpxTransport

from tests.emulator.connections import Connection
from tests.emulator.project import Project

INACTIVITY = "inactivity_30_days"
MILESTONE = "milestone_reached"
ONBOARDING = "onboarding_incomplete"
TYPES = (INACTIVITY, MILESTONE, ONBOARDING)

# Evaluated by the database: its clock is the one that counts.
ESTABLISHED: dict[str, LiteralString] = {
    "joined_at": "now() - interval '300 days'",
    "onboarding_completed_at": "now() - interval '290 days'",
    "last_contact_at": "now() - interval '1 day'",
    "contacts_logged": "12",
}
SILENT: dict[str, LiteralString] = ESTABLISHED | {"last_contact_at": "now() - interval '31 days'"}


@dataclass
class Programme:
    database: Connection
    engine: httpx.AsyncClient

    @classmethod
    @asynccontextmanager
    async def of(cls, project: Project, database: Connection) -> AsyncIterator[Self]:
        assert project.engine is not None
        headers = {"authorization": f"Bearer {project.engine_token}", "content-type": "application/json"}
        # httpx's own pool takes half a minute over 500 calls at once.
        transport = HttpxTransport()
        async with httpx.AsyncClient(
            base_url=project.engine.url, headers=headers, timeout=60, transport=transport
        ) as engine:
            yield cls(database, engine)

    async def mentor(self, columns: dict[str, LiteralString] = ESTABLISHED) -> str:
        """A new mentor with these columns, each an SQL expression."""
        user_id = str(uuid4())
        names = sql.SQL(", ").join(sql.Identifier(name) for name in columns)
        values = sql.SQL(", ").join(sql.SQL(value) for value in columns.values())
        await self.database.execute(
            sql.SQL("insert into public.peer_mentors (user_id, {}) values ({}, {})").format(
                names, sql.Literal(user_id), values
            )
        )
        return user_id

    async def change(self, user_id: str, assignment: LiteralString) -> None:
        statement = sql.SQL("update public.peer_mentors set {} where user_id = {}")
        await self.database.execute(statement.format(sql.SQL(assignment), sql.Literal(user_id)))

    async def let_pass(self, user_id: str, hours: int) -> None:
        """Makes what was queued for the mentor older."""
        await self.database.execute(
            b"update public.engagement_notifications set created_at = created_at - make_interval(hours => %s)"
            b" where user_id = %s",
            (hours, user_id),
        )

    async def queued(self, user_id: str) -> list[str]:
        """The ids of the notifications queued for this mentor."""
        cursor = await self.database.execute(
            b"select id::text from public.engagement_notifications where user_id = %s order by created_at", (user_id,)
        )
        return [row[0] for row in await cursor.fetchall()]

    async def call(
        self, users: list[str], types: tuple[str, ...] = TYPES, *, scope: str = "slot:a", dry_run: bool = False
    ) -> list[dict[str, Any]]:
        """The results of one call."""
        response = await self.send(body_for(users, types, scope=scope, dry_run=dry_run))
        assert response.status_code == 200, response.text
        results: list[dict[str, Any]] = response.json()["results"]
        return results

    async def one(self, user_id: str, scenario_type: str, *, scope: str = "slot:a", dry_run: bool = False) -> Any:
        """The result of a call about one pair, without its names."""
        [result] = await self.call([user_id], (scenario_type,), scope=scope, dry_run=dry_run)
        assert (result.pop("user_id"), result.pop("scenario_type")) == (user_id, scenario_type)
        return result

    async def outcome(self, user_id: str, scenario_type: str, *, scope: str = "slot:a") -> str:
        return str((await self.one(user_id, scenario_type, scope=scope))["outcome"])

    async def send(self, body: Any, **options: Any) -> httpx.Response:
        return await self.engine.post("/v1/evaluations", json=body, **options)


def body_for(
    users: list[str], types: tuple[str, ...] = TYPES, *, scope: str = "slot:a", dry_run: bool = False
) -> dict[str, Any]:
    return {
        "invocation_id": str(uuid4()),
        "scheduled_for": "2026-11-23T02:00:00Z",
        "dry_run": dry_run,
        "evaluations": [
            {"user_id": user, "scenario_types": list(types), "idempotency_key_prefix": f"{scope}:{user}"}
            for user in users
        ],
    }
