"""`POST /` over HTTP: which slot is meant, and what a start answers."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import MentorsViewError
from shared.evaluations import MentorScenarios, to_pairs
from tests.unit.functions.http_function import INVOKE, Function, in_json, problem_in
from tests.unit.functions.pretend_sql import RUN_ID, SLOT, mentor_id, open_row, summarized
from tests.unit.log_lines import LogLines

RUNNING = summarized(status="running", finished_at=None)


def opens(function: Function, **members: Any) -> None:
    """What opening the slot answers, where it differs from "nothing is due and nothing open"."""
    nothing: dict[str, Any] = {"opened": False, "not_a_slot": False, "invocation": None, "open": [], "more_open": False}
    function.sql.answers["scheduler_open_slot"] = (
        nothing | {"witness": None, "alert_due": False, "poison_overdue": False} | members
    )


def answer_to(summary: dict[str, Any], *, deduplicated: bool) -> dict[str, Any]:
    """What a caller with an invoke token is told: neither the note, nor an error's message, nor a user id."""
    told = in_json(summary) | {"deduplicated": deduplicated}
    del told["note"], told["error_message"]
    return told


def has_open(function: Function) -> None:
    """A night that is open and enumerated, while the engine is paused."""
    opens(function, opened=True, invocation=RUNNING, open=[open_row()])
    paused = {
        "batches": [],
        "stale": 0,
        "engine_paused_until": "2026-11-23T02:05:00+00:00",
        "poison_waits": False,
    }
    function.sql.answers["scheduler_claim"] = paused


def requested_slot(function: Function) -> str | None:
    requested: str | None = function.sql.arguments_of("scheduler_open_slot")["requested_slot"]
    return requested


# The view of the mentors


async def test_wrong_columns_of_the_view_are_named_after_the_open_work(function: Function, log: LogLines) -> None:
    fault = "public.active_peer_mentors, column segments: expected text[], found text"
    request = {"user_ids": [mentor_id(2)], "scenario_types": None}
    opens(function, open=[open_row(enumeration_done=False, request=request)])
    function.sql.answers["scheduler_active_mentors"] = MentorsViewError(fault)
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(1), ("milestone_reached",))]))
    assert problem_in(await function.start(), 500, "mentors_view_invalid")["detail"] == fault
    assert "scheduler_complete" in function.sql.called()
    (line,) = log.of("mentors_view_invalid")
    assert (line["severity"], line["message"]) == ("ERROR", fault)
    assert log.of("database_refused") == []


# Which slot is meant


@pytest.mark.parametrize(
    "moment",
    [
        SLOT,
        "2026-11-23T02:00:00Z",
        "2026-11-23T02:00Z",
        "2026-11-23t02:00:00z",
        "2026-11-23 02:00:00Z",
        "2026-11-23T03:00:59.999+01:00",
        "2026-11-22T20:30:07-05:30",
        "2026-11-24T01:59:00+23:59",
        "2026-11-22T02:01:00-23:59",
    ],
)
async def test_a_time_is_cut_to_its_utc_minute(function: Function, moment: str) -> None:
    assert (await function.start({"scheduled_for": moment})).status_code == 200
    assert requested_slot(function) == SLOT


@pytest.mark.parametrize(
    "value",
    [
        "",
        "now",
        "2026-11-23",
        "2026-11-23T02:00:00",
        "2026-13-23T02:00:00Z",
        "2026-11-23T25:00:00Z",
        "2026-11-23T02:00:00+24:00",
        "2026-W48-1T02:00:00Z",
        "2026-327T02:00:00Z",
        "20261123T020000Z",
        "+2026-11-23T02:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "1795399200",
        "2026-11-23T02:00:00Z\n",
        "2026-11-23T02:00:00Z\u0000",
        1795399200,
        1795399200.5,
        True,
        [],
        {},
    ],
    ids=repr,
)
async def test_a_time_that_is_none_is_422(function: Function, value: object) -> None:
    problem = problem_in(await function.start({"scheduled_for": value}), 422, "invalid_field")
    assert problem["field"] == "scheduled_for"
    assert function.sql.called() == []


@pytest.mark.parametrize("moment", ["2026-11-23T02:00:00Z", "2026-11-23T03:00:59.123456789+01:00"])
async def test_cloud_schedulers_header_names_the_slot(function: Function, moment: str) -> None:
    response = await function.start(None, **{"X-CloudScheduler-ScheduleTime": moment})
    assert response.status_code == 200
    assert requested_slot(function) == SLOT


@pytest.mark.parametrize(
    "moment", ["", "soon", "2026-11-23T02:00:00", "2026-11-23", "1795399200", "0001-01-01T00:00:00+14:00"]
)
async def test_cloud_schedulers_header_without_a_whole_time_is_422(function: Function, moment: str) -> None:
    response = await function.start(None, **{"X-CloudScheduler-ScheduleTime": moment})
    assert problem_in(response, 422, "invalid_field")["field"] == "X-CloudScheduler-ScheduleTime"


async def test_the_body_wins_over_cloud_schedulers_header(function: Function) -> None:
    await function.start({"scheduled_for": SLOT}, **{"X-CloudScheduler-ScheduleTime": "2020-01-01T00:00:00Z"})
    assert requested_slot(function) == SLOT


async def test_a_body_that_names_no_slot_leaves_the_choice_to_cloud_schedulers_header(function: Function) -> None:
    await function.start({"scheduled_for": None}, **{"X-CloudScheduler-ScheduleTime": SLOT})
    assert requested_slot(function) == SLOT


async def test_a_time_that_names_no_slot_is_422(function: Function) -> None:
    opens(function, not_a_slot=True)
    problem = problem_in(await function.start({"scheduled_for": "2020-01-01T00:00:00Z"}), 422, "not_a_slot")
    assert problem["field"] == "scheduled_for"
    assert "2020-01-01T00:00Z" in problem["detail"]
    problem = problem_in(await function.start(**{"X-CloudScheduler-ScheduleTime": SLOT}), 422, "not_a_slot")
    assert problem["field"] == "X-CloudScheduler-ScheduleTime"


# The dispatch that is answered


@pytest.mark.parametrize(("total", "slices"), [("", 4), ("160", 4), ("128", 3), ("64", 1)])
async def test_dispatch_hears_how_many_slices_have_a_permit(log: LogLines, total: str, slices: int) -> None:
    """One of the permits, of 32 calls each, serves manual runs only."""
    function = Function(ENGINE_MAX_CONCURRENCY="32", ENGINE_MAX_CONCURRENCY_TOTAL=total, MAX_WORKERS="4")
    await function.start()
    assert function.sql.arguments_of("scheduler_open_slot")["max_workers"] == slices


@pytest.mark.parametrize("dispatch_id", [1, 17, 2**63 - 1])
async def test_the_dispatch_that_is_answered_is_handed_back(function: Function, dispatch_id: int) -> None:
    has_open(function)
    await function.start(None, **{"X-Scheduler-Dispatch": str(dispatch_id)})
    assert function.sql.arguments_of("scheduler_hand_back")["dispatch_id"] == dispatch_id


@pytest.mark.parametrize("value", ["0", "-1", "abc", "1.5", "", str(2**63), "9" * 30, "9" * 5000])
async def test_a_dispatch_that_is_no_positive_bigint_is_422(function: Function, value: str) -> None:
    problem = problem_in(await function.start(None, **{"X-Scheduler-Dispatch": value}), 422, "invalid_field")
    assert problem["field"].lower() == "x-scheduler-dispatch"
    assert function.sql.called() == []


# What a start answers


async def test_when_nothing_is_due_it_is_idle(function: Function) -> None:
    response = await function.start()
    assert (response.status_code, response.json()) == (200, {"status": "idle"})


@pytest.mark.parametrize("opened", [True, False])
async def test_a_slot_that_has_ended_is_200_and_says_whether_this_call_opened_it(
    function: Function, opened: bool
) -> None:
    opens(function, opened=opened, invocation=summarized(note="about Anna"))
    response = await function.start()
    assert (response.status_code, response.json()) == (200, answer_to(summarized(), deduplicated=not opened))


async def test_a_slot_that_is_not_through_is_202(function: Function) -> None:
    has_open(function)
    response = await function.start()
    assert (response.status_code, response.json()["status"]) == (202, "running")


async def test_while_only_another_run_is_open_it_is_idle_and_202(function: Function) -> None:
    has_open(function)
    opens(function, open=[open_row(triggered_by="manual")])
    response = await function.start()
    assert (response.status_code, response.json()) == (202, {"status": "idle"})


async def test_a_slot_that_ends_within_the_call_is_200_with_its_last_state(function: Function) -> None:
    has_open(function)
    ended = summarized(status="partial", note="about Anna")
    function.sql.answers["scheduler_finish"] = {"ended_now": True, "invocation": ended, "failures": []}
    response = await function.start()
    assert (response.status_code, response.json()) == (200, answer_to(ended, deduplicated=False))


async def test_while_more_is_open_than_a_slice_is_given_it_is_202(function: Function) -> None:
    opens(function, invocation=summarized(), open=[open_row()], more_open=True)
    ended = summarized(status="succeeded")
    function.sql.answers["scheduler_finish"] = {"ended_now": True, "invocation": ended, "failures": []}
    assert (await function.start()).status_code == 202
    # That one of them ended makes room for another one, so the next slice shall come at once.
    assert function.sql.arguments_of("scheduler_hand_back")["progressed"] is True


async def test_a_slot_whose_run_is_deleted_meanwhile_is_answered_as_it_was(function: Function) -> None:
    has_open(function)
    function.sql.answers["scheduler_finish"] = {"ended_now": False, "invocation": None, "failures": None}
    response = await function.start()
    assert (response.status_code, response.json()["id"]) == (200, RUN_ID)


async def test_a_paused_engine_is_left_alone(function: Function) -> None:
    has_open(function)
    await function.start()
    assert function.engine.calls == []


async def test_a_start_takes_nights_and_manual_runs_alike(function: Function) -> None:
    has_open(function)
    await function.start()
    assert function.sql.arguments_of("scheduler_claim")["manual_only"] is False


async def test_head_is_no_start(function: Function) -> None:
    response = await function.http.head("/", headers=INVOKE)
    assert response.status_code in (403, 405)
    assert function.sql.called() == []
