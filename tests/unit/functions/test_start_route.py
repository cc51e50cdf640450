"""`POST /` over HTTP: which slot is meant, and what a start answers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.functions.http_function import Function, in_json, problem_in
from tests.unit.functions.pretend_sql import SLOT, open_row, slot_answer, summarized
from tests.unit.log_lines import LogLines

RUNNING = summarized(status="running", finished_at=None)
SCHEDULE_TIME = "X-CloudScheduler-ScheduleTime"


def has_open(function: Function) -> None:
    """A scheduled run that is open and enumerated, while the engine is paused."""
    function.sql.answers["scheduler_open_slot"] = slot_answer(opened=True, invocation=RUNNING, open=[open_row()])
    paused = {"batches": [], "stale": 0, "engine_paused_until": "2026-11-23T02:05:00+00:00", "poison_waits": False}
    function.sql.answers["scheduler_claim"] = paused


def ends(function: Function, invocation: dict[str, Any] | None) -> None:
    ended_now = invocation is not None
    function.sql.answers["scheduler_finish"] = {"ended_now": ended_now, "invocation": invocation, "failures": []}


def answer_to(summary: dict[str, Any], *, deduplicated: bool) -> dict[str, Any]:
    """What a caller with an invoke token sees: neither the note, nor an error's message, nor a user id."""
    seen = in_json(summary) | {"deduplicated": deduplicated}
    del seen["note"], seen["error_message"]
    return seen


# Which slot is meant


@pytest.mark.parametrize(
    ("body", "header"),
    [
        ({"scheduled_for": "2026-11-23T03:00:59.999+01:00"}, None),
        ({"scheduled_for": "2026-11-24T01:59:00+23:59"}, None),
        ({"scheduled_for": SLOT}, "2020-01-01T00:00:00Z"),
        (None, "2026-11-23T02:00:00Z"),
        (None, "2026-11-23T03:00:59.123456789+01:00"),
        ({"scheduled_for": None}, SLOT),
    ],
)
async def test_the_body_or_else_the_header_names_the_slots_minute(
    function: Function, body: object, header: str | None
) -> None:
    headers = {} if header is None else {SCHEDULE_TIME: header}
    assert (await function.start(body, **headers)).status_code == 200
    assert function.sql.arguments_of("scheduler_open_slot")["requested_slot"] == SLOT


async def test_a_time_that_names_no_slot_is_422(function: Function) -> None:
    function.sql.answers["scheduler_open_slot"] = slot_answer(not_a_slot=True)
    problem = problem_in(await function.start({"scheduled_for": "2020-01-01T00:00:00Z"}), 422, "not_a_slot")
    assert problem["field"] == "scheduled_for"
    assert "2020-01-01T00:00Z" in problem["detail"]
    assert problem_in(await function.start(**{SCHEDULE_TIME: SLOT}), 422, "not_a_slot")["field"] == SCHEDULE_TIME


# The dispatch that is answered


@pytest.mark.parametrize(("total", "slices"), [("", 4), ("160", 4), ("128", 3), ("64", 1)])
async def test_dispatch_learns_how_many_slices_have_a_permit(log: LogLines, total: str, slices: int) -> None:
    """One of the permits, of 32 calls each, serves manual runs only."""
    function = Function(ENGINE_MAX_CONCURRENCY="32", ENGINE_MAX_CONCURRENCY_TOTAL=total, MAX_WORKERS="4")
    await function.start()
    assert function.sql.arguments_of("scheduler_open_slot")["max_workers"] == slices


@pytest.mark.parametrize("dispatch_id", [1, 2**63 - 1])
async def test_a_slice_hands_its_dispatch_back(function: Function, dispatch_id: int) -> None:
    has_open(function)
    response = await function.start(None, **{"X-Scheduler-Dispatch": str(dispatch_id)})
    assert (response.status_code, response.json()["status"]) == (202, "running")
    assert function.sql.arguments_of("scheduler_hand_back")["dispatch_id"] == dispatch_id
    assert function.engine.calls == [], "a paused engine is left alone"
    assert function.sql.arguments_of("scheduler_claim")["manual_only"] is False


# What a start answers


async def test_a_start_is_idle_while_its_slot_has_no_run(function: Function) -> None:
    response = await function.start()
    assert (response.status_code, response.json()) == (200, {"status": "idle"})
    has_open(function)
    function.sql.answers["scheduler_open_slot"] = slot_answer(open=[open_row(triggered_by="manual")])
    response = await function.start()
    assert (response.status_code, response.json()) == (202, {"status": "idle"}), "another run is open"


@pytest.mark.parametrize("opened", [True, False])
async def test_an_ended_slot_is_200_and_says_who_opened_it(function: Function, opened: bool) -> None:
    ended = summarized(note="about Anna", error_message="about Anna")
    function.sql.answers["scheduler_open_slot"] = slot_answer(opened=opened, invocation=ended)
    response = await function.start()
    assert (response.status_code, response.json()) == (200, answer_to(ended, deduplicated=not opened))


async def test_a_slot_that_ends_within_the_call_is_answered_as_ended(function: Function) -> None:
    has_open(function)
    ends(function, None)
    response = await function.start()
    assert (response.status_code, response.json()["status"]) == (200, "running"), "deleted meanwhile: as it was"
    ended = summarized(status="partial", note="about Anna")
    ends(function, ended)
    response = await function.start()
    assert (response.status_code, response.json()) == (200, answer_to(ended, deduplicated=False))


async def test_while_more_runs_are_open_than_a_slice_takes_it_is_202(function: Function) -> None:
    opened = slot_answer(invocation=summarized(), open=[open_row()], more_open=True)
    function.sql.answers["scheduler_open_slot"] = opened
    ends(function, summarized())
    assert (await function.start()).status_code == 202
    # That one of them ended makes room for another one, so the next slice shall come at once.
    assert function.sql.arguments_of("scheduler_hand_back")["progressed"] is True
