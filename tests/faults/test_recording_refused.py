"""The database takes no writes: nothing is acknowledged that is not recorded, and the run goes on when it does again.

A disk that is full cannot be had portably: triggers answer as one does (53100), at each statement of a record's
transaction in turn. The standby is a real one.
"""

from __future__ import annotations

from tests.faults.clockwork import Clockwork
from tests.faults.giving_up import gave_up, minutes_when_stuck
from tests.faults.oracle import check_success
from tests.integration.nightly.night import Night, eventually

SMALL = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "2",
    "MAX_BATCH_DELIVERIES": "100",
    "MAX_WORKERS": "1",
}
MENTORS = 120

# Each of these is refused until there is room for it: a record's rows, its batch, its acknowledgement; the run's end.
STATEMENTS = (
    "insert on public.scheduler_evaluations for each row",
    "update on public.scheduler_invocation_batches for each row",
    "delete on pgmq.q_scenario_evaluation_batches for each row",
    "update on public.scheduler_invocations for each row when (new.finished_at is not null)",
)
# A sequence keeps also what is rolled back.
NO_SPACE = """
create schema faults;
grant usage on schema faults to public;
create table faults.room (statements integer);
insert into faults.room values (0);
grant select on faults.room to public;
create sequence faults.refused;
grant update on sequence faults.refused to public;
create function faults.refuse() returns trigger language plpgsql set search_path = '' as $$
begin
  if tg_argv[0]::integer > (select statements from faults.room) then
    perform setval('faults.refused', tg_argv[0]::bigint);
    raise exception 'could not extend file "base/5/16384": No space left on device' using errcode = 'disk_full';
  end if;
  return coalesce(new, old);
end
$$;
"""


async def fill_disk(night: Night) -> None:
    async with night.project.connect(superuser=True) as connection:
        await connection.execute(NO_SPACE.encode())
        for number, statement in enumerate(STATEMENTS, 1):
            trigger = f"create trigger refuse before {statement} execute function faults.refuse({number})"
            await connection.execute(trigger.encode())


async def make_room(night: Night, statements: int) -> None:
    """For so many of the statements, from the first on."""
    async with night.project.connect(superuser=True) as connection:
        await connection.execute(b"update faults.room set statements = %s", (statements,))


async def until_refused(night: Night, statement: int) -> None:
    async def look() -> bool:
        async with night.project.connect(superuser=True) as connection:
            cursor = await connection.execute(b"select is_called and last_value = %s from faults.refused", (statement,))
            return await cursor.fetchone() == (True,)

    await eventually(look)


async def check_acknowledged_is_recorded(night: Night, state: str) -> None:
    """Every batch is in this state; an open one has its message and no row, any other one no message."""
    found = await night.rows(
        b"select distinct b.state, exists (select from pgmq.q_scenario_evaluation_batches where msg_id = b.msg_id),"
        b" b.state = 'open' and exists (select from public.scheduler_evaluations as e"
        b"  where e.invocation_id = b.invocation_id and e.user_id between b.first_user_id and b.last_user_id)"
        b" from public.scheduler_invocation_batches as b"
    )
    assert found == [(state, state == "open", False)]


async def test_only_what_is_recorded_is_acknowledged(night: Night, clockwork: Clockwork) -> None:
    """The batches stay in hand until there is room: the engine is asked once."""
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    await clockwork.start()
    await fill_disk(night)

    async with minutes_when_stuck(night, clockwork, function):
        await clockwork.tick()
        for number in range(1, len(STATEMENTS) + 1):
            await until_refused(night, number)
            await check_acknowledged_is_recorded(night, "done" if number == len(STATEMENTS) else "open")
            (run,) = await night.invocations()
            assert (run["status"], run["finished_at"]) == ("running", None)
            await make_room(night, number)
        invocation = await eventually(night.ended)

    await check_success(night, invocation)
    assert gave_up(night, function) or set(night.engine.keys_seen.values()) == {1}


async def test_a_disk_that_stays_full_and_a_standby_are_503(own_night: Night) -> None:
    """Users are asked about again under the same keys afterwards: the engine acts once."""
    night, clockwork = own_night, Clockwork(own_night)
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    await clockwork.start()
    await fill_disk(night)

    await clockwork.tick_and_wait()
    # It harvests the answer.
    await clockwork.tick()
    answers = await night.rows(b"select status_code from scheduler.dispatches where status_code is not null")
    await check_acknowledged_is_recorded(night, "open")
    acts = dict(night.engine.acts)
    await night.project.server.restart_as_standby()
    answer = await night.fire(function)
    await check_acknowledged_is_recorded(night, "open")
    await night.project.server.promote()
    await eventually(lambda: night.rows(b"select where not pg_is_in_recovery()"))
    await make_room(night, len(STATEMENTS))
    invocation = await clockwork.until_ended()

    assert answers == [(503,)]
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    log = function.log_path.read_text()
    assert "0A000" in log
    assert "Traceback" not in log
    assert "No space left" not in log
    await check_success(night, invocation)
    assert acts
    assert acts.items() <= night.engine.acts.items()
    assert max(night.engine.keys_seen.values()) > 1
