"""Requests for runs and batches where the engine promises neither dry runs nor idempotency."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.clock import ManualClock
from tests.unit.fake_post_client import reply
from tests.unit.functions.fake_sql import RUN_ID, detailed, mentor_id, mentor_row
from tests.unit.functions.http_function import Function, problem_in
from tests.unit.functions.single_engine import RESET, Pair, SingleEngine
from tests.unit.log_lines import LogLines

MENTORS = [mentor_row(number, "established") for number in range(3)]
KEY = {"Idempotency-Key": "after-the-fix"}


def function_with(engine: SingleEngine) -> Function:
    function = Function(rows=MENTORS, ENGINE_PROTOCOL="single")
    function.services = replace(function.services, engine=engine.client())
    return function


def batch_of(*numbers: int) -> dict[str, Any]:
    return {"user_ids": [mentor_id(number) for number in numbers], "scenario_types": ["inactivity", "milestone"]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {"dry_run": True}),
        ("", {"retry_of": RUN_ID}),
        ("/evaluation-batch", batch_of(0) | {"dry_run": True}),
    ],
)
async def test_a_dry_run_that_may_act_is_not_opened(
    log: LogLines, clock: ManualClock, path: str, body: dict[str, Any]
) -> None:
    """A retry of a dry run is one."""
    engine = SingleEngine(clock)
    function = function_with(engine)
    function.sql.answers["scheduler_get"] = detailed(dry_run=True)
    problem = problem_in(await function.ask("POST", path, body=body), 422, "dry_run_not_supported")
    assert problem["field"] == "dry_run"
    assert ("scheduler_open" in function.sql.called(), engine.sent) == (False, [])


async def test_a_retry_sends_unknown_outcomes_only_on_request(log: LogLines, clock: ManualClock) -> None:
    engine = SingleEngine(clock)
    function = function_with(engine)
    unknown: dict[str, Any] = {"scenario_types": ["milestone"], "unknown_types": ["milestone"]}
    mentors = [unknown | {"user_id": mentor_id(0), "active": True, "organizations": []}]
    read: dict[str, Any] = {
        "trigger": "schedule",
        "retry_of": None,
        "enumeration_cursor": None,
        "enumeration_done": True,
    }
    first, last = (
        {"mentors": page, "last_user_id": page[-1]["user_id"] if page else None, "remaining": read}
        for page in (mentors, [])
    )
    function.sql.answers["scheduler_unfinished"] = lambda arguments: last if arguments["after_user_id"] else first
    for body, included in (({}, False), ({"include_unknown": False}, False), ({"include_unknown": True}, True)):
        engine.sent.clear()
        assert (await function.ask("POST", body={"retry_of": RUN_ID} | body)).status_code == 201
        assert function.sql.all_arguments_of("scheduler_open")[-1]["request"]["include_unknown"] is included
        assert engine.sent == [(mentor_id(0), "milestone")] * included
    problem = problem_in(await function.ask("POST", body={"include_unknown": True}), 422, "invalid_field")
    assert problem["field"] == "include_unknown"


async def test_a_batch_answers_what_was_evaluated_before_a_stop(log: LogLines, clock: ManualClock) -> None:
    """To send it again with the same key would notify those users again."""
    unknown: Pair = (mentor_id(0), "milestone")
    engine = SingleEngine(clock, {unknown: [RESET]}, trouble=lambda _: reply(401) if len(engine.sent) > 2 else None)
    function = function_with(engine)
    response = await function.ask("POST", "/evaluation-batch", body=batch_of(0, 1, 7), headers=KEY)
    assert response.status_code == 200, response.text
    results = response.json()["results"]
    codes = {(result["user_id"], result["scenario_type"]): result["error_code"] for result in results}
    assert len(codes) == len(results) == 6
    assert codes == {
        (mentor_id(0), "inactivity"): None,
        unknown: "outcome_unknown",
        **{(mentor_id(1), name): "engine_http_401" for name in ("inactivity", "milestone")},
        **{(mentor_id(7), name): "mentor_not_active" for name in ("inactivity", "milestone")},
    }
    refused = function_with(SingleEngine(clock, trouble=lambda _: reply(401)))
    problem_in(await refused.ask("POST", "/evaluation-batch", body=batch_of(0), headers=KEY), 502, "engine_rejected")
