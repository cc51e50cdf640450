"""A run that somebody asks for: the same request is the same run, and what was opened is never lost to the caller."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.http.schemas import RunRequest
from functions.manual_run import ManualRun, start_run
from shared.errors import (
    DatabaseError,
    DatabaseRefusedError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    MentorsViewError,
    RequestError,
)
from shared.evaluations import MENTOR_NOT_ACTIVE
from tests.unit.functions.http_function import Function
from tests.unit.functions.pretend_engine import truth
from tests.unit.functions.pretend_sql import RUN_ID, described, mentor_id, mentor_row
from tests.unit.log_lines import LogLines

TYPES = ("inactivity_30_days", "milestone_reached", "onboarding_incomplete")
MENTORS = [mentor_row(n, "established") for n in range(5)]

requests = st.fixed_dictionaries(
    {
        "user_ids": st.none() | st.lists(st.sampled_from([mentor_id(n) for n in range(3)]), min_size=1, max_size=5),
        "scenario_types": st.none() | st.lists(st.sampled_from(TYPES), min_size=1, max_size=5),
        "dry_run": st.booleans(),
        "retry_of": st.none(),
        "note": st.none() | st.sampled_from(["", "a", "b"]),
    }
) | st.fixed_dictionaries(
    {
        "user_ids": st.none(),
        "scenario_types": st.none(),
        "dry_run": st.booleans(),
        "retry_of": st.sampled_from([RUN_ID, mentor_id(1)]),
        "note": st.none() | st.just("a"),
    }
)


async def start(
    function: Function, *, idempotency_key: str | None = None, respond_async: bool = False, **members: Any
) -> ManualRun:
    request = RunRequest.model_validate(members)
    return await start_run(function.work, request, idempotency_key=idempotency_key, respond_async=respond_async)


async def digest_of(members: dict[str, Any]) -> str:
    function = Function()
    await start(function, respond_async=True, **members)
    digest: str = function.sql.arguments_of("scheduler_open")["request_hash"]
    return digest


def meaning(members: dict[str, Any]) -> dict[str, Any]:
    """What two requests have in common that ask for the same run."""
    return {name: frozenset(value) if isinstance(value, list) else value for name, value in members.items()}


# The same request


@given(requests, st.data())
async def test_order_and_repetition_make_no_other_request(members: dict[str, Any], data: st.DataObject) -> None:
    other = dict(members)
    for name in ("user_ids", "scenario_types"):
        if other[name] is not None:
            other[name] = data.draw(st.permutations(2 * other[name]))
    assert await digest_of(other) == await digest_of(members)


@given(requests, requests)
async def test_anything_else_makes_another_request(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert (await digest_of(first) == await digest_of(second)) == (meaning(first) == meaning(second))


@pytest.mark.parametrize(
    "other",
    [
        {"user_ids": [mentor_id(1)]},
        {"scenario_types": ["milestone_reached"]},
        {"dry_run": True},
        {"retry_of": RUN_ID},
        {"note": "n"},
        {"note": ""},
    ],
    ids=str,
)
async def test_each_member_counts(other: dict[str, Any]) -> None:
    assert await digest_of(other) != await digest_of({})


@pytest.mark.parametrize("members", [{"user_ids": None}, {"dry_run": False}, {"note": None, "retry_of": None}], ids=str)
async def test_what_is_said_as_it_is_by_default_makes_no_other_request(members: dict[str, Any]) -> None:
    assert await digest_of(members) == await digest_of({})


async def test_the_spelling_of_an_id_makes_no_other_request() -> None:
    wanted = mentor_id(10)
    assert await digest_of({"user_ids": [wanted.upper()]}) == await digest_of({"user_ids": [wanted]})


async def test_each_request_has_an_invocation_id_of_its_own() -> None:
    function = Function()
    first, second = [await start(function, respond_async=True) for _ in range(2)]
    assert first.invocation["id"] != second.invocation["id"]


# What is refused before anything is asked


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"scenario_types": ["unknown"]}, "scenario_types"),
        ({"scenario_types": ["milestone_reached", "Milestone_Reached"]}, "scenario_types"),
        ({"retry_of": RUN_ID, "user_ids": [mentor_id(1)]}, "retry_of"),
        ({"retry_of": RUN_ID, "scenario_types": ["milestone_reached"]}, "retry_of"),
    ],
    ids=str,
)
async def test_a_run_that_makes_no_sense_is_not_opened(members: dict[str, Any], field: str) -> None:
    function = Function()
    with pytest.raises(RequestError) as caught:
        await start(function, **members)
    assert (caught.value.status, caught.value.field) == (422, field)
    assert function.sql.called() == []


async def test_a_type_that_is_switched_off_is_not_known() -> None:
    function = Function(SCENARIO_TYPES='[{"type": "on"}, {"type": "off", "enabled": false}]')
    with pytest.raises(RequestError) as caught:
        await start(function, scenario_types=["off"])
    assert caught.value.detail == "scenario_types: expected some of on, found off"


# What is done


async def test_everybody_is_evaluated_within_the_call(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    run = await start(function)
    assert run.created
    assert {pair for call in function.engine.calls for pair in call.pairs} == {
        (row["user_id"], scenario_type)
        for row in MENTORS
        for scenario_type in ("inactivity_30_days", "milestone_reached")
    }
    recorded = function.sql.arguments_of("scheduler_complete")
    assert recorded["invocation_id"] == run.invocation["id"]
    assert sum(n for counts in recorded["scenario_counts"].values() for n in counts.values()) == 10
    assert function.sql.called()[-3:] == ["scheduler_finish", "scheduler_hand_back", "scheduler_get"]
    (opened,) = log.of("invocation_opened")
    assert (opened["invocation_id"], opened["triggered_by"]) == (run.invocation["id"], "manual")


async def test_of_the_chosen_who_is_not_active_is_skipped_and_the_others_are_evaluated(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    await start(function, user_ids=[mentor_id(9), mentor_id(3)], scenario_types=["milestone_reached"])
    assert [call.pairs for call in function.engine.calls] == [((mentor_id(3), "milestone_reached"),)]
    recorded = function.sql.arguments_of("scheduler_complete")
    found = {
        user: (group["outcome"], group["error_code"]) for group in recorded["results"] for user in group["user_ids"]
    }
    assert found[mentor_id(9)] == ("skipped", MENTOR_NOT_ACTIVE)
    assert found.get(mentor_id(3), ("not_triggered",))[0] == truth(mentor_id(3), "milestone_reached")


async def test_a_retry_evaluates_what_the_other_run_left_undone(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    rest: dict[str, Any] = {
        "triggered_by": "schedule",
        "retry_of": None,
        "request": {},
        "enumeration_cursor": None,
        "enumeration_done": True,
    }
    undone = [{"user_id": mentor_id(2), "scenario_types": ["milestone_reached"], "active": True}]

    def read_undone(arguments: dict[str, Any]) -> dict[str, Any]:
        assert arguments["invocation_id"] == RUN_ID
        first = arguments["after_user_id"] is None
        return {"mentors": undone if first else [], "last_user_id": mentor_id(2) if first else None, "rest": rest}

    function.sql.answers["scheduler_undone"] = read_undone
    run = await start(function, retry_of=RUN_ID)
    assert run.invocation["triggered_by"] == "retry"
    assert [call.pairs for call in function.engine.calls] == [((mentor_id(2), "milestone_reached"),)]


async def test_nights_are_left_to_others(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    await start(function)
    claims = [arguments for name, arguments in function.sql.database.called if name == "scheduler_claim"]
    assert {claim["manual_only"] for claim in claims} == {True}


async def test_who_wants_no_answer_from_the_slice_gets_none_and_the_database_is_asked_for_one(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    run = await start(function, respond_async=True)
    assert run.created
    assert function.sql.called() == ["scheduler_open"]
    assert function.sql.arguments_of("scheduler_open")["post_slice"] is True
    assert function.sql.database.pages_read == 0
    assert function.engine.calls == []


async def test_the_run_of_a_known_key_is_told_and_not_worked_on(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    known = described(status="running", finished_at=None)
    function.sql.answers["scheduler_open"] = {"outcome": "same", "invocation": known, "witness": None}
    assert await start(function, idempotency_key="k") == ManualRun(known, created=False)
    assert function.sql.called() == ["scheduler_open"]
    assert log.of("invocation_opened") == []


# The database fails


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (DatabaseUnavailableError("away"), "database_unavailable"),
        (DatabaseTimeoutError("57014"), "database_timeout"),
        (DatabaseRefusedError("42501", "denied"), "database_refused"),
    ],
)
@pytest.mark.parametrize(
    "failing",
    [
        *("scheduler_enqueue", "scheduler_claim", "scheduler_complete"),
        *("scheduler_finish", "scheduler_hand_back", "scheduler_get"),
    ],
)
async def test_once_it_is_opened_a_run_is_told_whatever_the_database_does(
    log: LogLines, failing: str, error: Exception, event: str
) -> None:
    """An error would make the caller open another."""
    function = Function(rows=MENTORS)
    function.sql.answers[failing] = error
    run = await start(function)
    assert run.created
    assert run.invocation["id"] == function.sql.arguments_of("scheduler_open")["invocation_id"]
    assert log.of(event)[0]["invocation_id"] == run.invocation["id"]


async def test_an_unreadable_view_is_answered_and_logged(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    function.sql.answers["scheduler_active_mentors"] = MentorsViewError("segments: expected text[], found text")
    run = await start(function, user_ids=[mentor_id(1)])
    (line,) = log.of("mentors_view_invalid")
    assert (run.created, line["invocation_id"]) == (True, run.invocation["id"])
    assert log.of("database_unavailable") == []


@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), DatabaseRefusedError("42501", "denied")])
async def test_what_could_not_be_opened_is_told_as_it_is(error: DatabaseError) -> None:
    function = Function(rows=MENTORS)
    function.sql.answers["scheduler_open"] = error
    with pytest.raises(type(error)):
        await start(function)


async def test_a_defect_of_ours_in_the_slice_is_not_hidden(log: LogLines) -> None:
    function = Function(rows=MENTORS)
    function.sql.answers["scheduler_claim"] = LookupError("ours")
    with pytest.raises(LookupError):
        await start(function)
