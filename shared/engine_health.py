"""Whether the engine answers: what tells one failing user from an engine that is down, where no canary can be sent."""

from __future__ import annotations

import math

from shared.deadline import Deadline

# Users whose calls may fail without an answer in between before the engine is taken to be down. Where every second call
# fails, that many in a row are one chance in 500.
MAX_FAILING_USERS = 8


class EngineHealth:
    """What the calls of this process, and the records of others, show; times are on the time budgets' clock."""

    def __init__(self) -> None:
        self.answers = 0
        """Calls that the engine answered or refused so far: two readings show whether it is down."""
        self._answered_at = -math.inf
        self._failing_since: set[str] = set()  # as many as matter

    def note_answer(self, deadline: Deadline) -> None:
        """Notes an answer of the engine to a call of this process."""
        self.answers += 1
        self._failing_since.clear()
        self.suggest_answer(deadline)

    def suggest_answer(self, deadline: Deadline) -> None:
        """Notes that the engine answered a call within the last time budget, perhaps one of another process."""
        self._answered_at = deadline.clock()

    def answered_recently(self, deadline: Deadline) -> bool:
        """Returns whether the engine is known to have answered within the last time budget."""
        return deadline.clock() - self._answered_at <= deadline.seconds

    def answers_others(self, failing_user_id: str, deadline: Deadline) -> bool:
        """Returns whether the engine answered within the last time budget, and few users failed since.

        The second, because an outage must not fail as many users as it has time for.
        """
        if len(self._failing_since) <= MAX_FAILING_USERS:
            self._failing_since.add(failing_user_id)
        return self.answered_recently(deadline) and len(self._failing_since) <= MAX_FAILING_USERS
