"""How long a slice may still work: one value, handed to everything that waits."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Deadline:
    """A span of time that started when this value was made.

    Args:
        seconds: the whole span.
        clock: monotonic seconds; replaced in tests.
    """

    seconds: float
    clock: Callable[[], float] = time.monotonic
    started_at: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "started_at", self.clock())

    def elapsed(self) -> float:
        """Returns the seconds since the start."""
        return self.clock() - self.started_at

    def remaining(self) -> float:
        """Returns the seconds left; never negative."""
        return max(0.0, self.seconds - self.elapsed())
