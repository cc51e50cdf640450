"""How far a run is said to be, and how fast."""

from __future__ import annotations

import io

import pytest

from tests.emulator.progress import Lines, Pace, console_for
from tests.unit.clock import ManualClock
from tests.unit.emulator.runs import a_run


def test_a_rate_is_that_of_the_last_seconds_and_in_the_end_of_all_of_it(clock: ManualClock) -> None:
    pace = Pace(clock)
    assert pace.rate(a_run()) is None
    clock.now += 2
    assert pace.rate(a_run(triggered=20)) == 10
    clock.now += 10
    assert pace.rate(a_run(triggered=20)) == 0
    clock.now += 2
    assert pace.rate(a_run(triggered=20, not_triggered=24)) == pytest.approx(2.0)
    assert pace.rate(a_run("succeeded", triggered=100)) == 50


def test_a_line_is_news_and_not_more_than_one_a_second_but_for_the_last(clock: ManualClock) -> None:
    stream = io.StringIO()
    lines = Lines(console_for(stream), clock)
    for seconds, run in (
        (0.0, a_run()),
        (0.5, a_run(triggered=10)),
        (0.5, a_run(triggered=20)),
        (5.0, a_run(triggered=20)),
        (0.1, {**a_run("partial", triggered=90, failed=10), "error": None}),
    ):
        clock.now += seconds
        lines.show(run)

    assert stream.getvalue().splitlines() == [
        "scheduled run: running, 0 of 100 evaluations",
        "scheduled run: running, 20 of 100 evaluations, 20/s",
        "scheduled run: partial, 100 of 100 evaluations, 50/s",
    ]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"triggered_by": "manual"}, "manual run"),
        ({"triggered_by": "manual", "dry_run": True}, "dry run"),
        ({"triggered_by": "retry"}, "retry"),
    ],
)
def test_a_run_is_called_what_it_is_and_says_what_it_waits_for(changes: dict[str, object], name: str) -> None:
    stream = io.StringIO()
    Lines(console_for(stream)).show({**a_run(), **changes, "error": "engine_unavailable"})
    assert stream.getvalue() == f"{name}: running (engine_unavailable), 0 of 100 evaluations\n"
