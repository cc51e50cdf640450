"""An engine that is late, breaks off, or does and does not say: nobody is lost, nobody is notified twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.nightly.night import Night
from tests.scripted_engine import Rule, rules

SETTINGS = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_MAX_CONCURRENCY": "4",
    "MAX_WORKERS": "1",
}
IMPATIENT = SETTINGS | {"TIME_BUDGET_SECONDS": "10", "ENGINE_TIMEOUT_SECONDS": "1", "ENGINE_MAX_ATTEMPTS": "3"}


PASSING_TROUBLE: dict[str, Callable[[], Rule]] = {
    "acts and answers 500 the first times": lambda: rules.act_then_fail(6),
    "acts and answers 500 to a tenth of all": lambda: rules.only(rules.every(10), rules.act_then(rules.respond(500))),
    "resets before an answer": lambda: rules.only(rules.every(4), rules.reset()),
    "acts and resets": lambda: rules.only(rules.every(4), rules.act_then(rules.reset())),
    "acts and resets in the middle of its answer": lambda: rules.only(rules.every(4), rules.cut_short()),
}


@pytest.mark.parametrize(("trouble", "users_per_call"), list(zip(PASSING_TROUBLE, ("1", "20") * 3, strict=False)))
async def test_what_passes_costs_nobody_anything(
    night: Night, clockwork: Clockwork, trouble: str, users_per_call: str
) -> None:
    await night.add_mentors(200)
    night.engine.rules.append(PASSING_TROUBLE[trouble]())
    await night.start_function(SETTINGS | {"ENGINE_USERS_PER_CALL": users_per_call})
    await clockwork.start()

    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    pairs = await check_promises(night, invocation)
    assert pairs == night.expected_pairs()
    assert {call.status for call in night.engine.calls} - {200}, "nothing went wrong"
    assert max(night.engine.keys_seen.values()) > 1
    if trouble.startswith("acts"):
        first_acts = {act.call_number for act in night.engine.acts.values()}
        spoilt = {call.number for call in night.engine.calls if call.status != 200}
        assert first_acts & spoilt, "it acted on nobody whom it did not answer"


async def test_when_everything_hangs_for_a_while_nobody_is_lost(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(200)
    hanging = range(3, 9)
    night.engine.rules.append(rules.only(rules.calls(*hanging), rules.never_answer()))
    await night.start_function(IMPATIENT | {"ENGINE_USERS_PER_CALL": "1"})
    await clockwork.start()

    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    assert await check_promises(night, invocation) == night.expected_pairs()
    assert [call.status for call in night.engine.calls[hanging.start - 1 : hanging.stop - 1]] == [None] * len(hanging)


async def test_one_that_acts_when_we_have_given_up_has_acted_once(night: Night, clockwork: Clockwork) -> None:
    """The first calls are answered when nobody listens any more; by then the same pairs are asked about again."""
    await night.add_mentors(100)
    night.engine.rules.append(rules.only(rules.first(4), rules.slow(None, 1.3)))
    await night.start_function(IMPATIENT | {"ENGINE_USERS_PER_CALL": "20"})
    await clockwork.start()

    invocation = await clockwork.until_ended()
    await night.engine.until(lambda engine: engine.in_flight == 0)

    assert invocation["status"] == "succeeded"
    assert await check_promises(night, invocation) == night.expected_pairs()
    late = [call for call in night.engine.calls if call.number <= 4]
    assert [call.status for call in late] == [200] * 4
    assert all(night.engine.keys_seen[key] > 1 for call in late for key in call.keys), "somebody waited for it"


async def test_users_who_hang_fail_alone_and_slices_follow_one_another_until_that_is_known(
    night: Night, clockwork: Clockwork
) -> None:
    mentors = await night.add_mentors(60)
    hanging = {mentors[7], mentors[41]}
    night.engine.rules.append(rules.hang(hanging))
    settings = IMPATIENT | {"TIME_BUDGET_SECONDS": "4", "ENGINE_MAX_ATTEMPTS": "2"}
    await night.start_function(settings | {"ENGINE_USERS_PER_CALL": "1"})
    await clockwork.start()

    invocation = await clockwork.until_ended()

    pairs = await check_promises(night, invocation)
    assert pairs == {
        pair: "failed" if pair[0] in hanging else outcome for pair, outcome in night.expected_pairs().items()
    }
    assert [cause["code"] for cause in invocation["failures"]] == ["engine_timeout"]


async def test_a_slow_tail_holds_up_only_itself(night: Night, clockwork: Clockwork) -> None:
    """Of 200 calls two are answered last: all the others, also those of other batches, go by meanwhile."""
    await night.add_mentors(200)
    others_are_through = asyncio.Event()
    night.engine.rules.append(rules.only(rules.calls(5, 105), rules.hold_until(others_are_through)))
    await night.start_function(SETTINGS | {"ENGINE_USERS_PER_CALL": "1", "ENGINE_TIMEOUT_SECONDS": "20"})
    await clockwork.start()

    await clockwork.tick()
    await night.engine.until(lambda engine: sum(call.status == 200 for call in engine.calls) == 198)
    others_are_through.set()
    await clockwork.until_quiet()
    (invocation,) = await night.invocations()

    assert invocation["status"] == "succeeded"
    assert await check_promises(night, invocation) == night.expected_pairs()
    assert len(night.engine.calls) == 200


async def test_slower_than_a_slice_it_takes_several_and_each_asks_for_the_next_at_once(
    night: Night, clockwork: Clockwork
) -> None:
    await night.add_mentors(160)
    night.engine.rules.append(rules.slow(None, 0.25))
    settings = SETTINGS | {
        "ENGINE_USERS_PER_CALL": "10",
        "ENGINE_MAX_CONCURRENCY": "1",
        "TIME_BUDGET_SECONDS": "2",
        "ENGINE_TIMEOUT_SECONDS": "1.5",
    }
    await night.start_function(settings)
    await clockwork.start()

    # One tick, and no other.
    await clockwork.tick()
    await clockwork.until_quiet()

    (invocation,) = await night.invocations()
    assert invocation["status"] == "succeeded"
    assert await check_promises(night, invocation) == night.expected_pairs()
    ((slices,),) = await night.rows(b"select count(*) from scheduler.dispatches")
    assert slices >= 3
    assert invocation["counts"]["failed"] == 0
