"""docs/engine-openapi.json says what the scheduler sends and the reference engine answers."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from shared.evaluations import MentorScenarios
from shared.trigger_engine import EvaluationContext
from tests.emulator.staging import ROOT
from tests.integration.reference_engine.programme import SILENT, TYPES, Programme

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "engine-openapi.json").read_text())
OPERATION = DOCUMENT["paths"]["/v1/evaluations"]["post"]


def schema_of(name: str) -> jsonschema_rs.Validator:
    components = {"components": DOCUMENT["components"], "$ref": f"#/components/schemas/{name}"}
    return jsonschema_rs.Draft202012Validator(components, validate_formats=True)


def test_it_is_openapi() -> None:
    validate(DOCUMENT)


def test_its_examples_are_those_of_the_contract_and_fit() -> None:
    contract = (ROOT / "docs" / "engine-contract.md").read_text()
    call, answer = (json.loads(block) for block in re.findall(r"```json\n(.*?)```", contract, re.DOTALL)[:2])
    body = OPERATION["requestBody"]["content"]["application/json"]
    answered = OPERATION["responses"]["200"]["content"]["application/json"]
    assert (body["example"], answered["example"]) == (call, answer)
    schema_of("Call").validate(call)
    schema_of("Answer").validate(answer)


@pytest.mark.parametrize(
    "result",
    [
        {"user_id": "u", "scenario_type": "t", "outcome": "Triggered"},
        {"user_id": "u", "scenario_type": "t", "outcome": "failed"},
        {"user_id": "u", "scenario_type": "t", "outcome": "failed", "error": None},
        {"user_id": "u", "scenario_type": "t", "outcome": "failed", "error": {"code": ""}},
        {"user_id": "u", "outcome": "triggered"},
        {"user_id": "u", "scenario_type": "t", "outcome": "triggered", "notification_id": 1.5},
    ],
)
def test_what_is_no_result_does_not_fit(result: dict[str, Any]) -> None:
    assert not schema_of("Answer").is_valid({"results": [result]})


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_the_scheduler_sends_fits(dry_run: bool) -> None:
    context = EvaluationContext(str(uuid4()), "2026-11-23T02:00:00+00:00", "slot:2026-11-23T02:00Z", dry_run)
    users = [MentorScenarios(str(uuid4()), ("a", "b")), MentorScenarios(str(uuid4()), ("b",))]
    call = json.loads(context.body(users))
    schema_of("Call").validate(call)
    assert set(call) == set(DOCUMENT["components"]["schemas"]["Call"]["properties"])
    assert set(call["evaluations"][0]) == set(DOCUMENT["components"]["schemas"]["Evaluation"]["properties"])


async def test_what_the_reference_engine_answers_fits(programme: Programme) -> None:
    users = [await programme.mentor(SILENT), await programme.mentor(), str(uuid4())]
    call = {
        **OPERATION["requestBody"]["content"]["application/json"]["example"],
        "evaluations": [
            {
                "user_id": user_id,
                "scenario_types": [*TYPES, "no_such_type"],
                "idempotency_key_prefix": f"manual:{uuid4()}:{user_id}",
            }
            for user_id in users
        ],
    }
    schema_of("Call").validate(call)
    response = await programme.engine.post("/v1/evaluations", json=call)
    assert response.status_code == 200
    answer = response.json()
    schema_of("Answer").validate(answer)
    assert {result["outcome"] for result in answer["results"]} == {"triggered", "not_triggered", "failed"}
