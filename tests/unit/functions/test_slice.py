"""A slice of work: manual runs before scheduled ones, every open run is tried to be ended, its own end comes last."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from functions.runs.peer_mentors import PAGE_SIZE
from functions.runs.run_log import MAX_FAILED_USERS
from functions.runs.services import build_services
from functions.runs.slice import process_open_runs
from shared.database import READER_CONNECTIONS, SLICE_CONNECTIONS
from shared.deadline import Deadline
from shared.errors import DatabaseRefusedError, DatabaseTimeoutError, DatabaseUnavailableError, MentorsViewError
from shared.evaluations import MentorScenarios, to_pairs
from shared.invocation import InvocationSummary
from shared.scenario_config import Scenarios
from shared.scenario_types import DEFAULT_SCENARIO_TYPES
from shared.slice_repository import Enumeration, OpenInvocation
from tests.unit.clock import ManualClock
from tests.unit.environment import make_config
from tests.unit.functions.fake_engine import FakeEngine
from tests.unit.functions.fake_sql import RUN_ID, SLOT, FakeSql, mentor_id, mentor_row, opened_now, summarized
from tests.unit.functions.http_function import Function
from tests.unit.log_lines import LogLines

MENTORS = [mentor_row(n, "established") for n in range(3)]


def invocation(run_id: str, trigger: str = "schedule", **enumeration: Any) -> OpenInvocation:
    scenarios = Scenarios.resolve(DEFAULT_SCENARIO_TYPES, [])
    return OpenInvocation(run_id, SLOT, trigger, Enumeration(scenarios=scenarios, **enumeration))


QUEUED = [invocation("run", done=True)]


@pytest.fixture
def function(log: LogLines) -> Function:  # the log: what is logged shall not spill
    return Function(rows=MENTORS)


def with_queue(clock: ManualClock, users: int, poison: dict[str, int]) -> Function:
    """A function with so many users in the queue, some of them poison."""
    function = Function(engine=FakeEngine(clock, poison=poison), ENGINE_USERS_PER_CALL="1")
    function.sql.queue(queued_pairs(users))
    return function


def queued_pairs(users: int) -> list[dict[str, Any]]:
    return to_pairs([MentorScenarios(mentor_id(n), ("milestone",)) for n in range(users)])


async def process(
    function: Function, open_invocations: Sequence[OpenInvocation], *, seconds: float = 1000, **settings: Any
) -> dict[str, InvocationSummary | None]:
    deadline = Deadline(seconds, function.engine.clock)
    return await process_open_runs(
        function.services, open_invocations, deadline=deadline, **{"canary": None} | settings
    )


def enqueued(function: Function) -> list[str]:
    """Whose pages were queued, in order."""
    return [page["invocation_id"] for page in function.sql.all_arguments_of("scheduler_enqueue")]


async def test_manual_runs_are_read_before_scheduled_ones(function: Function) -> None:
    retry = invocation("retry", "retry", is_retry=True, retry_of="gone")
    manual = [invocation("manual 1", "manual"), retry, invocation("read", "manual", done=True)]
    await process(function, [invocation("schedule 1"), *manual, invocation("manual 2", "manual")])
    assert list(dict.fromkeys(enqueued(function))) == ["manual 1", "retry", "manual 2", "schedule 1"]


# Ending runs and the slice


@pytest.mark.parametrize("done", [False, True])
async def test_the_next_slice_is_asked_for_last_of_all(function: Function, done: bool) -> None:
    """At once where something was queued or recorded."""
    runs = [invocation("scheduled", done=done), invocation("manual", "manual", done=done)]
    await process(function, runs, dispatch_id=17)
    assert function.sql.called()[-3:] == ["scheduler_finish", "scheduler_finish", "scheduler_end_slice"]
    ended = function.sql.arguments_of("scheduler_end_slice")
    assert ended == dict.fromkeys(ended) | {"dispatch_id": 17, "progressed": not done, "engine_answers": not done}
    assert "scheduler_take_permit" not in function.sql.called()


@pytest.mark.parametrize(("status", "retry_after"), [(401, None), (503, None), (503, 2000)])
async def test_an_engine_failure_is_reported_before_runs_are_ended(
    log: LogLines, clock: ManualClock, status: int, retry_after: int | None
) -> None:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    engine = FakeEngine(clock, trouble=lambda _: httpx.Response(status, headers=headers))
    function = Function(rows=MENTORS, engine=engine)
    await process(function, [invocation("run")])
    called = function.sql.called()
    assert called.index("scheduler_end_slice") < called.index("scheduler_finish")
    reported = function.sql.arguments_of("scheduler_end_slice")
    error = "engine_rejected" if status == 401 else "engine_unavailable"
    assert (reported["engine_error"], reported["engine_answers"]) == (error, False)
    seconds = reported["retry_after_seconds"]
    assert seconds is None if retry_after is None else retry_after <= seconds <= retry_after + 1


async def test_a_slice_holds_a_permit_while_it_claims(log: LogLines) -> None:
    function = Function(
        rows=MENTORS,
        ENGINE_MAX_CONCURRENCY="8",
        ENGINE_MAX_CONCURRENCY_TOTAL="24",
        ENGINE_MAX_CALLS_PER_MINUTE="60000",
    )
    await process(function, [invocation("run")], seconds=25)
    taken = function.sql.arguments_of("scheduler_take_permit")
    assert function.sql.called().index("scheduler_take_permit") < function.sql.called().index("scheduler_claim")
    assert (taken["calls"], taken["total"], taken["is_manual"], taken["seconds"]) == (8, 24, False, 30)
    assert (taken["per_minute"], taken["total_per_minute"]) == (20_000, 60_000)
    assert function.sql.arguments_of("scheduler_end_slice")["engine_permit_id"] == taken["permit_id"]
    assert [line["paced_ms"] >= 3 for line in log.of("slice_ended")] == [True]


async def test_without_a_permit_a_slice_claims_nothing(log: LogLines) -> None:
    """Progress would request the next slice at once, which would have no permit either."""
    function = Function(rows=MENTORS, ENGINE_MAX_CONCURRENCY_TOTAL="64")
    function.sql.answers["scheduler_take_permit"] = False
    function.sql.answers["scheduler_finish"] = {"ended_now": True, "invocation": summarized(), "failures": None}
    await process(function, [invocation("manual", "manual")], manual_only=True, more_open=True)
    assert function.sql.arguments_of("scheduler_take_permit")["is_manual"]
    assert set(enqueued(function)) == {"manual"}
    assert "scheduler_claim" not in function.sql.called()
    assert not function.sql.arguments_of("scheduler_end_slice")["progressed"]
    assert len(log.of("engine_full")) == 1


async def test_a_new_process_takes_the_canary_from_the_database(log: LogLines, clock: ManualClock) -> None:
    """Else the one user in the queue, which crashes the engine, would look like an engine that is down."""
    function = with_queue(clock, 1, {mentor_id(0): 500})
    await process(function, QUEUED, canary=MentorScenarios(mentor_id(2), ("milestone",)))
    assert [group["outcome"] for group in function.sql.arguments_of("scheduler_complete")["results"]] == ["failed"]
    for call in function.engine.calls_with(mentor_id(2)):
        assert call.body["dry_run"] is True
        assert call.body["evaluations"][0]["idempotency_key_prefix"] == f"dry:run:{mentor_id(2)}"


async def test_an_outage_is_raised_once_the_queue_is_empty(function: Function, log: LogLines) -> None:
    function.sql.queue(queued_pairs(1))
    function.sql.answers["scheduler_enqueue"] = DatabaseUnavailableError("away")
    with pytest.raises(DatabaseUnavailableError):
        await process(function, [invocation("run")])
    assert len(log.of("batch_recorded")) == 1
    assert not {"scheduler_finish", "scheduler_end_slice"} & {*function.sql.called()}


@pytest.mark.parametrize(
    ("error", "raised", "waits_for_view"),
    [
        (DatabaseRefusedError("22012", "division by zero"), MentorsViewError, True),
        (DatabaseRefusedError("42501", "denied"), DatabaseRefusedError, False),
        (DatabaseTimeoutError("57014"), DatabaseTimeoutError, False),
    ],
)
async def test_an_unreadable_run_keeps_no_other_from_ending(
    function: Function, error: Exception, raised: type[Exception], waits_for_view: bool
) -> None:
    function.sql.queue(queued_pairs(1))
    function.sql.answers["scheduler_active_mentors"] = error
    chosen = invocation("manual", "manual", user_ids=(mentor_id(1),))
    with pytest.raises(raised):
        await process(function, [chosen, invocation("scheduled")])
    called = function.sql.called()
    assert called.count("scheduler_complete") == 2, "what was queued before, and what the other run read"
    assert called[-1] == "scheduler_end_slice"
    finished = function.sql.all_arguments_of("scheduler_finish")
    waiting = [(each["invocation_id"], each["waits_for_view"]) for each in finished]
    assert waiting == [("manual", waits_for_view), ("scheduled", False)]


@pytest.mark.parametrize(("state", "counted"), [("done", 1), ("already_done", 0), ("gone", 0)])
async def test_only_a_standing_record_is_counted(log: LogLines, clock: ManualClock, state: str, counted: int) -> None:
    function = with_queue(clock, 3, {mentor_id(1): 422, mentor_id(2): 0})
    function.sql.answers["scheduler_complete"] = state
    await process(function, QUEUED, seconds=15)
    assert function.sql.arguments_of("scheduler_complete")["remaining"] == [mentor_id(2)]
    assert function.sql.arguments_of("scheduler_end_slice")["progressed"] is True
    (recorded,) = log.of("batch_recorded")
    (ended,) = log.of("slice_ended")
    assert (recorded["state"], recorded.get("mentors_requeued", 0)) == (state, counted)
    failed = log.of("mentor_evaluation_error")
    assert len([line for line in failed if line["error_code"] == "engine_http_422"]) == counted
    assert bool(failed) is bool(counted)
    assert (ended["batches"], sum(ended["counts"].values())) == (counted, 2 * counted)


async def test_of_many_failed_users_only_some_are_logged(log: LogLines, clock: ManualClock) -> None:
    users = MAX_FAILED_USERS + 5
    function = with_queue(clock, users, {mentor_id(number): 422 for number in range(users)})
    await process(function, QUEUED)
    assert function.sql.arguments_of("scheduler_complete")["remaining"] is None
    assert len(log.of("mentor_evaluation_error")) == MAX_FAILED_USERS
    (others,) = log.of("other_mentor_evaluation_errors")
    assert (others["mentors"], others["batch_no"], others["severity"]) == (5, 1, "WARNING")


async def test_every_open_run_is_tried_to_be_ended_and_logged(function: Function, log: LogLines) -> None:
    partial = summarized(status="partial", mentors_remaining=5)
    partial["counts"]["failed"] = 9
    running = summarized(id=mentor_id(0), status="running", finished_at=None, mentors_remaining=7)
    causes = [{"code": "b", "count": 4, "is_lower_bound": True}, {"code": "a", "count": 2, "is_lower_bound": False}]
    states: dict[str, dict[str, Any]] = {
        "scheduled": {"ended_now": True, "invocation": partial, "failures": causes},
        "manual": {"ended_now": False, "invocation": running, "failures": None},
        "deleted": {"ended_now": False, "invocation": None, "failures": None},
    }
    function.sql.answers["scheduler_finish"] = lambda arguments: states[arguments["invocation_id"]]
    open_runs = [invocation("scheduled"), invocation("manual", "manual", done=True), invocation("deleted", done=True)]
    after = await process(function, open_runs, dispatch_id=17)
    expected = {"scheduled": partial, "manual": running}
    assert after == {n: InvocationSummary.model_validate(each) for n, each in expected.items()} | {"deleted": None}
    (completed,) = log.of("scheduler_run_completed")
    assert (completed["invocation_id"], completed["status"], completed["severity"]) == (RUN_ID, "partial", "WARNING")
    assert (completed["failures"], completed["other_failures"]) == ({"b": 4, "a": 2}, 3)
    (left,) = log.of("scheduler_run_partial")
    assert (left["invocation_ids"], left["remaining_unprocessed_count"]) == ([mentor_id(0)], 7)
    (ended,) = log.of("slice_ended")
    assert ended["invocation_ids"] == ["scheduled", "manual", "deleted"]
    assert (ended["dispatch_id"], ended["more_to_do"], ended["batches"]) == (17, True, 1)
    assert sum(ended["counts"].values()) == 6


@pytest.mark.parametrize(("mentors", "batch_size"), [(500, 500), (10_000, 500), (3_000, 100)])
async def test_requests_grow_with_batches_and_calls_with_users(mentors: int, batch_size: int) -> None:
    rows = [mentor_row(number) for number in range(mentors)]
    function = Function(rows=rows, EVALUATION_BATCH_SIZE=str(batch_size), ENGINE_USERS_PER_CALL="100")
    function.sql.answers["scheduler_open_slot"] = opened_now()
    assert (await function.start()).status_code == 202
    batches, pages = math.ceil(mentors / batch_size), math.ceil(mentors / PAGE_SIZE)
    called = Counter(function.sql.called())
    assert (called["scheduler_complete"], called["scheduler_active_mentors_page"]) == (batches, pages)
    assert called["scheduler_enqueue"] == pages + 1
    # Opening, the enumeration's end, a claim that finds nothing, the run's end and the slice's, and as much to spare.
    assert called.total() <= 3 * batches + 10
    assert len(function.engine.calls) == math.ceil(mentors / 100)


async def test_slices_and_readers_share_no_connections(log: LogLines, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a slice continues while no reader is answered."""
    pools = {count: FakeSql(MENTORS) for count in (SLICE_CONNECTIONS, READER_CONNECTIONS)}
    slices, readers = pools.values()
    monkeypatch.setattr("functions.runs.services.connect", lambda url, key, *, connections: pools[connections].database)
    monkeypatch.setattr("functions.runs.services.Database", lambda client: client)
    function = Function()
    config = make_config(ALERT_WEBHOOK_URL="https://hooks.example.org/alerts")
    function.services = replace(build_services(config), engine=function.engine.client())
    one, batch = f"/{mentor_id(1)}", {"user_ids": [mentor_id(1)], "dry_run": True}
    reading: list[tuple[str, str, object]] = [("GET", path, None) for path in ("", "/active-peer-mentors", one)]
    reading += [("POST", "", {}), ("PUT", one, {}), ("DELETE", one, None), ("POST", "/evaluation-batch", batch)]
    for method, path, body in reading:
        response = await function.ask(method, path, body=body, headers={"Prefer": "respond-async"})
        assert response.status_code < 500
    asked = {f"scheduler_{name}" for name in ("list", "open", "get", "update", "delete", "active_mentors")}
    assert asked <= {*readers.called()}
    assert slices.called() == []
    readers.database.called.clear()
    slices.answers["scheduler_open_slot"] = opened_now()
    assert (await function.start()).status_code == 202
    steps = ("active_mentors_page", "enqueue", "complete", "end_slice", "claim_alert")
    assert {f"scheduler_{step}" for step in steps} <= {*slices.called()}
    assert readers.called() == []
