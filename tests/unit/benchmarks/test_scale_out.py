"""What is said of several processes, from the runs that were made."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.benchmarks.capacity.measurements import Measurements
from tests.benchmarks.drained_run import DrainFigures
from tests.benchmarks.scale_out import FULL, WANTED_SHARE, ScaleOutFigures, ScaleOutPoint, points_of


@pytest.fixture(scope="module")
def runs() -> dict[int, Sequence[DrainFigures]]:
    rounds = Measurements.read().rounds
    return {
        1: rounds["8 calls in flight"],
        2: rounds["8 calls in flight, 2 processes"],
        8: rounds["8 calls in flight, 8 processes"],
    }


def test_each_round_is_compared_with_itself(runs: dict[int, Sequence[DrainFigures]]) -> None:
    points = points_of(runs)
    assert [point.processes for point in points] == [1, 2, 8]
    assert points[0].share_of_linear == 1
    assert points[1].evaluations_per_second == pytest.approx(2 * points[0].evaluations_per_second, rel=0.05)
    assert all(WANTED_SHARE < point.share_of_linear <= 1.05 for point in points)
    assert [point.workers for point in points] == [1, 2, 8]


@pytest.mark.parametrize(
    ("share_of_linear", "machine_share", "is_linear"),
    [
        (0.9, 0.5, True),
        (0.8, 0.5, False),
        # with half the CPU it got half as far: for what is wanted there was enough
        (0.5, 0.5, False),
        (WANTED_SHARE / 2, FULL / 2, True),
        (WANTED_SHARE / 2, FULL / 2 - 0.01, False),
    ],
)
def test_a_machine_whose_cpu_is_full_is_no_reproach(
    runs: dict[int, Sequence[DrainFigures]], share_of_linear: float, machine_share: float, is_linear: bool
) -> None:
    points = [ScaleOutPoint(1, 9, 100, 1, 0.1, 1), ScaleOutPoint(4, 3, 300, share_of_linear, machine_share, 4)]
    figures = ScaleOutFigures({"a load": points}, runs[1][0])
    assert figures.linear_until_full("a load") == is_linear
