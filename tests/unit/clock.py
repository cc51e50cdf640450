"""Time under a test's control."""

from __future__ import annotations

# More than any test lets the code under test sleep: one that never stops trying fails instead of hanging.
MOST_SLEEPS = 1_000


class ManualClock:
    """Monotonic seconds that pass only where a test, or a `sleep` of the code under test, lets them."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        assert len(self.slept) < MOST_SLEEPS, f"slept {MOST_SLEEPS} times without end"
        self.slept.append(seconds)
        self.now += seconds
