"""Users whom the engine cannot serve: exactly they fail, each with her cause, at the price of a few more calls."""

from __future__ import annotations

import math

import pytest

from tests.faults.breaker import breaker
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.manual.caller import Caller, asked_since, keys_since
from tests.integration.nightly.night import Night, Pair
from tests.scripted_engine import Rule, rules

HANG = 0
SETTINGS = {"ENGINE_MAX_CONCURRENCY": "8", "MAX_WORKERS": "1"}
# One in a thousand.
MENTORS = 1000
POISON = (500,)


def poison_rule(users: set[str], status: int) -> Rule:
    return rules.hang(users) if status == HANG else rules.refuse_calls_with(users, status)


def failing(night: Night, users: set[str]) -> dict[Pair, str]:
    """What comes of everybody when these fail."""
    return {pair: "failed" if pair[0] in users else outcome for pair, outcome in night.expected_pairs().items()}


@pytest.mark.parametrize(
    ("status", "users_per_call", "calls_for_each"),
    [
        # Her group, and both halves of each group that she is in.
        (422, 100, 2 * math.log2(128)),
        # Two tries of her group, the halves, two tries of her own, and somebody to be compared with.
        (500, 100, 4 * math.log2(128)),
        (HANG, 100, 4 * math.log2(128)),
        # And eight more, each with a witness.
        (503, 100, 4 * math.log2(128) + 16),
        # By herself from the start: tried twice two times, and once more after her witness.
        (500, 1, 5),
    ],
)
async def test_one_in_a_thousand_fails_alone_and_is_found_in_few_calls(
    night: Night, clockwork: Clockwork, status: int, users_per_call: int, calls_for_each: float
) -> None:
    mentors = await night.add_mentors(MENTORS)
    poisoned = {mentors[number] for number in POISON}
    rule = poison_rule(poisoned, status)
    night.engine.rules.append(rule)
    function = await night.start_function(
        SETTINGS
        | {
            "ENGINE_USERS_PER_CALL": str(users_per_call),
            "ENGINE_MAX_ATTEMPTS": "2",
            # Whoever hangs does so for as long as she is let; it takes a dozen calls to be sure.
            "ENGINE_TIMEOUT_SECONDS": "0.5" if status == HANG else "10",
        }
    )
    await clockwork.start()

    await clockwork.tick()
    await clockwork.until_quiet()
    # In the same minute, without waiting for another tick.
    (invocation,) = await night.invocations()

    assert invocation["status"] == "partial"
    assert await check_promises(night, invocation) == failing(night, poisoned)
    code = "engine_timeout" if status == HANG else f"engine_http_{status}"
    assert [(cause["code"], cause["count"]) for cause in invocation["failures"]] == [(code, 2 * len(poisoned))]
    assert (await breaker(night)).outages == 0
    # Each call that was not needed for the others: those that name her, their other halves, and her witnesses'.
    extra = (len(night.engine.calls) - MENTORS // users_per_call) / len(poisoned)
    assert 0 < extra <= calls_for_each

    # Once it is cured, exactly they are evaluated again, under the keys that the engine knows.
    night.engine.rules.remove(rule)
    calls = len(night.engine.calls)
    retry = await Caller(night, function).run({"retry_of": invocation["id"]})
    assert retry["status"] == "succeeded"
    pairs = {pair for pair in night.expected_pairs() if pair[0] in poisoned}
    assert sorted(asked_since(night, calls)) == sorted(pairs)
    scope = f"slot:{night.slot:%Y-%m-%dT%H:%MZ}"
    assert keys_since(night, calls) == {f"{scope}:{user_id}:{scenario_type}" for user_id, scenario_type in pairs}
    assert await night.recorded_pairs(retry["id"]) == {pair: night.expected_pairs()[pair] for pair in pairs}
    assert night.engine.notified_twice == []


@pytest.mark.parametrize(("status", "users_per_call"), [(422, "20"), (500, "1"), (503, "1")])
async def test_a_whole_batch_of_them_fails_and_no_other(
    night: Night, clockwork: Clockwork, status: int, users_per_call: str
) -> None:
    mentors = await night.add_mentors(200)
    # Batches are cut in the order of the ids.
    poisoned = set(sorted(mentors)[60:80])
    night.engine.rules.append(poison_rule(poisoned, status))
    settings = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": users_per_call, "ENGINE_MAX_ATTEMPTS": "2"}
    await night.start_function(SETTINGS | settings)
    await clockwork.start()

    invocation = await clockwork.until_ended()

    assert invocation["status"] == "partial"
    assert await check_promises(night, invocation) == failing(night, poisoned)
    assert [cause["code"] for cause in invocation["failures"]] == [f"engine_http_{status}"]
    failed = await night.rows(b"select failed, evaluations from public.scheduler_invocation_batches where failed > 0")
    assert failed == [(40, 40)], "they were not one batch"


async def test_every_user_refused_has_failed_and_the_engine_is_not_held_to_be_down(
    night: Night, clockwork: Clockwork
) -> None:
    mentors = await night.add_mentors(100)
    refuse = rules.refuse_calls_with(set(mentors), 422)
    night.engine.rules.append(refuse)
    settings = SETTINGS | {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "20"}
    function = await night.start_function(settings)
    await clockwork.start()

    invocation = await clockwork.until_ended()

    assert (invocation["status"], invocation["error"]) == ("failed", None)
    assert await check_promises(night, invocation) == dict.fromkeys(night.expected_pairs(), "failed")
    ((state, slices),) = await night.rows(
        b"select engine_outages, (select count(*) from scheduler.dispatches) from scheduler.settings"
    )
    assert (state, slices) == (0, 1)
    night.engine.rules.remove(refuse)
    retry = await Caller(night, function).run({"retry_of": invocation["id"]})
    assert retry["status"] == "succeeded"
    assert await night.recorded_pairs(retry["id"]) == night.expected_pairs()


async def test_every_user_crashing_it_is_an_outage_and_nobodys_failure(night: Night, clockwork: Clockwork) -> None:
    """At the deadline the run says that nobody was evaluated; a retry takes everybody up, as if it had not been."""
    mentors = await night.add_mentors(100)
    crash = rules.refuse_calls_with(set(mentors), 500)
    night.engine.rules.append(crash)
    settings = {"EVALUATION_BATCH_SIZE": "20", "ENGINE_USERS_PER_CALL": "20", "ENGINE_MAX_ATTEMPTS": "2"}
    function = await night.start_function(SETTINGS | settings)
    await clockwork.start()

    for outages in (1, 2):
        await clockwork.tick()
        await clockwork.until_quiet()
        (waiting,) = await night.invocations()
        assert (waiting["status"], waiting["error"], waiting["counts"]["failed"]) == (
            "running",
            "engine_unavailable",
            0,
        )
        assert (await breaker(night)).outages == outages
        await clockwork.let_time_pass()
    await night.execute(b"update public.scheduler_invocations set expires_at = clock_timestamp()")
    invocation = await clockwork.until_ended()

    assert (invocation["status"], invocation["error"]) == ("failed", "engine_unavailable")
    assert await check_promises(night, invocation) == dict.fromkeys(night.expected_pairs(), "not_evaluated")
    night.engine.rules.remove(crash)
    calls = len(night.engine.calls)
    retry = await Caller(night, function).run({"retry_of": invocation["id"]})
    assert (retry["status"], retry["error"]) == ("succeeded", None)
    assert await night.recorded_pairs(retry["id"]) == night.expected_pairs()
    assert len(night.engine.calls) - calls == 5
