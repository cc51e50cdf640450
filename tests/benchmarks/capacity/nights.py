"""The nights that docs/scaling.md foretells: as the function comes, and as it should be set for so many."""

from __future__ import annotations

from collections.abc import Mapping

from ..drained_run import DrainLoad
from .prediction import Night
from .prices import LARGE, SMALL, XL

# An engine that does some work, a quarter of whose outcomes are more than "not triggered".
LATENCY_MS = 50.0
NOTABLE = 0.25


def _as_it_comes(mentors: int, *, users_per_call: int = 100) -> DrainLoad:
    return DrainLoad(mentors, 4, 32, users_per_call, 500, LATENCY_MS, NOTABLE)


NIGHTS: Mapping[str, Night] = {
    "1 million, as it comes": Night(_as_it_comes(1_000_000), SMALL, 25, 90),
    "1 million, 1 user a call": Night(_as_it_comes(1_000_000, users_per_call=1), SMALL, 25, 90),
    "10 million, as it comes": Night(_as_it_comes(10_000_000), LARGE, 25, 90),
    "10 million, set for it": Night(DrainLoad(10_000_000, 4, 32, 100, 1000, LATENCY_MS, NOTABLE), LARGE, 40, 30),
    "100 million, set for it": Night(DrainLoad(100_000_000, 4, 32, 100, 1000, LATENCY_MS, NOTABLE), XL, 40, 7),
}
