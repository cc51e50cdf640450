"""The function is killed, wherever it stands: the run goes on by itself, nobody is lost, nobody is notified twice."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.breakpoint import breakpoint_at
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_promises
from tests.integration.nightly.night import Night
from tests.scripted_engine import rules

# Small batches and few calls at a time, so that a kill finds some recorded, some in hand and some waiting.
SMALL = {
    "EVALUATION_BATCH_SIZE": "20",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "4",
    "MAX_WORKERS": "2",
}


async def test_killed_while_it_reads_the_mentors(night: Night, clockwork: Clockwork) -> None:
    """Some pages are frozen, one is just being frozen, the rest was never read."""
    await night.add_mentors(2500)
    function = await night.start_function({**SMALL, "EVALUATION_BATCH_SIZE": "100", "ENGINE_USERS_PER_CALL": "100"})
    await clockwork.start()

    async with breakpoint_at(night.project, "public.scheduler_invocation_batches", "insert") as stop:
        await clockwork.tick()
        await stop.until_reached()
        await function.kill()
        await stop.release()
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)


async def test_killed_between_the_engines_answer_and_the_record(night: Night, clockwork: Clockwork) -> None:
    """The engine has acted, and nobody knows: the same keys are asked about again, and nobody is notified twice."""
    await night.add_mentors(200)
    answers = asyncio.Event()
    night.engine.rules.append(rules.hold_until(answers))
    function = await night.start_function(SMALL)
    await clockwork.start()

    await clockwork.tick()
    await night.engine.until_called(4)
    # It will have its answers, and cannot get rid of them.
    await night.project.gateway.stop()
    answers.set()
    await night.engine.until(lambda engine: bool(engine.acts) and engine.in_flight == 0)
    await function.kill()
    await night.project.gateway.start()
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert max(night.engine.keys_seen.values()) > 1, "nothing was in doubt: the kill came too late"


@pytest.mark.parametrize("kill_before_commit", [True, False], ids=["in the record", "right after the record"])
async def test_killed_while_and_after_it_records(night: Night, clockwork: Clockwork, kill_before_commit: bool) -> None:
    """What is committed stands, although the function never heard of it; what is not was never acknowledged."""
    await night.add_mentors(200)
    function = await night.start_function(SMALL)
    await clockwork.start()

    async with breakpoint_at(night.project, "public.scheduler_evaluations", "insert") as stop:
        await clockwork.tick()
        await stop.until_reached()
        if kill_before_commit:
            # Its connection dies with it; so does the transaction, which was not committed.
            await function.kill()
            await night.project.postgrest.kill()
            await stop.release()
            await night.project.postgrest.start()
        else:
            await function.kill()
            await stop.release()
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)


async def test_killed_at_the_very_end_the_run_is_ended_by_the_next_tick(night: Night, clockwork: Clockwork) -> None:
    """Everything is recorded, and nobody has said that it is over."""
    await night.add_mentors(60)
    function = await night.start_function(SMALL)
    await clockwork.start()

    # Of the updates of an invocation the last one ends it.
    await night.execute(
        b"create function public.hold_the_end() returns trigger language plpgsql as $$ begin"
        b" if new.finished_at is not null then raise exception using errcode = '55P03'; end if; return new; end $$"
    )
    await night.execute(
        b"create trigger hold_the_end before update on public.scheduler_invocations"
        b" for each row execute function public.hold_the_end()"
    )
    await clockwork.tick()
    await clockwork.until_quiet()
    assert (await night.invocations())[0]["status"] == "running"
    await function.kill()
    await night.execute(b"drop trigger hold_the_end on public.scheduler_invocations")
    calls = len(night.engine.calls)
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    assert len(night.engine.calls) == calls
    await check_promises(night, invocation)
