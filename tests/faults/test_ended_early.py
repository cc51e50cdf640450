"""Cancelled or expired while workers are at it: late answers count, and a retry evaluates what is left."""

from __future__ import annotations

import asyncio

from tests.faults.oracle import check_chain, check_promises
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules

SMALL = batches_of(10, engine_max_concurrency=2, engine_timeout_seconds=20, engine_max_attempts=2, max_workers=2)


async def test_late_answers_count_beside_the_retry_of_a_cancelled_run(
    harness: Harness, time_control: TimeControl
) -> None:
    """Both call the engine under the same keys, so it acts once."""
    await harness.add_mentors(200)
    gate = asyncio.Event()
    harness.engine.rules.append(rules.only(lambda call: call.number <= 2, rules.hold_until(gate)))
    function, other = await asyncio.gather(*(harness.start_function(SMALL) for _ in range(2)))
    await time_control.start()
    firing = asyncio.create_task(harness.fire(function))
    await harness.engine.until(lambda engine: engine.in_flight == 2)
    await eventually(lambda: harness.rows(b"select from public.scheduler_invocations where enumeration_done"))
    ((run_id,),) = await harness.rows(b"select id::text from public.scheduler_invocations")
    caller = Caller(harness, other)

    assert (await caller.cancel(run_id)).status_code == 200
    cancelled = await harness.describe(run_id)
    assert (cancelled["status"], cancelled["counts"]["not_evaluated"]) == ("cancelled", 400)
    assert await harness.queue_lengths() == [0, 0, 0]
    retry = await caller.run({"retry_of": run_id})
    if not retry["finished_at"]:
        await time_control.until_ended()
    gate.set()
    await firing

    after, retry = await harness.describe(run_id), await harness.describe(retry["id"])
    assert (after["status"], after["finished_at"]) == (cancelled["status"], cancelled["finished_at"])
    late = {pair for pair, outcome in (await harness.recorded_pairs(run_id)).items() if outcome != "not_evaluated"}
    assert {pair for call in harness.engine.calls[:2] for pair in call.pairs} <= late
    assert (retry["status"], retry["counts"]["evaluations"]) == ("success", 400)
    assert max(harness.engine.keys_seen.values()) == 2
    assert await check_chain(harness, [after, retry], recorded_late=late) == harness.expected_pairs()


async def test_a_run_that_expires_in_an_outage_is_partial(harness: Harness, time_control: TimeControl) -> None:
    """The engine's pause keeps workers from working, not the run from ending; the function is killed as well."""
    await harness.add_mentors(200)
    back = asyncio.Event()
    harness.engine.rules.append(rules.only(lambda call: call.number > 6 and not back.is_set(), rules.respond(503)))
    function = await harness.start_function(SMALL)
    await time_control.start()
    await time_control.tick_and_wait()
    (run,) = await harness.invocations()
    assert (run["status"], run["error_code"]) == ("running", "engine_unavailable")
    calls = len(harness.engine.calls)

    await harness.execute(b"update public.scheduler_invocations set expires_at = now() - interval '1 second'")
    await asyncio.gather(function.kill(), time_control.tick())

    run = await harness.describe(run["id"])
    assert (run["status"], run["error_code"]) == ("partial", "engine_unavailable")
    assert len(harness.engine.calls) == calls
    pairs = await check_promises(harness, run)
    assert sum(outcome != "not_evaluated" for outcome in pairs.values()) == 6 * 20

    back.set()
    await function.until_ready()
    await time_control.let_time_pass()
    retry = await Caller(harness, function).run({"retry_of": run["id"]})
    assert retry["status"] == "success"
    assert await check_chain(harness, [run, retry]) == harness.expected_pairs()
