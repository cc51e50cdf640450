"""`GET`, `PUT` and `DELETE` of one invocation over HTTP."""

from __future__ import annotations

import pytest

from functions.http.schemas import MAX_NOTE_LENGTH
from tests.unit.functions.http_function import ADMIN, Function, in_json, problem_in
from tests.unit.functions.pretend_sql import RUN_ID, described, mentor_id

BAD_IDS = [
    "1",
    "latest",
    f"%7B{RUN_ID}%7D",
    f"urn:uuid:{RUN_ID}",
    RUN_ID.replace("-", ""),
    "x" * 36,
    RUN_ID[:-1],
    f"{RUN_ID}0",
    f"{RUN_ID}%0A",
    f"{RUN_ID}%00",
    f"%20{RUN_ID}",
    "%EF%BC%90" + RUN_ID[1:],
    "%FF",
    "active-peer-mentorz",
]
DETAIL = {
    "request": {"users": 11, "sample_user_ids": [mentor_id(1)], "scenario_types": ["milestone_reached"]},
    "config": {"evaluation_schedule": "0 2 * * *"},
    "enumeration_done": True,
    "skip_reasons": {"no_scenario_applies": 1, "user_id_missing": 0, "invalid_segments": 2},
    "not_evaluated_user_ids": [mentor_id(3)],
    "dispatches": [
        {
            "status_code": None,
            "error": "timed out",
            "count": 2,
            "first_at": "2026-11-23T02:00:00.010000+00:00",
            "last_at": "2026-11-23T02:01:00.010000+00:00",
        }
    ],
}
BODIES: dict[str, dict[str, str] | None] = {"GET": None, "PUT": {"status": "cancelled"}, "DELETE": None}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_id_that_nothing_has_is_404(function: Function, method: str) -> None:
    problem = problem_in(await function.ask(method, f"/{RUN_ID}", body=BODIES[method]), 404, "not_found")
    assert RUN_ID in problem["detail"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("bad", BAD_IDS)
async def test_what_is_no_uuid_as_it_is_usually_written_is_422(function: Function, method: str, bad: str) -> None:
    response = await function.ask(method, f"/{bad}", body=BODIES[method])
    assert problem_in(response, 422, "invalid_field")["field"] == "invocation_id"
    assert function.sql.called() == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_an_id_in_capitals_is_the_same_id(function: Function, method: str) -> None:
    await function.ask(method, f"/{RUN_ID.upper()}", body=BODIES[method])
    ((_, arguments),) = function.sql.database.called
    assert arguments["invocation_id"] == RUN_ID


# GET


async def test_an_invocation_is_answered_with_all_that_is_known(function: Function) -> None:
    cause = {
        "code": "no_device",
        "count": 2,
        "is_lower_bound": True,
        "message": None,
        "sample_user_ids": [mentor_id(1)],
    }
    found = described(failures=[cause], other_failures={"count": 7}) | DETAIL
    function.sql.answers["scheduler_get"] = found
    response = await function.ask("GET", f"/{RUN_ID}")
    assert response.status_code == 200
    assert response.json() == in_json(found) | {"deduplicated": True}


# PUT


@pytest.mark.parametrize(
    ("body", "cancel", "set_note", "note"),
    [
        ({}, False, False, None),
        ({"note": "wrong day"}, False, True, "wrong day"),
        ({"note": ""}, False, True, ""),
        ({"note": None}, False, True, None),
        ({"status": "cancelled"}, True, False, None),
        ({"status": "cancelled", "note": "wrong day"}, True, True, "wrong day"),
        ({"status": "cancelled", "note": None}, True, True, None),
    ],
)
async def test_only_the_members_that_are_given_are_changed(
    function: Function, body: object, cancel: bool, set_note: bool, note: str | None
) -> None:
    changed = described(status="cancelled", note=note)
    function.sql.answers["scheduler_update"] = {"ended_otherwise": False, "invocation": changed}
    response = await function.ask("PUT", f"/{RUN_ID}", body=body)
    assert (response.status_code, response.json()) == (200, in_json(changed) | {"deduplicated": True})
    assert function.sql.arguments_of("scheduler_update") == {
        "invocation_id": RUN_ID,
        "cancel": cancel,
        "set_note": set_note,
        "note": note,
    }


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"status": None}, "status"),
        ({"status": ""}, "status"),
        ({"status": "succeeded"}, "status"),
        ({"status": "running"}, "status"),
        ({"status": "Cancelled"}, "status"),
        ({"status": ["cancelled"]}, "status"),
        ({"note": "x" * (MAX_NOTE_LENGTH + 1)}, "note"),
        ({"note": "\x00"}, "note"),
        ({"note": 7}, "note"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_is_no_change_is_422(function: Function, body: object, field: str) -> None:
    problem = problem_in(await function.ask("PUT", f"/{RUN_ID}", body=body), 422, "invalid_field")
    assert problem["field"] == field
    assert function.sql.called() == []


@pytest.mark.parametrize("member", ["dry_run", "user_ids", "id", "error"])
async def test_what_cannot_be_changed_is_422_and_named(function: Function, member: str) -> None:
    body = {"status": "cancelled", member: None}
    assert problem_in(await function.ask("PUT", f"/{RUN_ID}", body=body), 422, "unknown_field")["field"] == member
    assert function.sql.called() == []


@pytest.mark.parametrize("body", [None, [], "cancelled"])
async def test_a_change_needs_an_object(function: Function, body: object) -> None:
    problem_in(await function.ask("PUT", f"/{RUN_ID}", body=body), 422, "invalid_field")
    assert function.sql.called() == []


async def test_an_invocation_that_ended_otherwise_is_409_and_says_how(function: Function) -> None:
    function.sql.answers["scheduler_update"] = {"ended_otherwise": True, "invocation": described(status="partial")}
    problem = problem_in(await function.ask("PUT", f"/{RUN_ID}", body={"status": "cancelled"}), 409, "already_ended")
    assert problem["field"] == "status"
    assert "partial" in problem["detail"]


# DELETE


async def test_what_was_deleted_is_204_without_a_body(function: Function) -> None:
    function.sql.answers["scheduler_delete"] = "deleted"
    response = await function.http.delete(f"/api/v1/scheduler-invocations/{RUN_ID}", headers=ADMIN)
    assert (response.status_code, response.content) == (204, b"")


async def test_what_is_open_is_409(function: Function) -> None:
    function.sql.answers["scheduler_delete"] = "open"
    problem_in(await function.ask("DELETE", f"/{RUN_ID}"), 409, "still_open")
