"""What the REST API asks of the database: under the names that SQL knows, in values that fit JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest

from shared.errors import DatabaseRefusedError, DatabaseUnavailableError
from shared.evaluations import MentorScenarios
from shared.invocation_records import GoodRun, InvocationRecords, Listed, OpenedRun, OpenOutcome, Position
from tests.unit.environment import REQUIRED, make_config
from tests.unit.fake_database import FakeDatabase

MIGRATIONS = Path(__file__).parents[3] / "supabase" / "migrations"
RUN_ID = "8a4e3f0c-5d0e-4d3e-9d53-0f5e0c4f6a11"
FOUND = {"id": RUN_ID}


def parameters_in_sql(function: str) -> set[str]:
    """The names of an SQL function's parameters, without their prefix."""
    sql = "".join(path.read_text(encoding="utf-8") for path in sorted(MIGRATIONS.glob("*.sql")))
    (declared,) = re.findall(rf"create function public\.{function}\((.*?)\)\s*returns", sql, re.DOTALL)
    return set(re.findall(r"p_(\w+) \w", declared))


class Answering:
    """Records over a database that gives one answer, whatever it is asked."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        functions: dict[str, Callable[[dict[str, Any]], Any]] = dict.fromkeys(
            (
                "scheduler_open",
                "scheduler_list",
                "scheduler_get",
                "scheduler_update",
                "scheduler_delete",
                "scheduler_last_good_run",
            ),
            self._give,
        )
        self._database = FakeDatabase(functions=functions)
        self.records = InvocationRecords(self._database, make_config(ENGINE_KEY_TTL_HOURS="100"))

    def _give(self, _: dict[str, Any]) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def asked(self) -> dict[str, Any]:
        """The arguments of the one call; they are those that SQL has, and fit JSON."""
        ((function, arguments),) = self._database.called
        assert set(arguments) == parameters_in_sql(function)
        assert json.loads(json.dumps(arguments)) == arguments
        return arguments

    async def open(self, **arguments: Any) -> OpenedRun:
        usual: dict[str, Any] = {
            "request": {"user_ids": None, "scenario_types": None},
            "request_hash": "digest",
            "idempotency_key": None,
            "dry_run": False,
            "retry_of": None,
            "note": None,
            "post_slice": False,
        }
        return await self.records.open(RUN_ID, **usual | arguments)

    async def list(self, **arguments: Any) -> Listed:
        filters = ("statuses", "triggered_by", "scheduled_from", "scheduled_to", "user_id", "after")
        usual: dict[str, Any] = dict.fromkeys(filters) | {"limit": 20}
        return await self.records.list(**usual | arguments)


# Opening


@pytest.mark.parametrize("outcome", get_args(OpenOutcome))
async def test_what_opening_came_to_is_told_as_it_is(outcome: str) -> None:
    database = Answering({"outcome": outcome, "invocation": FOUND, "witness": None})
    assert await database.open() == OpenedRun(outcome, FOUND, None)  # type: ignore[arg-type]  # one of them


async def test_the_outcomes_are_those_of_the_sql_function() -> None:
    sql = (MIGRATIONS / "20261123000100_open_a_manual_run.sql").read_text(encoding="utf-8")
    in_sql = set(re.findall(r"'outcome', '(\w+)'", sql)) | set(re.findall(r"then '(opened)' else '(same)'", sql)[0])
    assert in_sql == set(get_args(OpenOutcome))


async def test_a_witness_is_a_mentor_with_one_type() -> None:
    witness = {"user_id": "anna", "scenario_type": "milestone_reached"}
    opened = await Answering({"outcome": "opened", "invocation": FOUND, "witness": witness}).open()
    assert opened.witness == MentorScenarios("anna", ("milestone_reached",))


async def test_a_run_is_opened_with_the_settings_in_force_and_without_secrets() -> None:
    database = Answering({"outcome": "opened", "invocation": FOUND, "witness": None})
    await database.open(idempotency_key="k", dry_run=True, note="n", retry_of=RUN_ID, post_slice=True)
    asked = database.asked()
    assert (asked["invocation_id"], asked["idempotency_key"], asked["request_hash"]) == (RUN_ID, "k", "digest")
    assert (asked["dry_run"], asked["note"], asked["retry_of"], asked["post_slice"]) == (True, "n", RUN_ID, True)
    assert (asked["expires_after_hours"], asked["engine_key_ttl_hours"]) == (20, 100)
    assert asked["config"]["evaluation_schedule"] == "0 2 * * *"
    for secret in REQUIRED.values():
        assert secret not in json.dumps(asked)


# Listing


async def test_without_filters_nothing_is_filtered() -> None:
    database = Answering({"items": [FOUND], "next": None})
    assert await database.list() == Listed([FOUND], None)
    assert database.asked() == dict.fromkeys(parameters_in_sql("scheduler_list")) | {"limit": 20}


async def test_every_filter_and_the_place_are_handed_on() -> None:
    following = {"created_at": "2026-11-22T02:00:03.2+00:00", "id": RUN_ID}
    database = Answering({"items": [], "next": following})
    listed = await database.list(
        statuses=["failed", "partial"],
        triggered_by=["retry"],
        scheduled_from=datetime(2026, 11, 1, tzinfo=UTC),
        scheduled_to=datetime(2026, 11, 23, 2, 0, 0, 5, tzinfo=UTC),
        user_id="anna",
        limit=7,
        after=Position("2026-11-23T02:00:03.2+00:00", RUN_ID),
    )
    assert listed.next == Position("2026-11-22T02:00:03.2+00:00", RUN_ID)
    assert database.asked() == {
        "statuses": ["failed", "partial"],
        "triggered_by": ["retry"],
        "scheduled_from": "2026-11-01T00:00:00+00:00",
        "scheduled_to": "2026-11-23T02:00:00.000005+00:00",
        "user_id": "anna",
        "limit": 7,
        "after_created_at": "2026-11-23T02:00:03.2+00:00",
        "after_id": RUN_ID,
    }


# One of them


@pytest.mark.parametrize("found", [FOUND, None])
async def test_an_invocation_is_read_by_its_id(found: dict[str, Any] | None) -> None:
    database = Answering(found)
    assert await database.records.get(RUN_ID) == found
    assert database.asked() == {"invocation_id": RUN_ID}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, None),
        ({"ended_otherwise": False, "invocation": FOUND}, ("updated", FOUND)),
        ({"ended_otherwise": True, "invocation": FOUND}, ("ended_otherwise", FOUND)),
    ],
)
async def test_what_came_of_a_change_is_told(answer: object, told: object) -> None:
    database = Answering(answer)
    assert await database.records.update(RUN_ID, cancel=True, set_note=False, note=None) == told
    assert database.asked() == {"invocation_id": RUN_ID, "cancel": True, "set_note": False, "note": None}


async def test_a_note_that_is_taken_away_is_told_from_one_that_is_left_alone() -> None:
    database = Answering(None)
    await database.records.update(RUN_ID, cancel=False, set_note=True, note=None)
    assert (database.asked()["set_note"], database.asked()["note"]) == (True, None)


@pytest.mark.parametrize("outcome", ["deleted", "open", None])
async def test_what_came_of_a_deletion_is_told(outcome: str | None) -> None:
    database = Answering(outcome)
    assert await database.records.delete(RUN_ID) == outcome
    assert database.asked() == {"invocation_id": RUN_ID}


@pytest.mark.parametrize("found", [{"status": "partial"}, None])
async def test_the_last_good_run_is_read_with_the_time_by_the_databases_clock(found: dict[str, Any] | None) -> None:
    database = Answering({"clock": "2026-11-23T03:00:00.5+01:00", "run": found})
    assert await database.records.last_good_run() == GoodRun(
        datetime(2026, 11, 23, 2, 0, 0, 500_000, tzinfo=UTC), found
    )
    assert database.asked() == {}


@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), DatabaseRefusedError("42501", "denied")])
async def test_an_error_of_the_database_is_handed_on(error: Exception) -> None:
    database = Answering(error)
    for call in (database.open(), database.list(), database.records.get(RUN_ID), database.records.last_good_run()):
        with pytest.raises(type(error)):
            await call
