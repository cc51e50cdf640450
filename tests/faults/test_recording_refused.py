"""The database takes no writes: nothing is acknowledged that is not recorded, and the run goes on when it does again.

A disk that is full cannot be had portably: a trigger answers as one does (53100), at each statement of a transaction in
turn. The other ways to refuse are real: a standby, the read-only mode of hosted projects, a server without connections.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest

from tests.faults.clockwork import Clockwork
from tests.faults.giving_up import gave_up, minutes_when_stuck
from tests.faults.oracle import check_promises
from tests.integration.nightly.night import Night, eventually
from tests.scripted_engine import rules

SMALL = {
    "EVALUATION_BATCH_SIZE": "10",
    "ENGINE_USERS_PER_CALL": "10",
    "ENGINE_MAX_CONCURRENCY": "2",
    "MAX_BATCH_DELIVERIES": "100",
    "MAX_WORKERS": "1",
}
MENTORS = 120
QUEUE = "pgmq.q_scenario_evaluation_batches"

MakeRoom = Callable[[], Awaitable[None]]

# A sequence counts also what is rolled back.
NO_SPACE = """
create schema if not exists faults;
grant usage on schema faults to public;
create sequence {counter};
grant usage on sequence {counter} to public;
create or replace function faults.refuse() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform nextval(tg_argv[0]);
  raise exception 'could not extend file "base/5/16384": No space left on device' using errcode = 'disk_full';
end
$$;
create trigger refuse before {event} on {table} for each {each} {condition} execute function faults.refuse('{counter}');
"""


@dataclass(frozen=True)
class FullDisk:
    """No space for the rows of a table that meet a condition; or, for each statement, for nothing."""

    table: str
    event: str
    condition: str = ""
    each: str = "row"

    @property
    def counter(self) -> str:
        return f"faults.refusals_of_{self.table.replace('.', '_')}_{self.event}"

    @contextlib.asynccontextmanager
    async def on(self, night: Night) -> AsyncIterator[None]:
        """Until the block ends."""
        values = {"table": self.table, "event": self.event, "condition": self.condition, "each": self.each}
        async with night.project.connect(superuser=True) as connection:
            await connection.execute(NO_SPACE.format(counter=self.counter, **values).encode())
            try:
                yield
            finally:
                await connection.execute(f"drop trigger refuse on {self.table}".encode())

    async def until_refused(self, night: Night, times: int = 1) -> None:
        """Return when it has refused so often."""

        async def look() -> bool:
            async with night.project.connect(superuser=True) as connection:
                cursor = await connection.execute(f"select last_value, is_called from {self.counter}".encode())
                row = await cursor.fetchone()
            return bool(row and row[1] and row[0] >= times)

        await eventually(look)


@contextlib.asynccontextmanager
async def all_full(night: Night, disks: Sequence[FullDisk]) -> AsyncIterator[list[MakeRoom]]:
    """All are full at first, so that no call slips through between two of them; yields what makes room on each."""
    async with contextlib.AsyncExitStack() as all_of_them:
        rooms: list[MakeRoom] = []
        for disk in disks:
            one = await all_of_them.enter_async_context(contextlib.AsyncExitStack())
            await one.enter_async_context(disk.on(night))
            rooms.append(one.aclose)
        yield rooms


async def batches(night: Night) -> list[tuple[Any, ...]]:
    """Of every batch: its number, its state, whether its message is in the queue, and its rows."""
    return await night.rows(
        b"select b.batch_no, b.state,"
        b" exists (select from pgmq.q_scenario_evaluation_batches as m"
        b"  where m.msg_id = b.msg_id and b.queue = 'scenario_evaluation_batches')"
        b" or exists (select from pgmq.q_scenario_evaluation_batches_poison as m"
        b"  where m.msg_id = b.msg_id and b.queue = 'scenario_evaluation_batches_poison'),"
        b" (select count(*) from public.scheduler_evaluations as e where e.invocation_id = b.invocation_id"
        b" and e.user_id between b.first_user_id and b.last_user_id)"
        b" from public.scheduler_invocation_batches as b order by b.batch_no"
    )


def check_nothing_is_acknowledged_that_is_not_recorded(found: list[tuple[Any, ...]]) -> None:
    for batch_no, state, queued, rows in found:
        if state == "open":
            assert queued, f"batch {batch_no} is not recorded and was taken out of the queue"
            assert rows == 0, f"batch {batch_no} is recorded by half"
        else:
            assert not queued, f"batch {batch_no} is recorded and comes again"


# The slot's opening; then the statements of a page's transaction: its messages, half of its batches, its cursor.
BEGINNING = (
    FullDisk("scheduler.settings", "update"),
    FullDisk(QUEUE, "insert"),
    FullDisk("public.scheduler_invocation_batches", "insert", "when (new.batch_no = 6)"),
    FullDisk("public.scheduler_invocations", "update", "when (new.next_batch_no > 1)"),
)


async def test_a_slot_is_opened_and_a_page_of_mentors_is_frozen_as_a_whole_or_not_at_all(
    night: Night, clockwork: Clockwork
) -> None:
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    await clockwork.start()
    found = []
    unspent = await night.rows(b"select slot_high_water_mark from scheduler.settings")

    async with minutes_when_stuck(night, clockwork, function), all_full(night, BEGINNING) as rooms:
        await clockwork.tick()
        for disk, make_room in zip(BEGINNING, rooms, strict=True):
            await disk.until_refused(night)
            found.append((await batches(night), await night.queue_lengths()))
            if disk is BEGINNING[0]:
                assert await night.invocations() == []
                assert await night.rows(b"select slot_high_water_mark from scheduler.settings") == unspent
            await make_room()
        invocation = await eventually(night.ended)

    assert found == [([], [0, 0, 0])] * len(BEGINNING)
    assert invocation is not None
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert gave_up(night, function) or set(night.engine.keys_seen.values()) == {1}


# The statements of a record's transaction: its rows, its batch, its acknowledgement; then the end of the run.
RECORD = (
    FullDisk("public.scheduler_evaluations", "insert"),
    FullDisk("public.scheduler_invocation_batches", "update"),
    FullDisk(QUEUE, "delete"),
    FullDisk("public.scheduler_invocations", "update", "when (new.finished_at is not null)"),
)


async def test_what_cannot_be_recorded_is_not_acknowledged_and_what_cannot_be_ended_is_open(
    night: Night, clockwork: Clockwork
) -> None:
    """The batches stay in hand until there is room: nobody is asked about twice."""
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    await clockwork.start()

    async with minutes_when_stuck(night, clockwork, function), all_full(night, RECORD) as rooms:
        await clockwork.tick()
        for disk, make_room in zip(RECORD, rooms, strict=True):
            await disk.until_refused(night)
            found = await batches(night)
            check_nothing_is_acknowledged_that_is_not_recorded(found)
            assert {state for _, state, _, _ in found} == {"done" if disk is RECORD[-1] else "open"}
            (run,) = await night.invocations()
            assert (run["status"], run["finished_at"]) == ("running", None)
            await make_room()
        invocation = await eventually(night.ended)

    assert invocation is not None
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert gave_up(night, function) or set(night.engine.keys_seen.values()) == {1}


async def test_a_disk_that_stays_full_is_503_and_everybody_is_asked_about_again_under_the_same_keys(
    night: Night, clockwork: Clockwork
) -> None:
    """What the engine did for those whose record was refused, it did once."""
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    await clockwork.start()

    disk = FullDisk("public.scheduler_evaluations", "insert")
    async with disk.on(night):
        await clockwork.tick()
        await clockwork.until_quiet()
        await disk.until_refused(night)
        # It harvests the answer.
        await clockwork.tick()
        found = await batches(night)
        answers = await night.rows(b"select status_code from scheduler.dispatches where status_code is not null")
        acts = dict(night.engine.acts)
    invocation = await clockwork.until_ended()

    assert answers == [(503,)]
    assert {state for _, state, _, _ in found} == {"open"}
    check_nothing_is_acknowledged_that_is_not_recorded(found)
    assert "Traceback" not in function.log_path.read_text()
    assert "No space left" not in function.log_path.read_text()
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert acts
    assert acts.items() <= night.engine.acts.items()
    assert max(night.engine.keys_seen.values()) > 1


# Slices that leave most of the batches to the next one.
SHORT = {**SMALL, "TIME_BUDGET_SECONDS": "1", "ENGINE_TIMEOUT_SECONDS": "0.9"}


async def test_a_slice_whose_end_is_refused_is_followed_by_the_next_one(night: Night, clockwork: Clockwork) -> None:
    await night.add_mentors(MENTORS)
    night.engine.rules.append(rules.slow(None, 0.3))
    await night.start_function(SHORT)
    await clockwork.start()

    await clockwork.tick()
    await night.engine.until_called(1)
    disk = FullDisk("scheduler.dispatches", "update", each="statement")
    async with disk.on(night):
        await disk.until_refused(night, 2)
        (before,) = await night.invocations()
        under_way = await night.rows(b"select count(*) from scheduler.dispatches where ended_at is null")
    invocation = await clockwork.until_ended()

    assert (before["status"], under_way) == ("running", [(1,)])
    assert before["counts"]["batches_done"] < before["counts"]["batches"]
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)


async def test_a_call_for_the_next_slice_that_is_refused_is_made_by_the_next_tick(
    night: Night, clockwork: Clockwork
) -> None:
    """The slice's own end is recorded nevertheless, and why nobody followed."""
    await night.add_mentors(MENTORS)
    night.engine.rules.append(rules.slow(None, 0.3))
    await night.start_function(SHORT)
    await clockwork.start()
    but_the_first = "when (new.headers ->> 'X-Scheduler-Dispatch' <> '1')"

    disk = FullDisk("net.http_request_queue", "insert", but_the_first)
    async with disk.on(night):
        await clockwork.tick()
        await disk.until_refused(night)
        await clockwork.until_quiet()
    (before,) = await night.invocations()
    ended = await night.rows(b"select ended_at is not null, error from scheduler.dispatches order by id")
    invocation = await clockwork.until_ended()

    assert ended == [(True, None), (True, "post_failed: 53100")]
    assert before["counts"]["batches_done"] < before["counts"]["batches"]
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)


async def test_a_server_that_has_become_a_standby_is_waited_for(own_night: Night) -> None:
    """Real: it refuses every transaction that might write (0A000), until it is promoted."""
    night = own_night
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    clockwork = Clockwork(night)
    await clockwork.start()
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    await clockwork.tick()
    await night.engine.until_called(2)

    await night.project.server.restart_as_standby()
    gate.set()
    answer = await night.fire(function)
    found = await batches(night)
    await night.project.server.promote()
    invocation = await clockwork.until_ended()

    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert "0A000" in function.log_path.read_text()
    assert "Traceback" not in function.log_path.read_text()
    assert {state for _, state, _, _ in found} == {"open"}
    check_nothing_is_acknowledged_that_is_not_recorded(found)
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)


async def test_a_project_in_read_only_mode_gets_no_tick_and_what_is_under_way_is_still_recorded(
    night: Night, clockwork: Clockwork
) -> None:
    """Real: hosted projects set `default_transaction_read_only` when the disk fills up.

    The Data API asks for a transaction that writes, and gets it; the cron job does not.
    """
    await night.add_mentors(MENTORS)
    await night.start_function(SMALL)
    await clockwork.start()
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    await clockwork.tick()
    await night.engine.until_called(2)
    database = psycopg.sql.Identifier(night.project.database)

    async with night.project.connect(superuser=True) as connection:
        await connection.execute(
            psycopg.sql.SQL("alter database {} set default_transaction_read_only = on").format(database)
        )
        # Whoever is connected keeps the setting that he came with.
        await connection.execute(
            b"select pg_terminate_backend(pid) from pg_stat_activity"
            b" where datname = current_database() and usename = 'authenticator'"
        )
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            await clockwork.tick()
        gate.set()
        invocation = await eventually(night.ended)
        await connection.execute(psycopg.sql.SQL("alter database {} reset all").format(database))
    await clockwork.tick()

    assert invocation is not None
    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)


async def test_a_database_that_gives_no_connection_is_waited_for(night: Night, clockwork: Clockwork) -> None:
    """Real: too many connections (53300) for everybody but the superuser."""
    await night.add_mentors(MENTORS)
    function = await night.start_function(SMALL)
    await clockwork.start()
    gate = asyncio.Event()
    night.engine.rules.append(rules.hold_until(gate))
    await clockwork.tick()
    await night.engine.until_called(2)
    database = psycopg.sql.Identifier(night.project.database)

    async with night.project.connect(superuser=True) as connection:
        await connection.execute(psycopg.sql.SQL("alter database {} connection limit 0").format(database))
        await connection.execute(
            b"select pg_terminate_backend(pid) from pg_stat_activity"
            b" where datname = current_database() and usename = 'authenticator'"
        )
        gate.set()

        async def is_refused() -> bool:
            return b"too many connections" in night.project.postgrest.log_path.read_bytes()

        await eventually(is_refused)
        await connection.execute(psycopg.sql.SQL("alter database {} connection limit -1").format(database))
    invocation = await clockwork.until_ended()

    assert invocation["status"] == "succeeded"
    await check_promises(night, invocation)
    assert "Traceback" not in function.log_path.read_text()
