"""`POST /api/v1/scheduler-invocations` over HTTP: which run is asked for, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest

from functions.http.invocations import PREFIX
from functions.http.schemas import MAX_CHOSEN_MENTORS, MAX_NOTE_LENGTH
from functions.manual_run import REFUSALS
from tests.unit.functions.http_function import Function, in_json, problem_in
from tests.unit.functions.pretend_sql import RUN_ID, described, mentor_id
from tests.unit.log_lines import LogLines

MENTOR = mentor_id(1)


def opening(outcome: str, **members: Any) -> dict[str, Any]:
    """What opening a run answers."""
    return {"outcome": outcome, "invocation": described(triggered_by="manual", **members), "witness": None}


# What is answered


async def test_a_run_that_was_opened_is_201_with_its_location(function: Function) -> None:
    response = await function.ask("POST", body={"note": "why"}, params={"dry_run": "true"})
    answer = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{PREFIX}/{answer['id']}"
    assert answer["deduplicated"] is False
    assert "preference-applied" not in response.headers
    assert function.sql.arguments_of("scheduler_open")["dry_run"] is False, "a query makes no difference"


async def test_a_run_is_answered_as_it_is_after_the_slice(function: Function) -> None:
    ended = described(triggered_by="manual", status="partial")
    function.sql.answers["scheduler_get"] = ended | {"request": {}, "config": {}}
    response = await function.ask("POST", body={})
    assert (response.status_code, response.json()) == (201, in_json(ended) | {"deduplicated": False})


async def test_a_run_deleted_during_its_slice_is_answered_as_opened(function: Function) -> None:
    function.sql.answers["scheduler_finish"] = {"ended_now": False, "invocation": None, "failures": None}
    function.sql.answers["scheduler_get"] = None
    response = await function.ask("POST", body={})
    assert (response.status_code, response.json()["status"]) == (201, "pending")


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
async def test_the_same_key_again_is_200_without_work(
    function: Function, log: LogLines, headers: dict[str, str]
) -> None:
    function.sql.answers["scheduler_open"] = opening("same", status="running")
    response = await function.ask("POST", body={}, headers={"Idempotency-Key": "k"} | headers)
    assert (response.status_code, response.json()["deduplicated"]) == (200, True)
    assert not {"location", "preference-applied"} & {*response.headers}
    assert function.sql.called() == ["scheduler_open"]
    assert log.of("invocation_opened") == []


@pytest.mark.parametrize(
    ("outcome", "status", "code", "field"),
    [
        ("other_request", 422, "idempotency_key_reused", "Idempotency-Key"),
        ("deleted", 409, "invocation_deleted", "Idempotency-Key"),
        ("retry_source_unknown", 422, "invalid_field", "retry_of"),
        ("retry_source_open", 409, "retry_source_open", "retry_of"),
        ("retry_already_open", 409, "retry_already_open", "retry_of"),
        ("nothing_to_retry", 409, "nothing_to_retry", "retry_of"),
        ("retry_window_closed", 409, "retry_window_closed", "retry_of"),
    ],
)
async def test_a_refusal_of_the_database_is_its_problem(
    function: Function, outcome: str, status: int, code: str, field: str
) -> None:
    function.sql.answers["scheduler_open"] = {"outcome": outcome, "invocation": None, "witness": None}
    assert problem_in(await function.ask("POST", body={}), status, code)["field"] == field
    assert function.sql.called() == ["scheduler_open"]
    assert len(REFUSALS) == 7


# Prefer: respond-async


@pytest.mark.parametrize(
    "prefer", ["Respond-Async", " respond-async ", "wait=10, respond-async;foo=bar", "RESPOND-ASYNC,handling=lenient"]
)
async def test_respond_async_is_202_and_asks_for_a_slice(function: Function, prefer: str) -> None:
    response = await function.ask("POST", body={}, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert response.headers["location"] == f"{PREFIX}/{response.json()['id']}"
    assert response.headers["preference-applied"] == "respond-async"
    assert function.sql.called() == ["scheduler_open"]
    assert function.sql.arguments_of("scheduler_open")["post_slice"] is True


@pytest.mark.parametrize("prefer", ["", "wait=10", "respond-asynchronously", "not-respond-async", ";,"])
async def test_another_preference_changes_nothing(function: Function, prefer: str) -> None:
    response = await function.ask("POST", body={}, headers={"Prefer": prefer})
    assert response.status_code == 201
    assert "preference-applied" not in response.headers
    assert function.sql.arguments_of("scheduler_open")["post_slice"] is False


# What is handed to the database


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        *((key, key) for key in ("k", "onboarding-2026-11-23", "!~", 'a"b', '"', "x" * 200)),
        *(('"abc"', "abc"), ('"a\\"b\\\\c"', 'a"b\\c'), (f'"{"x" * 200}"', "x" * 200)),
    ],
)
async def test_a_key_is_the_same_with_quotes_and_without(function: Function, sent: str, key: str) -> None:
    assert (await function.ask("POST", body={}, headers={"Idempotency-Key": sent})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["idempotency_key"] == key


async def test_a_request_is_handed_over_in_one_spelling(function: Function) -> None:
    body = {
        "user_ids": [mentor_id(2), MENTOR.upper(), mentor_id(2)],
        "scenario_types": ["onboarding_incomplete", "milestone_reached", "onboarding_incomplete"],
        "dry_run": True,
        "note": "before the new scenario goes live",
    }
    assert (await function.ask("POST", body=body)).status_code == 201
    asked = function.sql.arguments_of("scheduler_open")
    chosen = {"user_ids": [MENTOR, mentor_id(2)], "scenario_types": ["milestone_reached", "onboarding_incomplete"]}
    assert asked["request"] == chosen
    assert (asked["dry_run"], asked["note"], asked["retry_of"]) == (True, body["note"], None)


async def test_a_retry_names_its_source(function: Function) -> None:
    response = await function.ask("POST", body={"retry_of": RUN_ID.upper(), "dry_run": True})
    assert (response.status_code, response.json()["retry_of"]) == (201, RUN_ID)
    asked = function.sql.arguments_of("scheduler_open")
    assert (asked["retry_of"], asked["dry_run"]) == (RUN_ID, True)


@pytest.mark.parametrize("note", ["", "two\nlines", "\N{PILE OF POO}" * MAX_NOTE_LENGTH, None])
async def test_a_note_is_any_text_within_its_length(function: Function, note: str | None) -> None:
    assert (await function.ask("POST", body={"note": note})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["note"] == note


async def test_ten_thousand_mentors_may_be_chosen(function: Function) -> None:
    chosen = [mentor_id(n) for n in range(MAX_CHOSEN_MENTORS)]
    response = await function.ask("POST", body={"user_ids": chosen}, headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    assert function.sql.arguments_of("scheduler_open")["request"]["user_ids"] == chosen


async def test_an_unknown_type_is_answered_with_the_enabled_ones() -> None:
    function = Function(SCENARIO_TYPES='[{"type": "on"}, {"type": "off", "enabled": false}]')
    problem = problem_in(await function.ask("POST", body={"scenario_types": ["off"]}), 422, "invalid_field")
    assert problem["detail"] == "scenario_types: expected some of on, found off"
