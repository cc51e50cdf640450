"""What the exit code of `run` says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.emulator.summary import Repeat, Summary
from tests.unit.emulator.runs import a_run

NOTHING_CHANGED = Repeat(status_code=200, deduplicated=True, new_notifications=0, same_counts=True)


def summary_of(status: str) -> Summary:
    return Summary(a_run(status, triggered=100), 100, (), NOTHING_CHANGED)


@pytest.mark.parametrize(
    ("status", "code"), [("succeeded", 0), ("partial", 3), ("failed", 4), ("cancelled", 1), ("skipped", 1)]
)
def test_each_end_has_its_exit_code(status: str, code: int) -> None:
    assert summary_of(status).exit_code == code
    assert summary_of(status).as_object()["exit_code"] == code


@pytest.mark.parametrize("change", [{"deduplicated": False}, {"new_notifications": 1}, {"same_counts": False}], ids=str)
def test_a_second_fire_that_changes_something_is_no_success(change: dict[str, object]) -> None:
    assert replace(summary_of("succeeded"), repeat=replace(NOTHING_CHANGED, **change)).exit_code == 1  # type: ignore[arg-type]


def test_a_success_that_missed_somebody_is_none() -> None:
    missed = ("a_type: 3 mentors, 2 evaluated",)
    assert replace(summary_of("succeeded"), missing=missed).exit_code == 1
    assert replace(summary_of("partial"), missing=missed).exit_code == 3


def test_speed_is_of_what_was_evaluated_in_the_time_it_took() -> None:
    found = summary_of("succeeded").as_object()
    assert (found["seconds"], found["evaluations_per_second"]) == (2.0, 50.0)
