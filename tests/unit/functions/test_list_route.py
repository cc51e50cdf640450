"""`GET /api/v1/scheduler-invocations` over HTTP: what is asked of the database, and what is answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from functions.http.invocations import PREFIX, cursor_of, position_of_cursor
from shared.invocation_records import Position
from tests.unit.functions.http_function import ADMIN, NOW, Function, in_json, problem_in
from tests.unit.functions.pretend_sql import RUN_ID, mentor_id, summarized

MENTOR = mentor_id(1)


async def asked(function: Function, query: str) -> dict[str, Any]:
    """The filters with which the database is asked."""
    response = await function.ask("GET", params=httpx.QueryParams(query))
    assert response.status_code == 200, response.text
    return function.sql.arguments_of("scheduler_list")


async def refused(function: Function, query: str, code: str = "invalid_field") -> str:
    """The parameter at fault."""
    problem = problem_in(await function.ask("GET", params=httpx.QueryParams(query)), 422, code)
    assert function.sql.called() == []
    field: str = problem["field"]
    return field.partition(".")[0]


async def test_without_filters_everything_is_asked_for_twenty_at_a_time(function: Function) -> None:
    filters = await asked(function, "")
    assert filters.pop("limit") == 20
    assert set(filters.values()) == {None}


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("status=failed", "statuses", ["failed"]),
        ("status=failed&status=partial", "statuses", ["failed", "partial"]),
        ("triggered_by=retry", "triggered_by", ["retry"]),
        ("triggered_by=schedule&triggered_by=manual", "triggered_by", ["schedule", "manual"]),
        ("scheduled_from=2026-11-23T02:00:00Z", "scheduled_from", "2026-11-23T02:00:00+00:00"),
        ("scheduled_from=2026-11-24T01:59:30.25%2B23:59", "scheduled_from", "2026-11-23T02:00:30.250000+00:00"),
        ("scheduled_to=2026-11-22T20:30:00-05:30", "scheduled_to", "2026-11-23T02:00:00+00:00"),
        (f"user_id={MENTOR}", "user_id", MENTOR),
        (f"user_id={MENTOR.upper()}", "user_id", MENTOR),
        ("limit=1", "limit", 1),
        ("limit=100", "limit", 100),
    ],
)
async def test_a_filter_is_handed_to_the_database(function: Function, query: str, name: str, value: object) -> None:
    assert (await asked(function, query))[name] == value


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=",
        "limit=ten",
        "limit=1.5",
        "limit=" + "9" * 5000,
        "status=",
        "status=done",
        "status=Failed",
        "status=failed&status=done",
        "status=failed,partial",
        "triggered_by=cron",
        "scheduled_from=yesterday",
        "scheduled_from=2026-11-23",
        "scheduled_from=2026-11-23T02:00:00",
        "scheduled_from=2026-11-23T02:00:00+01:00",  # a plus sign is a space in a query
        "scheduled_from=1795399200",
        "scheduled_from=2026-W48-1T02:00:00Z",
        "scheduled_to=0001-01-01T00:00:00%2B14:00",
        "scheduled_to=9999-12-31T23:59:59-14:00",
        "scheduled_to=",
        "user_id=",
        "user_id=1",
        f"user_id=%7B{MENTOR}%7D",
        f"user_id=urn:uuid:{MENTOR}",
        f"user_id={MENTOR.replace('-', '')}",
        "user_id=" + "x" * 36,
        f"user_id={MENTOR}%00",
        f"user_id={MENTOR}%0A",
        "user_id=%FF",
        "cursor=" + "A" * 301,
        "cursor=",
        "cursor=%00",
    ],
)
async def test_what_is_no_value_of_a_filter_is_422_and_named(function: Function, query: str) -> None:
    assert await refused(function, query) == query.partition("=")[0]


@pytest.mark.parametrize("query", ["offset=20", "page=2", "statuses=failed", "Limit=1", "limit=1&order=asc", "%FF=1"])
async def test_an_unknown_parameter_is_422_and_named(function: Function, query: str) -> None:
    await refused(function, query, "unknown_field")


@pytest.mark.parametrize("path", ["", "/active-peer-mentors"])
async def test_a_parameter_of_one_value_is_refused_when_it_is_repeated(function: Function, path: str) -> None:
    for query in ("limit=1&limit=2", "limit=1&limit=1"):
        response = await function.ask("GET", path, params=httpx.QueryParams(query))
        assert problem_in(response, 422, "invalid_field")["field"] == "limit"
    assert function.sql.called() == []


@pytest.mark.parametrize("name", ["scheduled_from", "scheduled_to"])
async def test_a_plus_that_arrives_as_a_space_is_named(function: Function, name: str) -> None:
    for moment in ("2026-11-23T02:00:00+00:00", "2026-11-23T02:00:00.5+0100", "2026-11-23 02:00+01:00"):
        response = await function.http.get(f"{PREFIX}?{name}={moment}", headers=ADMIN)
        problem = problem_in(response, 422, "invalid_field")
        assert "%2B" in problem["detail"]
        assert problem["field"] == name


async def test_a_page_is_what_the_database_describes_and_the_cursor_of_the_next(function: Function) -> None:
    following = {"created_at": "2026-11-23T02:00:03.204113+00:00", "id": RUN_ID}
    items = [summarized(), summarized(id=mentor_id(9), status="running", finished_at=None)]
    function.sql.answers["scheduler_list"] = {"items": items, "next": following}

    answer = (await function.ask("GET")).json()

    assert answer["items"] == [in_json(item) | {"deduplicated": True} for item in items]
    assert position_of_cursor(answer["next_cursor"]) == Position(following["created_at"], RUN_ID)


async def test_the_last_page_has_no_cursor(function: Function) -> None:
    assert (await function.ask("GET")).json() == {"items": [], "next_cursor": None}


async def test_the_cursor_of_a_page_asks_for_what_comes_after_it(function: Function) -> None:
    cursor = cursor_of("2026-11-23T02:00:03.204113+00:00", RUN_ID)
    filters = await asked(function, f"cursor={cursor}&status=failed")
    assert filters["after_created_at"] == "2026-11-23T02:00:03.204113+00:00"
    assert filters["after_id"] == RUN_ID
    assert filters["statuses"] == ["failed"]


async def test_a_mentors_history_has_her_results_in_each_run(function: Function) -> None:
    result = {
        "scenario_type": "milestone_reached",
        "outcome": None,
        "error_code": None,
        "error_message": None,
        "notification_id": None,
    }
    function.sql.answers["scheduler_list"] = {"items": [summarized(results=[result])], "next": None}
    (item,) = (await function.ask("GET", params={"user_id": MENTOR})).json()["items"]
    assert item["results"] == [result]


async def test_without_a_mentor_an_item_has_no_results(function: Function) -> None:
    function.sql.answers["scheduler_list"] = {"items": [summarized()], "next": None}
    (item,) = (await function.ask("GET")).json()["items"]
    assert "results" not in item


SPENT = {"schedule": "0 2 * * *", "timezone": "UTC"}


def spent(slot: str) -> dict[str, str]:
    return {"scheduled_for": slot, **SPENT}


async def test_slots_are_looked_for_only_when_asked_for(function: Function) -> None:
    response = await function.ask("GET")
    assert "slots" not in response.json()
    assert function.sql.called() == ["scheduler_list"]


async def test_slots_without_a_run_are_told_and_the_next_one(function: Function) -> None:
    function.sql.answers["scheduler_list"] = {
        "items": [summarized(scheduled_for="2026-11-20T02:00:00+00:00")],
        "next": None,
    }
    function.sql.answers["scheduler_spent_slots"] = [
        spent("2026-11-22T02:00:00+00:00"),
        spent("2026-11-20T02:00:00+00:00"),
    ]
    response = await function.ask("GET", params={"slots": "true"})
    assert response.json()["slots"] == {"missed": ["2026-11-21T02:00:00Z"], "next": "2026-11-24T02:00:00Z"}
    assert function.sql.arguments_of("scheduler_spent_slots") == {
        "from": "2026-11-20T02:00:00+00:00",
        "to": NOW.isoformat(),
    }


async def test_a_later_page_looks_for_slots_up_to_the_page_before(function: Function) -> None:
    before = Position("2026-11-22T02:00:03+00:00", RUN_ID)
    function.sql.answers["scheduler_list"] = {
        "items": [summarized(scheduled_for="2026-11-19T02:00:00+00:00")],
        "next": None,
    }
    function.sql.answers["scheduler_spent_slots"] = [
        spent("2026-11-21T02:00:00+00:00"),
        spent("2026-11-19T02:00:00+00:00"),
    ]
    response = await function.ask("GET", params={"slots": "true", "cursor": cursor_of(before.created_at, before.id)})
    assert response.json()["slots"]["missed"] == ["2026-11-20T02:00:00Z"]
    assert function.sql.arguments_of("scheduler_spent_slots")["to"] == before.created_at


async def test_a_page_without_scheduled_runs_says_of_slots_only_when_the_next_one_is(function: Function) -> None:
    response = await function.ask("GET", params={"slots": "true"})
    assert response.json()["slots"] == {"missed": [], "next": "2026-11-24T02:00:00Z"}
    assert function.sql.called() == ["scheduler_list"]
