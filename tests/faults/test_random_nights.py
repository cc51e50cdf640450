"""Nights drawn from seeds: whatever breaks and whenever, everybody is accounted for once. `make soak` has more."""

from __future__ import annotations

import pytest

from tests.faults.played_night import play
from tests.faults.random_night import ANYTHING, Kind, draw
from tests.integration.nightly.night import Night

KILLS = (3,)
MIXED = (273, 281, 356)
SEEDS: list[tuple[Kind, int]] = [*(("kills", seed) for seed in KILLS), *(("mixed", seed) for seed in MIXED)]


@pytest.mark.parametrize(("kind", "seed"), SEEDS)
async def test_whatever_breaks_everybody_is_evaluated_once(night: Night, kind: Kind, seed: int) -> None:
    drawn = draw(kind, seed)

    played = await play(drawn, night)

    # It was under way when something broke, or nothing is shown. A cancel before that is something, too.
    assert drawn.faults[0] in played.struck or played.status == "cancelled"


def test_between_them_they_have_every_fault_and_every_trouble_with_the_engine() -> None:
    nights = [draw(kind, seed) for kind, seed in SEEDS]

    assert {fault.what for night in nights for fault in night.faults} == set(ANYTHING)
    troubles = {name for night in nights for name, much in vars(night.engine).items() if much}
    assert troubles == set(vars(nights[0].engine))
    assert {night.functions for night in nights} == {1, 2, 3}


def test_the_same_seed_draws_the_same_night_and_another_seed_another() -> None:
    assert draw("mixed", 7) == draw("mixed", 7)
    assert len({str(draw(kind, seed)) for kind in ("kills", "mixed", "crashes") for seed in range(50)}) == 150
