"""How long a slice may still work, and how often it may call: one value, passed to everything that waits."""

from __future__ import annotations

import time
from collections.abc import Callable

from shared.concurrency import Pace


class Deadline:
    """A span of time that starts when this value is made, by a monotonic clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self._started_at = clock()
        self.pace = Pace(0, self._started_at)

    def space_calls(self, seconds: float) -> None:
        """Has the engine's calls begin so far apart from now on; 0: as they come."""
        self.pace = Pace(seconds, self.clock())

    def may_call(self) -> bool:
        """Returns whether the turn of another call comes before the end."""
        return self.pace.next_at < self._started_at + self.seconds

    def elapsed(self) -> float:
        """Returns the seconds since the start."""
        return self.clock() - self._started_at

    def remaining(self) -> float:
        """Returns the seconds left; never negative."""
        return max(0.0, self.seconds - self.elapsed())
