"""Which slots have no run: a gap is told, and nothing is called one that may be none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.slots import MISSED_AFTER, MOST_MISSED, SpentSlot, missed_slots

DAILY = ("0 2 * * *", "UTC")
WORKDAYS = ("0 2 * * 1-5", "UTC")


def night(day: int, hour: int = 2, month: int = 11) -> datetime:
    """A slot of a month in 2026; the 23rd of November is a Monday."""
    return datetime(2026, month, day, hour, tzinfo=UTC)


def spent(*days: int, schedule: tuple[str, str] | None = DAILY) -> list[SpentSlot]:
    return [SpentSlot(night(day), schedule) for day in days]


def test_where_every_slot_has_a_run_none_is_missed() -> None:
    assert missed_slots(spent(25, 24, 23), in_force=DAILY, now=night(25, 12)) == []


def test_a_gap_between_two_runs_and_one_since_the_last_are_told_the_latest_first() -> None:
    found = missed_slots(spent(24, 21), in_force=DAILY, now=night(26, 12))
    assert found == [night(26), night(25), night(23), night(22)]


def test_of_an_older_page_what_came_since_is_left_to_the_newer_ones() -> None:
    assert missed_slots(spent(23, 21), in_force=DAILY, now=None) == [night(22)]


def test_a_slot_that_has_just_come_is_due_and_not_missed() -> None:
    on_time = night(26) + MISSED_AFTER
    assert missed_slots(spent(25), in_force=DAILY, now=on_time) == []
    assert missed_slots(spent(25), in_force=DAILY, now=on_time + timedelta(minutes=1)) == [night(26)]


def test_a_weekend_is_no_gap_in_a_schedule_of_workdays() -> None:
    assert missed_slots(spent(23, 20, schedule=WORKDAYS), in_force=WORKDAYS, now=night(23, 12)) == []


@pytest.mark.parametrize("then", [("0 3 * * *", "UTC"), ("0 2 * * *", "Europe/Oslo"), None])
def test_where_the_schedule_changed_nothing_is_claimed(then: tuple[str, str] | None) -> None:
    older = spent(20, schedule=then)
    assert missed_slots([*spent(24, 22), *older], in_force=DAILY, now=night(24, 12)) == [night(23)]
    assert missed_slots(older, in_force=DAILY, now=night(24, 12)) == []


def test_slots_follow_the_schedules_own_time_zone_through_a_change_of_clocks() -> None:
    oslo = ("30 2 * * *", "Europe/Oslo")
    ends = [SpentSlot(datetime(2026, 10, day, hour, 30, tzinfo=UTC), oslo) for day, hour in ((27, 1), (24, 0))]
    found = missed_slots(ends, in_force=oslo, now=None)
    assert [slot.astimezone(UTC).day for slot in found] == [26, 25]
    assert found[0] == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)


def test_a_long_gap_is_told_from_its_end_and_not_without_bound() -> None:
    every_minute = ("* * * * *", "UTC")
    year_ago = [SpentSlot(night(1, month=1), every_minute)]
    found = missed_slots(year_ago, in_force=every_minute, now=night(26) + MISSED_AFTER)
    assert len(found) == MOST_MISSED
    assert found[0] == night(26) - timedelta(minutes=1)


def test_without_any_run_nothing_can_be_missed() -> None:
    assert missed_slots([], in_force=DAILY, now=night(26)) == []
