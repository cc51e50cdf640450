"""`GET /api/v1/scheduler-invocations` over HTTP: what is asked of the database, and what is answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from functions.http.invocations import cursor_of, position_of_cursor
from shared.invocation_records import Position
from tests.unit.functions.http_function import NOW, Function, in_json
from tests.unit.functions.pretend_sql import RUN_ID, mentor_id, summarized

MENTOR = mentor_id(1)
CREATED_AT = "2026-11-23T02:00:03.204113+00:00"
CURSOR = cursor_of(CREATED_AT, RUN_ID)


def listing(function: Function, *items: dict[str, Any]) -> None:
    function.sql.answers["scheduler_list"] = {"items": [*items], "next": None}


async def test_without_filters_twenty_are_asked_for(function: Function) -> None:
    assert (await function.ask("GET")).json() == {"items": [], "next_cursor": None}
    filters = function.sql.arguments_of("scheduler_list")
    assert filters.pop("limit") == 20
    assert set(filters.values()) == {None}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=failed", {"statuses": ["failed"]}),
        ("status=failed&status=partial", {"statuses": ["failed", "partial"]}),
        ("triggered_by=schedule&triggered_by=manual", {"triggered_by": ["schedule", "manual"]}),
        ("scheduled_from=2026-11-24T01:59:30.25%2B23:59", {"scheduled_from": "2026-11-23T02:00:30.250000+00:00"}),
        ("scheduled_to=2026-11-22T20:30:00-05:30", {"scheduled_to": "2026-11-23T02:00:00+00:00"}),
        (f"user_id={MENTOR.upper()}", {"user_id": MENTOR}),
        ("limit=1", {"limit": 1}),
        ("limit=100", {"limit": 100}),
        (f"cursor={CURSOR}", {"after_created_at": CREATED_AT, "after_id": RUN_ID}),
    ],
)
async def test_a_filter_is_handed_to_the_database(function: Function, query: str, expected: dict[str, Any]) -> None:
    assert (await function.ask("GET", params=httpx.QueryParams(query))).status_code == 200
    filters = function.sql.arguments_of("scheduler_list")
    assert {name: filters[name] for name in expected} == expected


async def test_a_page_has_its_items_and_the_next_cursor(function: Function) -> None:
    items = [summarized(), summarized(id=mentor_id(9), status="running", finished_at=None)]
    function.sql.answers["scheduler_list"] = {"items": items, "next": {"created_at": CREATED_AT, "id": RUN_ID}}
    answer = (await function.ask("GET")).json()
    assert answer["items"] == [in_json(item) | {"deduplicated": True} for item in items]
    assert position_of_cursor(answer["next_cursor"]) == Position(CREATED_AT, RUN_ID)
    assert function.sql.called() == ["scheduler_list"]


async def test_a_mentors_history_has_the_results_of_each_run(function: Function) -> None:
    open_still = dict.fromkeys(("outcome", "error_code", "error_message", "notification_id"))
    result = {"scenario_type": "milestone_reached"} | open_still
    listing(function, summarized(results=[result]))
    (item,) = (await function.ask("GET", params={"user_id": MENTOR})).json()["items"]
    assert item["results"] == [result]


@pytest.mark.parametrize(
    ("query", "until"),
    [({}, NOW.isoformat()), ({"cursor": cursor_of("2026-11-22T02:00:03+00:00", RUN_ID)}, "2026-11-22T02:00:03+00:00")],
)
async def test_a_page_names_its_slots_without_a_run(function: Function, query: dict[str, str], until: str) -> None:
    """On a later page up to the page before."""
    first, missed, third, fourth = (f"2026-11-{day}T02:00:00" for day in (19, 20, 21, 22))
    schedule = {"schedule": "0 2 * * *", "timezone": "UTC"}
    listing(function, summarized(scheduled_for=f"{first}+00:00"))
    function.sql.answers["scheduler_spent_slots"] = [
        {"scheduled_for": f"{slot}+00:00"} | schedule for slot in (fourth, third, first)
    ]
    slots = (await function.ask("GET", params={"slots": "true"} | query)).json()["slots"]
    assert slots == {"missed": [f"{missed}Z"], "next": "2026-11-24T02:00:00Z"}
    assert function.sql.arguments_of("scheduler_spent_slots") == {"from": f"{first}+00:00", "to": until}


async def test_a_page_without_scheduled_runs_names_only_the_next_slot(function: Function) -> None:
    response = await function.ask("GET", params={"slots": "true"})
    assert response.json()["slots"] == {"missed": [], "next": "2026-11-24T02:00:00Z"}
    assert function.sql.called() == ["scheduler_list"]
