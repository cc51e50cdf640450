"""Runs drawn from seeds: whatever breaks and whenever, every pair is accounted for once. `make soak` has more."""

from __future__ import annotations

import pytest

from tests.faults.played_night import play
from tests.faults.random_night import ANYTHING, Kind, draw
from tests.integration.nightly.night import Night

SEEDS: list[tuple[Kind, int]] = [("kills", 3), ("mixed", 273), ("mixed", 281), ("mixed", 356)]


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
async def test_whatever_breaks_every_pair_is_evaluated_once(night: Night, kind: Kind, seed: int) -> None:
    drawn = draw(kind, seed)

    played = await play(drawn, night)

    # It was under way when something broke, or nothing is shown. A cancel before that is something, too.
    assert drawn.faults[0] in played.struck or played.status == "cancelled"


def test_the_seeds_draw_every_fault_and_every_engine_trouble() -> None:
    nights = [draw(kind, seed) for kind, seed in SEEDS]

    assert {fault.what for night in nights for fault in night.faults} == set(ANYTHING)
    troubles = {name for night in nights for name, much in vars(night.engine).items() if much}
    assert troubles == set(vars(nights[0].engine))
    assert {night.functions for night in nights} == {1, 2, 3}
