"""What a slice reads of the database as it begins: how far an invocation was read, and the table of scenario types."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from shared.scenario_table import ScenarioTable
from shared.slice_repository import Enumeration, SliceRepository
from tests.unit.environment import make_config
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.fake_sql import SLOT, config_row, slot_answer

ROW: dict[str, Any] = dict.fromkeys(("retry_of", "request", "enumeration_cursor", "enumeration_done"))


@pytest.mark.parametrize(
    ("row", "enumeration"),
    [
        ({"trigger": "schedule", "enumeration_done": True}, {"done": True}),
        ({"request": {"user_ids": None, "scenario_types": None}, "enumeration_cursor": "anna"}, {"cursor": "anna"}),
        ({"trigger": "manual", "request": {"user_ids": ["a", "b"]}}, {"user_ids": ("a", "b")}),
        ({"request": {"scenario_types": ["x", "y"]}}, {"scenario_types": frozenset({"x", "y"})}),
        ({"trigger": "retry", "retry_of": "run-1"}, {"is_retry": True, "retry_of": "run-1"}),
        # What it retries was deleted meanwhile.
        ({"trigger": "retry", "retry_of": None}, {"is_retry": True}),
    ],
)
def test_how_far_an_invocation_was_read_is_understood(row: dict[str, Any], enumeration: dict[str, Any]) -> None:
    read = Enumeration.from_row({"trigger": "schedule", **ROW, "enumeration_done": False, **row})
    assert read == Enumeration(**enumeration)


async def test_a_table_that_has_not_changed_costs_no_other_call() -> None:
    config = make_config()
    rows = [config_row("milestone", enabled=False)]
    versions: list[str] = []

    def answer(arguments: dict[str, Any]) -> dict[str, Any]:
        versions.append(arguments["scenario_version"])
        assert len(versions) < 4
        changed = {"clock": SLOT, "scenario_config": {"version": "v1", "rows": rows}}
        return slot_answer() if versions[-1] == "v1" else changed

    table = ScenarioTable(config.scenario_types)
    slices = SliceRepository(FakeDatabase(functions={"scheduler_open_slot": answer}), config, table)
    for _ in range(2):
        await slices.open_slot(datetime.fromisoformat(SLOT), None, "pg_cron")
    assert versions == ["", "v1", "v1"]
    assert "milestone" not in table.scenarios.enabled_types()
