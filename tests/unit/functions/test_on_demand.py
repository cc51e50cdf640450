"""Runs and evaluation-batches on demand: the same request acts once, and an answer is never lost to the caller."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from functions.runs.manual import start_run
from functions.runs.requests import RunRequest
from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError
from shared.evaluations import INVALID_SEGMENTS, MENTOR_NOT_ACTIVE, SCENARIO_NOT_APPLICABLE
from shared.invocation import Invocation
from tests.unit.clock import ManualClock
from tests.unit.functions.fake_engine import FakeEngine, truth
from tests.unit.functions.fake_sql import RUN_ID, mentor_id, mentor_row
from tests.unit.functions.http_function import Function, problem_in
from tests.unit.log_lines import LogLines

INACTIVITY, MILESTONE, CERTIFICATION = "inactivity", "milestone", "certification_expiry"
OLD, NEW = "established", "certified"
MENTORS = [mentor_row(0, OLD), mentor_row(1, NEW), mentor_row(2, OLD, NEW), mentor_row(3) | {"segments": [[OLD]]}]
KEY = {"Idempotency-Key": "after-the-fix"}


@pytest.fixture
def function(log: LogLines) -> Function:  # the log: what is logged shall not spill
    return Function(rows=MENTORS)


async def start(function: Function, *, respond_async: bool = False, **members: Any) -> Invocation:
    request = RunRequest.model_validate(members)
    run, is_new = await start_run(function.services, request, "anna", idempotency_key=None, respond_async=respond_async)
    assert is_new
    return run


async def opened_by(members: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `scheduler_open`, which alone decides whether two requests are the same."""
    function = Function()
    await start(function, respond_async=True, **members)
    return function.sql.arguments_of("scheduler_open") | {"invocation_id": None}


CHOSEN = {"user_ids": [mentor_id(10), mentor_id(11)], "scenario_types": [MILESTONE, CERTIFICATION]}
IN_OTHER_WORDS = {
    "user_ids": [mentor_id(11), mentor_id(10).upper(), mentor_id(11)],
    "scenario_types": [CERTIFICATION, MILESTONE, CERTIFICATION],
}


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (CHOSEN, IN_OTHER_WORDS, True),
        ({}, {"user_ids": None, "dry_run": False, "note": None, "retry_of": None}, True),
        *(({}, {name: CHOSEN[name]}, False) for name in CHOSEN),
        ({"retry_of": RUN_ID}, {"retry_of": RUN_ID.upper()}, True),
        *(({}, other, False) for other in ({"dry_run": True}, {"retry_of": RUN_ID}, {"note": "n"}, {"note": ""})),
    ],
    ids=str,
)
async def test_a_request_is_the_same_in_any_order(first: dict[str, Any], second: dict[str, Any], is_same: bool) -> None:
    opened, other = await opened_by(first), await opened_by(second)
    assert (opened == other) is (opened["request_hash"] == other["request_hash"]) is is_same


async def test_all_mentors_are_evaluated_within_the_call(function: Function, log: LogLines) -> None:
    run = await start(function)
    applies = {0: (INACTIVITY, MILESTONE), 1: (MILESTONE, CERTIFICATION), 2: (INACTIVITY, MILESTONE, CERTIFICATION)}
    asked = {pair for call in function.engine.calls for pair in call.pairs}
    assert asked == {(mentor_id(n), name) for n, names in applies.items() for name in names}
    recorded = function.sql.arguments_of("scheduler_complete")
    assert recorded["invocation_id"] == str(run.id)
    assert sum(n for counts in recorded["scenario_counts"].values() for n in counts.values()) == 10
    assert function.sql.called()[-3:] == ["scheduler_finish", "scheduler_end_slice", "scheduler_get"]
    claims = [arguments for name, arguments in function.sql.database.called if name == "scheduler_claim"]
    assert {claim["manual_only"] for claim in claims} == {True}, "scheduled runs are left to other slices"
    (started,) = log.of("scheduler_run_started")
    assert (started["invocation_id"], started["trigger"]) == (str(run.id), "manual")


@pytest.mark.parametrize(
    ("failing", "error", "event"),
    [
        ("scheduler_enqueue", DatabaseTimeoutError("57014"), "database_timeout"),
        ("scheduler_claim", DatabaseUnavailableError("away"), "database_unavailable"),
        ("scheduler_complete", DatabaseRefusedError("42501", "denied"), "database_refused"),
        ("scheduler_end_slice", DatabaseTimeoutError("57014"), "database_timeout"),
        ("scheduler_get", DatabaseRefusedError("42501", "denied"), "database_refused"),
        ("scheduler_active_mentors", MentorsViewError("segments: expected text[]"), "mentors_view_invalid"),
    ],
)
async def test_an_opened_run_is_answered_whatever_the_database_does(
    function: Function, log: LogLines, failing: str, error: Exception, event: str
) -> None:
    function.sql.answers[failing] = error
    run = await start(function, user_ids=[mentor_id(1)])
    assert str(run.id) == function.sql.arguments_of("scheduler_open")["invocation_id"]
    assert log.of(event)[0]["invocation_id"] == str(run.id)


async def test_a_defect_of_ours_in_the_slice_is_raised(function: Function) -> None:
    function.sql.answers["scheduler_claim"] = LookupError("ours")
    with pytest.raises(LookupError):
        await start(function)


async def evaluate(function: Function, *numbers: int, headers: dict[str, str] = KEY, **members: Any) -> httpx.Response:
    body = {"user_ids": [mentor_id(n) for n in numbers]} | members
    return await function.ask("POST", "/evaluation-batch", body=body, headers=headers)


def results_of(response: httpx.Response) -> dict[tuple[str, str], dict[str, Any]]:
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    by_pair = {(result["user_id"], result["scenario_type"]): result for result in results}
    assert len(by_pair) == len(results)
    return by_pair


@pytest.mark.parametrize(
    ("numbers", "named", "skipped"),
    [
        ([0, 1, 7], None, {(7, INACTIVITY), (7, MILESTONE), (7, CERTIFICATION)}),
        ([0, 3], [MILESTONE], {(3, MILESTONE)}),
        ([0, 1, 7], [CERTIFICATION, MILESTONE], {(0, CERTIFICATION), (7, CERTIFICATION), (7, MILESTONE)}),
        ([2, 0, 2], [MILESTONE] * 3, set()),
    ],
)
async def test_each_pair_has_the_engines_answer_or_a_reason(
    function: Function, log: LogLines, numbers: list[int], named: list[str] | None, skipped: set[tuple[int, str]]
) -> None:
    results = results_of(await evaluate(function, *numbers, scenario_types=named))
    reasons = {0: SCENARIO_NOT_APPLICABLE, 3: INVALID_SEGMENTS, 7: MENTOR_NOT_ACTIVE}
    found = {pair: result["error_code"] for pair, result in results.items() if result["outcome"] == "skipped"}
    assert found == {(mentor_id(n), name): reasons[n] for n, name in skipped}
    asked = {pair for call in function.engine.calls for pair in call.pairs}
    assert asked == results.keys() - found.keys()
    for pair in asked:
        answer = truth(*pair)
        assert (results[pair]["outcome"], results[pair]["attempts"]) == (answer, 1)
        assert results[pair]["notification_id"] == (f"n-{pair[0]}-{pair[1]}" if answer == "triggered" else None)
    assert function.sql.called() == ["scheduler_scenario_config", "scheduler_active_mentors"]
    (line,) = log.of("batch_evaluated")
    assert (line["triggered_by"], sum(line["counts"].values())) == ("anna", len(results))


async def test_the_engine_remembers_under_the_callers_key(function: Function) -> None:
    for key in ("a", "a", "b"):
        await evaluate(function, 0, headers={"Idempotency-Key": key})
    first, again, other = (call.body for call in function.engine.calls)
    assert first["evaluations"][0]["idempotency_key_prefix"] == f"adhoc:a:{mentor_id(0)}"
    assert (first["dry_run"], first == again) == (False, True)
    assert other["invocation_id"] != first["invocation_id"]


async def test_a_dry_run_needs_no_key_and_spends_none(function: Function) -> None:
    for headers in ({}, KEY, KEY):
        results_of(await evaluate(function, 0, headers=headers, dry_run=True))
    for body in (bodies := [call.body for call in function.engine.calls]):
        prefix = f"dry:{body['invocation_id']}:{mentor_id(0)}"
        assert (body["dry_run"], body["evaluations"][0]["idempotency_key_prefix"]) == (True, prefix)
    assert len({body["invocation_id"] for body in bodies}) == 3


async def test_a_batch_without_a_key_or_too_large_is_refused(log: LogLines) -> None:
    function = Function(rows=MENTORS, EVALUATION_BATCH_SIZE="2")
    problem = problem_in(await evaluate(function, 0, headers={}), 422, "idempotency_key_missing")
    assert problem["field"] == "Idempotency-Key"
    problem = problem_in(await evaluate(function, 0, 1, 2), 422, "invalid_field")
    assert (problem["field"], "at most 2 mentors, found 3" in problem["detail"]) == ("user_ids", True)
    assert function.sql.called() == []
    assert (await evaluate(function, 0, 1, 0, 1)).status_code == 200


@pytest.mark.parametrize(
    ("status", "headers", "retry_after"),
    [
        *((401, {}, None), (404, {}, None), (429, {}, 1), (500, {}, 1)),
        *((503, {"Retry-After": wait}, int(wait)) for wait in ("0", "77", "3600")),
    ],
)
async def test_an_engine_that_serves_no_call_is_a_problem(
    log: LogLines, clock: ManualClock, status: int, headers: dict[str, str], retry_after: int | None
) -> None:
    engine = FakeEngine(clock, trouble=lambda _: httpx.Response(status, headers=headers))
    function = Function(rows=MENTORS, engine=engine)
    response = await evaluate(function, 0, 1)
    answer = (502, "engine_rejected") if retry_after is None else (503, "engine_unavailable")
    assert f"engine_http_{status}" in problem_in(response, *answer)["detail"]
    assert retry_after is None or int(response.headers["retry-after"]) >= retry_after
    calls = len(engine.calls)
    results = results_of(await evaluate(function, 7, 8))
    assert {result["outcome"] for result in results.values()} == {"skipped"}
    assert len(engine.calls) == calls, "it is not asked about skipped pairs"


async def test_a_batch_that_is_not_through_in_time_is_504(log: LogLines, clock: ManualClock) -> None:
    engine = FakeEngine(clock, poison={mentor_id(0): 0})
    function = Function(rows=MENTORS, engine=engine, TIME_BUDGET_SECONDS="5", ENGINE_TIMEOUT_SECONDS="4")
    assert "5 s" in problem_in(await evaluate(function, 0, 7), 504, "time_budget_exceeded")["detail"]


async def test_it_is_never_in_hand_together_with_a_poison_batch(log: LogLines, clock: ManualClock) -> None:
    """A crash would count against both."""

    def look(_: object) -> None:
        idle.append(function.services.gate.is_idle)

    idle: list[bool] = []
    engine = FakeEngine(clock, trouble=look)
    function = Function(rows=MENTORS, engine=engine)
    async with function.services.gate.exclusive() as is_idle:
        assert is_idle
        evaluating = asyncio.create_task(evaluate(function, 0))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert engine.calls == []
    assert results_of(await evaluating)
    assert idle == [False]


async def test_a_batch_holds_a_permit_while_it_calls(log: LogLines) -> None:
    """One that cannot be returned changes no answer."""
    function = Function(rows=MENTORS, ENGINE_MAX_CONCURRENCY_TOTAL="64")
    function.sql.answers["scheduler_end_slice"] = DatabaseUnavailableError("away")
    assert len(results_of(await evaluate(function, 0, 1))) == 4
    assert len(log.of("engine_permit_left")) == 1
    assert function.sql.called()[2:] == ["scheduler_take_permit", "scheduler_end_slice"]
    taken, returned = map(function.sql.arguments_of, ("scheduler_take_permit", "scheduler_end_slice"))
    assert (taken["is_manual"], returned["engine_permit_id"]) == (True, taken["permit_id"])
    assert (returned["progressed"], returned["engine_answers"]) == (False, False)


async def test_without_a_permit_a_batch_waits_half_its_time(log: LogLines) -> None:
    times: dict[str, Any] = {"TIME_BUDGET_SECONDS": "1", "ENGINE_TIMEOUT_SECONDS": "0.5"}
    function = Function(rows=MENTORS, ENGINE_MAX_CONCURRENCY_TOTAL="64", **times)
    function.sql.answers["scheduler_take_permit"] = False
    response = await evaluate(function, 0)
    problem_in(response, 503, "engine_busy")
    assert (response.headers["retry-after"], function.engine.calls) == ("30", [])
    assert function.sql.called()[2:] == ["scheduler_take_permit", "scheduler_take_permit", "scheduler_end_slice"]
