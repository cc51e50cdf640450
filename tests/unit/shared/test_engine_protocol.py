"""The protocol `single`: what is sent about a pair, and how the answer about it is read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from shared.engine_protocol import SINGLE, EvaluationContext
from shared.errors import EngineTransientError
from shared.evaluations import EvaluationResult, MentorScenarios
from tests.unit.fake_post_client import reply

CONTEXT = EvaluationContext("invocation-1", "2026-11-23T02:00:00+00:00", "slot:2026-11-23T02:00Z", dry_run=False)
DRY = replace(CONTEXT, dry_run=True)
ANNA = [MentorScenarios("anna", ("a",))]
ANSWER = {"id": "n-1", "user_id": "anna", "scenario_type": "a", "should_notify": True, "evaluated_at": "2026-11-23"}

NO_ANSWERS: list[object] = [{}, [], [ANSWER], "triggered", 7, {"results": []}]


def test_a_call_names_its_pair_and_carries_its_key() -> None:
    body, headers = SINGLE.request(CONTEXT, ANNA)
    assert json.loads(body) == {
        "user_id": "anna",
        "scenario_type": "a",
        "invocation_id": "invocation-1",
        "scheduled_for": "2026-11-23T02:00:00+00:00",
        "dry_run": False,
    }
    assert headers == {"Idempotency-Key": "slot:2026-11-23T02:00Z:anna:a"}


@pytest.mark.parametrize(
    ("members", "context", "outcome", "notification_id"),
    [
        ({}, CONTEXT, "triggered", "n-1"),
        ({"user_id": "ANNA", "evaluation_metadata": {"rule": 7}}, CONTEXT, "triggered", "n-1"),
        ({}, DRY, "triggered", None),
        ({"should_notify": False}, CONTEXT, "not_triggered", None),
        ({"id": 17}, CONTEXT, "triggered", "17"),
        ({"id": {}}, CONTEXT, "triggered", None),
    ],
)
def test_a_decision_is_an_outcome(
    members: dict[str, object], context: EvaluationContext, outcome: str, notification_id: str | None
) -> None:
    for status in (200, 201):
        answer = SINGLE.read(reply(status, json_body=ANSWER | members), context, ANNA)
        (result,) = answer.results.values()
        assert result is not None
        assert result == EvaluationResult("anna", "a", result.outcome, notification_id=notification_id)
        assert (result.outcome, answer.is_final, answer.dropped) == (outcome, True, 0)


@pytest.mark.parametrize(
    ("answer", "dropped"),
    [
        *((ANSWER | {"user_id": other}, 1) for other in ("ben", "")),
        *((ANSWER | {"scenario_type": other}, 1) for other in ("b", "A")),
        *((ANSWER | {name: None}, 0) for name in ("user_id", "scenario_type", "should_notify")),
        *((ANSWER | {"should_notify": other}, 0) for other in (1, "true", None)),
        *((other, 0) for other in NO_ANSWERS),
    ],
)
def test_an_answer_of_another_shape_or_pair_is_a_bad_answer(answer: object, dropped: int) -> None:
    with pytest.raises(EngineTransientError) as caught:
        SINGLE.read(reply(200, json_body=answer), CONTEXT, ANNA)
    assert (caught.value.code, caught.value.may_have_acted, caught.value.dropped) == (
        "engine_bad_answer",
        True,
        dropped,
    )
