"""The table `scenario_evaluation_config` as a process knows it, and its rows as operators see and change them."""

import logging
from datetime import datetime
from typing import Any

from pydantic import Field

from shared.database import Database
from shared.invocation import Moment, Shape
from shared.logs import log_event
from shared.scenario_config import ORGANIZATION_PREFIX, UNKNOWN_TYPE, Scenario, Scenarios, read_rule
from shared.scenario_types import ScenarioType
from shared.schedule import MINUTE, Schedule

# Of one type, by organization.
_Rows = dict[str | None, dict[str, Any]]
# What an entry shows where there is no row.
_NO_ROW: dict[str, Any] = dict.fromkeys(("enabled", "segments", "schedule", "updated_at", "updated_by"))


class EffectiveConfig(Shape):
    """What all rows make together for the mentors of an entry."""

    enabled: bool
    segments: list[str] = Field(description="The type applies to mentors in one of them; without any to all.")
    schedule: str | None = Field(description="A cron expression in `evaluation_timezone`; null: each slot.")
    next_slot: Moment | None = Field(description="The first slot to come at which it is due; null where it is off.")


class ScenarioConfig(Shape):
    """A scenario type for all mentors, or for those of one organization."""

    scenario_type: str
    organization: str | None = Field(description="It is about mentors with the segment `org:NAME`; null: about all.")
    enabled: bool | None = Field(description="As the row has it; null, as for the next two: not set.")
    segments: list[str] | None
    schedule: str | None
    effective: EffectiveConfig
    warnings: list[str] = Field(description="What the row has that cannot be used, and is shown as not set.")
    updated_at: Moment | None = Field(description="Null where there is no row.")
    updated_by: str | None = Field(
        description="The caller: a token's name, a user's id; of a change in SQL, the database role."
    )


class ScenarioTable:
    """The table as this process knows it; the call that opens a run sends its version, and returns another one."""

    def __init__(self, types: tuple[ScenarioType, ...]) -> None:
        self._types = types
        self._rows: list[dict[str, Any]] = []
        self.version = ""  # of an empty table
        self.scenarios = Scenarios.resolve(types, [])

    async def refresh(self, database: Database) -> None:
        """Reads the table where it has changed; raises DatabaseError."""
        self.learn(await database.call("scheduler_scenario_config", known_version=self.version))

    async def reload(self, database: Database) -> None:
        """Reads the table, also what belongs to no version: marks and who changed it; raises DatabaseError."""
        self.learn(await database.call("scheduler_scenario_config", known_version=None))

    async def configure(
        self,
        database: Database,
        scenario_type: str,
        organization: str | None,
        changes: dict[str, Any],
        *,
        updated_by: str,
    ) -> bool:
        """Changes the given members of a row, which is made where there is none; raises DatabaseError.

        Returns False where there is none and the table is full.
        """
        arguments = {"scenario_type": scenario_type, "organization": organization, "changes": changes}
        table = await database.call("scheduler_configure_scenario", **arguments, updated_by=updated_by)
        self.learn(table)
        return table is not None

    def learn(self, table: dict[str, Any] | None) -> None:
        """Takes over a version of the table; None: it has not changed."""
        if table is None:
            return
        is_known = table["version"] == self.version
        self.version, self._rows = table["version"], table["rows"]
        if is_known:
            return
        self.scenarios = Scenarios.resolve(self._types, self._rows)
        for warning in self.scenarios.warnings:
            log_event("scenario_config_invalid", f"Row of scenario_evaluation_config: {warning}", level=logging.WARNING)

    def recorded(self) -> dict[str, Any]:
        """Returns what is frozen with a run that is opened now."""
        return {"scenarios": self.scenarios.model_dump(mode="json", exclude_defaults=True)}

    def entries(self, slots: Schedule, now: datetime) -> list[ScenarioConfig]:
        """Returns each configured type, followed by its organizations' rows, and at the end rows of other types.

        Args:
            slots: the schedule that runs are opened by.
            now: an aware time, after which the next slots are.
        """
        by_type: dict[str, _Rows] = {each.type: {None: _NO_ROW} for each in self._types}
        for row in self._rows:
            by_type.setdefault(row["scenario_type"], {})[row["organization"]] = row
        scenarios = {each.type: each for each in self.scenarios.types}
        entries: list[ScenarioConfig] = []
        for scenario_type, rows in by_type.items():
            for organization, row in rows.items():
                rule, warnings = read_rule(row)
                if scenario_type in scenarios:
                    effective = _effective(scenarios[scenario_type], organization, rows, slots, now)
                else:
                    effective = EffectiveConfig(enabled=False, segments=[], schedule=None, next_slot=None)
                    warnings.insert(0, UNKNOWN_TYPE)
                entry = ScenarioConfig(
                    scenario_type=scenario_type,
                    organization=organization,
                    **rule.model_dump(),
                    effective=effective,
                    warnings=warnings,
                    updated_at=row["updated_at"],
                    updated_by=row["updated_by"],
                )
                entries.append(entry)
        return entries


def _effective(
    scenario: Scenario, organization: str | None, rows: _Rows, slots: Schedule, now: datetime
) -> EffectiveConfig:
    rule = scenario.rule_for([] if organization is None else [ORGANIZATION_PREFIX + organization])
    after = now
    if rule.schedule is not None:
        mark = datetime.fromisoformat(rows[rule.scheduled_by]["due_after"])
        fire = Schedule(rule.schedule, slots.timezone).current_and_next(mark)[1]
        after = max(now, fire - MINUTE)
    return EffectiveConfig(
        enabled=rule.enabled,
        segments=sorted(rule.segments),
        schedule=rule.schedule,
        next_slot=slots.current_and_next(after)[1] if rule.enabled else None,
    )
