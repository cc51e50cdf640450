"""Values: mentors with their scenario types, claimed batches, and results."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Outcome = Literal["triggered", "not_triggered", "suppressed", "skipped", "failed"]

# Why a pair is skipped.
MENTOR_NOT_ACTIVE = "mentor_not_active"
SCENARIO_NOT_APPLICABLE = "scenario_not_applicable"
INVALID_SEGMENTS = "invalid_segments"
SCENARIO_DISABLED = "scenario_disabled"
# From so many deliveries on a batch may hold a user who kills its workers.
SPLIT_FROM_DELIVERY = 3


class MentorScenarios(NamedTuple):
    """One mentor and scenario types; with a reason, these pairs are not sent to the engine.

    `unknown_types`: those of them whose outcome an earlier run left unknown.
    """

    user_id: str
    scenario_types: tuple[str, ...]
    skip_reason: str | None = None
    unknown_types: tuple[str, ...] = ()


class EvaluationResult(NamedTuple):
    """The result of one pair. `attempts`: the calls to the engine that carried it."""

    user_id: str
    scenario_type: str
    outcome: Outcome
    attempts: int = 1
    error_code: str | None = None
    error_message: str | None = None
    notification_id: str | None = None


@dataclass(frozen=True, slots=True)
class EvaluationBatch:
    """A claimed batch."""

    invocation_id: str
    batch_no: int
    users: tuple[MentorScenarios, ...]
    deliveries: int  # claims of it, this one included, without releases that count no delivery
    read_count: int  # of its message; distinguishes this claim from a later one
    engine_scope: str  # the first part of every idempotency key, fixed when the invocation was opened
    scheduled_for: str
    dry_run: bool
    is_poison: bool = False  # it is of one user, was split from a batch that lost its workers, and may kill this one

    @property
    def is_to_be_split(self) -> bool:
        """Returns whether it may crash its worker: two had it in hand and did not finish."""
        return self.deliveries >= SPLIT_FROM_DELIVERY and not self.is_poison

    @property
    def mentors(self) -> int:
        """Returns the number of mentors: in a retry one may be there several times, by its reason to be skipped."""
        return len({user.user_id for user in self.users})

    @property
    def log_fields(self) -> dict[str, Any]:
        """Returns the fields by which a log line names this batch."""
        return {"invocation_id": self.invocation_id, "slot": self.scheduled_for, "batch_no": self.batch_no}


class GroupedResults:
    """Results of a batch, grouped by everything but the user: many results form a few groups."""

    def __init__(self, results: Iterable[EvaluationResult]) -> None:
        self._groups: defaultdict[tuple[str, Outcome, int, str | None, str | None], list[EvaluationResult]]
        self._groups = defaultdict(list)
        for result in results:
            self._groups[result[1:6]].append(result)

    def scenario_counts(self) -> Mapping[str, Counter[str]]:
        """Counts as {scenario type: {outcome: n}}, zeros left out."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for (scenario_type, outcome, *_), members in self._groups.items():
            counts[scenario_type][outcome] += len(members)
        return counts

    def users_evaluated(self) -> int:
        """Counts the users with a pair that was evaluated: neither failed nor skipped."""
        evaluated: set[str] = set()
        for (_, outcome, *_), members in self._groups.items():
            if outcome not in ("failed", "skipped"):
                evaluated.update(result.user_id for result in members)
        return len(evaluated)

    def outcomes(self) -> Counter[str]:
        """Counts by outcome."""
        return sum(self.scenario_counts().values(), Counter[str]())

    def stored_rows(self) -> list[dict[str, Any]]:
        """Returns the results that get a row: all but `not_triggered`, which are counted."""
        return [
            {
                "scenario_type": scenario_type,
                "outcome": outcome,
                "attempts": attempts,
                "error_code": error_code,
                "error_message": error_message,
                "user_ids": [result.user_id for result in members],
                "notification_ids": _all_or_none([result.notification_id for result in members]),
            }
            for (scenario_type, outcome, attempts, error_code, error_message), members in self._groups.items()
            if outcome != "not_triggered"
        ]


def _all_or_none(notification_ids: list[str | None]) -> list[str | None] | None:
    return None if notification_ids.count(None) == len(notification_ids) else notification_ids


def to_pairs(users: Sequence[MentorScenarios]) -> list[dict[str, Any]]:
    """Returns the frozen form of a batch's pairs: users grouped by what they share, in each group as they came."""
    groups: defaultdict[tuple[tuple[str, ...], str | None, tuple[str, ...]], list[str]] = defaultdict(list)
    for user in users:
        groups[user[1:]].append(user.user_id)
    return [
        {"scenario_types": list(types), "user_ids": user_ids}
        | ({"skip": skip_reason} if skip_reason else {})
        | ({"unknown": list(unknown)} if unknown else {})
        for (types, skip_reason, unknown), user_ids in groups.items()
    ]


def from_pairs(pairs: Iterable[dict[str, Any]]) -> tuple[MentorScenarios, ...]:
    """Returns the users of a frozen form: the reverse of `to_pairs`."""
    return tuple(
        MentorScenarios(user_id, tuple(group["scenario_types"]), group.get("skip"), tuple(group.get("unknown", ())))
        for group in pairs
        for user_id in group["user_ids"]
    )
