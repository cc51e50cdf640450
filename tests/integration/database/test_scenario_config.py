"""scenario_evaluation_config: each change counts, also one made in Studio, and a run is opened with one version of it.

What schedules of types come to over years: test_two_years.py.
"""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any, NamedTuple

import pytest
from psycopg.errors import CheckViolation

from shared.scenario_config import Scenarios
from tests.unit.environment import make_config

from .processes import Process
from .requests import ask, opened, refusal
from .sql_core import LOCK_WAIT_SECONDS, SCENARIO, Json, SqlCore, Worker, minutes

TABLE = "public.scenario_evaluation_config"
WEEKLY, MONTHLY = "15 2 * * 0", "0 12 1 * *"
LONG_AGO = "2000-01-01Z"

# As Studio makes them.
EDITS = [
    f"insert into {TABLE} (scenario_type) values ('a')",
    f"update {TABLE} set enabled = false",
    f"update {TABLE} set enabled = true",
    f"update {TABLE} set segments = '{{}}'",
    f"update {TABLE} set segments = array['x,y']",
    f"update {TABLE} set segments = array['x', 'y']",
    f"update {TABLE} set schedule = '{WEEKLY}'",
    f"update {TABLE} set scenario_type = 'b'",
    f"update {TABLE} set organization = 'null'",
    f"insert into {TABLE} (scenario_type) values ('b')",
    f"delete from {TABLE} where organization is null",
    f"insert into {TABLE} (scenario_type, organization) values ('b', 'Oslo')",
    f"truncate {TABLE}",
]


@pytest.fixture
async def installed(core: SqlCore) -> SqlCore:
    await core.install_long_ago()
    return core


async def configure(worker: Worker, organization: str | None = None, by: str = "kari", **changes: Any) -> Json:
    table = await worker.call(
        "configure_scenario", scenario_type=SCENARIO, organization=organization, changes=changes, updated_by=by
    )
    assert isinstance(table, dict)
    return table


async def insert(core: SqlCore, *rows: tuple[str, str | None, bool | None]) -> None:
    """Rows of a type, an organization and its switch, with a schedule that counts since long ago."""
    for row in rows:
        values = "values (%s, %s, %s, %s)"
        await core.owner.run(
            f"insert into {TABLE} (scenario_type, organization, enabled, schedule) {values}", *row, WEEKLY
        )
    await core.owner.run(f"update {TABLE} set due_after = '{LONG_AGO}' where true")


async def marks(core: SqlCore) -> dict[tuple[str, str | None], datetime]:
    rows = await core.owner.rows(f"select scenario_type, organization, due_after from {TABLE}")
    return {(scenario_type, organization): mark for scenario_type, organization, mark in rows}


async def moved(core: SqlCore, since: datetime) -> set[tuple[str, str | None]]:
    """The rows whose mark is now."""
    now = await core.now()
    found = await marks(core)
    assert all(mark <= now for mark in found.values())
    return {row for row, mark in found.items() if mark >= since}


# The version


async def test_every_change_of_what_rows_say_is_another_version(core: SqlCore, worker: Worker) -> None:
    known = ""
    for edit in EDITS:
        await core.owner.run(edit)
        table = await worker.call("scenario_config", known_version=known)
        assert table, edit
        known = table["version"]
        assert await worker.call("scenario_config", known_version=known) is None
    assert known == ""
    by_endpoint = await configure(worker, enabled=False)
    assert await worker.call("scenario_config", known_version=known) == by_endpoint
    assert by_endpoint["version"]


async def test_a_raised_mark_is_no_change(core: SqlCore, worker: Worker) -> None:
    await insert(core, (SCENARIO, None, None))
    before = await worker.call("scenario_config", known_version="")
    # Of a slot that is opened without the type, and of one with it.
    fire = json.dumps([{"scenario_type": SCENARIO, "organization": None, "fired_at": "2026-11-01T00:00Z"}])
    await core.owner.value("select scheduler.take_due_scenarios(now(), '[]')")
    assert await worker.call("scenario_config", known_version="") == before
    await core.owner.value("select scheduler.take_due_scenarios(now(), %s)", fire)
    assert await worker.call("scenario_config", known_version=before["version"]) is None
    (row,) = (await worker.call("scenario_config", known_version=""))["rows"]
    assert row.pop("due_after") > before["rows"][0].pop("due_after")
    assert [row] == before["rows"], "nor is it shown as one"


async def test_a_row_names_who_changed_it(core: SqlCore, worker: Worker) -> None:
    async def shown() -> tuple[Any, ...]:
        (row,) = await core.owner.rows(
            f"select updated_by, updated_at, enabled, segments, schedule, organization from {TABLE}"
        )
        return row

    changed: list[datetime] = []
    await configure(worker, "Oslo", by="kari", segments=["x"], schedule=WEEKLY)
    edits: list[tuple[str | Json, str, tuple[Any, ...]]] = [
        ({}, "kari", (None, ["x"], WEEKLY)),
        (f"update {TABLE} set enabled = true, updated_by = 'kari'", "postgres", (True, ["x"], WEEKLY)),
        ({"enabled": None, "schedule": MONTHLY}, "ola", (None, ["x"], MONTHLY)),
        ({"segments": None}, "ola", (None, None, MONTHLY)),
    ]
    for edit, by, kept in edits:
        if isinstance(edit, str):
            await core.owner.run(edit)
        else:
            await configure(worker, "Oslo", by=by, **edit)
        updated_by, updated_at, *values = await shown()
        assert (updated_by, *values) == (by, *kept, "Oslo")
        changed.append(updated_at)
    assert sorted(set(changed)) == changed


# From when on a schedule counts


class Edit(NamedTuple):
    """A change, and the organizations (None: the general row) whose schedule counts from now on after it."""

    change: str | Json
    moves: set[str | None]
    # Of the general row and Oslo's; Bergen's is null.
    switches: tuple[bool | None, bool | None] = (None, None)


GENERAL, OSLO = "where organization is null", "where organization = 'Oslo'"
SET = f"update {TABLE} set"


@pytest.mark.parametrize(
    "edit",
    [
        Edit(f"{SET} schedule = '{MONTHLY}' {OSLO}", {"Oslo"}),
        Edit(f"{SET} schedule = '{MONTHLY}' {GENERAL}", {None}),
        Edit({"schedule": MONTHLY}, {None}),
        Edit(f"{SET} schedule = null {OSLO}", {"Oslo"}),
        Edit(f"{SET} organization = 'Tromsø' {OSLO}", {"Tromsø"}),
        Edit({"schedule": WEEKLY, "segments": ["x"]}, set()),
        Edit(f"{SET} segments = '{{x}}'", set()),
        Edit(f"{SET} enabled = false", set()),
        Edit(f"{SET} enabled = true", set()),
        Edit(f"{SET} enabled = true {OSLO}", {"Oslo"}, (None, False)),
        Edit(f"{SET} enabled = null {OSLO}", {"Oslo"}, (True, False)),
        # All organizations are switched on again.
        Edit(f"{SET} enabled = true {GENERAL}", {None, "Oslo", "Bergen"}, (False, None)),
        Edit({"enabled": None}, {None, "Oslo", "Bergen"}, (False, True)),
        Edit(f"delete from {TABLE} {GENERAL}", {"Oslo", "Bergen"}, (False, None)),
        Edit(f"{SET} organization = 'Tromsø' {GENERAL}", {"Tromsø", "Oslo", "Bergen"}, (False, None)),
        Edit({"segments": ["x"]}, set(), (False, None)),
        Edit(f"delete from {TABLE} {GENERAL}", set(), (True, None)),
        Edit(f"delete from {TABLE} {OSLO}", set(), (None, False)),
    ],
)
async def test_a_changed_schedule_or_switch_counts_from_now_on(core: SqlCore, worker: Worker, edit: Edit) -> None:
    """Of that type alone."""
    general, oslo = edit.switches
    await insert(core, (SCENARIO, "Oslo", oslo), (SCENARIO, None, general), (SCENARIO, "Bergen", None))
    others = ("other", None), ("other", "Oslo")
    at = await core.now()
    if isinstance(edit.change, str):
        await core.owner.run(edit.change)
    else:
        await configure(worker, **edit.change)
    assert await moved(core, at) == {(SCENARIO, organization) for organization in edit.moves}
    await insert(core, *((*other, False) for other in others))
    await core.owner.run(f"{SET} enabled = true where scenario_type = 'other' and organization is null")
    assert await moved(core, at) == set(others)


async def test_a_new_row_counts_from_now_on(core: SqlCore, worker: Worker) -> None:
    at = await core.now()
    await configure(worker, schedule=WEEKLY)
    await configure(worker, "Oslo", enabled=False)
    assert await moved(core, at) == {(SCENARIO, None), (SCENARIO, "Oslo")}


async def test_what_a_row_may_hold_is_bounded(core: SqlCore, worker: Worker) -> None:
    """A run freezes all rows, and each slice that enumerates reads them."""
    for values in (
        "('x', 'org:north')",
        "('x', ' north')",
        "('x', 'north ')",
        "('x', '')",
        "('x y', null)",
    ):
        with pytest.raises(CheckViolation):
            await core.owner.run(f"insert into {TABLE} (scenario_type, organization) values {values}")
    for edit in (
        "segments = array[repeat('x', 4001)]",
        "segments = array_fill('x'::text, array[101])",
        "schedule = repeat('1', 101)",
        "due_after = 'infinity'",
        "updated_at = '-infinity'",
    ):
        await insert(core, (SCENARIO, None, None))
        with pytest.raises(CheckViolation):
            await core.owner.run(f"{SET} {edit} where true")
        await core.owner.run(f"truncate {TABLE}")
    await core.owner.run(
        f"insert into {TABLE} (scenario_type, organization) select 'x', n from generate_series(1, 500) as n"
    )
    with pytest.raises(CheckViolation):
        await insert(core, (SCENARIO, None, None))
    refused = {"scenario_type": SCENARIO, "organization": None, "changes": {"enabled": False}, "updated_by": "kari"}
    assert await worker.call("configure_scenario", **refused) is None
    changed = await worker.call("configure_scenario", **refused | {"scenario_type": "x", "organization": "7"})
    assert len(changed["rows"]) == 500


# Opening a run


async def test_with_another_version_nothing_is_opened(installed: SqlCore, worker: Worker) -> None:
    """Neither a slot nor a run on request: the table comes back."""
    table = await configure(worker, segments=["x"])
    before = await installed.settings("*")
    for version in ("", "another", None):
        answer = await worker.open_slot(*await installed.slots(), scenario_version=version)
        assert answer.keys() == {"clock", "scenario_config"}
        assert answer["scenario_config"] == table
        assert await ask(worker, scenario_version=version) == {
            "outcome": "scenarios_changed",
            "invocation": None,
            "canary": None,
            "scenario_config": table,
        }
    assert await installed.owner.value("select count(*) from public.scheduler_invocations") == 0
    assert await installed.settings("*") == before
    assert (await worker.open_slot(*await installed.slots(), scenario_version=table["version"]))["opened"]
    assert await opened(worker, scenario_version=table["version"])


async def test_a_refused_request_still_finds_the_run_of_its_key(installed: SqlCore, worker: Worker) -> None:
    run = await opened(worker, key="mine")
    again = await ask(worker, key="mine", is_refused=True)
    assert (again["outcome"], again["invocation"]["id"]) == ("same", run)
    assert (await ask(worker, key="another", is_refused=True))["outcome"] == "types_refused"
    assert await installed.owner.value("select count(*) from public.scheduler_invocations") == 1


async def test_processes_with_different_versions_open_one_run(installed: SqlCore, worker: Worker) -> None:
    """With the newer version, and all know it afterwards."""
    due, _ = await installed.slots()
    config = make_config(
        EVALUATION_SCHEDULE=f"{due.minute} * * * *", SCENARIO_TYPES=json.dumps([{"type": SCENARIO}, {"type": "other"}])
    )
    processes = [Process(one, config) for one in await installed.workers(12)]
    for number, process in enumerate(processes):
        if number in (4, 8):
            await configure(worker, segments=[f"version {number}"])
        if number % 4:
            await process.table.refresh(process.database)
    assert len({process.table.version for process in processes}) == 3
    answers = await asyncio.gather(*(process.slices.open_slot(due, None, "pg_cron") for process in processes))
    assert sum(answer.opened for answer in answers) == 1
    (frozen,) = await installed.owner.column("select config -> 'scenarios' from public.scheduler_invocations")
    assert frozen["types"][0]["segments"] == ["version 8"]
    for process, answer in zip(processes, answers, strict=True):
        (work,) = answer.open
        assert work.enumeration.scenarios == process.table.scenarios == Scenarios.model_validate(frozen)


@pytest.mark.parametrize("alerts", [True, False])
async def test_a_slot_with_all_types_off_fails_at_once(installed: SqlCore, worker: Worker, alerts: bool) -> None:
    """It is logged once, and raises an alert where alerts are on."""
    due, following = await installed.slots()
    types = [{"type": SCENARIO, "enabled": False}, {"type": "other"}]
    config = {"alerts": alerts, "scenarios": {"types": types}}
    answer, again = [await worker.open_slot(due, following, config=config) for _ in range(2)]
    run = answer["invocation"]
    assert (run["status"], run["error_code"], answer["opened"]) == ("failed", "no_enabled_scenarios", True)
    assert run["finished_at"] >= run["started_at"]
    assert (answer["open"], [ended["invocation"] for ended in answer["ended"]]) == ([], [run])
    assert (again["open"], again["ended"], again["invocation"]) == ([], [], run)
    alert = await installed.owner.rows("select invocation_id::text, reason from scheduler.alerts")
    assert alert == ([(run["id"], "failed")] if alerts else [])
    assert await refusal(worker, retry_of=run["id"]) == "nothing_to_retry"


async def test_a_skipped_slot_takes_no_schedule(installed: SqlCore, worker: Worker) -> None:
    """Nor does a retry of it: the schedules are due at the next slot that opens a run."""
    await insert(installed, (SCENARIO, None, None), (SCENARIO, "Oslo", None))
    before = await marks(installed)
    version = (await worker.call("scenario_config", known_version=""))["version"]
    due, following = await installed.slots()
    await installed.change(await installed.open_run(worker), "idempotency_key = 'slot:another'")
    fires = [
        {"scenario_type": SCENARIO, "organization": organization, "fired_at": due} for organization in (None, "Oslo")
    ]
    skipped = await worker.open_slot(due, following, scenario_version=version, fires=fires)
    assert skipped["invocation"]["status"] == "skipped"
    assert await marks(installed) == before
    retry = await ask(worker, retry_of=skipped["invocation"]["id"], scenario_version=version)
    assert retry["work"]["scenarios"]["source"]["not_due"] == [[SCENARIO, None], [SCENARIO, "Oslo"]]


@pytest.mark.parametrize(("edit", "is_due_next"), [("segments = '{x}'", True), (f"schedule = '{MONTHLY}'", False)])
async def test_a_row_being_changed_is_left_for_the_next_slot(
    installed: SqlCore, worker: Worker, edit: str, is_due_next: bool
) -> None:
    """A transaction that stays open in an editor holds up no run."""
    await insert(installed, (SCENARIO, None, None), (SCENARIO, "Oslo", None))
    due, following = await installed.slots()

    async def not_due(slot: datetime) -> list[Any]:
        version = (await worker.call("scenario_config", known_version=None))["version"]
        fires = [
            {"scenario_type": SCENARIO, "organization": organization, "fired_at": due - minutes(90)}
            for organization in (None, "Oslo")
        ]
        answer = await asyncio.wait_for(
            worker.open_slot(slot, following, scenario_version=version, fires=fires), LOCK_WAIT_SECONDS
        )
        (work,) = answer["open"]
        assert answer["opened"]
        await worker.cancel(work["id"])
        found = work["scenarios"]["not_due"]
        assert isinstance(found, list)
        return found

    async with installed.owner.transaction():
        await installed.owner.run(f"{SET} {edit} {OSLO}")
        assert await not_due(due - minutes(60)) == [[SCENARIO, "Oslo"]]
    assert await not_due(due) == [[SCENARIO, None], *([] if is_due_next else [[SCENARIO, "Oslo"]])]
