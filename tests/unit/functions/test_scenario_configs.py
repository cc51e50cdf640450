"""`/api/v1/scenario-configs`: what operators see of the table and change in it."""

from __future__ import annotations

from typing import Any

import pytest

from functions.http.scenario_configs import router
from shared.scenario_config import UNKNOWN_TYPE
from tests.unit.functions.fake_sql import SLOT, config_row
from tests.unit.functions.http_function import ADMIN, Function, problem_in
from tests.unit.log_lines import LogLines

CERTIFICATION, INACTIVITY, MILESTONE = "certification_expiry", "inactivity", "milestone"
# Slots are daily at 02:00 UTC, and the first one after the clock, which is a Monday's 02:00:30, is:
NEXT = "2026-11-24T02:00:00Z"
MONDAYS, MONDAY = "0 2 * * 1", "2026-11-30T02:00:00Z"


async def listed(function: Function) -> dict[tuple[str, str | None], dict[str, Any]]:
    response = await function.http.get(router.prefix, headers=ADMIN)
    answer = response.raise_for_status().json()
    settings = function.services.config
    assert answer["evaluation_schedule"] == settings.evaluation_schedule
    assert answer["evaluation_timezone"] == settings.evaluation_timezone
    return {(entry["scenario_type"], entry["organization"]): entry for entry in answer["data"]}


def shown(entry: dict[str, Any], *names: str) -> tuple[Any, ...]:
    return tuple(entry[name] for name in names)


async def test_the_list_has_every_type_and_row_and_what_holds(function: Function, log: LogLines) -> None:
    unusable = {"segments": ["x", None], "schedule": "nightly"}
    function.sql.config_rows = [
        config_row(CERTIFICATION, None, enabled=True, **unusable),
        config_row(INACTIVITY, "north", enabled=True),
        config_row(INACTIVITY, "south", segments=["old", "new"], enabled=False),
        config_row(MILESTONE, None, schedule=MONDAYS, segments=["new", "old"], updated_by="postgres"),
        config_row(MILESTONE, "east", segments=[]),
        config_row(MILESTONE, "north", schedule="0 12 24 * *"),
        config_row("retired", "north", enabled=True, schedule=MONDAYS),
    ]
    off = {"enabled": False, "next_slot": None}
    on = {"enabled": True, "schedule": None, "next_slot": NEXT}
    weekly = {"enabled": True, "schedule": MONDAYS, "next_slot": MONDAY}
    monthly = {"schedule": "0 12 24 * *", "next_slot": "2026-11-25T02:00:00Z"}
    expected = {
        (INACTIVITY, None): on | {"segments": ["established"]},
        (INACTIVITY, "north"): on | {"segments": ["established"]},
        (INACTIVITY, "south"): off | {"schedule": None, "segments": ["new", "old"]},
        (MILESTONE, None): weekly | {"segments": ["new", "old"]},
        (MILESTONE, "east"): weekly | {"segments": []},
        (MILESTONE, "north"): weekly | monthly | {"segments": ["new", "old"]},
        (CERTIFICATION, None): on | {"segments": ["certified"]},
        ("retired", "north"): off | {"schedule": None, "segments": []},
    }
    entries = await listed(function)
    assert [(key, entry["effective"]) for key, entry in entries.items()] == list(expected.items())

    row, who = ("enabled", "segments", "schedule"), ("updated_at", "updated_by")
    assert shown(entries[INACTIVITY, None], *row, *who) == (None,) * 5
    assert shown(entries[INACTIVITY, "south"], *row) == (False, ["new", "old"], None)
    assert shown(entries[MILESTONE, None], *row, *who) == (
        *(None, ["new", "old"], MONDAYS),
        *(SLOT.replace("+00:00", "Z"), "postgres"),
    )
    assert shown(entries["retired", "north"], *row, "warnings") == (True, None, MONDAYS, [UNKNOWN_TYPE])
    assert shown(entries[CERTIFICATION, None], *row) == (True, None, None)
    segments, schedule = entries[CERTIFICATION, None]["warnings"]
    assert segments == "segments: expected texts, found ['x', None]; it is taken as not set"
    assert schedule.startswith("schedule: expected a cron expression of five fields, found 'nightly'")
    await listed(function)
    assert len(log.of("scenario_config_invalid")) == 3, "a version is warned of once"


@pytest.mark.parametrize(
    ("schedule", "due_after", "expected"),
    [
        (MONDAYS, "2026-11-23T02:00:00+00:00", MONDAY),
        (MONDAYS, "2026-11-23T01:59:59+00:00", NEXT),  # fired already, and no slot has opened a run since
        (MONDAYS, "2020-01-01T00:00:00+00:00", NEXT),
        ("0 1 * * 1", SLOT, MONDAY),
        ("1 2 * * 1", SLOT, NEXT),
        ("1 2 24 * *", SLOT, "2026-11-25T02:00:00Z"),
        ("0 0 29 2 *", SLOT, "2028-02-29T02:00:00Z"),
    ],
)
async def test_the_next_slot_is_not_before_the_next_fire(
    function: Function, schedule: str, due_after: str, expected: str
) -> None:
    function.sql.config_rows = [config_row(MILESTONE, None, schedule=schedule, due_after=due_after)]
    assert (await listed(function))[MILESTONE, None]["effective"]["next_slot"] == expected


async def test_the_mark_is_read_though_no_version_has_it(function: Function) -> None:
    for due_after, expected in (("2026-11-16T02:00:00+00:00", NEXT), (SLOT, MONDAY)):
        function.sql.config_rows = [config_row(MILESTONE, None, schedule=MONDAYS, due_after=due_after)]
        assert (await listed(function))[MILESTONE, None]["effective"]["next_slot"] == expected


async def test_schedules_are_in_the_time_zone_of_the_slots(log: LogLines) -> None:
    function = Function(EVALUATION_TIMEZONE="Europe/Oslo")
    function.sql.config_rows = [config_row(MILESTONE, None, schedule=MONDAYS)]
    assert (await listed(function))[MILESTONE, None]["effective"]["next_slot"] == "2026-11-30T01:00:00Z"


@pytest.mark.parametrize("organization", [None, "Nord & Süd/1"])
@pytest.mark.parametrize(
    "changes",
    [
        {"enabled": False},
        {"enabled": None, "segments": None, "schedule": None},
        {"enabled": True, "segments": ["x" * 199] * 20, "schedule": "*/5 2-4 1,15 JAN MON#1"},
        {"segments": []},
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_is_sent_is_changed_and_returned(
    function: Function, organization: str | None, changes: dict[str, Any]
) -> None:
    function.sql.config_rows = [config_row(MILESTONE, organization, enabled=True, segments=["old"])]
    query = {} if organization is None else {"organization": organization}
    response = await function.http.put(f"{router.prefix}/{MILESTONE}", params=query, json=changes, headers=ADMIN)
    assert response.status_code == 200, response.text
    sent = {"scenario_type": MILESTONE, "organization": organization, "changes": changes, "updated_by": "anna"}
    assert function.sql.arguments_of("scheduler_configure_scenario") == sent
    entry = response.json()
    assert entry == (await listed(function))[MILESTONE, organization]
    assert entry["updated_by"] == "anna"
    assert entry["enabled"] == changes.get("enabled", True)


async def test_a_full_table_takes_no_other_row(function: Function) -> None:
    function.sql.answers["scheduler_configure_scenario"] = None
    response = await function.http.put(f"{router.prefix}/{MILESTONE}", json={"enabled": False}, headers=ADMIN)
    problem_in(response, 409, "too_many_rows")


async def test_the_process_knows_the_table_it_has_changed(function: Function) -> None:
    await function.http.put(f"{router.prefix}/{MILESTONE}", json={"enabled": False}, headers=ADMIN)
    assert (await function.ask("POST", headers={"Prefer": "respond-async"})).status_code == 202
    assert function.sql.called() == ["scheduler_configure_scenario", "scheduler_open"]
    (off,) = [
        each
        for each in function.sql.arguments_of("scheduler_open")["config"]["scenarios"]["types"]
        if each.get("enabled") is False
    ]
    assert off["type"] == MILESTONE


@pytest.mark.parametrize("scenario_type", ["retired", "Milestone", "%00", "a%20b", "x" * 5000])
async def test_a_type_that_is_not_configured_is_404(function: Function, scenario_type: str) -> None:
    function.sql.config_rows = [config_row("retired")]
    response = await function.http.put(f"{router.prefix}/{scenario_type}", json={"enabled": True}, headers=ADMIN)
    problem_in(response, 404, "not_found")
    assert function.sql.called() == []
