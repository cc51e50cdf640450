"""What a slice reads of the database's answers: how far an invocation was read, what a batch holds."""

from __future__ import annotations

from typing import Any

import pytest

from shared.evaluations import MENTOR_NOT_ACTIVE, MentorScenarios
from shared.invocations import Enumeration, Invocations, to_witness
from tests.unit.environment import make_config
from tests.unit.fake_database import FakeDatabase

RUN_ID = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11"
ROW: dict[str, Any] = {
    "triggered_by": "schedule",
    "retry_of": None,
    "request": {},
    "enumeration_cursor": None,
    "enumeration_done": False,
}


def invocations(function: str, answer: Any) -> tuple[Invocations, FakeDatabase]:
    database = FakeDatabase(functions={function: lambda _: answer})
    return Invocations(database, make_config()), database


@pytest.mark.parametrize(
    ("row", "enumeration"),
    [
        ({}, Enumeration()),
        ({"request": None, "enumeration_done": True}, Enumeration(done=True)),
        ({"request": {"user_ids": None, "scenario_types": None}}, Enumeration()),
        ({"enumeration_cursor": "anna"}, Enumeration(cursor="anna")),
        ({"triggered_by": "manual", "request": {"user_ids": ["a", "b"]}}, Enumeration(user_ids=("a", "b"))),
        ({"request": {"scenario_types": ["x", "y"]}}, Enumeration(scenario_types=frozenset({"x", "y"}))),
        ({"triggered_by": "retry", "retry_of": RUN_ID}, Enumeration(is_retry=True, retry_of=RUN_ID)),
        ({"triggered_by": "retry", "retry_of": None}, Enumeration(is_retry=True)),
    ],
)
def test_how_far_an_invocation_was_read_is_understood(row: dict[str, Any], enumeration: Enumeration) -> None:
    assert Enumeration.from_row(ROW | row) == enumeration


@pytest.mark.parametrize(
    ("pair", "witness"),
    [(None, None), ({"user_id": "anna", "scenario_type": "a"}, MentorScenarios("anna", ("a",)))],
)
def test_a_witness_is_a_mentor_with_one_type(pair: dict[str, str] | None, witness: MentorScenarios | None) -> None:
    assert to_witness(pair) == witness


async def test_a_claimed_batch_has_the_reasons_to_skip_with_which_it_was_frozen() -> None:
    batch = {
        "invocation_id": RUN_ID,
        "batch_no": 1,
        "pairs": [
            {"scenario_types": ["a"], "user_ids": ["anna"]},
            {"scenario_types": ["a"], "user_ids": ["bert"], "skip": MENTOR_NOT_ACTIVE},
        ],
        "deliveries": 1,
        "read_count": 2,
        "engine_scope": "manual:1",
        "scheduled_for": "2026-11-23T02:00:00+00:00",
        "dry_run": True,
        "is_poison": True,
    }
    answer = {"batches": [batch], "stale": 1, "engine_paused_until": None, "poison_waits": True}
    claiming, database = invocations("scheduler_claim", answer)
    claimed = await claiming.claim(3, manual_only=True, poison="last")
    assert claimed.batches[0].users == (
        MentorScenarios("anna", ("a",)),
        MentorScenarios("bert", ("a",), MENTOR_NOT_ACTIVE),
    )
    assert (claimed.stale, claimed.engine_paused, claimed.poison_waits) == (1, False, True)
    assert claimed.batches[0].is_poison
    ((_, arguments),) = database.called
    assert (arguments["quantity"], arguments["manual_only"], arguments["poison"]) == (3, True, "last")
