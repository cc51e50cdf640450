"""How far an invocation was read, as a slice understands it from the database."""

from __future__ import annotations

from typing import Any

import pytest

from shared.slice_repository import Enumeration

RUN_ID = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11"
ROW: dict[str, Any] = {
    "trigger": "schedule",
    "retry_of": None,
    "request": {},
    "enumeration_cursor": None,
    "enumeration_done": False,
}


@pytest.mark.parametrize(
    ("row", "enumeration"),
    [
        ({}, Enumeration()),
        ({"request": None, "enumeration_done": True}, Enumeration(done=True)),
        ({"request": {"user_ids": None, "scenario_types": None}}, Enumeration()),
        ({"enumeration_cursor": "anna"}, Enumeration(cursor="anna")),
        ({"trigger": "manual", "request": {"user_ids": ["a", "b"]}}, Enumeration(user_ids=("a", "b"))),
        ({"request": {"scenario_types": ["x", "y"]}}, Enumeration(scenario_types=frozenset({"x", "y"}))),
        ({"trigger": "retry", "retry_of": RUN_ID}, Enumeration(is_retry=True, retry_of=RUN_ID)),
        # What it retries was deleted meanwhile.
        ({"trigger": "retry", "retry_of": None}, Enumeration(is_retry=True)),
    ],
)
def test_how_far_an_invocation_was_read_is_understood(row: dict[str, Any], enumeration: Enumeration) -> None:
    assert Enumeration.from_row(ROW | row) == enumeration
