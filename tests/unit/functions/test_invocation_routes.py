"""`/api/v1/scheduler-invocations` and `POST /` over HTTP: what the database is asked, and what is answered."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from functions.http.cursors import cursor_of, position_of_cursor
from functions.http.invocations import PREFIX
from functions.runs.requests import MAX_CHOSEN_MENTORS, MAX_NOTE_LENGTH
from shared.run_repository import Position
from tests.unit.functions.fake_sql import (
    RUN_ID,
    SLOT,
    described,
    detailed,
    mentor_id,
    mentor_row,
    open_row,
    slot_answer,
    summarized,
)
from tests.unit.functions.http_function import ADMIN, NOW, Function, in_json, problem_in
from tests.unit.log_lines import LogLines

ONE, MENTORS = f"/{RUN_ID}", "/active-peer-mentors"
MENTOR = mentor_id(1)
INVOKED_AT = "2026-11-23T02:00:03.204113+00:00"


def answer_of(invocation: dict[str, Any], *, deduplicated: bool = True) -> dict[str, Any]:
    return in_json(invocation) | {"deduplicated": deduplicated}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("status=failed&status=partial", {"statuses": ["failed", "partial"]}),
        ("trigger=schedule&trigger=manual", {"trigger": ["schedule", "manual"]}),
        ("scheduled_from=2026-11-24T01:59:30.25%2B23:59", {"scheduled_from": "2026-11-23T02:00:30.250000+00:00"}),
        ("scheduled_to=2026-11-22T20:30:00-05:30", {"scheduled_to": "2026-11-23T02:00:00+00:00"}),
        (f"user_id={MENTOR.upper()}", {"user_id": MENTOR}),
        *((f"limit={limit}", {"limit": limit}) for limit in (1, 100)),
        ("triggered_by=pg_cron&triggered_by=anna", {"triggered_by": ["pg_cron", "anna"]}),
        ("page=3&limit=10", {"limit": 10, "offset": 20}),
        ("page=101&limit=100", {"limit": 100, "offset": 10_000}),
        (f"cursor={cursor_of(INVOKED_AT, RUN_ID)}", {"after_invoked_at": INVOKED_AT, "after_id": RUN_ID}),
    ],
)
async def test_a_filter_is_passed_to_the_database(function: Function, query: str, expected: dict[str, Any]) -> None:
    response = await function.ask("GET", params=httpx.QueryParams(query))
    place = {"limit": 20, "offset": 0} | expected
    page = None if place.keys() & {"user_id", "after_id"} else place["offset"] // place["limit"] + 1
    pagination = {"limit": place["limit"], "page": page, "total": 0, "next_cursor": None}
    assert (response.status_code, response.json()) == (200, {"data": [], "pagination": pagination})
    filters = function.sql.arguments_of("scheduler_list")
    assert filters == dict.fromkeys(filters) | place
    assert function.sql.called() == ["scheduler_list"]


async def test_a_page_has_its_items_and_the_next_cursor(function: Function) -> None:
    open_still = dict.fromkeys(("outcome", "error_code", "error_message", "notification_id"))
    of_a_mentor = summarized(results=[{"scenario_type": "milestone"} | open_still])
    items = [summarized(), summarized(id=mentor_id(9), status="running", finished_at=None), of_a_mentor]
    following = {"invoked_at": INVOKED_AT, "id": RUN_ID}
    function.sql.answers["scheduler_list"] = {"items": items, "next": following, "total": 7}
    answer = (await function.ask("GET")).json()
    assert answer["data"] == [answer_of(item) for item in items]
    assert answer["pagination"]["total"] == 7
    assert position_of_cursor(answer["pagination"]["next_cursor"]) == Position(INVOKED_AT, RUN_ID)


@pytest.mark.parametrize(
    ("query", "until"),
    [({}, NOW.isoformat()), ({"cursor": cursor_of("2026-11-22T02:00:03+00:00", RUN_ID)}, "2026-11-22T02:00:03+00:00")],
)
async def test_a_page_names_its_slots_without_a_run(function: Function, query: dict[str, str], until: str) -> None:
    """On a later page up to the page before; without a scheduled run only the next slot."""
    asked = {"slots": "true"} | query
    next_slot = "2026-11-24T02:00:00Z"
    assert (await function.ask("GET", params=asked)).json()["slots"] == {"missed": [], "next": next_slot}
    first, missed, third, fourth = (f"2026-11-{day}T02:00:00" for day in (19, 20, 21, 22))
    items = [summarized(scheduled_for=f"{first}+00:00")]
    function.sql.answers["scheduler_list"] = {"items": items, "next": None, "total": 1}
    function.sql.answers["scheduler_used_slots"] = [
        {"scheduled_for": f"{day}+00:00", "schedule": "0 2 * * *", "timezone": "UTC"} for day in (fourth, third, first)
    ]
    assert (await function.ask("GET", params=asked)).json()["slots"] == {"missed": [f"{missed}Z"], "next": next_slot}
    assert function.sql.arguments_of("scheduler_used_slots") == {"from": f"{first}+00:00", "to": until}


@pytest.mark.parametrize(
    ("prefer", "is_async"),
    [
        *((prefer, False) for prefer in ("", "wait=10", "respond-asynchronously", "not-respond-async", ";,")),
        *((prefer, True) for prefer in ("Respond-Async", "wait=10, respond-async ;foo=bar", "RESPOND-ASYNC,wait=10")),
    ],
)
async def test_a_new_run_is_201_or_202_with_its_location(function: Function, prefer: str, is_async: bool) -> None:
    chosen = [mentor_id(n) for n in range(MAX_CHOSEN_MENTORS if is_async else 2)]
    note = "\N{PILE OF POO}" * MAX_NOTE_LENGTH
    body, params, headers = {"user_ids": chosen, "note": note}, {"dry_run": "true"}, {"Prefer": prefer}
    body |= {"reason": "r" * 300, "triggered_by": "Berit"}
    response = await function.ask("POST", body=body, params=params, headers=headers)
    answer = response.json()
    assert (response.status_code, answer["deduplicated"]) == (202 if is_async else 201, False)
    assert response.headers["location"] == f"{PREFIX}/{answer['id']}"
    assert response.headers.get("preference-applied") == ("respond-async" if is_async else None)
    asked = function.sql.arguments_of("scheduler_open")
    assert (asked["request"]["user_ids"], asked["note"], asked["request_slice"]) == (chosen, note, is_async)
    assert asked["dry_run"] is False, "a query makes no difference"
    assert (asked["triggered_by"], asked["requested_by"], asked["reason"]) == ("anna", "Berit", body["reason"])
    assert (function.sql.called() == ["scheduler_open"]) is is_async


@pytest.mark.parametrize("is_deleted", [False, True])
async def test_a_run_is_answered_as_it_is_after_the_slice(function: Function, is_deleted: bool) -> None:
    """As it was opened, where it was deleted meanwhile."""
    ended = described(trigger="manual", status="partial")
    function.sql.answers["scheduler_get"] = None if is_deleted else detailed(**ended)
    response = await function.ask("POST", body={})
    assert (response.status_code, response.json()["status"]) == (201, "pending" if is_deleted else "partial")
    assert is_deleted or response.json() == answer_of(ended, deduplicated=False)


@pytest.mark.parametrize("prefer", ["", "respond-async"])
async def test_the_same_key_is_200_without_work(function: Function, log: LogLines, prefer: str) -> None:
    known = described(trigger="manual", status="running")
    function.sql.answers["scheduler_open"] = {"outcome": "same", "invocation": known, "canary": None}
    response = await function.ask("POST", body={}, headers={"Idempotency-Key": "k", "Prefer": prefer})
    assert (response.status_code, response.json()) == (200, answer_of(known))
    assert not {"location", "preference-applied"} & {*response.headers}
    assert (function.sql.called(), log.all()) == (["scheduler_open"], [])


@pytest.mark.parametrize(
    ("outcome", "status", "code", "field"),
    [
        ("other_request", 422, "idempotency_key_reused", "Idempotency-Key"),
        ("deleted", 409, "invocation_deleted", "Idempotency-Key"),
        ("retry_source_unknown", 422, "invalid_field", "retry_of"),
        *((f"retry_{name}", 409, f"retry_{name}", "retry_of") for name in ("source_open", "already_open")),
        *((name, 409, name, "retry_of") for name in ("nothing_to_retry", "retry_window_closed")),
    ],
)
async def test_a_refusal_is_its_problem(function: Function, outcome: str, status: int, code: str, field: str) -> None:
    function.sql.answers["scheduler_open"] = {"outcome": outcome, "invocation": None, "canary": None}
    assert problem_in(await function.ask("POST", body={}), status, code)["field"] == field
    assert function.sql.called() == ["scheduler_open"]


QUOTED = {'"abc"': "abc", '"a\\"b\\\\c"': 'a"b\\c', f'"{"x" * 200}"': "x" * 200}


@pytest.mark.parametrize("key", ["k", "!~", 'a"b', '"', "x" * 200, *QUOTED])
async def test_a_key_is_the_same_with_quotes_and_without(function: Function, key: str) -> None:
    assert (await function.ask("POST", body={}, headers={"Idempotency-Key": key})).status_code == 201
    assert function.sql.arguments_of("scheduler_open")["idempotency_key"] == QUOTED.get(key, key)


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("PUT", {"status": "cancelled"}), ("DELETE", None)])
async def test_an_unknown_id_is_404_in_either_case(function: Function, method: str, body: object) -> None:
    problem = problem_in(await function.ask(method, ONE.upper(), body=body), 404, "not_found")
    assert RUN_ID in problem["detail"]
    ((_, arguments),) = function.sql.database.called
    assert arguments["invocation_id"] == RUN_ID


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (None, None, False, None)),
        ({"note": None}, (None, None, True, None)),
        ({"status": "cancelled"}, ("cancelled", None, False, None)),
        ({"status": "cancelled", "note": ""}, ("cancelled", None, True, "")),
        ({"status": "failed", "error_message": "wrong day"}, ("failed", "wrong day", False, None)),
    ],
)
async def test_only_given_members_change(function: Function, body: dict[str, Any], expected: tuple[Any, ...]) -> None:
    changed = described(status=body.get("status", "running"), note=body.get("note"))
    function.sql.answers["scheduler_update"] = {"ended_otherwise": False, "invocation": changed}
    response = await function.ask("PUT", ONE, body=body)
    assert (response.status_code, response.json()) == (200, answer_of(changed))
    asked = function.sql.arguments_of("scheduler_update")
    names = ("invocation_id", "actor", "status", "error_message", "set_note", "note")
    assert tuple(asked[name] for name in names) == (RUN_ID, "anna", *expected)


async def test_only_a_run_that_ended_is_deleted_and_not_cancelled(function: Function) -> None:
    function.sql.answers["scheduler_update"] = {"ended_otherwise": True, "invocation": described(status="partial")}
    for status in ("cancelled", "failed"):
        problem = problem_in(await function.ask("PUT", ONE, body={"status": status}), 409, "already_ended")
        assert (problem["field"], "partial" in problem["detail"]) == ("status", True)
    function.sql.answers["scheduler_delete"] = "deleted"
    response = await function.ask("DELETE", ONE)
    assert (response.status_code, response.content) == (204, b"")
    assert function.sql.arguments_of("scheduler_delete") == {"invocation_id": RUN_ID, "actor": "anna"}
    function.sql.answers["scheduler_delete"] = "open"
    problem_in(await function.ask("DELETE", ONE), 409, "still_open")


async def test_a_mentor_is_shown_with_segments_and_types() -> None:
    types = '[{"type": "odd", "segments": ["new"]}, {"type": "all", "segments": ["old", "new"]}]'
    rows = [mentor_row(1, "old", "new"), mentor_row(2), {"user_id": mentor_id(3), "segments": ["new", None]}]
    page = (await Function(rows=rows, SCENARIO_TYPES=types).ask("GET", MENTORS)).json()
    shown = [tuple(item[name] for name in ("segments", "scenario_types", "skip_reason")) for item in page.pop("data")]
    assert shown == [(["new", "old"], ["odd", "all"], None), ([], [], None), ([], [], "invalid_segments")]
    assert page == {"pagination": {"limit": 100, "next_cursor": None}, "user_id_missing": 0}


@pytest.mark.parametrize(("limit", "sizes"), [(None, [100, 100, 50]), (1000, [250]), (250, [250]), (200, [200, 50])])
async def test_page_after_page_each_mentor_comes_once(limit: int | None, sizes: list[int]) -> None:
    """Rows without a user id are counted on the last one."""
    rows = [{"user_id": None, "segments": []}, *(mentor_row(n, "established") for n in range(250))]
    function = Function(rows=rows)
    params = {} if limit is None else {"limit": str(limit)}
    pages: list[dict[str, Any]] = []
    while not pages or pages[-1]["pagination"]["next_cursor"] is not None:
        pages.append((await function.ask("GET", MENTORS, params=params)).json())
        params["cursor"] = pages[-1]["pagination"]["next_cursor"]
    assert [len(page["data"]) for page in pages] == sizes
    assert [item["user_id"] for page in pages for item in page["data"]] == [mentor_id(n) for n in range(250)]
    assert [page["user_id_missing"] for page in pages] == [0] * (len(pages) - 1) + [1]


COUNTED = {"users_evaluated": 2, "notifications_dispatched": 3, "mentors_remaining": 6}
COUNTED |= {"counts": summarized()["counts"] | {"triggered": 7, "suppressed": 4, "failed": 5}}
RUNNING = summarized(status="running", finished_at=None, **COUNTED)
ENDED = summarized(note="Anna", error_message="Anna", reason="Anna", **COUNTED)
OPENED = slot_answer(opened=True, invocation=RUNNING, open=[open_row()])
SCHEDULE_TIME = "X-CloudScheduler-ScheduleTime"


def seen_by_clock(summary: dict[str, Any], *, deduplicated: bool) -> dict[str, Any]:
    """What a caller with an invoke token sees: neither a text of a person or an engine, nor a user id."""
    seen = {name: in_json(summary)[name] for name in ("id", "status", "scheduled_for", "error_code")}
    totals = {"total_active_mentors": 1, "total_evaluated": 2, "total_dispatched": 3, "total_suppressed": 4}
    totals |= {"total_errors": 5, "remaining": 6, "duration_ms": 1668 if summary["finished_at"] else 26_798}
    return seen | totals | {"completed": summary["finished_at"] is not None, "deduplicated": deduplicated}


@pytest.mark.parametrize(
    ("body", "header"),
    [
        ({"scheduled_for": "2026-11-23T03:00:59.999+01:00"}, None),
        ({"scheduled_for": "2026-11-24t01:59:00+23:59"}, None),
        ({"scheduled_for": "2026-11-23 02:00Z"}, "2020-01-01T00:00:00Z"),
        (None, "2026-11-23T03:00:59.123456789+01:00"),
        ({"scheduled_for": None}, SLOT),
    ],
)
async def test_body_or_header_names_the_slots_minute(function: Function, body: object, header: str | None) -> None:
    headers = {} if header is None else {SCHEDULE_TIME: header}
    assert (await function.start(body, **headers)).status_code == 200
    assert function.sql.arguments_of("scheduler_open_slot")["requested_slot"] == SLOT


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({}, "invoke"),
        ({SCHEDULE_TIME: SLOT}, "cloud_scheduler"),
        ({SCHEDULE_TIME: SLOT, "X-Scheduler-Dispatch": "7"}, "pg_cron"),
        (ADMIN | {SCHEDULE_TIME: SLOT, "X-Scheduler-Dispatch": "7"}, "anna"),
    ],
)
async def test_the_token_names_the_caller_and_headers_the_clock(
    function: Function, headers: dict[str, str], name: str
) -> None:
    assert (await function.start(**headers)).status_code == 200
    assert function.sql.arguments_of("scheduler_open_slot")["triggered_by"] == name


async def test_a_time_that_names_no_slot_is_422(function: Function) -> None:
    function.sql.answers["scheduler_open_slot"] = slot_answer(not_a_slot=True)
    problem = problem_in(await function.start({"scheduled_for": "2020-01-01T00:00:00Z"}), 422, "not_a_slot")
    assert problem["field"] == "scheduled_for"
    assert "2020-01-01T00:00Z" in problem["detail"]
    assert problem_in(await function.start(**{SCHEDULE_TIME: SLOT}), 422, "not_a_slot")["field"] == SCHEDULE_TIME


@pytest.mark.parametrize(("total", "slices"), [("", 4), ("160", 4), ("128", 3), ("64", 1)])
async def test_dispatch_learns_how_many_slices_have_a_permit(log: LogLines, total: str, slices: int) -> None:
    """One of the permits, of 32 calls each, serves manual runs only."""
    function = Function(ENGINE_MAX_CONCURRENCY="32", ENGINE_MAX_CONCURRENCY_TOTAL=total, MAX_WORKERS="4")
    await function.start()
    assert function.sql.arguments_of("scheduler_open_slot")["max_workers"] == slices


async def test_a_slice_names_its_dispatch_when_it_ends(function: Function) -> None:
    function.sql.answers["scheduler_open_slot"] = OPENED
    paused = {"batches": [], "stale": 0, "engine_paused_until": "2026-11-23T02:05:00+00:00", "poison_waits": False}
    function.sql.answers["scheduler_claim"] = paused
    response = await function.start(None, **{"X-Scheduler-Dispatch": str(2**63 - 1)})
    assert (response.status_code, response.json()["status"]) == (202, "running")
    assert function.sql.arguments_of("scheduler_end_slice")["dispatch_id"] == 2**63 - 1
    assert function.engine.calls == [], "a paused engine is left alone"
    assert function.sql.arguments_of("scheduler_claim")["manual_only"] is False


SKIPPED = ENDED | {"status": "skipped", "error_code": "overlap", "lateness_seconds": None}


@pytest.mark.parametrize(
    ("slot", "finished", "status", "expected"),
    [
        (slot_answer(), RUNNING, 200, {"status": "idle"}),
        (slot_answer(open=[open_row(trigger="manual")]), RUNNING, 202, {"status": "idle"}),
        (slot_answer(opened=True, invocation=SKIPPED), None, 200, seen_by_clock(SKIPPED, deduplicated=False)),
        (slot_answer(invocation=ENDED), None, 200, seen_by_clock(ENDED, deduplicated=True)),
        (OPENED, None, 200, seen_by_clock(RUNNING, deduplicated=False)),
        (OPENED, ENDED, 200, seen_by_clock(ENDED, deduplicated=False)),
        (OPENED | {"more_open": True}, ENDED, 202, seen_by_clock(ENDED, deduplicated=False)),
    ],
    ids=["idle", "another run is open", "skipped", "ended before", "deleted meanwhile", "ended meanwhile", "more open"],
)
async def test_a_start_returns_its_run_and_202_while_work_is_left(
    function: Function, slot: dict[str, Any], finished: dict[str, Any] | None, status: int, expected: dict[str, Any]
) -> None:
    function.sql.answers["scheduler_open_slot"] = slot
    ended_now = finished is ENDED
    function.sql.answers["scheduler_finish"] = {"ended_now": ended_now, "invocation": finished, "failures": []}
    response = await function.start()
    assert (response.status_code, response.json()) == (status, expected)
    if slot["open"]:
        # A run that ended makes room for another one: the next slice has to come at once.
        assert function.sql.arguments_of("scheduler_end_slice")["progressed"] is (slot["more_open"] and ended_now)
