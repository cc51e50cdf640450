"""How far an invocation was read, as a slice understands it from the database."""

from __future__ import annotations

from typing import Any

import pytest

from shared.slice_repository import Enumeration

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
