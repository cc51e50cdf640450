"""`/api/v1/schedule`: which slots will open, and what a change may say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.functions.fake_sql import SLOT
from tests.unit.functions.http_function import ADMIN, Function, in_json, problem_in

PATH = "/api/v1/schedule"
PAUSE = {"paused_at": "2026-11-20T09:00:00+00:00", "paused_by": "anna", "until": None, "reason": None}
ENGINE = {"until": "2026-11-23T02:05:00+00:00", "outages": 2}
# The clock of the database is at the slot of 23 November; slots are daily at 02:00 UTC.
IN_FIVE_DAYS = [f"2026-11-{day}T02:00:00Z" for day in (23, 24, 25, 26, 27)]


def answering(**members: Any) -> Function:
    function = Function()
    function.sql.answers["scheduler_schedule"] = {"clock": SLOT, "pause": None, "engine_pause": None} | members
    return function


@pytest.mark.parametrize(
    ("clock", "pause", "next_slots"),
    [
        (SLOT, None, IN_FIVE_DAYS),
        ("2026-11-22T02:00:00.000001+00:00", None, IN_FIVE_DAYS),
        (SLOT, PAUSE, []),
        ("2026-11-20T09:00:00+00:00", PAUSE | {"until": SLOT}, IN_FIVE_DAYS),
        ("2026-11-20T09:00:00+00:00", PAUSE | {"until": "2026-11-22T02:00:30+00:00"}, IN_FIVE_DAYS),
    ],
)
async def test_the_next_slots_are_those_that_will_open(clock: str, pause: Any, next_slots: list[str]) -> None:
    function = answering(clock=clock, pause=pause, engine_pause=ENGINE)
    response = await function.http.get(PATH, headers=ADMIN)
    assert response.status_code == 200, response.text
    assert response.json() == {
        "evaluation_schedule": "0 2 * * *",
        "evaluation_timezone": "UTC",
        "next_slots": next_slots,
        "pause": pause and in_json(pause),
        "engine_pause": in_json(ENGINE),
    }
    assert function.sql.arguments_of("scheduler_schedule") == {"changes": {}, "actor": "anna"}


@pytest.mark.parametrize(
    ("change", "sent"),
    [
        ({"paused": True}, None),
        ({"paused": True, "until": None, "reason": None}, None),
        (
            {"paused": True, "until": "2026-12-01T02:00:00+01:00", "reason": "moving"},
            {"paused": True, "until": "2026-12-01T01:00:00Z", "reason": "moving"},
        ),
        ({"paused": False, "retry_engine": True}, None),
        ({"retry_engine": True}, None),
    ],
)
async def test_only_members_that_are_given_are_changed(change: dict[str, Any], sent: dict[str, Any] | None) -> None:
    function = answering(pause=PAUSE)
    response = await function.http.put(PATH, json=change, headers=ADMIN)
    assert response.status_code == 200, response.text
    assert response.json()["pause"] == in_json(PAUSE)
    assert function.sql.arguments_of("scheduler_schedule") == {"changes": sent or change, "actor": "anna"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({}, None),
        *(({"paused": value}, "paused") for value in (None, 1, "true")),
        *(({"until": "2026-12-01T02:00:00Z"} | more, "until") for more in ({}, {"paused": False})),
        *(({"reason": None} | more, "reason") for more in ({"retry_engine": True}, {"paused": False})),
        *(({"paused": True, "until": value}, "until") for value in ("tomorrow", 1795000000, "2026-12-01T02:00:00")),
        ({"paused": True, "reason": "x" * 301}, "reason"),
    ],
)
async def test_a_change_without_a_meaning_is_refused(
    function: Function, change: dict[str, Any], field: str | None
) -> None:
    problem = problem_in(await function.http.put(PATH, json=change, headers=ADMIN), 422, "invalid_field")
    assert problem.get("field") == field
    assert function.sql.called() == []


async def test_an_end_that_the_database_refuses_is_named(function: Function) -> None:
    function.sql.answers["scheduler_schedule"] = None
    change = {"paused": True, "until": "2026-11-23T01:00:00Z"}
    problem = problem_in(await function.http.put(PATH, json=change, headers=ADMIN), 422, "invalid_field")
    assert (problem["field"], problem["detail"]) == (
        "until",
        "until: expected a time within the next ten years, found 2026-11-23T01:00:00Z",
    )
