"""`/api/v1/scheduler-audit`: pages of who did what."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tests.unit.functions.fake_sql import RUN_ID, SLOT
from tests.unit.functions.http_function import ADMIN, Function, in_json

PATH = "/api/v1/scheduler-audit"


def entry(number: int) -> dict[str, Any]:
    """An entry as the database has it."""
    what = {"actor": "anna", "action": "cancel", "invocation_id": RUN_ID, "scenario_type": None}
    changed = {"before": {"status": "running"}, "after": {"status": "cancelled"}}
    return {"id": str(UUID(int=number)), "at": SLOT} | what | changed


async def test_pages_follow_each_other_by_cursor(function: Function) -> None:
    function.sql.answers["scheduler_audit_page"] = [entry(number) for number in range(3)]
    query = {"invocation_id": RUN_ID, "actor": "anna", "action": "cancel"}
    page = (await function.http.get(PATH, params=query | {"limit": "2"}, headers=ADMIN)).json()
    assert page["data"] == [in_json(entry(number)) for number in range(2)]
    function.sql.answers["scheduler_audit_page"] = [entry(2)]
    cursor = {"cursor": page["pagination"]["next_cursor"]}
    last = (await function.http.get(PATH, params=cursor, headers=ADMIN)).json()
    assert last == {"data": [in_json(entry(2))], "pagination": {"limit": 100, "next_cursor": None}}
    assert function.sql.all_arguments_of("scheduler_audit_page") == [
        query | {"limit": 3, "after_at": None, "after_id": None},
        dict.fromkeys(query) | {"limit": 101, "after_at": SLOT, "after_id": entry(1)["id"]},
    ]
