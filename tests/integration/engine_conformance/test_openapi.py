"""docs/engine-openapi.json says what the scheduler sends."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest
from openapi_spec_validator import validate

from shared.engine_protocol import BATCH, EvaluationContext
from shared.evaluations import MentorScenarios
from tests.emulator.staging import ROOT
from tests.engine_conformance.protocols import Evaluations

DOCUMENT: dict[str, Any] = json.loads((ROOT / "docs" / "engine-openapi.json").read_text())
OPERATION = DOCUMENT["paths"]["/v1/evaluations"]["post"]
CALL = OPERATION["requestBody"]["content"]["application/json"]["example"]
ANSWER = OPERATION["responses"]["200"]["content"]["application/json"]["example"]


def schema_of(name: str) -> jsonschema_rs.Validator:
    components = {"components": DOCUMENT["components"], "$ref": f"#/components/schemas/{name}"}
    return jsonschema_rs.Draft202012Validator(components, validate_formats=True)


def test_it_is_openapi_with_the_examples_of_the_contract() -> None:
    validate(DOCUMENT)
    contract = (ROOT / "docs" / "engine-contract.md").read_text()
    assert [json.loads(block) for block in re.findall(r"```json\n(.*?)```", contract, re.DOTALL)[:2]] == [CALL, ANSWER]
    schema_of("Call").validate(CALL)
    schema_of("Answer").validate(ANSWER)


@pytest.mark.parametrize("dry_run", [True, False])
def test_the_schedulers_calls_fit_and_the_check_sends_the_same(dry_run: bool) -> None:
    users, types, run_id = [str(uuid4()), str(uuid4())], ("a", "b"), str(uuid4())
    asked = Evaluations(users, types, f"manual:{run_id}", dry_run).body()
    context = EvaluationContext(run_id, asked["scheduled_for"], f"manual:{run_id}", dry_run)
    call = json.loads(BATCH.request(context, [MentorScenarios(user_id, types) for user_id in users])[0])
    assert asked == call
    schema_of("Call").validate(call)
    assert set(call) == set(DOCUMENT["components"]["schemas"]["Call"]["properties"])
    assert set(call["evaluations"][0]) == set(DOCUMENT["components"]["schemas"]["Evaluation"]["properties"])
