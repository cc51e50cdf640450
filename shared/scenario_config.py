"""Which scenario types apply to which mentors: the environment's, overridden by `scenario_evaluation_config`.

A row without an organization holds for all mentors; one with an organization, for those with the segment `org:NAME`,
before it. `enabled = false` holds in whatever row. Thresholds and cooldowns of a scenario are the engine's.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import Field, PlainSerializer

from shared.invocation import Shape
from shared.sanitize import sanitize
from shared.scenario_types import ScenarioType
from shared.schedule import Schedule, cron_expression

ORGANIZATION_PREFIX = "org:"
MAX_WARNINGS = 20
NOT_SET = "it is taken as not set"
UNKNOWN_TYPE = "expected a type of SCENARIO_TYPES; the row is ignored"

Segments = Annotated[frozenset[str], PlainSerializer(sorted, return_type=list[str])]


class Rule(Shape):
    """What one row says; None: as the more general rule has it.

    Args:
        segments: the type applies to mentors in one of them; empty: to all.
        schedule: a cron expression in EVALUATION_TIMEZONE; None in the most general rule: each slot.
    """

    enabled: bool | None = None
    segments: Segments | None = None
    schedule: str | None = None


class RuleInForce(NamedTuple):
    """What holds for one mentor.

    Args:
        scheduled_by: the organization whose rule has the schedule; None: all mentors' rule, or none has one.
    """

    enabled: bool
    segments: frozenset[str]
    schedule: str | None
    scheduled_by: str | None


class Scenario(Rule):
    """A scenario type: the rule of all mentors, and the rules of organizations by name."""

    type: str
    organizations: dict[str, Rule] = Field(default_factory=dict)

    def rules_for(self, segments: Collection[str]) -> list[tuple[str | None, Rule]]:
        """Returns the rules for a mentor in `segments`, the most specific first, each with its organization."""
        names = sorted(s.removeprefix(ORGANIZATION_PREFIX) for s in segments if s.startswith(ORGANIZATION_PREFIX))
        return [*((name, self.organizations[name]) for name in names if name in self.organizations), (None, self)]

    def rule_for(self, segments: Collection[str]) -> RuleInForce:
        """Returns what its rules make together for a mentor in `segments`."""
        rules = self.rules_for(segments)
        scheduled_by, schedule = next(((name, rule.schedule) for name, rule in rules if rule.schedule), (None, None))
        return RuleInForce(
            enabled=all(rule.enabled is not False for _, rule in rules),
            segments=next((rule.segments for _, rule in rules if rule.segments is not None), frozenset()),
            schedule=schedule,
            scheduled_by=scheduled_by,
        )


class Scenarios(Shape):
    """The scenario types in their order: what is frozen when a run opens.

    Args:
        not_due: the schedules, by type and organization, that are not due at the run's slot.
        warnings: members of rows that cannot be used; at most `MAX_WARNINGS`.
        source: of a retry, what was frozen for the run that it retries, and holds for it.
    """

    types: tuple[Scenario, ...] = ()
    not_due: frozenset[tuple[str, str | None]] = frozenset()
    warnings: tuple[str, ...] = ()
    source: "Scenarios | None" = None

    @classmethod
    def resolve(cls, types: Iterable[ScenarioType], rows: Iterable[Mapping[str, Any]]) -> Self:
        """Returns the environment's types as the table's rows override them."""
        scenarios = {each.type: Scenario(**each.model_dump()) for each in types}
        warnings: list[str] = []
        for row in rows:
            name, organization = row["scenario_type"], row["organization"]
            where = name if organization is None else f"{name}, organization {organization}"
            if name not in scenarios:
                warnings.append(f"{where}: {UNKNOWN_TYPE}")
                continue
            rule, problems = read_rule(row)
            warnings += [f"{where}, {problem}" for problem in problems]
            if organization is None:
                set_members = {member: value for member, value in rule if value is not None}
                scenarios[name] = scenarios[name].model_copy(update=set_members)
            else:
                scenarios[name].organizations[organization] = rule
        if len(warnings) > MAX_WARNINGS:
            warnings[MAX_WARNINGS - 1 :] = [f"and {len(warnings) - MAX_WARNINGS + 1} more"]
        return cls(types=tuple(scenarios.values()), warnings=tuple(sanitize(text, limit=300) for text in warnings))

    def enabled_types(self, chosen: frozenset[str] | None = None) -> tuple[str, ...]:
        """Returns the types that are enabled and due, of the chosen ones if any, in the configured order."""
        not_due = (self.source or self).not_due
        return tuple(
            each.type
            for each in self._frozen
            if each.enabled is not False
            and (each.type, None) not in not_due
            and (chosen is None or each.type in chosen)
        )

    def types_for(self, segments: Collection[str], chosen: frozenset[str] | None = None) -> tuple[str, ...]:
        """Returns the types, of the chosen ones if any, that apply to a mentor in `segments`, in the same order."""
        not_due = (self.source or self).not_due
        return tuple(
            each.type
            for each in self._frozen
            if (chosen is None or each.type in chosen) and _applies(each, segments, not_due)
        )

    def switched_off(self, types: Iterable[str], segments: Collection[str]) -> tuple[str, ...]:
        """Returns those of a retry's types that are off since its source was opened, for a mentor in `segments`."""
        if self.source is None:
            return ()
        on = {each.type for each in self.types if each.rule_for(segments).enabled}
        return tuple(name for name in types if name not in on)

    def organizations_with_types_off(self) -> list[str]:
        """Returns the organizations that a type is switched off for."""
        return sorted(
            {name for each in self.types for name, rule in each.organizations.items() if rule.enabled is False}
        )

    def fires(self, slot: datetime, timezone: str) -> list[dict[str, str | None]]:
        """Returns when each schedule in force fired last, at or before the slot."""
        return [
            {"scenario_type": each.type, "organization": name, "fired_at": latest_fire(rule.schedule, timezone, slot)}
            for each in self.types
            if each.enabled is not False
            for name, rule in [(None, each), *each.organizations.items()]
            if rule.schedule is not None and rule.enabled is not False
        ]

    @property
    def _frozen(self) -> Sequence[Scenario]:
        return (self.source or self).types


def _applies(scenario: Scenario, segments: Collection[str], not_due: Collection[tuple[str, str | None]]) -> bool:
    enabled, wanted, _, scheduled_by = scenario.rule_for(segments)
    is_due = (scenario.type, scheduled_by) not in not_due
    return enabled and is_due and (not wanted or not wanted.isdisjoint(segments))


def read_rule(row: Mapping[str, Any]) -> tuple[Rule, list[str]]:
    """Returns what a row says, without members that cannot be used, and what is wrong with those."""
    problems: list[str] = []
    segments, schedule = row["segments"], row["schedule"]
    if segments is not None and not all(isinstance(segment, str) for segment in segments):
        problems.append(f"segments: expected texts, found {segments!r:.60}; {NOT_SET}")
        segments = None
    if schedule is not None:
        try:
            cron_expression(schedule)
        except ValueError as error:
            problems.append(f"schedule: {error}; {NOT_SET}")
            schedule = None
    return Rule(enabled=row["enabled"], segments=segments, schedule=schedule), problems


def latest_fire(schedule: str, timezone: str, slot: datetime) -> str:
    """Returns the schedule's latest fire time at or before the slot, in ISO 8601."""
    return Schedule(schedule, ZoneInfo(timezone)).current_and_next(slot)[0].isoformat()
