"""`GET /active-peer-mentors` over HTTP: pages of active mentors with what applies to them."""

from __future__ import annotations

import pytest

from tests.unit.functions.http_function import Function
from tests.unit.functions.pretend_sql import mentor_id, mentor_row
from tests.unit.log_lines import LogLines

PATH = "/active-peer-mentors"


@pytest.fixture
def many(log: LogLines) -> Function:  # the log: what is logged shall not spill
    return Function(rows=[mentor_row(n, "established") for n in range(250)])


async def test_a_mentor_is_shown_with_segments_and_types() -> None:
    types = '[{"type": "odd", "segments": ["new"]}, {"type": "all", "segments": ["old", "new"]}]'
    rows = [mentor_row(1, "old", "new"), mentor_row(2), {"user_id": mentor_id(3), "segments": ["new", None]}]
    response = await Function(rows=rows, SCENARIO_TYPES=types).ask("GET", PATH)
    assert response.status_code == 200
    page = response.json()
    shown = [tuple(item[name] for name in ("segments", "scenario_types", "skip_reason")) for item in page.pop("items")]
    assert shown == [(["new", "old"], ["odd", "all"], None), ([], [], None), ([], [], "invalid_segments")]
    assert page == {"next_cursor": None, "user_id_missing": 0}


async def test_rows_without_a_user_id_are_counted_on_the_last_page() -> None:
    function = Function(rows=[{"user_id": None, "segments": ["new"]}, mentor_row(1), mentor_row(2)])
    page = (await function.ask("GET", PATH, params={"limit": "1"})).json()
    assert ([item["user_id"] for item in page["items"]], page["user_id_missing"]) == ([mentor_id(1)], 0)
    page = (await function.ask("GET", PATH, params={"cursor": page["next_cursor"]})).json()
    assert ([item["user_id"] for item in page["items"]], page["user_id_missing"]) == ([mentor_id(2)], 1)


@pytest.mark.parametrize(("query", "count"), [({}, 100), ({"limit": "1000"}, 250), ({"limit": "250"}, 250)])
async def test_a_page_holds_as_many_as_are_asked_for(many: Function, query: dict[str, str], count: int) -> None:
    page = (await many.ask("GET", PATH, params=query)).json()
    assert [item["user_id"] for item in page["items"]] == [mentor_id(n) for n in range(count)]
    assert (page["next_cursor"] is None) == (count == 250)


async def test_page_after_page_each_mentor_comes_once(many: Function) -> None:
    seen: list[str] = []
    params = {"limit": "80"}
    while True:
        page = (await many.ask("GET", PATH, params=params)).json()
        seen += [item["user_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        params["cursor"] = page["next_cursor"]
    assert seen == [mentor_id(n) for n in range(250)]
