"""`GET`, `PUT` and `DELETE` of one invocation over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.functions.http_function import ADMIN, Function, in_json, problem_in
from tests.unit.functions.pretend_sql import RUN_ID, described, mentor_id

BODIES: dict[str, dict[str, str] | None] = {"GET": None, "PUT": {"status": "cancelled"}, "DELETE": None}


@pytest.mark.parametrize("method", BODIES)
async def test_an_unknown_id_is_404_in_either_case(function: Function, method: str) -> None:
    problem = problem_in(await function.ask(method, f"/{RUN_ID.upper()}", body=BODIES[method]), 404, "not_found")
    assert RUN_ID in problem["detail"]
    ((_, arguments),) = function.sql.database.called
    assert arguments["invocation_id"] == RUN_ID


async def test_an_invocation_is_answered_with_all_that_is_known(function: Function) -> None:
    cause = {
        "code": "no_device",
        "count": 2,
        "is_lower_bound": True,
        "message": None,
        "sample_user_ids": [mentor_id(1)],
    }
    dispatch = {
        "status_code": None,
        "error": "timed out",
        "count": 2,
        "first_at": "2026-11-23T02:00:00.010000+00:00",
        "last_at": "2026-11-23T02:01:00.010000+00:00",
    }
    found = described(
        failures=[cause],
        other_failures={"count": 7},
        request={"users": 11, "sample_user_ids": [mentor_id(1)], "scenario_types": ["milestone_reached"]},
        config={"evaluation_schedule": "0 2 * * *"},
        enumeration_done=True,
        skip_reasons={"no_scenario_applies": 1, "user_id_missing": 0, "invalid_segments": 2},
        not_evaluated_user_ids=[mentor_id(3)],
        dispatches=[dispatch],
    )
    function.sql.answers["scheduler_get"] = found
    response = await function.ask("GET", f"/{RUN_ID}")
    assert (response.status_code, response.json()) == (200, in_json(found) | {"deduplicated": True})


UNCHANGED: dict[str, Any] = {"invocation_id": RUN_ID, "cancel": False, "set_note": False, "note": None}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {}),
        ({"note": "wrong day"}, {"set_note": True, "note": "wrong day"}),
        ({"note": ""}, {"set_note": True, "note": ""}),
        ({"note": None}, {"set_note": True}),
        ({"status": "cancelled"}, {"cancel": True}),
        ({"status": "cancelled", "note": None}, {"cancel": True, "set_note": True}),
    ],
)
async def test_only_given_members_are_changed(
    function: Function, body: dict[str, Any], expected: dict[str, Any]
) -> None:
    changed = described(status="cancelled", note=body.get("note"))
    function.sql.answers["scheduler_update"] = {"ended_otherwise": False, "invocation": changed}
    response = await function.ask("PUT", f"/{RUN_ID}", body=body)
    assert (response.status_code, response.json()) == (200, in_json(changed) | {"deduplicated": True})
    assert function.sql.arguments_of("scheduler_update") == UNCHANGED | expected


async def test_cancelling_a_run_that_ended_otherwise_is_409(function: Function) -> None:
    function.sql.answers["scheduler_update"] = {"ended_otherwise": True, "invocation": described(status="partial")}
    problem = problem_in(await function.ask("PUT", f"/{RUN_ID}", body={"status": "cancelled"}), 409, "already_ended")
    assert problem["field"] == "status"
    assert "partial" in problem["detail"]


async def test_deleting_is_204_without_a_body(function: Function) -> None:
    function.sql.answers["scheduler_delete"] = "deleted"
    response = await function.http.delete(f"/api/v1/scheduler-invocations/{RUN_ID}", headers=ADMIN)
    assert (response.status_code, response.content) == (204, b"")


async def test_deleting_an_open_run_is_409(function: Function) -> None:
    function.sql.answers["scheduler_delete"] = "open"
    problem_in(await function.ask("DELETE", f"/{RUN_ID}"), 409, "still_open")
