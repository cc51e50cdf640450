"""What the exit code of `run` says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.emulator.summary import Repeat, Summary

NOTHING_CHANGED = Repeat(status_code=200, deduplicated=True, new_notifications=0, same_counts=True)
MISSED = ("a_type: 3 mentors, 2 evaluated",)


@pytest.mark.parametrize(
    ("status", "missing", "repeat", "exit_code"),
    [
        ("success", (), NOTHING_CHANGED, 0),
        ("partial", MISSED, NOTHING_CHANGED, 3),
        ("failed", (), NOTHING_CHANGED, 4),
        ("cancelled", (), NOTHING_CHANGED, 1),
        ("success", MISSED, NOTHING_CHANGED, 1),
        ("success", (), replace(NOTHING_CHANGED, deduplicated=False), 1),
        ("success", (), replace(NOTHING_CHANGED, new_notifications=1), 1),
        ("success", (), replace(NOTHING_CHANGED, same_counts=False), 1),
    ],
)
def test_only_a_whole_run_that_repeats_without_change_succeeds(
    status: str, missing: tuple[str, ...], repeat: Repeat, exit_code: int
) -> None:
    assert Summary({"status": status}, 100, missing, repeat).exit_code == exit_code
