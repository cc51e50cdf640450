"""A total of calls over all processes: never more in flight at the engine, whatever is started or killed."""

from __future__ import annotations

import asyncio

from tests.emulator.function import FunctionProcess
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import rules

EACH = 3
BUDGET_SECONDS = 100
PATIENT = {
    "TIME_BUDGET_SECONDS": str(BUDGET_SECONDS),
    "BATCH_VISIBILITY_SECONDS": "120",
    # What the engine holds counts there until it is let go: no call may be given up before.
    "ENGINE_TIMEOUT_SECONDS": "90",
}
HASTY = {"TIME_BUDGET_SECONDS": "2", "ENGINE_TIMEOUT_SECONDS": "1.5"}


async def start(night: Night, permits: int, *pace: dict[str, str]) -> list[FunctionProcess]:
    settings = {
        "EVALUATION_BATCH_SIZE": "10",
        "ENGINE_USERS_PER_CALL": "1",
        "ENGINE_MAX_CONCURRENCY": str(EACH),
        "ENGINE_MAX_CONCURRENCY_TOTAL": str(permits * EACH),
    }
    return await asyncio.gather(*(night.start_function(settings | one, restart=False) for one in pace))


def times_turned_away(night: Night, function: FunctionProcess) -> int:
    return sum(line["event"] == "engine_full" for line in night.log_lines(function))


async def until_turned_away(night: Night, functions: list[FunctionProcess], times: int) -> None:
    """Until slices of these found all permits taken, so often in all."""

    async def look() -> bool:
        return sum(times_turned_away(night, function) for function in functions) == times

    await eventually(look)


async def permits_are(night: Night, number: int) -> bool:
    return len(await night.rows(b"select from scheduler.engine_permits where expires_at > clock_timestamp()")) == number


async def test_the_total_holds_over_eight_processes_manual_runs_batches_and_kills(
    night: Night, clockwork: Clockwork
) -> None:
    mentors = await night.add_mentors(400)
    some = {"user_ids": mentors[:10], "dry_run": True}
    gate = asyncio.Event()
    night.engine.rules += [rules.hold_until(gate), rules.slow(None, 0.02)]
    functions = await start(night, 4, *[PATIENT] * 7, HASTY)
    await clockwork.start()

    # Seven slices at once: three have a permit, and the fourth permit is kept for a manual run.
    firing = [asyncio.create_task(night.fire(function)) for function in functions[:7]]
    await until_turned_away(night, functions, 4)
    await night.engine.until(lambda engine: engine.in_flight == 3 * EACH)
    holders = [function for function in functions[:7] if not times_turned_away(night, function)]
    by_hand = Caller(night, next(function for function in functions if function not in holders))
    manual = asyncio.create_task(by_hand.run({"user_ids": mentors[:20], "dry_run": True}))
    await night.engine.until(lambda engine: engine.in_flight == 4 * EACH)
    answer = await Caller(night, functions[7]).send("POST", "/evaluation-batch", json=some)
    assert (answer.status_code, answer.json()["code"]) == (503, "engine_busy")
    # The engine is still at the calls of the killed: their permits go to no other slice.
    victims, left = holders[:2], [function for function in functions if function not in holders[:2]]
    for victim in victims:
        await victim.kill()
    await night.project.write_vault_secrets(left[0].url)
    firing += [asyncio.create_task(night.fire(function)) for function in left]
    await until_turned_away(night, functions, 4 + 6)
    assert night.engine.in_flight == 4 * EACH

    batches = [asyncio.create_task(by_hand.send("POST", "/evaluation-batch", json=some)) for _ in range(4)]
    gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*batches)} == {200}
    assert (await manual)["status"] == "succeeded"
    await asyncio.gather(*firing, return_exceptions=True)
    await clockwork.until_ended()
    (scheduled,) = [one for one in await night.invocations() if one["triggered_by"] == "schedule"]

    assert night.engine.peak_in_flight == 4 * EACH
    assert (scheduled["status"], scheduled["failures"]) == ("succeeded", [])
    await check_promises(night, scheduled)
    assert await permits_are(night, 0)


async def test_manual_work_gets_through_beside_scheduled_slices_and_a_lost_permit_comes_back(
    night: Night, clockwork: Clockwork
) -> None:
    mentors = await night.add_mentors(200)
    some = {"user_ids": mentors[:10], "dry_run": True}
    gate = asyncio.Event()
    night.engine.rules.append(rules.only(lambda call: not call.dry_run, rules.hold_until(gate)))
    victim, other = await start(night, 2, PATIENT, PATIENT)
    await clockwork.start()
    firing = [asyncio.create_task(night.fire(victim))]
    await night.engine.until(lambda engine: engine.in_flight == EACH)
    caller = Caller(night, other)
    assert (await caller.run(some))["status"] == "succeeded"
    assert (await caller.send("POST", "/evaluation-batch", json=some)).status_code == 200
    # A process that serves both holds both permits, and makes no more calls than one process may.
    firing.append(asyncio.create_task(Caller(night, victim).send("POST", "/evaluation-batch", json=some)))
    await eventually(lambda: permits_are(night, 2))
    assert night.engine.in_flight == EACH

    await victim.kill()
    await night.project.write_vault_secrets(other.url)
    answer = await night.fire(other)
    assert (answer.status_code, times_turned_away(night, other)) == (202, 1)
    await clockwork.let_time_pass(BUDGET_SECONDS + 5)
    firing.append(asyncio.create_task(night.fire(other)))
    await night.engine.until(lambda engine: engine.in_flight == 2 * EACH)
    gate.set()
    await asyncio.gather(*firing, return_exceptions=True)
    await clockwork.until_ended()
    (scheduled,) = [one for one in await night.invocations() if one["triggered_by"] == "schedule"]
    await check_promises(night, scheduled)
    assert (scheduled["status"], night.engine.peak_in_flight) == ("succeeded", 2 * EACH)
