"""What another invocation left undone, as the database tells it."""

from __future__ import annotations

from functions.undone import UndonePage, fetch_undone
from shared.evaluations import MENTOR_NOT_ACTIVE, MentorScenarios
from shared.invocations import Enumeration
from tests.unit.fake_database import FakeDatabase

RUN_ID = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11"


async def test_the_undone_come_with_the_reason_to_skip_those_who_are_not_active() -> None:
    answer = {
        "mentors": [
            {"user_id": "anna", "scenario_types": ["a", "b"], "active": True},
            {"user_id": "bert", "scenario_types": ["a"], "active": False},
        ],
        "last_user_id": "bert",
        "rest": {
            "triggered_by": "schedule",
            "retry_of": None,
            "request": {},
            "enumeration_cursor": "carl",
            "enumeration_done": False,
        },
    }
    database = FakeDatabase(functions={"scheduler_undone": lambda _: answer})
    assert await fetch_undone(database, RUN_ID, after_user_id="abel", mentors=1000) == UndonePage(
        [MentorScenarios("anna", ("a", "b")), MentorScenarios("bert", ("a",), MENTOR_NOT_ACTIVE)],
        last_user_id="bert",
        rest=Enumeration(cursor="carl"),
    )
    assert database.called == [
        ("scheduler_undone", {"invocation_id": RUN_ID, "after_user_id": "abel", "mentors": 1000})
    ]


async def test_where_the_other_invocation_is_gone_there_is_no_page() -> None:
    database = FakeDatabase(functions={"scheduler_undone": lambda _: None})
    assert await fetch_undone(database, RUN_ID, after_user_id=None, mentors=1000) is None
