"""What is asked of contenders, and what their time is compared with."""

from __future__ import annotations

import pytest

from tests.benchmarks.peers.fast_engine import EngineStats
from tests.benchmarks.peers.figures import Load, ideal_seconds
from tests.benchmarks.peers.measured_call import check
from tests.emulator.errors import EmulatorError

LOAD = Load.single(100, in_flight=64)


def stats(*, calls: int = 300, distinct: int = 300, duplicates: int = 0, max_in_flight: int = 64) -> EngineStats:
    return EngineStats(
        pid=1,
        calls=calls,
        evaluations=distinct + duplicates,
        distinct=distinct,
        duplicates=duplicates,
        in_flight=0,
        max_in_flight=max_in_flight,
        connections=64,
        busy_seconds=1.0,
        latency_seconds=6.0,
        longest_seconds=0.02,
    )


@pytest.mark.parametrize(
    ("load", "calls"),
    [
        (Load.single(100, 64), 300),
        (Load.shared(1000, 64), 10),
        (Load.shared(1001, 64), 11),
        (Load(100, 64, users_per_call=1, types_per_call=2), 200),
    ],
)
def test_calls_are_counted_with_the_last_ones_that_are_not_full(load: Load, calls: int) -> None:
    assert load.calls == calls
    assert load.evaluations == load.mentors * 3


def test_the_ideal_is_the_latency_shared_by_the_places() -> None:
    assert ideal_seconds(30_000 * 0.02, 0.02, 64) == pytest.approx(9.375)


def test_no_schedule_is_shorter_than_the_longest_call() -> None:
    assert ideal_seconds(10.0, 1.5, 64) == 1.5


def test_a_run_that_did_what_was_asked_has_figures() -> None:
    check("it", LOAD, stats(), 300)


@pytest.mark.parametrize(
    ("seen", "results", "complaint"),
    [
        (stats(distinct=299), 300, "the engine saw 299"),
        (stats(duplicates=1), 300, "1 again"),
        (stats(), 299, "299 are stored"),
        (stats(calls=100), 300, "300 calls were expected, not 100"),
        (stats(max_in_flight=65), 300, "at most 64 calls in flight"),
    ],
    ids=["lost", "repeated", "not stored", "other calls", "too many in flight"],
)
def test_a_run_that_did_not_has_none(seen: EngineStats, results: int, complaint: str) -> None:
    with pytest.raises(EmulatorError, match=complaint):
        check("it", LOAD, seen, results)
