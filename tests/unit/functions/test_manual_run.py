"""A run on demand: the same request is the same run, and what was opened is never lost to the caller."""

from __future__ import annotations

from typing import Any

import pytest

from functions.http.schemas import RunRequest
from functions.manual_run import ManualRun, start_run
from shared.errors import (
    DatabaseRefusedError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    MentorsViewError,
)
from shared.evaluations import MENTOR_NOT_ACTIVE
from tests.unit.functions.http_function import Function
from tests.unit.functions.pretend_engine import truth
from tests.unit.functions.pretend_sql import RUN_ID, mentor_id, mentor_row
from tests.unit.log_lines import LogLines

MENTORS = [mentor_row(n, "established") for n in range(5)]


@pytest.fixture
def function(log: LogLines) -> Function:  # the log: what is logged shall not spill
    return Function(rows=MENTORS)


async def start(function: Function, *, respond_async: bool = False, **members: Any) -> ManualRun:
    request = RunRequest.model_validate(members)
    return await start_run(function.work, request, idempotency_key=None, respond_async=respond_async)


async def digest_of(members: dict[str, Any]) -> str:
    function = Function()
    await start(function, respond_async=True, **members)
    digest: str = function.sql.arguments_of("scheduler_open")["request_hash"]
    return digest


CHOSEN = {"user_ids": [mentor_id(10), mentor_id(11)], "scenario_types": ["milestone_reached", "onboarding_incomplete"]}
IN_OTHER_WORDS = {
    "user_ids": [mentor_id(11), mentor_id(10).upper(), mentor_id(11)],
    "scenario_types": ["onboarding_incomplete", "milestone_reached", "onboarding_incomplete"],
}


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        (CHOSEN, IN_OTHER_WORDS, True),
        ({}, {"user_ids": None, "dry_run": False, "note": None, "retry_of": None}, True),
        *(({}, {name: CHOSEN[name]}, False) for name in CHOSEN),
        *(({}, other, False) for other in ({"dry_run": True}, {"retry_of": RUN_ID}, {"note": "n"}, {"note": ""})),
    ],
    ids=str,
)
async def test_a_request_is_the_same_in_any_order_and_spelling(
    first: dict[str, Any], second: dict[str, Any], is_same: bool
) -> None:
    assert (await digest_of(first) == await digest_of(second)) is is_same


# What is done within the call


async def test_all_mentors_are_evaluated_within_the_call(function: Function, log: LogLines) -> None:
    run = await start(function)
    assert run.created
    assert {pair for call in function.engine.calls for pair in call.pairs} == {
        (row["user_id"], name) for row in MENTORS for name in ("inactivity_30_days", "milestone_reached")
    }
    recorded = function.sql.arguments_of("scheduler_complete")
    assert recorded["invocation_id"] == run.invocation["id"]
    assert sum(n for counts in recorded["scenario_counts"].values() for n in counts.values()) == 10
    assert function.sql.called()[-3:] == ["scheduler_finish", "scheduler_hand_back", "scheduler_get"]
    claims = [arguments for name, arguments in function.sql.database.called if name == "scheduler_claim"]
    assert {claim["manual_only"] for claim in claims} == {True}, "scheduled runs are left to other slices"
    (opened,) = log.of("invocation_opened")
    assert (opened["invocation_id"], opened["triggered_by"]) == (run.invocation["id"], "manual")


async def test_of_chosen_mentors_an_inactive_one_is_skipped(function: Function) -> None:
    await start(function, user_ids=[mentor_id(9), mentor_id(3)], scenario_types=["milestone_reached"])
    assert [call.pairs for call in function.engine.calls] == [((mentor_id(3), "milestone_reached"),)]
    recorded = function.sql.arguments_of("scheduler_complete")
    found = {
        user: (group["outcome"], group["error_code"]) for group in recorded["results"] for user in group["user_ids"]
    }
    assert found[mentor_id(9)] == ("skipped", MENTOR_NOT_ACTIVE)
    assert found.get(mentor_id(3), ("not_triggered",))[0] == truth(mentor_id(3), "milestone_reached")


# What fails once it is opened: an error would make the caller open another


@pytest.mark.parametrize(
    ("failing", "error", "event"),
    [
        ("scheduler_enqueue", DatabaseTimeoutError("57014"), "database_timeout"),
        ("scheduler_claim", DatabaseUnavailableError("away"), "database_unavailable"),
        ("scheduler_complete", DatabaseRefusedError("42501", "denied"), "database_refused"),
        ("scheduler_finish", DatabaseUnavailableError("away"), "database_unavailable"),
        ("scheduler_hand_back", DatabaseTimeoutError("57014"), "database_timeout"),
        ("scheduler_get", DatabaseRefusedError("42501", "denied"), "database_refused"),
        ("scheduler_active_mentors", MentorsViewError("segments: expected text[]"), "mentors_view_invalid"),
    ],
)
async def test_an_opened_run_is_answered_whatever_the_database_does(
    function: Function, log: LogLines, failing: str, error: Exception, event: str
) -> None:
    function.sql.answers[failing] = error
    run = await start(function, user_ids=[mentor_id(1)])
    assert run.created
    assert run.invocation["id"] == function.sql.arguments_of("scheduler_open")["invocation_id"]
    assert log.of(event)[0]["invocation_id"] == run.invocation["id"]


async def test_a_defect_of_ours_in_the_slice_is_raised(function: Function) -> None:
    function.sql.answers["scheduler_claim"] = LookupError("ours")
    with pytest.raises(LookupError):
        await start(function)
