"""A slot is the same in every process and at all times, also where the clock changes; which slots have no run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.schedule import MINUTE, MISSED_AFTER, MOST_MISSED, Schedule, UsedSlot, missed_slots, to_slot

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia")
EXPRESSIONS = (
    *("0 2 * * *", "30 2 * * *", "59 23 * * *", "0 0 * * *", "15 3 * * 1-5", "0 4 1 * *", "*/5 * * * *"),
    *("* * * * *", "30 1,2,3 * * *", "0 12 29 2 *", "7 */6 * * 0"),
)
schedules = st.builds(lambda e, z: Schedule(e, ZoneInfo(z)), st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES))
zones = st.sampled_from(ZONES).map(ZoneInfo)
# Twelve years, and so many clock changes.
moments = st.datetimes(datetime(2020, 1, 1), datetime(2031, 12, 31), timezones=zones)  # noqa: DTZ001


@given(schedules, moments)
def test_a_slot_is_current_from_its_minute_until_the_next(schedule: Schedule, now: datetime) -> None:
    current, following = schedule.current_and_next(now)
    assert current <= now < following
    assert (current.tzinfo, following.tzinfo) == (UTC, UTC)
    assert (to_slot(current), to_slot(following)) == (current, following)
    assert schedule.current_and_next(current) == (current, following)
    assert schedule.current_and_next(following - timedelta(microseconds=1)) == (current, following)
    assert schedule.current_and_next(following)[0] == following
    assert schedule.current_and_next(current - MINUTE)[1] == current


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        *(("Europe/Berlin", "2026-03-29T01"), ("Europe/Berlin", "2026-10-25T01")),
        *(("America/New_York", "2026-11-01T06"), ("Australia/Lord_Howe", "2026-04-04T15")),  # the last by half an hour
    ],
)
def test_every_minute_is_a_slot_around_a_clock_change(zone: str, change: str) -> None:
    for step in range(-76, 76):
        now = datetime.fromisoformat(f"{change}:00+00:00") + step * MINUTE
        assert Schedule("* * * * *", ZoneInfo(zone)).current_and_next(now) == (now, now + MINUTE)


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        # Spring: 02:30 does not exist; it is made up for when the clock has jumped to 03:00.
        ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 8, 7, 0, tzinfo=UTC)),
        # Autumn in Berlin: 02:30 comes twice, and the first one counts.
        ("Europe/Berlin", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        # Autumn in New York: 01:00 to 02:00 comes twice, 02:30 once, in winter time.
        ("America/New_York", datetime(2026, 11, 1, 7, 30, tzinfo=UTC)),
    ],
)
def test_a_clock_changes_day_has_exactly_one_half_past_two(zone: str, expected: datetime) -> None:
    schedule = Schedule("30 2 * * *", ZoneInfo(zone))
    for step in range(-12 * 60, 12 * 60, 5):
        now = expected + step * MINUTE
        current, following = schedule.current_and_next(now)
        assert (current if now >= expected else following) == expected


def test_a_slot_is_the_utc_minute_of_a_moment() -> None:
    slot = to_slot(datetime(2026, 11, 23, 3, 30, 59, 999_999, tzinfo=ZoneInfo("Europe/Berlin")))
    assert slot == to_slot(slot) == datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
    assert slot.tzinfo is UTC


# Which slots have no run

DAILY = ("0 2 * * *", "UTC")
WORKDAYS = ("0 2 * * 1-5", "UTC")
OSLO = ("0 2 * * *", "Europe/Oslo")


def at(day: int, hour: int = 2, month: int = 11) -> datetime:
    """A time of 2026; the 23rd of November is a Monday."""
    return datetime(2026, month, day, hour, tzinfo=UTC)


def used(*days: int, schedule: tuple[str, str] | None = DAILY) -> list[UsedSlot]:
    return [UsedSlot(at(day), schedule) for day in days]


@pytest.mark.parametrize(
    ("runs", "in_force", "now", "missed"),
    [
        (used(25, 24, 23), DAILY, at(25, 12), []),
        (used(24, 21), DAILY, at(26, 12), [26, 25, 23, 22]),
        # An older page of the list leaves what came since to the newer ones.
        (used(23, 21), DAILY, None, [22]),
        ([], DAILY, at(26), []),
        # A slot that has just come is due and not missed.
        (used(25), DAILY, at(26) + MISSED_AFTER, []),
        (used(25), DAILY, at(26) + MISSED_AFTER + MINUTE, [26]),
        (used(23, 20, schedule=WORKDAYS), WORKDAYS, at(23, 12), []),
        # Where the schedule changed nothing is claimed.
        *((used(24, 22) + used(20, schedule=then), DAILY, at(24, 12), [23]) for then in (WORKDAYS, OSLO, None)),
        (used(20, schedule=OSLO), DAILY, at(24, 12), []),
    ],
)
def test_a_gap_is_found_and_none_is_made_up(
    runs: list[UsedSlot], in_force: tuple[str, str], now: datetime | None, missed: list[int]
) -> None:
    assert missed_slots(runs, current=in_force, now=now) == [at(day) for day in missed]


def test_missed_slots_follow_their_zone_through_a_clock_change() -> None:
    ends = [UsedSlot(at(27, 1, month=10), OSLO), UsedSlot(at(24, 0, month=10), OSLO)]
    assert missed_slots(ends, current=OSLO, now=None) == [at(26, 1, 10), at(25, 0, 10)]


def test_a_long_gap_is_listed_from_its_end_and_bounded() -> None:
    every_minute = ("* * * * *", "UTC")
    found = missed_slots([UsedSlot(at(1, month=1), every_minute)], current=every_minute, now=at(26) + MISSED_AFTER)
    assert len(found) == MOST_MISSED
    assert found[0] == at(26) - MINUTE
