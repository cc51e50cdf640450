"""The engine's troubles in docs/operations.md: it was away, rejects the function, fails for many, or for one."""

from __future__ import annotations

from tests.faults.oracle import EVALUATED, check_chain, check_success
from tests.faults.runbook.operator import incident
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules

# Two attempts of each call: their number is not tested here.
SMALL = batches_of(20, engine_max_attempts=2, max_workers=2)


async def test_the_engine_was_down_for_the_whole_run(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(40)
    function = await harness.start_function(SMALL)
    await time_control.start()
    async with harness.engine.unreachable():
        await time_control.tick_and_wait()
        await harness.execute(b"update public.scheduler_invocations set expires_at = clock_timestamp()")
        await time_control.tick()

    async with incident("The engine was down for the whole run", harness, function) as operator:
        seen = (await operator.check("engine_unavailable", "failed", "not_evaluated")).answers[0]
        assert (seen["status"], seen["error_code"], seen["counts"]["failed"]) == ("failed", "engine_unavailable", 0)
        await operator.fix()
        retry, run = (await operator.confirm()).answers[0]["data"]

    assert (retry["status"], retry["error_code"], retry["retry_of"]) == ("success", None, run["id"])
    assert await check_chain(harness, [run, retry]) == harness.expected_pairs()


async def test_the_engine_rejects_the_function(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(40)
    function = await harness.start_function(SMALL | {"SCENARIO_ENGINE_TOKEN": "a-token-that-the-engine-does-not-know"})
    await time_control.start()
    await time_control.tick_and_wait()

    async with incident("The engine rejects the function", harness, function) as operator:
        seen = await operator.check("running", "engine_rejected")
        assert (seen.answers[0]["status"], seen.answers[0]["error_code"]) == ("running", "engine_rejected")
        assert seen.answers[0]["counts"]["failed"] == 0
        assert seen.statuses[1] == 502
        assert "engine_http_401" in seen.answers[1]["detail"]

        await function.stop()
        operator.function = await harness.start_function(SMALL, port=function.port)
        fixed = await operator.fix()
        assert fixed.statuses == [200, 200]
        assert {result["outcome"] for result in fixed.answers[0]["results"]} <= set(EVALUATED)
        await eventually(harness.ended)
        (confirmed,) = (await operator.confirm()).answers

    assert confirmed["error_code"] is None
    await check_success(harness, confirmed)


async def test_half_of_the_mentors_failed(harness: Harness, time_control: TimeControl) -> None:
    failing = (await harness.add_mentors(40))[::2]
    rule = rules.items_failed(failing, retryable=False, code="rule_is_broken")
    harness.engine.rules.append(rule)
    function = await harness.start_function(SMALL)
    await time_control.start()
    await time_control.until_ended()

    async with incident("Half of the mentors failed", harness, function) as operator:
        around = await operator.look_around()
        assert around.statuses == [200, 200, 200]
        assert around.answers[0]["run_status"] == "partial"
        assert around.answers[1]["data"][0]["id"] == around.answers[2]["id"]

        seen = await operator.check("partial", "failures")
        (cause,) = seen.answers[0]["failures"]
        assert (seen.answers[0]["status"], cause["code"], cause["count"]) == ("partial", "rule_is_broken", 40)
        assert "milestone" in seen.text.rpartition("}")[2]

        harness.engine.rules.remove(rule)
        tried, retry = (await operator.fix()).answers
        assert {result["outcome"] for result in tried["results"]} <= set(EVALUATED)
        assert {result["user_id"] for result in tried["results"]} <= set(failing)
        (shown,) = (await operator.confirm()).answers[0]["data"]

    assert (shown["id"], shown["status"], shown["counts"]["evaluations"]) == (retry["id"], "success", 40)
    assert await check_chain(harness, [seen.answers[0], shown]) == harness.expected_pairs()


async def test_one_mentor_was_not_contacted(harness: Harness, time_control: TimeControl) -> None:
    mentor = (await harness.add_mentors(40))[17]
    rule = rules.refuse_calls_with([mentor])
    harness.engine.rules.append(rule)
    function = await harness.start_function(SMALL)
    await time_control.start()
    run = await time_control.until_ended()

    async with incident("One mentor was not contacted", harness, function) as operator:
        operator.mentor = mentor
        (seen,) = (await operator.check("partial")).answers[0]["data"]
        results = {(result["outcome"], result["error_code"]) for result in seen["results"]}
        assert results == {("failed", "engine_http_422")}

        harness.engine.rules.remove(rule)
        (retry,) = (await operator.fix()).answers
        assert retry["counts"]["mentors"] == 1
        (newest,) = (await operator.confirm()).answers[0]["data"]

    assert newest["id"] == retry["id"]
    assert {result["outcome"] for result in newest["results"]} <= set(EVALUATED)
    assert await check_chain(harness, [run, retry]) == harness.expected_pairs()
