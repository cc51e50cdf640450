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
from shared.load_control import ConcurrencyLimiter
from shared.time_budget import TimeBudget
from shared.trigger_engine import EvaluationContext, TriggerEngine
from tests.emulator.staging import ROOT
from tests.engine_conformance.engine import Evaluations
from tests.integration.reference_engine.programme import SILENT, TYPES, Programme
from tests.unit.fake_post_client import FakePostClient, reply

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


async def test_the_scheduler_calls_the_documents_address_with_its_headers_and_understands_its_example() -> None:
    body = OPERATION["requestBody"]["content"]["application/json"]["example"]
    [asked] = body["evaluations"]
    http = FakePostClient(reply(200, json_body=OPERATION["responses"]["200"]["content"]["application/json"]["example"]))
    [server] = DOCUMENT["servers"]
    base = server["variables"]["SCENARIO_ENGINE_URL"]["default"]
    engine = TriggerEngine(
        base, "token", limiter=ConcurrencyLimiter(1), timeout_seconds=10, max_attempts=1, connect=http.connect
    )
    scope = asked["idempotency_key_prefix"].removesuffix(f":{asked['user_id']}")
    context = EvaluationContext(body["invocation_id"], body["scheduled_for"], scope, body["dry_run"])
    mentor = MentorScenarios(asked["user_id"], tuple(asked["scenario_types"]))

    answer = await engine.evaluate(context, [mentor], TimeBudget(30))

    [posted] = http.posted
    headers = {**http.headers, **posted.headers}
    assert http.url == f"{base}/v1/evaluations"
    assert json.loads(posted.content) == body
    assert headers["Content-Type"] in OPERATION["requestBody"]["content"]
    assert headers["Authorization"] == "Bearer token"
    [parameter] = OPERATION["parameters"]
    assert re.search(parameter["schema"]["pattern"], headers[parameter["name"]])
    assert [result and result.outcome for result in answer.results.values()] == ["triggered", "failed"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_conformance_check_asks_what_the_scheduler_would(dry_run: bool) -> None:
    users, types, run_id = [str(uuid4()), str(uuid4())], ("a", "b"), str(uuid4())
    asked = Evaluations(users, types, f"manual:{run_id}", dry_run).body()
    context = EvaluationContext(run_id, asked["scheduled_for"], f"manual:{run_id}", dry_run)
    assert asked == json.loads(context.body([MentorScenarios(user_id, types) for user_id in users]))


async def test_what_the_reference_engine_refuses_has_a_status_of_the_document(programme: Programme) -> None:
    call = OPERATION["requestBody"]["content"]["application/json"]["example"]
    refused = [
        await programme.engine.post("/v1/evaluations", content=b"{"),
        await programme.send({**call, "dry_run": "no"}),
        await programme.send(call, headers={"authorization": "Bearer wrong"}),
        await programme.engine.post("/v1/evaluations", content=b" " * (1024 * 1024 + 1)),
    ]
    assert [response.status_code for response in refused] == [400, 422, 401, 413]
    assert {str(response.status_code) for response in refused} <= set(OPERATION["responses"])


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
