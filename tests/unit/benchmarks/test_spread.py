"""Medians, spreads and ratios."""

from __future__ import annotations

import pytest

from tests.benchmarks.spread import Spread, percentile


def test_nothing_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        Spread.of([])


def test_a_ratio_is_taken_round_by_round() -> None:
    """A round in which the machine was slow for both says the same as the others."""
    ours, theirs = Spread.of([1.0, 5.0, 1.1]), Spread.of([2.0, 10.0, 2.2])
    assert ours.over(theirs).values == pytest.approx((0.5, 0.5, 0.5))
    # the ratio of the medians would be the same here, and not here
    assert Spread.of([1.0, 9.0, 2.0]).over(Spread.of([2.0, 9.0, 8.0])).median == pytest.approx(0.5)


def test_rounds_that_do_not_match_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="zip"):
        Spread.of([1.0]).over(Spread.of([1.0, 2.0]))


@pytest.mark.parametrize(("share", "found"), [(0.5, 10), (0.95, 19), (1.0, 20), (0.0, 1), (0.051, 2)])
def test_a_percentile_is_the_value_at_its_rank(share: float, found: int) -> None:
    assert percentile([float(n) for n in range(20, 0, -1)], share) == found
