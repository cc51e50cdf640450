"""The database takes no writes: nothing is acknowledged that is not recorded, and the run continues when it does again.

A disk that is full cannot be had portably: a trigger answers as one does (53100). The standby is a real one.
"""

from __future__ import annotations

from tests.faults.oracle import check_success
from tests.faults.settings import batches_of
from tests.faults.time_control import TimeControl
from tests.integration.scheduled_runs.harness import Harness, eventually

SMALL = batches_of(10, engine_max_concurrency=2, max_workers=1)
MENTORS = 120

# After the rows and the batch: what is rolled back with it had been written.
FILL_DISK = b"""
create function public.refuse() returns trigger language plpgsql as $$
begin
  raise exception 'could not extend file "base/5/16384": No space left on device' using errcode = 'disk_full';
end
$$;
create trigger refuse after update on public.scheduler_invocation_batches
for each row when (new.state = 'done') execute function public.refuse();
"""


async def check_nothing_is_acknowledged(harness: Harness) -> None:
    """Every batch is open and has its message, and no row is recorded."""
    batches = await harness.rows(
        b"select distinct state, exists (select from pgmq.q_scenario_evaluation_batches as m where m.msg_id = b.msg_id)"
        b" from public.scheduler_invocation_batches as b"
    )
    assert batches == [("open", True)]
    assert await harness.rows(b"select from public.scheduler_evaluations") == []


async def test_a_full_disk_and_a_standby_are_503(own_server: Harness) -> None:
    """Users are asked about again under the same keys afterwards: the engine acts once."""
    harness, time_control = own_server, TimeControl(own_server)
    await harness.add_mentors(MENTORS)
    function = await harness.start_function(SMALL)
    await time_control.start()
    await harness.execute(FILL_DISK)

    await time_control.tick_and_wait()
    # It reads the answer.
    await time_control.tick()
    answers = await harness.rows(b"select status_code from scheduler.dispatches where status_code is not null")
    await check_nothing_is_acknowledged(harness)
    acts = dict(harness.engine.acts)
    await harness.project.server.restart_as_standby()
    answer = await harness.fire(function)
    await check_nothing_is_acknowledged(harness)
    await harness.project.server.promote()
    await eventually(lambda: harness.rows(b"select where not pg_is_in_recovery()"))
    await harness.execute(b"drop trigger refuse on public.scheduler_invocation_batches")
    invocation = await time_control.until_ended()

    assert answers == [(503,)]
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    log = function.log_path.read_text()
    assert "0A000" in log
    assert "Traceback" not in log
    assert "No space left" not in log
    await check_success(harness, invocation)
    assert acts
    assert acts.items() <= harness.engine.acts.items()
    assert max(harness.engine.keys_seen.values()) > 1
