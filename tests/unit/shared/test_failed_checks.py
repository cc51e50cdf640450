"""Failed checks of one address are counted up to a limit, others' are not touched by it, and memory is bounded."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.failed_checks import FailedCheckLimit, Verdict
from tests.unit.clock import ManualClock

HERE = ip_address("192.0.2.1")
COUNTED = Verdict(None)


def exhausted(clock: ManualClock, address: str = "192.0.2.1", **settings: int) -> FailedCheckLimit:
    limit = FailedCheckLimit(now=clock, **settings)
    assert [limit.count(ip_address(address)) for _ in range(10)] == [COUNTED] * 10
    return limit


def test_the_eleventh_failure_at_once_is_over_the_limit_and_told_when_one_is_counted_again(clock: ManualClock) -> None:
    assert exhausted(clock).count(HERE) == Verdict(6, newly_limited=True)


def test_after_the_seconds_told_one_failure_is_counted_and_no_second(clock: ManualClock) -> None:
    limit = exhausted(clock)
    clock.advance(2.5)
    told = limit.count(HERE).retry_after_seconds
    assert told == 4
    clock.advance(told)
    assert limit.count(HERE) == COUNTED
    assert limit.count(HERE).retry_after_seconds == 6


def test_failures_over_the_limit_do_not_prolong_it(clock: ManualClock) -> None:
    limit = exhausted(clock)
    for _ in range(1000):
        limit.count(HERE)
    clock.advance(6)
    assert limit.count(HERE) == COUNTED


def test_a_minute_of_quiet_gives_the_whole_allowance_back_and_no_more(clock: ManualClock) -> None:
    limit = exhausted(clock)
    clock.advance(60)
    assert [limit.count(HERE) for _ in range(11)] == [COUNTED] * 10 + [Verdict(6, newly_limited=True)]
    clock.advance(1_000_000)
    assert [limit.count(HERE) for _ in range(11)] == [COUNTED] * 10 + [Verdict(6, newly_limited=True)]


def test_an_address_that_goes_on_failing_is_newly_limited_only_once(clock: ManualClock) -> None:
    limit = exhausted(clock)
    newly_limited = 0
    for _ in range(3600):
        newly_limited += limit.count(HERE).newly_limited
        clock.advance(1)
    assert newly_limited == 1


@given(st.lists(st.floats(min_value=0, max_value=30, allow_nan=False), min_size=1, max_size=200))
def test_in_any_time_no_more_are_counted_than_the_burst_and_one_each_six_seconds(pauses: list[float]) -> None:
    clock = ManualClock()
    limit = FailedCheckLimit(now=clock)
    counted = 0
    for pause in pauses:
        clock.advance(pause)
        counted += limit.count(HERE) == COUNTED
    assert counted <= 10 + (clock.now - 1000) / 6 + 1e-6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1"),
        ("2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ("fe80::1%eth0", "fe80::1%eth1"),
    ],
)
def test_addresses_that_one_caller_may_have_share_a_limit(clock: ManualClock, one: str, other: str) -> None:
    assert exhausted(clock, one).count(ip_address(other)).retry_after_seconds == 6


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("192.0.2.1", "192.0.2.2"),
        ("2001:db8::1", "2001:db8:0:1::1"),
        ("192.0.2.1", "c000:201::"),
        ("::ffff:192.0.2.1", "::1"),
    ],
)
def test_addresses_of_different_callers_have_limits_of_their_own(clock: ManualClock, one: str, other: str) -> None:
    assert exhausted(clock, one).count(ip_address(other)) == COUNTED


def test_callers_without_an_address_share_a_limit_with_one_another_and_nobody_else(clock: ManualClock) -> None:
    limit = FailedCheckLimit(now=clock)
    for _ in range(10):
        limit.count(None)
    assert limit.count(None).retry_after_seconds == 6
    assert limit.count(ip_address("0.0.0.0")) == COUNTED  # noqa: S104  # a value, nothing is bound to it
    assert limit.count(ip_address("::")) == COUNTED


def test_of_too_many_addresses_the_one_that_failed_longest_ago_is_forgotten(clock: ManualClock) -> None:
    limit = exhausted(clock, "192.0.2.1", max_addresses=3)
    limit.count(ip_address("192.0.2.2"))
    limit.count(ip_address("192.0.2.3"))
    assert limit.count(HERE).retry_after_seconds == 6
    limit.count(ip_address("192.0.2.4"))  # now 192.0.2.2 is the oldest
    assert limit.count(HERE).retry_after_seconds == 6
    limit.count(ip_address("192.0.2.5"))
    limit.count(ip_address("192.0.2.6"))
    limit.count(ip_address("192.0.2.7"))
    assert limit.count(HERE) == COUNTED


def test_no_more_addresses_are_remembered_than_allowed(clock: ManualClock) -> None:
    limit = FailedCheckLimit(now=clock)
    for number in range(10_050):
        limit.count(ip_address(number))
    assert limit.remembered == 10_000
