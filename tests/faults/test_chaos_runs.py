"""Runs drawn from seeds: whatever breaks and whenever, every pair is accounted for once. `make soak` has more."""

from __future__ import annotations

import pytest

from tests.faults.chaos_plan import ANYTHING, Kind, draw
from tests.faults.chaos_run import play
from tests.integration.scheduled_runs.harness import Harness

SEEDS: list[tuple[Kind, int]] = [("kills", 3), ("mixed", 273), ("mixed", 281), ("mixed", 356)]


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
async def test_whatever_breaks_every_pair_is_evaluated_once(harness: Harness, kind: Kind, seed: int) -> None:
    drawn = draw(kind, seed)

    played = await play(drawn, harness)

    # It was under way when something broke, or nothing is shown. A cancel before that is something, too.
    assert drawn.faults[0] in played.struck or played.status == "cancelled"


def test_the_seeds_draw_every_fault_and_every_engine_trouble() -> None:
    runs = [draw(kind, seed) for kind, seed in SEEDS]

    assert {fault.what for run in runs for fault in run.faults} == set(ANYTHING)
    troubles = {name for run in runs for name, much in vars(run.engine).items() if much}
    assert troubles == set(vars(runs[0].engine))
    assert {run.functions for run in runs} == {1, 2, 3}
