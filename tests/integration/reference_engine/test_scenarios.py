"""The documented rules, on both sides of each of their borders."""

from __future__ import annotations

from typing import LiteralString

import pytest

from .programme import ESTABLISHED, INACTIVITY, MILESTONE, ONBOARDING, SILENT, Programme


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"last_contact_at": "now() - interval '30 days 1 minute'"}, "triggered"),
        ({"last_contact_at": "now() - interval '29 days 23 hours'"}, "not_triggered"),
        ({"last_contact_at": "null", "joined_at": "now() - interval '31 days'"}, "triggered"),
        ({"last_contact_at": "null", "joined_at": "now() - interval '29 days'"}, "not_triggered"),
        ({"last_contact_at": "null", "onboarding_completed_at": "null"}, "not_triggered"),
    ],
    ids=["silent", "not_long_enough", "never_since_joining", "never_but_new", "still_onboarding"],
)
async def test_inactivity_is_30_days_without_contact_of_an_established_mentor(
    programme: Programme, columns: dict[str, LiteralString], expected: str
) -> None:
    assert await programme.outcome(await programme.mentor(ESTABLISHED | columns), INACTIVITY) == expected


@pytest.mark.parametrize("contacts", ["1", "10", "25", "50", "100", "250", "500", "1000", "7000"])
async def test_a_milestone_is_reached_by_sitting_on_it(programme: Programme, contacts: LiteralString) -> None:
    user_id = await programme.mentor(ESTABLISHED | {"contacts_logged": contacts})
    assert await programme.outcome(user_id, MILESTONE) == "triggered"


@pytest.mark.parametrize("contacts", ["0", "2", "9", "11", "750", "1001"])
async def test_no_milestone_is_reached_beside_one(programme: Programme, contacts: LiteralString) -> None:
    user_id = await programme.mentor(ESTABLISHED | {"contacts_logged": contacts})
    assert await programme.outcome(user_id, MILESTONE) == "not_triggered"


@pytest.mark.parametrize(
    ("joined_at", "completed_at", "expected"),
    [
        ("now() - interval '14 days 1 minute'", "null", "triggered"),
        ("now() - interval '13 days 23 hours'", "null", "not_triggered"),
        ("now() - interval '90 days'", "now()", "not_triggered"),
    ],
    ids=["late", "not_yet", "completed"],
)
async def test_onboarding_is_incomplete_after_14_days(
    programme: Programme, joined_at: LiteralString, completed_at: LiteralString, expected: str
) -> None:
    user_id = await programme.mentor({"joined_at": joined_at, "onboarding_completed_at": completed_at})
    assert await programme.outcome(user_id, ONBOARDING) == expected


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"status": "'left'"}, "not_triggered"),
        ({"status": "'paused'"}, "not_triggered"),
        ({"status": "'paused'", "paused_until": "now() + interval '1 minute'"}, "not_triggered"),
        ({"status": "'paused'", "paused_until": "now() - interval '1 minute'"}, "triggered"),
    ],
    ids=["left", "paused", "pause_goes_on", "pause_has_run_out"],
)
async def test_who_left_or_paused_since_being_listed_is_due_for_nothing(
    programme: Programme, columns: dict[str, LiteralString], expected: str
) -> None:
    assert await programme.outcome(await programme.mentor(SILENT | columns), INACTIVITY) == expected
