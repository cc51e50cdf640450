"""Mornings of the engine: it was away, turns us away, fails for many, or for one."""

from __future__ import annotations

import pytest

from tests.faults.clockwork import Clockwork
from tests.faults.mornings.operator import living_through
from tests.faults.oracle import EVALUATED, check_chain, check_promises
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import rules

SMALL = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_USERS_PER_CALL": "10",
    # An outage is believed after two tries of each call: how often is not what is tested here.
    "ENGINE_MAX_ATTEMPTS": "2",
    "MAX_WORKERS": "2",
}


@pytest.mark.parametrize("has_expired", [False, True], ids=["in time", "too late"])
async def test_the_engine_was_down_all_night(night: Night, clockwork: Clockwork, has_expired: bool) -> None:
    await night.add_mentors(40)
    function = await night.start_function(SMALL)
    await clockwork.start()
    async with night.engine.unreachable():
        await clockwork.tick()
        await clockwork.until_quiet()
        if has_expired:
            await night.execute(b"update public.scheduler_invocations set expires_at = clock_timestamp()")
            await clockwork.tick()

    async with living_through("The engine was down all night", night, function) as operator:
        symptom = ("failed", "not_evaluated") if has_expired else ("running",)
        seen = await operator.look("engine_unavailable", *symptom)
        assert (seen.answers[0]["status"], seen.answers[0]["error"]) == (symptom[0], "engine_unavailable")
        assert seen.answers[0]["counts"]["failed"] == 0

        await operator.press(0)
        if has_expired:
            await operator.press(1)
        else:
            await eventually(night.ended)
        mended = (await operator.see_that_it_is_mended()).answers[0]["items"]
        if not has_expired:
            operator.leave_out("Press", 1)

    assert (mended[0]["status"], mended[0]["error"]) == ("succeeded", None)
    if has_expired:
        assert mended[0]["retry_of"] == mended[1]["id"]
        assert set((await check_chain(night, mended[::-1])).items()) == set(night.expected_pairs().items())
    else:
        assert await check_promises(night, mended[0]) == night.expected_pairs()


async def test_the_engine_turns_us_away(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(40)
    function = await night.start_function(SMALL | {"SCENARIO_ENGINE_TOKEN": "a-token-that-the-engine-does-not-know"})
    await clockwork.start()
    await clockwork.tick()
    await clockwork.until_quiet()

    async with living_through("The engine turns us away", night, function) as operator:
        seen = await operator.look("running", "engine_rejected")
        assert (seen.answers[0]["status"], seen.answers[0]["error"]) == ("running", "engine_rejected")
        assert seen.answers[0]["counts"]["failed"] == 0
        assert seen.statuses[1] == 502
        assert "engine_http_401" in seen.answers[1]["detail"]

        await function.stop()
        operator.function = await night.start_function(SMALL, port=function.port)
        pressed = await operator.press()
        assert pressed.statuses == [200]
        assert {result["outcome"] for result in pressed.answers[0]["results"]} <= {
            "triggered",
            "not_triggered",
            "suppressed",
        }
        await eventually(night.ended)
        (mended,) = (await operator.see_that_it_is_mended()).answers

    assert (mended["status"], mended["error"]) == ("succeeded", None)
    assert await check_promises(night, mended) == night.expected_pairs()


async def test_half_of_the_mentors_failed(night: Night, clockwork: Clockwork) -> None:
    failing = (await night.add_mentors(40))[::2]
    rule = rules.items_refused(failing, code="rule_is_broken")
    night.engine.rules.append(rule)
    function = await night.start_function(SMALL)
    await clockwork.start()
    await clockwork.until_ended()

    async with living_through("Half of the mentors failed", night, function) as operator:
        around = await operator.look_around()
        assert around.statuses == [200, 200, 200]
        assert around.answers[0]["run_status"] == "partial"
        assert around.answers[1]["items"][0]["id"] == around.answers[2]["id"]

        seen = await operator.look("partial", "failures")
        (cause,) = seen.answers[0]["failures"]
        assert (seen.answers[0]["status"], cause["code"], cause["count"]) == ("partial", "rule_is_broken", 40)
        assert "milestone_reached" in seen.text.rpartition("}")[2]

        night.engine.rules.remove(rule)
        acts = dict(night.engine.acts)
        tried, retry = (await operator.press()).answers
        assert {result["outcome"] for result in tried["results"]} <= set(EVALUATED)
        assert {result["user_id"] for result in tried["results"]} <= set(failing)
        mended = await operator.see_that_it_is_mended()

    (shown,) = mended.answers[0]["items"]
    assert (shown["id"], shown["status"], shown["counts"]["evaluations"]) == (retry["id"], "succeeded", 40)
    assert acts.items() <= night.engine.acts.items()
    assert await check_chain(night, [seen.answers[0], shown]) == night.expected_pairs()


async def test_one_mentor_says_that_she_was_not_contacted(night: Night, clockwork: Clockwork) -> None:
    mentors = await night.add_mentors(40)
    she = mentors[17]
    rule = rules.refuse_calls_with([she])
    night.engine.rules.append(rule)
    function = await night.start_function(SMALL)
    await clockwork.start()
    night_run = await clockwork.until_ended()

    async with living_through("One mentor says that she was not contacted", night, function) as operator:
        operator.mentor = she
        seen = await operator.look("partial")
        (run,) = seen.answers[0]["items"]
        assert {(result["outcome"], result["error_code"]) for result in run["results"]} == {
            ("failed", "engine_http_422")
        }

        night.engine.rules.remove(rule)
        (retry,) = (await operator.press()).answers
        assert retry["counts"]["mentors"] == 1
        (newest,) = (await operator.see_that_it_is_mended()).answers[0]["items"]

    assert newest["id"] == retry["id"]
    assert {(she, result["scenario_type"]): result["outcome"] for result in newest["results"]} == {
        pair: outcome for pair, outcome in night.expected_pairs().items() if pair[0] == she
    }
    assert await check_chain(night, [night_run, retry]) == night.expected_pairs()
