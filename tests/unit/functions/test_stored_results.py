"""`GET …/:id/evaluations`: pages of JSON, or all results as CSV."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from functions.http.cursors import cursor_of
from functions.http.evaluations import COLUMNS, CSV_PAGE
from shared.errors import DatabaseUnavailableError
from tests.unit.functions.fake_sql import RUN_ID, mentor_id
from tests.unit.functions.http_function import Function, problem_in

RESULTS, TYPE = f"/{RUN_ID}/evaluations", "milestone"


def row(number: int, **members: Any) -> dict[str, Any]:
    usual: dict[str, Any] = dict.fromkeys(COLUMNS) | {"scenario_type": TYPE, "outcome": "failed", "attempts": 1}
    return usual | {"user_id": mentor_id(number)} | members


def page(*items: dict[str, Any], until: str | None = None, is_open: bool = False) -> dict[str, Any]:
    return {"items": items, "next": until and (until, TYPE), "is_open": is_open}


async def test_a_page_has_results_and_the_next_cursor(function: Function) -> None:
    function.sql.answers["scheduler_evaluations_page"] = page(row(2), until=mentor_id(2), is_open=True)
    after = {"cursor": cursor_of(mentor_id(1), TYPE), "limit": "1000"}
    query = after | {"outcome": ["failed", "skipped"], "code": "x", "scenario_type": TYPE}
    answer = (await function.ask("GET", RESULTS, params=query)).json()
    assert answer["data"] == [row(2)]
    assert answer["pagination"] == {"limit": 1000, "next_cursor": cursor_of(mentor_id(2), TYPE)}
    filters = {"invocation_id": RUN_ID, "outcomes": ["failed", "skipped"], "code": "x", "scenario_type": TYPE}
    place = {"limit": 1000, "after_user_id": mentor_id(1), "after_scenario_type": TYPE}
    assert function.sql.arguments_of("scheduler_evaluations_page") == filters | place


async def test_all_results_are_one_csv_without_formulas(function: Function) -> None:
    texts = ["=1+1", "+1", "-1", "@x", "\tx", "\rx", 'a "b", c', "line\nbreak", " =1"]
    rows = [row(number, error_message=text) for number, text in enumerate(texts)]
    last = row(10, outcome="triggered", notification_id="-n")
    pages = {None: page(*rows, until=mentor_id(9)), mentor_id(9): page(last)}
    function.sql.answers["scheduler_evaluations_page"] = lambda arguments: pages[arguments["after_user_id"]]
    response = await function.ask("GET", f"{RESULTS}?code=x", headers={"Accept": "text/csv, */*;q=0.1"})
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == f'attachment; filename="evaluations-{RUN_ID}.csv"'
    head, *found = csv.reader(io.StringIO(response.text, newline=""))
    assert [cell.partition(" ")[0] for cell in head] == list(COLUMNS)
    assert "not_triggered" in head[2]
    assert [cells[5] for cells in found] == [*(f"'{text}" for text in texts[:6]), *texts[6:], ""]
    assert found[-1] == [mentor_id(10), TYPE, "triggered", "1", "", "", "'-n"]
    asked = function.sql.all_arguments_of("scheduler_evaluations_page")
    assert [(each["limit"], each["code"]) for each in asked] == [(CSV_PAGE, "x")] * 2


@pytest.mark.parametrize(
    ("query", "accept", "answer", "status", "code"),
    [
        ("", "text/csv", page(is_open=True), 409, "still_open"),
        *(("", accept, None, 404, "not_found") for accept in ("text/csv", "*/*")),
        ("", "image/png, text/csv;q=0", page(), 406, "not_acceptable"),
        *((f"?{name}", "text/csv", page(), 422, "invalid_field") for name in ("limit=1", "cursor=x")),
        ("", "text/csv", DatabaseUnavailableError("away"), 503, "database_unavailable"),
    ],
)
async def test_what_cannot_be_streamed_has_a_status(
    function: Function, query: str, accept: str, answer: Any, status: int, code: str
) -> None:
    function.sql.answers["scheduler_evaluations_page"] = answer
    problem_in(await function.ask("GET", RESULTS + query, headers={"Accept": accept}), status, code)
