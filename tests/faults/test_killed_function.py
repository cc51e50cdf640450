"""The function is killed, wherever it stands: the run goes on by itself, no pair is lost, none is notified twice."""

from __future__ import annotations

from functions.peer_mentors import PAGE_SIZE
from tests.faults.breakpoint import breakpoint_at
from tests.faults.clockwork import Clockwork
from tests.faults.oracle import check_success
from tests.integration.nightly.night import Night

SMALL = {
    "EVALUATION_BATCH_SIZE": "100",
    "ENGINE_USERS_PER_CALL": "100",
    "ENGINE_MAX_CONCURRENCY": "4",
    "MAX_WORKERS": "1",
}
# The last update of an invocation is refused.
HOLD_THE_END = b"""
create function public.hold_the_end() returns trigger language plpgsql as $$
begin
  raise exception using errcode = '55P03';
end
$$;
create trigger hold_the_end before update on public.scheduler_invocations
for each row when (new.finished_at is not null) execute function public.hold_the_end();
"""


async def test_a_run_survives_a_kill_at_every_stage(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(PAGE_SIZE + 200)
    function = await night.start_function(SMALL)
    await clockwork.start()

    async def go_on() -> None:
        await function.until_ready()
        await clockwork.let_time_pass()
        await clockwork.tick()

    # It reads the mentors: one page is just being frozen, the next one was never read.
    async with breakpoint_at(night.project, "public.scheduler_invocation_batches", "insert") as stop:
        await clockwork.tick()
        await stop.until_reached()
        await function.kill()
        await stop.release()
    await night.execute(b"drop trigger faults_stop on public.scheduler_invocation_batches")
    await clockwork.until_quiet()
    assert night.engine.calls == []

    # It records: the engine has acted, and the record dies with its connection.
    async with breakpoint_at(night.project, "public.scheduler_evaluations", "insert") as stop:
        await go_on()
        await stop.until_reached()
        await function.kill()
        await night.project.postgrest.kill()
        await stop.release()
        await night.project.postgrest.start()
    await clockwork.until_quiet()
    acts = dict(night.engine.acts)
    assert acts

    # Everything is recorded, and the end of the run is not.
    await night.execute(HOLD_THE_END)
    await go_on()
    await clockwork.until_quiet()
    (run,) = await night.invocations()
    assert (run["status"], run["counts"]["batches_done"]) == ("running", run["counts"]["batches"])
    await function.kill()
    await night.execute(b"drop trigger hold_the_end on public.scheduler_invocations")
    calls = len(night.engine.calls)
    invocation = await clockwork.until_ended()

    assert len(night.engine.calls) == calls
    assert max(night.engine.keys_seen.values()) == 2
    assert acts.items() <= night.engine.acts.items()
    await check_success(night, invocation)
