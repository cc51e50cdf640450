"""Totals over all processes: never more calls in flight at the engine, or in a time, whatever is started or killed."""

from __future__ import annotations

import asyncio

from tests.emulator.function import FunctionProcess
from tests.faults.oracle import check_success
from tests.faults.time_control import TimeControl
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness, eventually
from tests.scripted_engine import rules
from tests.scripted_engine.exchange import Call, Proceed, Reply

EACH, PERMITS = 3, 4
# Spread over 62 seconds, since a call may be on its way for two.
PER_MINUTE = PERMITS * 900
SETTINGS = {
    # A paced batch begins with one call: as many batches in hand as calls.
    "EVALUATION_BATCH_SIZE": str(EACH),
    "ENGINE_USERS_PER_CALL": "1",
    "ENGINE_MAX_CONCURRENCY": str(EACH),
    "ENGINE_MAX_CONCURRENCY_TOTAL": str(PERMITS * EACH),
    "ENGINE_MAX_CALLS_PER_MINUTE": str(PER_MINUTE),
    "TIME_BUDGET_SECONDS": "100",
    "BATCH_VISIBILITY_SECONDS": "120",
    # What the engine holds counts there until it is let go: no call may be given up before.
    "ENGINE_TIMEOUT_SECONDS": "90",
}
HASTY = {"TIME_BUDGET_SECONDS": "2", "ENGINE_TIMEOUT_SECONDS": "1.5"}


def times_turned_away(harness: Harness, function: FunctionProcess) -> int:
    return sum(line["event"] == "engine_full" for line in harness.log_lines(function))


async def until_turned_away(harness: Harness, functions: list[FunctionProcess], times: int) -> None:
    """Until slices of these found all permits taken, so often in all."""

    async def look() -> bool:
        return sum(times_turned_away(harness, function) for function in functions) == times

    await eventually(look)


async def test_the_total_of_calls_holds_over_eight_processes_and_kills(
    harness: Harness, time_control: TimeControl
) -> None:
    mentors = await harness.add_mentors(70)
    some = {"user_ids": mentors[:EACH], "dry_run": True}
    gate = asyncio.Event()
    arrived: list[float] = []

    async def note(call: Call, proceed: Proceed) -> Reply:
        arrived.append(asyncio.get_running_loop().time())
        return await proceed(call)

    harness.engine.rules += [note, rules.hold_until(gate), rules.slow(0.01)]
    paces = [SETTINGS] * 7 + [SETTINGS | HASTY]
    functions = await asyncio.gather(*(harness.start_function(pace, restart=False) for pace in paces))
    await time_control.start()

    # Seven slices at once: three have a permit, and the fourth permit is kept for a manual run.
    firing = [asyncio.create_task(harness.fire(function)) for function in functions[:7]]
    await until_turned_away(harness, functions, 4)
    await harness.engine.until(lambda engine: engine.in_flight == 3 * EACH)
    holders = [function for function in functions[:7] if not times_turned_away(harness, function)]
    by_hand = Caller(harness, next(function for function in functions if function not in holders))
    manual = asyncio.create_task(by_hand.run({"user_ids": mentors[: EACH * EACH], "dry_run": True}))
    await harness.engine.until(lambda engine: engine.in_flight == PERMITS * EACH)
    answer = await Caller(harness, functions[7]).send("POST", "/evaluation-batch", json=some)
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_busy")
    # The engine is still at the calls of the killed: their permits go to no other slice.
    victims, left = holders[:2], [function for function in functions if function not in holders[:2]]
    for victim in victims:
        await victim.kill()
    await harness.project.write_vault_secrets(left[0].url)
    firing += [asyncio.create_task(harness.fire(function)) for function in left]
    await until_turned_away(harness, functions, 4 + 6)
    assert harness.engine.in_flight == PERMITS * EACH

    batches = [asyncio.create_task(by_hand.send("POST", "/evaluation-batch", json=some)) for _ in range(4)]
    gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*batches)} == {200}
    assert (await manual)["status"] == "success"
    await asyncio.gather(*firing, return_exceptions=True)
    # Time passes until then, and the permits of the killed are handed out again.
    await time_control.until_ended()
    (scheduled,) = [one for one in await harness.invocations() if one["trigger"] == "schedule"]

    assert harness.engine.peak_in_flight == PERMITS * EACH
    # Calls are spread evenly, so half a second has its part of the minute; those before it may have been on their way.
    most = PER_MINUTE // 62 // 2 + PERMITS + PERMITS * EACH
    assert len(arrived) > most
    assert all(later - call >= 0.5 for call, later in zip(arrived, arrived[most:], strict=False))
    assert await harness.rows(b"select from scheduler.engine_permits where expires_at > clock_timestamp()") == []
    await check_success(harness, scheduled)
