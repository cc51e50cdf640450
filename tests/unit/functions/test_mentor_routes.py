"""Who would be evaluated, over HTTP: pages of active mentors with what applies to them."""

from __future__ import annotations

import httpx
import pytest

from functions.http.invocations import cursor_of
from tests.unit.functions.http_function import Function, problem_in
from tests.unit.functions.pretend_sql import mentor_id, mentor_row
from tests.unit.log_lines import LogLines

PATH = "/active-peer-mentors"


@pytest.fixture
def many(log: LogLines) -> Function:  # the log: what is logged shall not spill
    return Function(rows=[mentor_row(n, "established") for n in range(250)])


async def test_a_mentor_comes_with_her_segments_and_what_applies() -> None:
    function = Function(rows=[mentor_row(1, "onboarding", "established"), mentor_row(2)])
    response = await function.ask("GET", PATH)
    assert (response.status_code, response.json()) == (
        200,
        {
            "items": [
                {
                    "user_id": mentor_id(1),
                    "segments": ["established", "onboarding"],
                    "scenario_types": ["inactivity_30_days", "milestone_reached", "onboarding_incomplete"],
                    "skip_reason": None,
                },
                {"user_id": mentor_id(2), "segments": [], "scenario_types": ["milestone_reached"], "skip_reason": None},
            ],
            "next_cursor": None,
            "user_id_missing": 0,
        },
    )


async def test_a_mentor_to_whom_nothing_applies_is_shown_with_nothing() -> None:
    function = Function(rows=[mentor_row(1, "odd")], SCENARIO_TYPES='[{"type": "a", "segments": ["new"]}]')
    (item,) = (await function.ask("GET", PATH)).json()["items"]
    assert item["scenario_types"] == []


async def test_without_mentors_the_page_is_empty(function: Function) -> None:
    assert (await function.ask("GET", PATH)).json() == {"items": [], "next_cursor": None, "user_id_missing": 0}


async def test_an_unusable_row_is_shown_with_the_reason() -> None:
    odd = {"user_id": mentor_id(1), "segments": ["new", None]}
    function = Function(rows=[{"user_id": None, "segments": ["new"]}, odd, mentor_row(2)])
    page = (await function.ask("GET", PATH, params={"limit": "1"})).json()
    nobody = {"segments": [], "scenario_types": [], "skip_reason": "invalid_segments"}
    assert (page["items"], page["user_id_missing"]) == ([{"user_id": mentor_id(1)} | nobody], 0)
    page = (await function.ask("GET", PATH, params={"cursor": page["next_cursor"]})).json()
    assert ([item["user_id"] for item in page["items"]], page["user_id_missing"]) == ([mentor_id(2)], 1)


@pytest.mark.parametrize(("query", "count"), [("", 100), ("limit=1", 1), ("limit=1000", 250), ("limit=250", 250)])
async def test_a_page_holds_as_many_as_are_asked_for(many: Function, query: str, count: int) -> None:
    page = (await many.ask("GET", PATH, params=httpx.QueryParams(query))).json()
    assert [item["user_id"] for item in page["items"]] == [mentor_id(n) for n in range(count)]
    assert (page["next_cursor"] is None) == (count == 250)


async def test_page_after_page_everybody_comes_once(many: Function) -> None:
    seen: list[str] = []
    params = {"limit": "80"}
    while True:
        page = (await many.ask("GET", PATH, params=params)).json()
        seen += [item["user_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [mentor_id(n) for n in range(250)]


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=ten",
        "cursor=",
        "cursor=tomorrow",
        "cursor=" + "A" * 301,
        f"cursor={mentor_id(1)}",
        f"cursor={cursor_of('nobody')}",
    ],
)
async def test_what_is_no_page_is_422_and_named(function: Function, query: str) -> None:
    problem = problem_in(await function.ask("GET", PATH, params=httpx.QueryParams(query)), 422, "invalid_field")
    assert problem["field"] == query.partition("=")[0]
    assert function.sql.database.pages_read == 0


@pytest.mark.parametrize("query", ["segment=new", "user_id=1", "offset=1"])
async def test_an_unknown_parameter_is_422_and_named(function: Function, query: str) -> None:
    problem = problem_in(await function.ask("GET", PATH, params=httpx.QueryParams(query)), 422, "unknown_field")
    assert problem["field"] == query.partition("=")[0]
