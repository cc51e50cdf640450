"""`POST /api/v1/scheduler-invocations` over HTTP: which run is asked for, and what is answered."""

from __future__ import annotations

from typing import Any

import pytest

from functions.http.invocations import PREFIX
from functions.http.schemas import MAX_CHOSEN_MENTORS, MAX_NOTE_LENGTH
from functions.manual_run import REFUSALS
from tests.unit.functions.http_function import Function, in_json, problem_in
from tests.unit.functions.pretend_sql import RUN_ID, described, mentor_id

MENTOR = mentor_id(1)


def opening(outcome: str, **members: Any) -> dict[str, Any]:
    """What opening a run answers."""
    return {"outcome": outcome, "invocation": described(triggered_by="manual", **members), "witness": None}


# What is answered


async def test_a_run_that_was_opened_is_201_with_its_location(function: Function) -> None:
    response = await function.ask("POST", body={"note": "why"})
    answer = response.json()
    assert response.status_code == 201
    assert response.headers["location"] == f"{PREFIX}/{answer['id']}"
    assert answer["deduplicated"] is False
    assert "preference-applied" not in response.headers


async def test_the_invocation_is_answered_as_it_is_after_the_slice(function: Function) -> None:
    ended = described(triggered_by="manual", status="partial")
    function.sql.answers["scheduler_get"] = ended | {"request": {}, "config": {}}
    response = await function.ask("POST", body={})
    assert (response.status_code, response.json()) == (201, in_json(ended) | {"deduplicated": False})


async def test_a_run_deleted_during_its_slice_is_answered_as_it_was_opened(function: Function) -> None:
    function.sql.answers["scheduler_finish"] = {"ended_now": False, "invocation": None, "failures": None}
    function.sql.answers["scheduler_get"] = None
    response = await function.ask("POST", body={})
    assert (response.status_code, response.json()["status"]) == (201, "pending")


@pytest.mark.parametrize("prefer", [None, "respond-async"])
async def test_the_same_key_again_is_200_with_the_run_as_it_is_and_does_no_work(
    function: Function, prefer: str | None
) -> None:
    function.sql.answers["scheduler_open"] = opening("same", status="running")
    headers = {"Idempotency-Key": "k"} | ({} if prefer is None else {"Prefer": prefer})
    response = await function.ask("POST", body={}, headers=headers)
    assert (response.status_code, response.json()["deduplicated"]) == (200, True)
    assert "location" not in response.headers
    assert "preference-applied" not in response.headers
    assert function.sql.called() == ["scheduler_open"]


@pytest.mark.parametrize(("outcome", "refusal"), REFUSALS.items())
async def test_a_refusal_of_the_databases_is_the_problem_that_it_stands_for(
    function: Function, outcome: str, refusal: tuple[int, str, str, str]
) -> None:
    function.sql.answers["scheduler_open"] = {"outcome": outcome, "invocation": None, "witness": None}
    status, code, field, _ = refusal
    problem = problem_in(await function.ask("POST", body={}), status, code)
    assert problem["field"] == field
    assert function.sql.called() == ["scheduler_open"]


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        ("other_request", 422, "idempotency_key_reused"),
        ("deleted", 409, "invocation_deleted"),
        ("retry_source_unknown", 422, "invalid_field"),
        ("retry_source_open", 409, "retry_source_open"),
        ("retry_already_open", 409, "retry_already_open"),
        ("nothing_to_retry", 409, "nothing_to_retry"),
        ("retry_window_closed", 409, "retry_window_closed"),
    ],
)
def test_the_refusals_are_those_that_are_documented(outcome: str, status: int, code: str) -> None:
    assert REFUSALS[outcome][:2] == (status, code)


# Prefer: respond-async


@pytest.mark.parametrize(
    "prefer",
    [
        "respond-async",
        "Respond-Async",
        " respond-async ",
        "wait=10, respond-async",
        "respond-async, wait=10",
        "return=minimal,RESPOND-ASYNC,handling=lenient",
        "respond-async; foo=bar",
    ],
)
async def test_who_prefers_so_is_answered_202_at_once(function: Function, prefer: str) -> None:
    response = await function.ask("POST", body={}, headers={"Prefer": prefer})
    assert response.status_code == 202
    assert response.headers["location"] == f"{PREFIX}/{response.json()['id']}"
    assert response.headers["preference-applied"] == "respond-async"
    assert function.sql.called() == ["scheduler_open"]
    assert function.sql.arguments_of("scheduler_open")["post_slice"] is True


@pytest.mark.parametrize(
    "prefer", ["", "wait=10", "return=minimal", "respond-asynchronously", "not-respond-async", ";,"]
)
async def test_another_preference_changes_nothing(function: Function, prefer: str) -> None:
    response = await function.ask("POST", body={}, headers={"Prefer": prefer})
    assert response.status_code == 201
    assert "preference-applied" not in response.headers
    assert function.sql.arguments_of("scheduler_open")["post_slice"] is False


# Idempotency-Key


@pytest.mark.parametrize("key", ["k", "onboarding-2026-11-23", "!~", 'a"b', '"', "x" * 200])
async def test_a_key_is_handed_to_the_database(function: Function, key: str) -> None:
    assert (await function.ask("POST", body={}, headers={"Idempotency-Key": key})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["idempotency_key"] == key


@pytest.mark.parametrize(
    ("sent", "key"),
    [('"abc"', "abc"), ("abc", "abc"), ('"a\\"b\\\\c"', 'a"b\\c'), (f'"{"x" * 200}"', "x" * 200)],
)
async def test_a_key_in_quotes_is_the_same_key(function: Function, sent: str, key: str) -> None:
    assert (await function.ask("POST", body={}, headers={"Idempotency-Key": sent})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["idempotency_key"] == key


async def test_a_key_is_not_needed(function: Function) -> None:
    assert (await function.ask("POST", body={})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["idempotency_key"] is None


@pytest.mark.parametrize(
    "key", ["", '""', "x" * 201, f'"{"x" * 201}"', '"two words"', "two words", "tab\tbed", "k\xe9y", "\x7f"]
)
async def test_what_is_no_key_is_422(function: Function, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    response = await function.ask("POST", body={}, headers=headers)  # type: ignore[arg-type]  # bytes are allowed
    assert problem_in(response, 422, "invalid_field")["field"] == "Idempotency-Key"
    assert function.sql.called() == []


# The body


async def test_what_is_asked_for_is_handed_to_the_database(function: Function) -> None:
    body = {
        "user_ids": [mentor_id(2), MENTOR.upper(), mentor_id(2)],
        "scenario_types": ["onboarding_incomplete", "milestone_reached", "onboarding_incomplete"],
        "dry_run": True,
        "note": "before the new scenario goes live",
    }
    assert (await function.ask("POST", body=body)).status_code == 201
    asked = function.sql.arguments_of("scheduler_open")
    assert asked["request"] == {
        "user_ids": [MENTOR, mentor_id(2)],
        "scenario_types": ["milestone_reached", "onboarding_incomplete"],
    }
    assert (asked["dry_run"], asked["note"], asked["retry_of"]) == (True, "before the new scenario goes live", None)


@pytest.mark.parametrize("note", ["", "two\nlines", "\N{PILE OF POO}" * MAX_NOTE_LENGTH, None])
async def test_a_note_is_any_text_of_at_most_so_many_characters(function: Function, note: str | None) -> None:
    assert (await function.ask("POST", body={"note": note})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["note"] == note


@pytest.mark.parametrize(
    "body",
    [
        {"user_ids": []},
        {"user_ids": [MENTOR] * (MAX_CHOSEN_MENTORS + 1)},
        {"user_ids": MENTOR},
        {"user_ids": [1]},
        {"user_ids": [None]},
        {"user_ids": [f"{{{MENTOR}}}"]},
        {"user_ids": [f"urn:uuid:{MENTOR}"]},
        {"user_ids": [MENTOR.replace("-", "")]},
        {"user_ids": ["x" * 36]},
        {"user_ids": [MENTOR + "\n"]},
        {"user_ids": ["\uff10" + MENTOR[1:]]},
        {"scenario_types": []},
        {"scenario_types": [""]},
        {"scenario_types": ["x" * 101]},
        {"scenario_types": ["milestone_reached"] * 101},
        {"scenario_types": "milestone_reached"},
        {"scenario_types": ["unknown"]},
        {"scenario_types": ["milestone_reached", "unknown"]},
        {"dry_run": "true"},
        {"dry_run": 1},
        {"dry_run": None},
        {"retry_of": "the last one"},
        {"retry_of": f"{{{RUN_ID}}}"},
        {"retry_of": RUN_ID, "user_ids": [MENTOR]},
        {"retry_of": RUN_ID, "scenario_types": ["milestone_reached"]},
        {"note": "x" * (MAX_NOTE_LENGTH + 1)},
        {"note": "a\x00b"},
        {"note": "\x00"},
        {"note": "x\x00\n"},
        {"note": "a\n\x00"},
        {"note": 1},
    ],
    ids=lambda body: str(body)[:60],
)
async def test_what_is_no_run_is_422_and_the_member_is_named(function: Function, body: dict[str, object]) -> None:
    problem = problem_in(await function.ask("POST", body=body), 422, "invalid_field")
    assert problem["field"].partition(".")[0] == next(iter(body))
    assert function.sql.called() == []


async def test_an_unknown_type_is_told_which_are_known(function: Function) -> None:
    problem = problem_in(await function.ask("POST", body={"scenario_types": ["unknown"]}), 422, "invalid_field")
    assert "milestone_reached" in problem["detail"]
    assert "unknown" in problem["detail"]


async def test_as_many_mentors_as_may_be_chosen_are_taken(function: Function) -> None:
    chosen = [mentor_id(n) for n in range(MAX_CHOSEN_MENTORS)]
    response = await function.ask("POST", body={"user_ids": chosen}, headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    assert function.sql.arguments_of("scheduler_open")["request"]["user_ids"] == chosen


async def test_a_retry_names_what_it_retries(function: Function) -> None:
    response = await function.ask("POST", body={"retry_of": RUN_ID.upper(), "dry_run": True})
    assert (response.status_code, response.json()["retry_of"]) == (201, RUN_ID)
    asked = function.sql.arguments_of("scheduler_open")
    assert (asked["retry_of"], asked["dry_run"]) == (RUN_ID, True)


async def test_a_query_makes_no_difference(function: Function) -> None:
    assert (await function.ask("POST", body={}, params={"dry_run": "true"})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["dry_run"] is False
