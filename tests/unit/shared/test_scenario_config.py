"""Which scenario types apply to whom: the environment's, as the rows of the table override them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.scenario_config import MAX_WARNINGS, Scenarios
from shared.scenario_table import ScenarioTable
from shared.scenario_types import ScenarioType
from tests.unit.fake_database import FakeDatabase
from tests.unit.functions.fake_sql import config_row as row
from tests.unit.log_lines import LogLines

TYPES = (
    ScenarioType(type="new", segments=frozenset({"new"})),
    ScenarioType(type="all"),
    ScenarioType(type="off", enabled=False),
)
Row = dict[str, Any]
WEEKLY, DAILY = "0 6 * * 1", "0 6 * * *"
UNUSED = "it is taken as not set"


def resolved(*rows: Row, types: Sequence[ScenarioType] = TYPES, **members: Any) -> Scenarios:
    return Scenarios.resolve(types, rows).model_copy(update=members)


def words(types: Sequence[str]) -> str:
    return " ".join(types)


NORTH_OFF = row("all", "north", enabled=False)


@pytest.mark.parametrize(
    ("rows", "segments", "applicable"),
    [
        # Without rows, and with one that says nothing, as SCENARIO_TYPES says.
        ([], "new", "new all"),
        ([], "", "all"),
        ([row("new"), row("all", "north")], "new org:north", "new all"),
        # A row holds for all mentors, member by member.
        ([row("all", enabled=False)], "new", "new"),
        ([row("off", enabled=True)], "", "all off"),
        ([row("new", segments=["old"])], "new", "all"),
        ([row("new", segments=["old"])], "old", "new all"),
        ([row("new", segments=[])], "", "new all"),
        ([row("new", enabled=True, schedule=WEEKLY)], "new", "new all"),
        # One of an organization, for its mentors alone and before the other.
        ([NORTH_OFF], "org:north", ""),
        ([NORTH_OFF], "org:south", "all"),
        ([NORTH_OFF], "north", "all"),
        ([row("all", "", enabled=False)], "org:", ""),
        ([row("all", "a:b", enabled=False)], "org:a:b", ""),
        ([row("new", "north", segments=[])], "org:north", "new all"),
        ([row("new", "north", segments=[])], "org:south", "all"),
        ([row("new", segments=["old"]), row("new", "north", segments=["new"])], "org:north old", "all"),
        ([row("new", segments=["old"]), row("new", "north", segments=["new"])], "org:north new", "new all"),
        ([row("new", segments=["old"]), row("new", "north", enabled=True)], "org:north old", "new all"),
        # In several, the first by name that sets a member decides it.
        ([row("new", "b", segments=[]), row("new", "a", segments=["x"])], "org:b org:a", "all"),
        ([row("new", "b", segments=[]), row("new", "a", segments=["x"])], "org:b org:a x", "new all"),
        ([row("new", "b", segments=[]), row("new", "a", enabled=True)], "org:b org:a", "new all"),
        # False holds in whatever row.
        ([NORTH_OFF, row("all", enabled=True)], "org:north", ""),
        ([row("all", enabled=False), row("all", "north", enabled=True)], "org:north", ""),
        ([row("off", "north", enabled=True)], "org:north", "all"),
        (
            [NORTH_OFF, row("all", "a", enabled=True), row("all", "south", enabled=True)],
            "org:a org:north org:south",
            "",
        ),
    ],
)
def test_rows_override_types_member_by_member(rows: list[Row], segments: str, applicable: str) -> None:
    for order in (rows, rows[::-1]):
        scenarios = resolved(*order)
        assert words(scenarios.types_for(segments.split())) == applicable
        assert scenarios.warnings == ()
        chosen = frozenset({"all", "off"})
        assert words(scenarios.types_for(segments.split(), chosen)) == words(
            [name for name in applicable.split() if name in chosen]
        )


@pytest.mark.parametrize(
    ("not_due", "of_north", "of_others", "enabled"),
    [
        ([], "new all", "new all", "new all"),
        ([("all", None)], "new all", "new", "new"),
        ([("all", "north")], "new", "new all", "new all"),
        ([("all", None), ("all", "north"), ("new", None)], "", "", ""),
        # The organization sets no schedule of this type: the general one holds for it too.
        ([("new", None)], "all", "all", "all"),
    ],
)
def test_the_schedule_that_decides_has_to_be_due(
    not_due: list[tuple[str, str | None]], of_north: str, of_others: str, enabled: str
) -> None:
    rows = [row("new", schedule=DAILY), row("new", "north", enabled=True)]
    rows += [row("all", schedule=WEEKLY), row("all", "north", schedule=DAILY)]
    scenarios = resolved(*rows, not_due=frozenset(not_due))
    assert words(scenarios.types_for(["new", "org:north"])) == of_north
    assert words(scenarios.types_for(["new", "org:south"])) == of_others
    assert words(scenarios.enabled_types()) == enabled, "of a mentor whose segments are unknown"


def test_schedules_in_force_fired_at_or_before_the_slot() -> None:
    rows = [row("new", schedule=WEEKLY), row("new", "north", schedule=DAILY), row("all", "north", schedule=DAILY)]
    rows += [row("new", "south", schedule=DAILY, enabled=False), row("off", schedule=DAILY)]
    monday_six_in_oslo = datetime(2026, 11, 30, 5, 0, tzinfo=UTC)
    fired = {
        (each["scenario_type"], each["organization"]): each["fired_at"]
        for each in resolved(*rows).fires(monday_six_in_oslo, "Europe/Oslo")
    }
    at_the_slot = "2026-11-30T05:00:00+00:00"
    assert fired == dict.fromkeys([("new", None), ("new", "north"), ("all", "north")], at_the_slot)
    (first, *_) = resolved(*rows).fires(datetime(2026, 11, 30, 4, 59, tzinfo=UTC), "Europe/Oslo")
    assert first["fired_at"] == "2026-11-23T05:00:00+00:00"


# Rows that cannot be used


UNKNOWN = "expected a type of SCENARIO_TYPES; the row is ignored"
TEXTS, CRON = "segments: expected texts, found", "schedule: expected a cron expression of five fields, found"


@pytest.mark.parametrize(
    ("bad", "applicable", "warning"),
    [
        (row("gone", enabled=False), "new all", f"gone: {UNKNOWN}"),
        (row("gone", "a\nb"), "new all", f"gone, organization a\N{REPLACEMENT CHARACTER}b: {UNKNOWN}"),
        (row("new", segments=[None]), "new all", f"new, {TEXTS} [None]; {UNUSED}"),
        (row("new", segments=[["x"]], enabled=False), "all", f"new, {TEXTS} [['x']]; {UNUSED}"),
        (row("new", "north", segments=[None]), "new all", f"new, organization north, {TEXTS} [None]; {UNUSED}"),
        (row("new", segments=["x"], schedule="daily"), "all", f"new, {CRON} 'daily'; {UNUSED}"),
        (row("new", schedule="0 0 31 2 *"), "new all", f"new, {CRON} '0 0 31 2 *': Bad day-of-month; {UNUSED}"),
        (
            row("all", "north", enabled=False, schedule="@daily"),
            "new",
            f"all, organization north, {CRON} '@daily'; {UNUSED}",
        ),
    ],
)
def test_only_the_member_that_cannot_be_used_falls_back(bad: Row, applicable: str, warning: str) -> None:
    scenarios = resolved(bad)
    assert scenarios.warnings == (warning,)
    assert words(scenarios.types_for(["new", "org:north"])) == applicable
    assert scenarios.fires(datetime(2026, 11, 30, tzinfo=UTC), "UTC") == []


@pytest.mark.parametrize(("rows", "others"), [(MAX_WARNINGS, None), (MAX_WARNINGS + 1, 2), (1000, 981)])
def test_a_run_keeps_twenty_warnings_at_most(rows: int, others: int | None) -> None:
    warnings = resolved(*(row(f"gone_{n}") for n in range(rows))).warnings
    assert len(warnings) == MAX_WARNINGS
    assert warnings[0].startswith("gone_0: ")
    assert others is None or warnings[-1] == f"and {others} more"


# Retries


@pytest.mark.parametrize(
    ("rows", "types", "off", "off_in_north"),
    [
        ([], TYPES, "", ""),
        ([row("all", enabled=False)], TYPES, "all", "all"),
        ([NORTH_OFF], TYPES, "", "all"),
        ([NORTH_OFF, row("new", enabled=False)], TYPES, "new", "new all"),
        # Not named by SCENARIO_TYPES any more.
        ([], TYPES[1:], "new", "new"),
        # What else has changed makes no difference.
        (
            [row("new", segments=["x"], schedule=WEEKLY), row("all", "north", enabled=True, segments=["x"])],
            TYPES,
            "",
            "",
        ),
    ],
)
def test_a_retry_leaves_out_only_types_that_are_off_now(
    rows: list[Row], types: Sequence[ScenarioType], off: str, off_in_north: str
) -> None:
    source = resolved(row("off", enabled=True), row("new", segments=["old"]), not_due=frozenset({("off", None)}))
    retry = resolved(*rows, types=types, source=source)
    for mentor, expected in (("org:south", off), ("org:north", off_in_north)):
        assert words(retry.switched_off(("new", "all"), [mentor])) == expected
    assert words(retry.types_for(["old", "org:north"])) == words(source.types_for(["old", "org:north"])) == "new all"
    assert words(retry.types_for(["new"])) == "all"
    assert retry.enabled_types() == source.enabled_types() == ("new", "all")
    assert resolved(*rows, types=types).switched_off(("new", "all"), ["org:north"]) == (), "it is no retry"


def test_only_organizations_with_types_off_are_looked_up() -> None:
    rows = [NORTH_OFF, row("new", "north", enabled=False), row("new", "east", enabled=False)]
    rows += [row("all", "south", enabled=True), row("all", "west", segments=["x"]), row("gone", "far", enabled=False)]
    assert resolved(*rows).organizations_with_types_off() == ["east", "north"]


# The table, and what is frozen of it


def test_what_is_frozen_is_read_back_equal() -> None:
    rows = [row("new", segments=[], schedule=WEEKLY), row("off", enabled=True), row("all", "north", segments=["x"])]
    rows += [NORTH_OFF | {"organization": "south"}, row("new", "empty"), row("gone"), row("all", schedule="never")]
    source = resolved(*rows, not_due=frozenset({("new", None), ("all", "north")}))
    for scenarios in (resolved(), source, resolved(NORTH_OFF, source=source)):
        # As it is recorded, and without what the database makes of it: keys in another order.
        written = scenarios.model_dump_json(exclude_defaults=True)
        read = Scenarios.model_validate_json(written)
        assert read == scenarios
        for segments in ("", "new", "x org:north", "org:south", "org:empty new"):
            assert read.types_for(segments.split()) == scenarios.types_for(segments.split())


async def test_a_new_version_warns_once_and_is_recorded(log: LogLines) -> None:
    bad = [row("gone"), row("all", segments=[None])]
    versions = [("v1", bad), ("v1", bad), ("v2", bad[:1]), ("", [])]
    answers = [None, *({"version": version, "rows": rows} for version, rows in versions)]
    known: list[str] = []

    def answer(arguments: Row) -> Row | None:
        known.append(arguments["known_version"])
        return answers[len(known) - 1]

    database = FakeDatabase(functions={"scheduler_scenario_config": answer})
    table = ScenarioTable(TYPES)
    logged, warned = [], []
    for _ in answers:
        await table.refresh(database)
        logged.append(len(log.of("scenario_config_invalid")))
        warned.append(len(table.recorded()["scenarios"].get("warnings", ())))
    assert (known, logged, warned) == (["", "", "v1", "v1", "v2"], [0, 2, 2, 3, 3], [0, 2, 2, 1, 0])
    first = log.of("scenario_config_invalid")[0]
    assert first["severity"] == "WARNING"
    assert first["message"].startswith("Row of scenario_evaluation_config: gone: expected a type of SCENARIO_TYPES")
    assert table.recorded() == ScenarioTable(TYPES).recorded()
