"""A batch that somebody asks for: evaluated now, each pair answered, and nobody notified twice under the same key."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from functions.http.schemas import MAX_BATCH_MENTORS
from shared.errors import DatabaseUnavailableError
from shared.evaluations import MENTOR_NOT_ACTIVE, SCENARIO_NOT_APPLICABLE
from tests.unit.clock import ManualClock
from tests.unit.functions.http_function import Function, problem_in
from tests.unit.functions.pretend_engine import PretendEngine, truth
from tests.unit.functions.pretend_sql import mentor_id, mentor_row
from tests.unit.log_lines import LogLines

MENTORS = [mentor_row(0, "established"), mentor_row(1, "onboarding"), mentor_row(2, "established", "onboarding")]
KEY = {"Idempotency-Key": "after-the-fix"}


@pytest.fixture
def function(log: LogLines) -> Function:  # the log: what is logged shall not spill
    return Function(rows=MENTORS)


def in_trouble(clock: ManualClock, status: int, **headers: str) -> Function:
    """The engine answers every call so."""
    return Function(
        rows=MENTORS, engine=PretendEngine(clock, trouble=lambda _: httpx.Response(status, headers=headers))
    )


async def evaluate(function: Function, *numbers: int, headers: dict[str, str] = KEY, **members: Any) -> httpx.Response:
    body = {"user_ids": [mentor_id(n) for n in numbers]} | members
    return await function.ask("POST", "/evaluation-batch", body=body, headers=headers)


def results_of(response: httpx.Response) -> dict[tuple[str, str], dict[str, Any]]:
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    by_pair = {(result["user_id"], result["scenario_type"]): result for result in results}
    assert len(by_pair) == len(results)
    return by_pair


# Who is evaluated for what


async def test_every_pair_that_applies_has_the_engines_answer(function: Function) -> None:
    results = results_of(await evaluate(function, 0, 1))
    assert {pair: result["outcome"] for pair, result in results.items()} == {
        pair: truth(*pair)
        for pair in [
            (mentor_id(0), "inactivity_30_days"),
            (mentor_id(0), "milestone_reached"),
            (mentor_id(1), "milestone_reached"),
            (mentor_id(1), "onboarding_incomplete"),
        ]
    }
    assert {result["attempts"] for result in results.values()} == {1}
    for pair, result in results.items():
        triggered = result["outcome"] == "triggered"
        assert result["notification_id"] == (f"n-{pair[0]}-{pair[1]}" if triggered else None)


async def test_who_is_not_active_is_skipped_with_the_reason(function: Function) -> None:
    results = results_of(await evaluate(function, 0, 7))
    skipped = {pair: result for pair, result in results.items() if pair[0] == mentor_id(7)}
    assert {pair[1] for pair in skipped} == {"inactivity_30_days", "milestone_reached", "onboarding_incomplete"}
    for result in skipped.values():
        assert (result["outcome"], result["error_code"], result["attempts"]) == ("skipped", MENTOR_NOT_ACTIVE, 0)
    assert function.engine.calls_with(mentor_id(7)) == []


async def test_who_has_only_unusable_segments_is_skipped_with_the_reason(log: LogLines) -> None:
    function = Function(rows=[{"user_id": mentor_id(0), "segments": [["established"]]}])
    results = results_of(await evaluate(function, 0, scenario_types=["milestone_reached"]))
    (result,) = results.values()
    assert (result["outcome"], result["error_code"]) == ("skipped", "invalid_segments")
    assert function.engine.calls == []


async def test_a_type_that_is_named_and_does_not_apply_is_skipped_with_the_reason(function: Function) -> None:
    named = ["onboarding_incomplete", "milestone_reached"]
    results = results_of(await evaluate(function, 0, 1, 7, scenario_types=named))
    reasons = {pair: result["error_code"] for pair, result in results.items() if result["outcome"] == "skipped"}
    assert reasons == {
        (mentor_id(0), "onboarding_incomplete"): SCENARIO_NOT_APPLICABLE,
        (mentor_id(7), "onboarding_incomplete"): MENTOR_NOT_ACTIVE,
        (mentor_id(7), "milestone_reached"): MENTOR_NOT_ACTIVE,
    }
    assert len(results) == 6


async def test_without_named_types_what_does_not_apply_is_not_mentioned(function: Function) -> None:
    assert set(results_of(await evaluate(function, 0))) == {
        (mentor_id(0), "inactivity_30_days"),
        (mentor_id(0), "milestone_reached"),
    }


async def test_repeated_mentors_and_types_are_evaluated_once(function: Function) -> None:
    results = results_of(await evaluate(function, 2, 0, 2, scenario_types=["milestone_reached"] * 3))
    assert set(results) == {(mentor_id(0), "milestone_reached"), (mentor_id(2), "milestone_reached")}


async def test_a_user_whom_the_engine_refuses_fails_alone(log: LogLines, clock: ManualClock) -> None:
    function = Function(rows=MENTORS, engine=PretendEngine(clock, poison={mentor_id(1): 422}))
    results = results_of(await evaluate(function, 0, 1, 2))
    assert {pair[0] for pair, result in results.items() if result["error_code"] == "engine_http_422"} == {mentor_id(1)}
    by_user = {line["user_id"] for line in log.of("user_failed") if line["error_code"] == "engine_http_422"}
    assert by_user == {mentor_id(1)}


async def test_nothing_of_it_is_recorded(function: Function) -> None:
    await evaluate(function, 0, 1)
    assert function.sql.called() == ["scheduler_active_mentors"]


# The key


async def test_what_the_engine_is_to_remember_stands_under_the_callers_key(function: Function) -> None:
    await evaluate(function, 0)
    (call,) = function.engine.calls
    assert call.body["dry_run"] is False
    (asked,) = call.body["evaluations"]
    assert asked["idempotency_key_prefix"] == f"adhoc:after-the-fix:{mentor_id(0)}"


async def test_the_same_key_looks_the_same_to_the_engine_and_another_does_not(function: Function) -> None:
    for key in ("a", "a", "b"):
        await evaluate(function, 0, headers={"Idempotency-Key": key})
    first, again, other = (call.body for call in function.engine.calls)
    assert again == first
    assert other["invocation_id"] != first["invocation_id"]


@pytest.mark.parametrize("headers", [{}, KEY])
async def test_a_dry_run_needs_no_key_and_stands_under_none(function: Function, headers: dict[str, str]) -> None:
    for _ in range(2):
        results_of(await evaluate(function, 0, headers=headers, dry_run=True))
    first, second = (call.body for call in function.engine.calls)
    assert first["dry_run"] is True
    assert first["evaluations"][0]["idempotency_key_prefix"] == f"dry:{first['invocation_id']}:{mentor_id(0)}"
    assert first["invocation_id"] != second["invocation_id"]


@pytest.mark.parametrize("members", [{}, {"dry_run": False}])
async def test_without_a_key_only_a_dry_run_is_served(function: Function, members: dict[str, Any]) -> None:
    problem = problem_in(await evaluate(function, 0, headers={}, **members), 422, "idempotency_key_missing")
    assert problem["field"] == "Idempotency-Key"
    assert function.sql.called() == []


@pytest.mark.parametrize("key", ["", "x" * 201, "two words", "k\xe9y"])
async def test_what_is_no_key_is_422(function: Function, key: str) -> None:
    headers = {"Idempotency-Key": key.encode("latin-1")}
    response = await evaluate(function, 0, headers=headers)  # type: ignore[arg-type]  # bytes are allowed
    assert problem_in(response, 422, "invalid_field")["field"] == "Idempotency-Key"


# What is refused


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_ids": []},
        {"user_ids": None},
        {"user_ids": ["anna"]},
        {"user_ids": [mentor_id(0).replace("-", "")]},
        {"user_ids": [mentor_id(0)] * (MAX_BATCH_MENTORS + 1)},
        {"scenario_types": [], "user_ids": [mentor_id(0)]},
        {"scenario_types": ["unknown"], "user_ids": [mentor_id(0)]},
        {"dry_run": "yes", "user_ids": [mentor_id(0)]},
    ],
    ids=lambda body: str(body)[:60],
)
async def test_what_is_no_batch_is_422_and_the_member_is_named(function: Function, body: dict[str, Any]) -> None:
    problem = problem_in(await function.ask("POST", "/evaluation-batch", body=body, headers=KEY), 422, "invalid_field")
    assert problem["field"].partition(".")[0] == next(iter(body), "user_ids")
    assert function.sql.called() == []


async def test_at_most_a_batch_of_mentors_is_served(log: LogLines) -> None:
    function = Function(rows=MENTORS, EVALUATION_BATCH_SIZE="2")
    problem = problem_in(await evaluate(function, 0, 1, 2), 422, "invalid_field")
    assert problem["field"] == "user_ids"
    assert "at most 2" in problem["detail"]
    assert "found 3" in problem["detail"]
    assert function.sql.called() == []
    assert (await evaluate(function, 0, 1, 0, 1)).status_code == 200


# The engine as a whole


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_an_engine_that_turns_us_away_is_502(log: LogLines, clock: ManualClock, status: int) -> None:
    problem = problem_in(await evaluate(in_trouble(clock, status), 0, 1), 502, "engine_rejected")
    assert f"engine_http_{status}" in problem["detail"]


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_engine_that_answers_nobody_is_503_with_retry_after(
    log: LogLines, clock: ManualClock, status: int
) -> None:
    response = await evaluate(in_trouble(clock, status), 0, 1)
    problem = problem_in(response, 503, "engine_unavailable")
    assert f"engine_http_{status}" in problem["detail"]
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize(("asked", "told"), [("77", 77), ("0", 0), ("3600", 3600)])
async def test_how_long_the_engine_asked_to_wait_is_handed_on(
    log: LogLines, clock: ManualClock, asked: str, told: int
) -> None:
    response = await evaluate(in_trouble(clock, 503, **{"Retry-After": asked}), 0)
    problem_in(response, 503, "engine_unavailable")
    assert int(response.headers["retry-after"]) >= told


async def test_a_batch_that_is_not_through_in_time_is_504(log: LogLines, clock: ManualClock) -> None:
    """The engine takes longer than the whole time budget."""
    function = Function(
        rows=MENTORS,
        engine=PretendEngine(clock, poison={mentor_id(0): 0}),
        TIME_BUDGET_SECONDS="5",
        ENGINE_TIMEOUT_SECONDS="4",
    )
    problem = problem_in(await evaluate(function, 0), 504, "time_budget_exceeded")
    assert "5 s" in problem["detail"]


async def test_an_engine_that_is_down_is_not_asked_about_those_who_are_skipped(
    log: LogLines, clock: ManualClock
) -> None:
    function = in_trouble(clock, 503)
    results = results_of(await evaluate(function, 7, 8))
    assert {result["outcome"] for result in results.values()} == {"skipped"}
    assert function.engine.calls == []


async def test_the_log_tells_how_many_and_not_who(function: Function, log: LogLines) -> None:
    await evaluate(function, 0, 1, dry_run=True)
    (line,) = log.of("batch_evaluated")
    assert (line["dry_run"], sum(line["counts"].values())) == (True, 4)


# Poison batches of slices in the same process


async def test_it_is_never_in_hand_together_with_a_poison_batch(log: LogLines, clock: ManualClock) -> None:
    """The end of either would be charged to the other."""

    def look(_: Sequence[str]) -> None:
        idle.append(function.work.process.is_idle)

    idle: list[bool] = []
    engine = PretendEngine(clock, trouble=look)
    function = Function(rows=MENTORS, engine=engine)
    async with function.work.process.alone() as is_idle:
        assert is_idle
        evaluating = asyncio.create_task(evaluate(function, 0))
        for _ in range(1000):
            await asyncio.sleep(0)
        assert engine.calls == []
    assert results_of(await evaluating)
    assert idle == [False]


# The total of calls


async def test_a_batch_holds_one_of_the_permits_while_it_calls(log: LogLines) -> None:
    function = Function(rows=MENTORS, ENGINE_MAX_CONCURRENCY_TOTAL="64")
    assert len(results_of(await evaluate(function, 0, 1))) == 4
    assert function.sql.called() == ["scheduler_active_mentors", "scheduler_take_permit", "scheduler_hand_back"]
    taken, returned = map(function.sql.arguments_of, ("scheduler_take_permit", "scheduler_hand_back"))
    assert taken["is_manual"]
    assert returned["engine_permit_id"] == taken["permit_id"]
    assert (returned["progressed"], returned["engine_answers"]) == (False, False)


async def test_a_batch_waits_half_its_time_for_a_permit_and_calls_nothing_without(log: LogLines) -> None:
    function = Function(
        rows=MENTORS, ENGINE_MAX_CONCURRENCY_TOTAL="64", TIME_BUDGET_SECONDS="1", ENGINE_TIMEOUT_SECONDS="0.5"
    )
    function.sql.answers["scheduler_take_permit"] = False
    response = await evaluate(function, 0)
    problem_in(response, 503, "engine_busy")
    assert response.headers["retry-after"] == "30"
    assert function.engine.calls == []
    assert function.sql.called()[1:] == ["scheduler_take_permit", "scheduler_take_permit", "scheduler_hand_back"]


async def test_a_permit_that_cannot_be_returned_takes_no_answer_away(log: LogLines) -> None:
    function = Function(rows=MENTORS, ENGINE_MAX_CONCURRENCY_TOTAL="64")
    function.sql.answers["scheduler_hand_back"] = DatabaseUnavailableError("away")
    assert len(results_of(await evaluate(function, 0))) == 2
    assert len(log.of("engine_permit_left")) == 1
