"""The function is killed, wherever it stands: the run continues by itself, no pair is lost, none is notified twice."""

from __future__ import annotations

from functions.runs.peer_mentors import PAGE_SIZE
from tests.faults.breakpoint import breakpoint_at
from tests.faults.oracle import check_success
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness

SMALL = batches_of(100, engine_max_concurrency=4, max_workers=1)
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


async def test_a_run_survives_a_kill_at_every_stage(harness: Harness, time_control: TimeControl) -> None:
    await harness.add_mentors(PAGE_SIZE + 200)
    function = await harness.start_function(SMALL)
    await time_control.start()

    async def go_on() -> None:
        await function.until_ready()
        await time_control.let_time_pass()
        await time_control.tick()

    # It reads the mentors: one page is just being frozen, the next one was never read.
    async with breakpoint_at(harness.project, "public.scheduler_invocation_batches", "insert") as stop:
        await time_control.tick()
        await stop.until_reached()
        await function.kill()
        await stop.release()
    await harness.execute(b"drop trigger faults_stop on public.scheduler_invocation_batches")
    await time_control.until_quiet()
    assert harness.engine.calls == []

    # It records: the engine has acted, and the record is lost with its connection.
    async with breakpoint_at(harness.project, "public.scheduler_evaluations", "insert") as stop:
        await go_on()
        await stop.until_reached()
        await function.kill()
        await harness.project.postgrest.kill()
        await stop.release()
        await harness.project.postgrest.start()
    await time_control.until_quiet()
    acts = dict(harness.engine.acts)
    assert acts

    # Everything is recorded, and the end of the run is not.
    await harness.execute(HOLD_THE_END)
    await go_on()
    await time_control.until_quiet()
    (run,) = await harness.invocations()
    assert (run["status"], run["counts"]["batches_done"]) == ("running", run["counts"]["batches"])
    await function.kill()
    await harness.execute(b"drop trigger hold_the_end on public.scheduler_invocations")
    calls = len(harness.engine.calls)
    invocation = await time_control.until_ended()

    assert len(harness.engine.calls) == calls
    assert max(harness.engine.keys_seen.values()) == 2
    assert acts.items() <= harness.engine.acts.items()
    await check_success(harness, invocation)
