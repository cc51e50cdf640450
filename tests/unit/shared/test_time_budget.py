"""A span of time that is handed on, and never owes anything."""

from __future__ import annotations

import pytest

from shared.time_budget import TimeBudget
from tests.unit.clock import ManualClock


def test_it_runs_from_when_it_was_made() -> None:
    clock = ManualClock()
    budget = TimeBudget(10, clock)
    assert (budget.elapsed(), budget.remaining()) == (0, 10)
    clock.advance(4)
    assert (budget.elapsed(), budget.remaining()) == (4, 6)


def test_what_remains_is_never_negative() -> None:
    clock = ManualClock()
    budget = TimeBudget(10, clock)
    clock.advance(25)
    assert (budget.elapsed(), budget.remaining()) == (25, 0)


def test_without_a_clock_it_is_real_and_monotonic() -> None:
    budget = TimeBudget(3600)
    first = budget.remaining()
    assert 0 < budget.remaining() <= first <= 3600


def test_it_cannot_be_prolonged() -> None:
    budget = TimeBudget(10)
    with pytest.raises(AttributeError):
        budget.seconds = 20  # type: ignore[misc]
