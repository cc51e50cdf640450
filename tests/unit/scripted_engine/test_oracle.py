"""The scripted engine's ledger sees what a correct scheduler never does."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid5

import httpx
import pytest

from tests.scripted_engine import ScriptedEngine

TYPES = ("inactivity", "milestone")
USERS = [str(uuid5(UUID(int=0), f"user {n}")) for n in range(20)]
POOR = USERS[0]
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def evaluation(user_id: str, *, types: tuple[str, ...] = TYPES, scope: str = "slot:a") -> dict[str, Any]:
    return {"user_id": user_id, "scenario_types": types, "idempotency_key_prefix": f"{scope}:{user_id}"}


async def send(
    engine: ScriptedEngine, *evaluations: Any, dry_run: object = False, trace: str = TRACE
) -> httpx.Response:
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {engine.token}", "traceparent": trace}) as client:
        call = {"dry_run": dry_run, "evaluations": evaluations or [evaluation(user) for user in USERS]}
        return await client.post(f"{engine.url}/v1/evaluations", json=call)


async def test_it_acts_once_per_key_and_knows_repeated_notifications() -> None:
    async with ScriptedEngine() as engine:
        await send(engine, dry_run=True)
        assert engine.acts == {}
        first, second = await send(engine), await send(engine)
        assert first.json() == second.json()
        assert set(engine.keys_seen.values()) == {3}
        assert not engine.notified_twice
        assert not engine.violations
        outcomes = [result["outcome"] for result in first.json()["results"]]
        assert len(engine.acts) == outcomes.count("triggered") > 0

        await send(engine, *(evaluation(user, scope="slot:b") for user in USERS))
        assert len(engine.notified_twice) == outcomes.count("triggered")


@pytest.mark.parametrize(
    ("call", "noted"),
    [
        ({"evaluations": [{"user_id": "me"}]}, "user_id: expected a UUID"),
        ({"evaluations": [evaluation(POOR)], "dry_run": "no"}, "dry_run: expected a boolean"),
        ({"evaluations": [evaluation(POOR), evaluation(POOR)]}, "names a user twice"),
        ({"evaluations": [evaluation(POOR, types=("a", "a"))]}, "names a scenario type twice"),
        ({"evaluations": [evaluation(POOR) | {"user_id": USERS[1]}]}, "does not end in its user"),
        ({"evaluations": [evaluation(user) | {"idempotency_key_prefix": "shared"} for user in USERS]}, "uses the key"),
        ({"evaluations": [evaluation(POOR)], "trace": "none"}, "traceparent is 'none'"),
    ],
)
async def test_what_breaks_the_contract_is_noted(call: dict[str, Any], noted: str) -> None:
    async with ScriptedEngine(outcome_of=lambda _, __: "triggered") as engine:
        await send(engine, *call.pop("evaluations"), **call)
        assert noted in "\n".join(engine.violations)
