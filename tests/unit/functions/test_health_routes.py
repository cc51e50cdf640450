"""The dead-man's check over HTTP: 200 while nights go well, 503 as soon as one is missed."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from shared.errors import DatabaseUnavailableError
from tests.unit.functions.http_function import NOW, Function, problem_in

PATH = "/health/last-run"
BAD_AGES = ["", "0", "-1", "-0", "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "8784.1", "a day", "9" * 400]


def ended(function: Function, *, hours_ago: float, status: str = "succeeded") -> dict[str, Any]:
    """A night that went well then."""
    at = NOW - timedelta(hours=hours_ago)
    found = {"scheduled_for": "2026-11-22T02:00:00+00:00", "finished_at": at.isoformat(), "status": status}
    function.sql.answers["scheduler_last_good_run"] = {"clock": NOW.isoformat(), "run": found}
    return found


@pytest.mark.parametrize("status", ["succeeded", "partial"])
async def test_a_night_that_went_well_is_200(function: Function, status: str) -> None:
    ended(function, hours_ago=24, status=status)
    response = await function.http.get(PATH)
    assert (response.status_code, response.json()) == (
        200,
        {
            "status": "ok",
            "max_age_hours": 26,
            "scheduled_for": "2026-11-22T02:00:00Z",
            "finished_at": "2026-11-22T02:00:30Z",
            "run_status": status,
        },
    )


async def test_when_no_night_ever_went_well_it_is_503(function: Function) -> None:
    problem = problem_in(await function.http.get(PATH), 503, "last_run_missing")
    assert "26 hours" in problem["detail"]
    assert "none at all" in problem["detail"]


@pytest.mark.parametrize(("hours_ago", "status"), [(25.999, 200), (26.001, 503), (2400, 503)])
async def test_a_night_is_missed_two_hours_after_the_next_should_have_ended(
    function: Function, hours_ago: float, status: int
) -> None:
    ended(function, hours_ago=hours_ago)
    assert (await function.http.get(PATH)).status_code == status


async def test_what_is_missing_says_when_the_last_night_ended(function: Function) -> None:
    found = ended(function, hours_ago=30)
    assert found["finished_at"] in problem_in(await function.http.get(PATH), 503, "last_run_missing")["detail"]


@pytest.mark.parametrize(
    ("max_age_hours", "status"), [("1", 503), ("4.9", 503), ("5.1", 200), ("8784", 200), ("0.001", 503), ("1e2", 200)]
)
async def test_the_monitor_may_say_how_long_is_too_long(function: Function, max_age_hours: str, status: int) -> None:
    ended(function, hours_ago=5)
    response = await function.http.get(PATH, params={"max_age_hours": max_age_hours})
    assert response.status_code == status
    if status == 200:
        assert response.json()["max_age_hours"] == float(max_age_hours)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("max_age_hours", BAD_AGES)
async def test_what_is_no_age_is_422_and_asks_nobody(function: Function, method: str, max_age_hours: str) -> None:
    response = await function.http.request(method, PATH, params={"max_age_hours": max_age_hours})
    assert response.status_code == 422
    if method == "GET":
        assert problem_in(response, 422, "invalid_field")["field"] == "max_age_hours"
    assert function.sql.called() == []


@pytest.mark.parametrize(("hours_ago", "status"), [(1, 200), (100, 503)])
async def test_a_monitor_that_asks_with_head_is_told_by_the_status(
    function: Function, hours_ago: float, status: int
) -> None:
    ended(function, hours_ago=hours_ago)
    assert (await function.http.head(PATH)).status_code == status


async def test_anybody_may_ask_and_asks_the_database_once_in_a_while(function: Function) -> None:
    ended(function, hours_ago=5)
    for params in ({}, {}, {"max_age_hours": "1"}, {"max_age_hours": "7"}):
        await function.http.get(PATH, params=params)
    assert function.sql.called() == ["scheduler_last_good_run"]


@pytest.mark.parametrize(
    ("databases_clock", "status"),
    [
        # Every workday at 02:00, NOW being the Monday's run under way: silent since Friday.
        ("2026-11-23T02:00:30+00:00", 200),
        ("2026-11-23T03:00:30+00:00", 200),
        ("2026-11-23T05:00:30+00:00", 503),
        # Were it Tuesday, a day would be too long already.
        ("2026-11-24T02:00:30+00:00", 503),
    ],
)
async def test_how_long_ago_it_was_is_told_by_the_databases_clock_alone(databases_clock: str, status: int) -> None:
    function = Function(EVALUATION_SCHEDULE="0 2 * * 1-5")
    run = {
        "scheduled_for": "2026-11-20T02:00:00+00:00",
        "finished_at": "2026-11-20T02:00:31+00:00",
        "status": "succeeded",
    }
    function.sql.answers["scheduler_last_good_run"] = {"clock": databases_clock, "run": run}
    response = await function.http.get(PATH)
    assert response.status_code == status
    allowed = 26 if datetime.fromisoformat(databases_clock).day == 24 else 74
    assert f"{allowed} hours" in response.text if status == 503 else response.json()["max_age_hours"] == allowed


async def test_a_database_that_is_away_is_not_a_missing_night(function: Function) -> None:
    function.sql.answers["scheduler_last_good_run"] = DatabaseUnavailableError("away")
    for _ in range(3):
        problem_in(await function.http.get(PATH), 503, "database_unavailable")
    assert function.sql.called() == ["scheduler_last_good_run"]
