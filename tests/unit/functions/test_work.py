"""A slice of work: manual runs before nights, everything open is tried to be ended, and it is handed back last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from functions.run_log import MAX_FAILED_USERS
from functions.work import is_open, work_off
from shared.errors import (
    DatabaseError,
    DatabaseRefusedError,
    DatabaseTimeoutError,
    DatabaseUnavailableError,
    MentorsViewError,
)
from shared.evaluations import MentorScenarios, to_pairs
from shared.invocations import Enumeration, OpenInvocation
from shared.time_budget import TimeBudget
from tests.unit.clock import ManualClock
from tests.unit.functions.http_function import Function
from tests.unit.functions.pretend_engine import PretendEngine
from tests.unit.functions.pretend_sql import SLOT, mentor_id, mentor_row, summarized
from tests.unit.log_lines import LogLines

MENTORS = [mentor_row(n, "established") for n in range(3)]


def invocation(run_id: str, triggered_by: str, **enumeration: Any) -> OpenInvocation:
    return OpenInvocation(run_id, SLOT, triggered_by, Enumeration(**enumeration))


def enqueued(function: Function) -> list[str]:
    """Whose pages were queued, in order."""
    return [args["invocation_id"] for name, args in function.sql.database.called if name == "scheduler_enqueue"]


async def work(
    function: Function, open_invocations: Sequence[OpenInvocation], *, seconds: float = 1000, **settings: Any
) -> dict[str, dict[str, Any] | None]:
    budget = TimeBudget(seconds, function.clock)
    return await work_off(function.work, open_invocations, budget=budget, witness=None, **settings)


@pytest.fixture
def function(log: LogLines) -> Function:  # the log: what is logged shall not spill
    return Function(rows=MENTORS)


async def test_manual_runs_are_enumerated_before_nights(function: Function) -> None:
    """A person waits for them; and among themselves the oldest comes first."""
    await work(
        function,
        [
            invocation("night 1", "schedule"),
            invocation("manual 1", "manual"),
            invocation("night 2", "schedule"),
            invocation("retry", "retry", is_retry=True, retry_of="gone"),
            invocation("manual 2", "manual"),
        ],
    )
    assert list(dict.fromkeys(enqueued(function))) == ["manual 1", "retry", "manual 2", "night 1", "night 2"]


async def test_what_was_read_to_its_end_is_not_read_again(function: Function) -> None:
    await work(function, [invocation("night", "schedule", done=True)])
    assert enqueued(function) == []
    assert function.sql.database.pages_read == 0


async def test_when_the_time_is_up_no_further_run_is_read(function: Function) -> None:
    def takes_all_the_time(_: dict[str, Any]) -> dict[str, bool]:
        function.clock.advance(1000)
        return {"accepted": True}

    function.sql.answers["scheduler_enqueue"] = takes_all_the_time
    await work(function, [invocation("night", "schedule"), invocation("manual", "manual")])
    assert enqueued(function) == ["manual"]


async def test_everything_that_is_open_is_tried_to_be_ended_and_told_as_it_is_then(function: Function) -> None:
    states: dict[str, dict[str, Any]] = {
        "night": {"ended_now": False, "invocation": summarized(id="night", status="running"), "failures": None},
        "manual": {"ended_now": True, "invocation": summarized(id="manual", triggered_by="manual"), "failures": []},
        "deleted": {"ended_now": False, "invocation": None, "failures": None},
    }
    function.sql.answers["scheduler_finish"] = lambda arguments: states[arguments["invocation_id"]]
    open_invocations = [invocation(name, "schedule", done=True) for name in states]
    after = await work(function, open_invocations)
    assert after == {name: state["invocation"] for name, state in states.items()}


async def test_the_next_slice_is_asked_for_last_of_all(function: Function) -> None:
    await work(function, [invocation("night", "schedule"), invocation("manual", "manual")], dispatch_id=17)
    assert function.sql.called()[-3:] == ["scheduler_finish", "scheduler_finish", "scheduler_hand_back"]
    assert function.sql.arguments_of("scheduler_hand_back") == {
        "dispatch_id": 17,
        "progressed": True,
        "engine_answers": True,
        "engine_error": None,
        "engine_message": None,
        "retry_after_seconds": None,
        "engine_permit_id": None,
    }
    assert "scheduler_take_permit" not in function.sql.called()


async def test_a_slice_holds_a_permit_from_before_its_first_claim_to_its_end(log: LogLines) -> None:
    function = Function(rows=MENTORS, ENGINE_MAX_CONCURRENCY="8", ENGINE_MAX_CONCURRENCY_TOTAL="24")
    await work(function, [invocation("night", "schedule")], seconds=25)
    taken = function.sql.arguments_of("scheduler_take_permit")
    assert function.sql.called().index("scheduler_take_permit") < function.sql.called().index("scheduler_claim")
    assert (taken["calls"], taken["total"], taken["is_manual"], taken["seconds"]) == (8, 24, False, 30)
    assert function.sql.arguments_of("scheduler_hand_back")["engine_permit_id"] == taken["permit_id"]


async def test_a_slice_without_a_permit_claims_nothing_and_reports_no_progress(log: LogLines) -> None:
    """It enumerates and finishes. Progress would ask for the next slice at once, which would have no permit either."""
    function = Function(rows=MENTORS, ENGINE_MAX_CONCURRENCY_TOTAL="64")
    function.sql.answers["scheduler_take_permit"] = False
    function.sql.answers["scheduler_finish"] = {"ended_now": True, "invocation": summarized(), "failures": None}
    await work(function, [invocation("manual", "manual")], manual_only=True, more_open=True)
    assert function.sql.arguments_of("scheduler_take_permit")["is_manual"]
    assert set(enqueued(function)) == {"manual"}
    assert "scheduler_claim" not in function.sql.called()
    assert not function.sql.arguments_of("scheduler_hand_back")["progressed"]
    assert len(log.of("engine_full")) == 1


async def test_where_nothing_was_to_be_done_the_next_slice_need_not_come_at_once(function: Function) -> None:
    await work(function, [invocation("night", "schedule", done=True)])
    handed_back = function.sql.arguments_of("scheduler_hand_back")
    assert (handed_back["progressed"], handed_back["engine_answers"]) == (False, False)


@pytest.mark.parametrize(
    ("status", "headers", "error", "retry_after"),
    [
        (401, {}, "engine_rejected", None),
        (503, {}, "engine_unavailable", None),
        (503, {"Retry-After": "2000"}, "engine_unavailable", 2000),
    ],
)
async def test_an_engine_that_stops_us_is_told_to_all_before_anything_is_ended(
    log: LogLines,
    clock: ManualClock,
    status: int,
    headers: dict[str, str],
    error: str,
    retry_after: int | None,
) -> None:
    engine = PretendEngine(clock, trouble=lambda _: httpx.Response(status, headers=headers))
    function = Function(rows=MENTORS, engine=engine)
    await work(function, [invocation("night", "schedule")])
    called = function.sql.called()
    assert called.index("scheduler_hand_back") < called.index("scheduler_finish")
    handed_back = function.sql.arguments_of("scheduler_hand_back")
    assert (handed_back["engine_error"], handed_back["engine_answers"]) == (error, False)
    told = handed_back["retry_after_seconds"]
    assert told is None if retry_after is None else retry_after <= told <= retry_after + 1


@pytest.mark.parametrize("manual_only", [False, True])
async def test_whether_nights_are_left_alone_is_said_with_every_claim(function: Function, manual_only: bool) -> None:
    await work(function, [invocation("manual", "manual")], manual_only=manual_only)
    claims = [arguments for name, arguments in function.sql.database.called if name == "scheduler_claim"]
    assert {claim["manual_only"] for claim in claims} == {manual_only}


async def test_an_outage_is_an_error_once_the_queue_is_worked_off(function: Function, log: LogLines) -> None:
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(1), ("milestone_reached",))]))
    function.sql.answers["scheduler_enqueue"] = DatabaseUnavailableError("away")
    with pytest.raises(DatabaseUnavailableError):
        await work(function, [invocation("night", "schedule")])
    assert len(log.of("batch_recorded")) == 1
    assert "scheduler_finish" not in function.sql.called()
    assert "scheduler_hand_back" not in function.sql.called()


@pytest.mark.parametrize("error", [DatabaseTimeoutError("57014"), DatabaseRefusedError("42501", "denied")])
async def test_a_run_that_cannot_be_read_keeps_no_other_from_ending(function: Function, error: DatabaseError) -> None:
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(1), ("milestone_reached",))]))
    function.sql.answers["scheduler_enqueue"] = error
    with pytest.raises(type(error)):
        await work(function, [invocation("manual", "manual", done=True), invocation("night", "schedule")])
    assert {"scheduler_complete", "scheduler_finish", "scheduler_hand_back"} <= {*function.sql.called()}


async def test_a_view_that_cannot_be_read_stops_its_enumeration_and_nothing_else(function: Function) -> None:
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(1), ("milestone_reached",))]))
    function.sql.answers["scheduler_active_mentors"] = DatabaseRefusedError("22012", "division by zero")
    chosen = OpenInvocation("manual", SLOT, "manual", Enumeration(user_ids=(mentor_id(1),)))
    with pytest.raises(MentorsViewError, match="22012"):
        await work(function, [chosen, invocation("night", "schedule")])
    called = function.sql.called()
    assert called.count("scheduler_complete") == 2, "what was queued before, and whom the other run read"
    assert {"scheduler_enqueue", "scheduler_hand_back"} <= {*called}
    finished = [arguments for name, arguments in function.sql.database.called if name == "scheduler_finish"]
    assert [(each["invocation_id"], each["waits_for_view"]) for each in finished] == [
        ("manual", True),
        ("night", False),
    ]


async def test_a_process_that_knows_nobody_takes_the_databases_witness(log: LogLines, clock: ManualClock) -> None:
    """Else the one user in the queue, who crashes the engine, could not be told from an engine that is down."""
    function = Function(engine=PretendEngine(clock, poison={mentor_id(1): 500}))
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(1), ("milestone_reached",))]))
    await work_off(
        function.work,
        [invocation("night", "schedule", done=True)],
        budget=TimeBudget(1000, clock),
        witness=MentorScenarios(mentor_id(2), ("milestone_reached",)),
    )
    assert [group["outcome"] for group in function.sql.arguments_of("scheduler_complete")["results"]] == ["failed"]
    for call in function.engine.calls_with(mentor_id(2)):
        assert call.body["dry_run"] is True
        assert call.body["evaluations"][0]["idempotency_key_prefix"] == f"dry:night:{mentor_id(2)}"


async def test_what_ended_and_what_is_left_is_in_the_log(function: Function, log: LogLines) -> None:
    night = summarized(id="night", status="partial")
    night["counts"]["failed"] = 9
    open_still = summarized(id="manual", status="running", finished_at=None)
    causes = [{"code": "b", "count": 4, "is_lower_bound": True}, {"code": "a", "count": 2, "is_lower_bound": False}]
    states = {
        "night": {"ended_now": True, "invocation": night, "failures": causes},
        "manual": {"ended_now": False, "invocation": open_still, "failures": None},
    }
    function.sql.answers["scheduler_finish"] = lambda arguments: states[arguments["invocation_id"]]
    await work(function, [invocation("night", "schedule"), invocation("manual", "manual", done=True)], dispatch_id=17)
    (finished,) = log.of("invocation_finished")
    assert (finished["invocation_id"], finished["status"], finished["severity"]) == ("night", "partial", "WARNING")
    assert (finished["failures"], finished["other_failures"]) == ({"b": 4, "a": 2}, 3)
    (ended,) = log.of("slice_ended")
    assert ended["invocation_ids"] == ["night", "manual"]
    assert (ended["dispatch_id"], ended["more_to_do"], ended["batches"]) == (17, True, 1)
    assert sum(ended["counts"].values()) == 6


async def test_whom_the_time_did_not_suffice_for_is_put_back_and_told_of(log: LogLines, clock: ManualClock) -> None:
    function = Function(engine=PretendEngine(clock, poison={mentor_id(1): 0}), ENGINE_USERS_PER_CALL="1")
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(n), ("milestone_reached",)) for n in range(3)]))
    budget = TimeBudget(15, clock)
    await work_off(function.work, [invocation("night", "schedule", done=True)], budget=budget, witness=None)
    assert function.sql.arguments_of("scheduler_complete")["rest"] == [mentor_id(1)]
    (recorded,) = log.of("batch_recorded")
    assert (recorded["mentors"], recorded["mentors_put_back"], sum(recorded["counts"].values())) == (2, 1, 2)
    assert function.sql.arguments_of("scheduler_hand_back")["progressed"] is True


async def test_nobody_is_put_back_by_a_record_that_came_too_late(log: LogLines, clock: ManualClock) -> None:
    function = Function(engine=PretendEngine(clock, poison={mentor_id(1): 0}), ENGINE_USERS_PER_CALL="1")
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(n), ("milestone_reached",)) for n in range(3)]))
    function.sql.answers["scheduler_complete"] = "already_done"
    budget = TimeBudget(15, clock)
    await work_off(function.work, [invocation("night", "schedule", done=True)], budget=budget, witness=None)
    (recorded,) = log.of("batch_recorded")
    assert "mentors_put_back" not in recorded


@pytest.mark.parametrize(("state", "told"), [("done", 1), ("already_done", 0), ("gone", 0)])
async def test_only_what_was_recorded_is_counted_and_told_of(
    log: LogLines, clock: ManualClock, state: str, told: int
) -> None:
    function = Function(engine=PretendEngine(clock, poison={mentor_id(1): 422}), ENGINE_USERS_PER_CALL="1")
    function.sql.queue(to_pairs([MentorScenarios(mentor_id(n), ("milestone_reached",)) for n in range(3)]))
    function.sql.answers["scheduler_complete"] = state
    await work(function, [invocation("night", "schedule", done=True)])
    (recorded,) = log.of("batch_recorded")
    (ended,) = log.of("slice_ended")
    assert recorded["state"] == state
    assert len([line for line in log.of("user_failed") if line["error_code"] == "engine_http_422"]) == told
    assert bool(log.of("user_failed")) is bool(told)
    assert (ended["batches"], sum(ended["counts"].values())) == (told, 3 * told)


async def test_of_a_batch_in_which_many_users_failed_some_are_told_of_and_the_others_counted(
    log: LogLines, clock: ManualClock
) -> None:
    poison = {mentor_id(number): 422 for number in range(MAX_FAILED_USERS + 5)}
    function = Function(engine=PretendEngine(clock, poison=poison), ENGINE_USERS_PER_CALL="1")
    function.sql.queue(to_pairs([MentorScenarios(user_id, ("milestone_reached",)) for user_id in poison]))
    await work(function, [invocation("night", "schedule", done=True)])
    assert len(log.of("user_failed")) == MAX_FAILED_USERS
    (others,) = log.of("other_users_failed")
    (recorded,) = log.of("batch_recorded")
    assert (others["users"], others["batch_no"], others["severity"]) == (5, recorded["batch_no"], "WARNING")


async def test_where_the_time_sufficed_nobody_is_put_back(function: Function, log: LogLines) -> None:
    await work(function, [invocation("night", "schedule")])
    assert function.sql.arguments_of("scheduler_complete")["rest"] is None
    (recorded,) = log.of("batch_recorded")
    assert "mentors_put_back" not in recorded


async def test_a_suspect_is_split_and_told_of(function: Function, log: LogLines) -> None:
    users = [MentorScenarios(mentor_id(n), ("milestone_reached",)) for n in range(3)]
    function.sql.queue(to_pairs(users), deliveries=3, read_count=7)
    await work(function, [invocation("night", "schedule", done=True)])
    split = function.sql.arguments_of("scheduler_split")
    assert (split["batch_no"], split["read_count"]) == (1, 7)
    assert "scheduler_complete" not in function.sql.called()
    (told,) = log.of("batch_split")
    assert (told["batch_no"], told["mentors"], told["deliveries"], told["severity"]) == (1, 3, 3, "WARNING")


@pytest.mark.parametrize("status", ["pending", "running"])
def test_what_is_pending_or_running_is_open(status: str) -> None:
    assert is_open(summarized(status=status))


@pytest.mark.parametrize("status", ["succeeded", "partial", "failed", "cancelled", "skipped"])
def test_what_has_ended_or_is_gone_is_not_open(status: str) -> None:
    assert not is_open(summarized(status=status))
    assert not is_open(None)
