"""A slot is the same whoever computes it and whenever, also in a night in which the clock changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSimError
from hypothesis import given
from hypothesis import strategies as st

from shared.slots import MINUTE, Schedule, to_slot

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/St_Johns",
    "Africa/Casablanca",
)
EXPRESSIONS = (
    "0 2 * * *",
    "30 2 * * *",
    "59 23 * * *",
    "0 0 * * *",
    "15 3 * * 1-5",
    "0 4 1 * *",
    "*/5 * * * *",
    "* * * * *",
    "30 1,2,3 * * *",
    "0 12 29 2 *",
    "7 */6 * * 0",
)

schedules = st.builds(lambda e, z: Schedule(e, ZoneInfo(z)), st.sampled_from(EXPRESSIONS), st.sampled_from(ZONES))
# Whole minutes of twelve years, and so many clock changes.
minutes = st.datetimes(datetime(2020, 1, 1), datetime(2031, 12, 31), timezones=st.just(UTC)).map(to_slot)  # noqa: DTZ001
within_a_minute = st.timedeltas(timedelta(0), timedelta(seconds=59, microseconds=999_999))


@given(schedules, minutes, within_a_minute, st.sampled_from(ZONES))
def test_now_lies_between_the_current_slot_and_the_following_one(
    schedule: Schedule, minute: datetime, into: timedelta, zone: str
) -> None:
    now = (minute + into).astimezone(ZoneInfo(zone))
    current, following = schedule.around(now)
    assert current <= now < following
    assert current.tzinfo is UTC
    assert following.tzinfo is UTC
    assert to_slot(current) == current
    assert to_slot(following) == following


@given(schedules, minutes, within_a_minute, st.sampled_from(ZONES))
def test_neither_the_second_nor_the_zone_of_now_matters(
    schedule: Schedule, minute: datetime, into: timedelta, zone: str
) -> None:
    assert schedule.around((minute + into).astimezone(ZoneInfo(zone))) == schedule.around(minute)


@given(schedules, minutes)
def test_a_slot_is_current_from_its_minute_until_the_following_one(schedule: Schedule, minute: datetime) -> None:
    current, following = schedule.around(minute)
    assert schedule.around(current) == (current, following)
    assert schedule.around(following - timedelta(microseconds=1)) == (current, following)
    assert schedule.around(following)[0] == following
    assert schedule.around(current - MINUTE)[1] == current


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        ("Europe/Berlin", datetime(2026, 10, 25, 1, 0, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 8, 7, 0, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 11, 1, 6, 0, tzinfo=UTC)),
        ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, 0, tzinfo=UTC)),  # by half an hour
        ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ],
)
@pytest.mark.parametrize("expression", ["* * * * *", "*/15 * * * *", "0 * * * *", "30 2 * * *", "30 1,2,3 * * *"])
def test_slots_follow_one_another_in_every_minute_around_a_clock_change(
    expression: str, zone: str, change: datetime
) -> None:
    schedule = Schedule(expression, ZoneInfo(zone))
    last_current, last_following = schedule.around(change - 76 * MINUTE)
    for step in range(-75, 76):
        now = change + step * MINUTE
        current, following = schedule.around(now)
        assert current <= now < following
        assert current == (last_following if now >= last_following else last_current)
        last_current, last_following = current, following


def slots_between(schedule: Schedule, start: datetime, end: datetime) -> list[datetime]:
    """The slots that are current at any minute of the span, each once."""
    found: list[datetime] = []
    minute = start
    while minute < end:
        current, following = schedule.around(minute)
        if current >= start and (not found or found[-1] != current):
            found.append(current)
        minute = min(following, end)
    return found


@pytest.mark.parametrize(
    ("zone", "noon_before", "expected_utc"),
    [
        # Spring: 02:30 does not exist; it is made up for when the clock has jumped to 03:00.
        ("Europe/Berlin", datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        ("America/New_York", datetime(2026, 3, 7, 17, tzinfo=UTC), datetime(2026, 3, 8, 7, 0, tzinfo=UTC)),
        # Autumn in Berlin: 02:30 comes twice, and the first one counts.
        ("Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        # Autumn in New York: 01:00 to 02:00 comes twice, 02:30 once, in winter time.
        ("America/New_York", datetime(2026, 10, 31, 17, tzinfo=UTC), datetime(2026, 11, 1, 7, 30, tzinfo=UTC)),
    ],
)
def test_a_night_in_which_the_clock_changes_has_exactly_one_half_past_two(
    zone: str, noon_before: datetime, expected_utc: datetime
) -> None:
    schedule = Schedule("30 2 * * *", ZoneInfo(zone))
    assert slots_between(schedule, noon_before, noon_before + timedelta(hours=24)) == [expected_utc]
    for step in range(0, 24 * 60, 5):
        now = noon_before + step * MINUTE
        current, following = schedule.around(now)
        assert (current == expected_utc) == (now >= expected_utc)
        assert (following == expected_utc) == (now < expected_utc)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("expression", ["30 1 * * *", "0 2 * * *", "30 2 * * *", "0 3 * * *"])
def test_a_year_has_one_slot_for_each_of_its_days(zone: str, expression: str) -> None:
    schedule = Schedule(expression, ZoneInfo(zone))
    slots = slots_between(schedule, datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2027, 1, 1, 12, tzinfo=UTC))
    days = [slot.astimezone(ZoneInfo(zone)).date() for slot in slots]
    assert len(days) == 365
    assert len(set(days)) == 365


def test_a_quarter_hourly_schedule_goes_on_evenly_through_both_changes() -> None:
    schedule = Schedule("*/15 * * * *", ZoneInfo("Europe/Berlin"))
    for night in (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)):
        slots = slots_between(schedule, night, night + timedelta(hours=8))
        assert {later - earlier for earlier, later in pairwise(slots)} == {timedelta(minutes=15)}


@pytest.mark.parametrize("expression", ["", "nightly", "61 * * * *", "0 2 * *", "0 0 30 2 *"])
def test_an_expression_that_is_none_is_refused_when_the_schedule_is_made(expression: str) -> None:
    with pytest.raises(CronSimError):
        Schedule(expression, ZoneInfo("UTC"))


def test_a_slot_is_the_utc_minute_of_a_moment() -> None:
    berlin = datetime(2026, 11, 23, 3, 30, 59, 999_999, tzinfo=ZoneInfo("Europe/Berlin"))
    assert to_slot(berlin) == datetime(2026, 11, 23, 2, 30, tzinfo=UTC)
    assert to_slot(berlin).tzinfo is UTC


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_cutting_to_a_slot_twice_is_cutting_once(moment: datetime) -> None:
    slot = to_slot(moment)
    assert to_slot(slot) == slot
    assert timedelta(0) <= moment - slot < MINUTE


@pytest.mark.parametrize(
    ("after", "before", "expected"),
    [
        ("2026-11-20T02:00:00", "2026-11-23T02:00:00", [22, 21]),
        ("2026-11-20T02:00:00", "2026-11-23T02:00:01", [23, 22, 21]),
        ("2026-11-20T01:59:59", "2026-11-21T02:00:00", [20]),
        ("2026-11-20T02:00:00", "2026-11-21T02:00:00", []),
        ("2026-11-23T02:00:00", "2026-11-20T02:00:00", []),
    ],
)
def test_the_slots_between_two_times_the_latest_first_without_their_ends(
    after: str, before: str, expected: list[int]
) -> None:
    nightly = Schedule("0 2 * * *", ZoneInfo("UTC"))
    found = list(nightly.between(datetime.fromisoformat(f"{after}+00:00"), datetime.fromisoformat(f"{before}+00:00")))
    assert found == [datetime(2026, 11, day, 2, tzinfo=UTC) for day in expected]
