"""The results of one batch while it is evaluated: one for each pair, with attempts and last errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.engine_response import EngineResponse, Pair
from shared.errors import EngineError
from shared.evaluations import EvaluationResult, MentorScenarios, Outcome

Users = Sequence[MentorScenarios]


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Results in the batch's order.

    Args:
        remaining: some users without results, whose retries hit the deadline.
        fatal_error: what ended the calls before the deadline, the engine being down or refusing access.
    """

    results: list[EvaluationResult]
    remaining: tuple[str, ...] = ()
    fatal_error: EngineError | None = None


class ResultLedger:
    """Stores results by pair; those with a skip reason are `skipped` from the start."""

    def __init__(self, users: Users) -> None:
        # In the batch's order; None: not resolved yet.
        self._results: dict[Pair, EvaluationResult | None] = dict.fromkeys(_pairs(users))
        # Calls that carried a pair and left it without a result: empty while all calls succeed.
        self._attempts: Counter[Pair] = Counter()
        self._last_errors: dict[Pair, EngineError] = {}
        for user in users:
            if user.skip_reason is not None:
                for pair in _pairs([user]):
                    self._record(pair, "skipped", user.skip_reason)

    def result(self) -> BatchResult:
        """Returns the results of users who have all of theirs, and the remaining users."""
        resolved = [result for result in self._results.values() if result is not None]
        if len(resolved) == len(self._results):
            return BatchResult(resolved)
        remaining = dict.fromkeys(user_id for (user_id, _), result in self._results.items() if result is None)
        return BatchResult([result for result in resolved if result.user_id not in remaining], tuple(remaining))

    def store_final(self, users: Users, response: EngineResponse) -> list[MentorScenarios]:
        """Stores the results that are final; returns the users with other pairs, and those."""
        if response.is_final and not self._attempts:
            self._results.update(response.results)
            return []
        unsettled: list[MentorScenarios] = []
        for user in users:
            left: list[str] = []
            for scenario_type in user.scenario_types:
                pair = (user.user_id, scenario_type)
                result = response.results[pair]
                if result is None or pair in response.retryable:
                    self._attempts[pair] += 1
                    left.append(scenario_type)
                else:
                    self._results[pair] = result._replace(attempts=self._attempts.get(pair, 0) + 1)
            if left:
                unsettled.append(user._replace(scenario_types=tuple(left)))
        return unsettled

    def store_last(self, user: MentorScenarios, response: EngineResponse, error: EngineError) -> None:
        """Stores the engine's last result for each pair of a user; pairs that it left out fail by `error`."""
        self.fail(user, error)
        for pair in _pairs([user]):
            if (result := response.results[pair]) is not None:
                self._results[pair] = result._replace(attempts=self._attempts[pair])

    def note_failed_call(self, users: Users, error: EngineError) -> None:
        """Counts an attempt for each pair of the call, and keeps the error."""
        pairs = list(_pairs(users))
        self._attempts.update(pairs)
        self._last_errors.update(dict.fromkeys(pairs, error))

    def unresolved(self, users: Users) -> list[MentorScenarios]:
        """Returns the users with pairs that have no result yet, and those pairs."""
        return [
            MentorScenarios(user.user_id, unresolved)
            for user in users
            if (unresolved := tuple(t for t in user.scenario_types if self._results[user.user_id, t] is None))
        ]

    def fail(self, user: MentorScenarios, error: EngineError) -> None:
        """Fails each pair of a user."""
        for pair in _pairs([user]):
            self._record(pair, "failed", error.code, error.message)

    def fail_by_last_error(self, users: Users, otherwise: EngineError) -> None:
        """Fails each unresolved pair by its own last error, where it has one."""
        for pair in _pairs(self.unresolved(users)):
            error = self._last_errors.get(pair, otherwise)
            self._record(pair, "failed", error.code, error.message)

    def _record(self, pair: Pair, outcome: Outcome, code: str, message: str | None = None) -> None:
        self._results[pair] = EvaluationResult(*pair, outcome, self._attempts[pair], code, message)


def _pairs(users: Users) -> Iterator[Pair]:
    return ((user_id, scenario_type) for user_id, scenario_types, *_ in users for scenario_type in scenario_types)
