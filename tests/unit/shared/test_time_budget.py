"""A span of time that is handed on, and never owes anything."""

from __future__ import annotations

from shared.time_budget import TimeBudget
from tests.unit.clock import ManualClock


def test_a_budget_runs_from_when_it_was_made_and_never_below_zero() -> None:
    clock = ManualClock()
    budget = TimeBudget(10, clock)
    for seconds, left in ((0, 10), (4, 6), (21, 0)):
        clock.advance(seconds)
        assert budget.remaining() == left
    assert budget.elapsed() == 25
