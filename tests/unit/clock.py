"""Time under a test's control."""

from __future__ import annotations


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
        self.slept.append(seconds)
        self.now += seconds
