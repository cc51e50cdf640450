"""What is said of several processes, from the runs that were made."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.benchmarks.drained_run import DrainFigures, DrainLoad
from tests.benchmarks.independent import IndependentFigures
from tests.benchmarks.scale_out import WANTED_SHARE, ScaleOutFigures, ScaleOutPoint, points_of

SECONDS = {1: 15.2, 2: 7.7, 8: 2.05}


@pytest.fixture(scope="module")
def runs() -> dict[int, Sequence[DrainFigures]]:
    """Of one, two and eight processes, three rounds of each: 15.2, 7.7 and 2.05 seconds, give or take a little."""
    return {number: [_run(number, seconds * noise) for noise in (0.99, 1, 1.01)] for number, seconds in SECONDS.items()}


def _run(processes: int, seconds: float) -> DrainFigures:
    load = DrainLoad(2400, processes, in_flight=8, users_per_call=1, batch_size=20, latency_ms=50)
    return DrainFigures(load, seconds, 0.05 * processes, rows=7200, repeated=0, workers=processes, killed=0)


def independent(runs: dict[int, Sequence[DrainFigures]], slower: float = 1) -> dict[int, list[IndependentFigures]]:
    """As long as the others took; with several processes so many times as long."""
    return {
        number: [IndependentFigures(run.load, run.seconds * (slower if number > 1 else 1), 0.5) for run in figures]
        for number, figures in runs.items()
    }


def test_each_round_is_compared_with_itself(runs: dict[int, Sequence[DrainFigures]]) -> None:
    points = points_of(runs, independent(runs, slower=2))
    assert [point.processes for point in points] == [1, 2, 8]
    assert points[0].share_of_linear == points[0].independent_share == 1
    assert points[1].evaluations_per_second == pytest.approx(2 * points[0].evaluations_per_second, rel=0.05)
    assert all(WANTED_SHARE < point.share_of_linear <= 1.05 for point in points)
    assert all(point.independent_share == pytest.approx(point.share_of_linear / 2) for point in points[1:])
    assert [point.workers for point in points] == [1, 2, 8]


def test_a_machine_that_is_full_for_independent_processes_too_is_no_reproach(
    runs: dict[int, Sequence[DrainFigures]],
) -> None:
    def figures(independent_share: float) -> ScaleOutFigures:
        points = [
            ScaleOutPoint(1, 9, 100, 1, 1, 0.1, 1),
            ScaleOutPoint(2, 5, 180, 0.9, 0.9, 0.3, 2),
            ScaleOutPoint(4, 3, 300, 0.7, independent_share, 0.8, 4),
        ]
        return ScaleOutFigures({"a load": points}, runs[1][0])

    assert figures(WANTED_SHARE).least_share_of_linear("a load") == 0.7
    assert figures(WANTED_SHARE - 0.01).least_share_of_linear("a load") == 0.9
    assert figures(0.8).least_share_of_independent() == pytest.approx(0.7 / 0.8)
