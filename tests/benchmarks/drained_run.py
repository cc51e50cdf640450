"""One run, queued first and then drained by some processes of the function, as dispatch asks for them: what it takes.

Everybody is enumerated while the engine is paused, then dispatch posts a slice for each process at once, through a load
balancer that gives each process one. Times are the database's own.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil

from tests.emulator.connections import Connection
from tests.emulator.errors import EmulatorError
from tests.emulator.function import FunctionProcess
from tests.emulator.load_balancer import LoadBalancer
from tests.emulator.project import Project

from .peers.fast_engine import EngineStats, read_stats, reset
from .peers.preparation import prepare

TYPES = ("inactivity_30_days", "milestone_reached", "onboarding_incomplete")
# How PostgreSQL writes where a crash must not lose anything, but for waiting for the disk.
SETTINGS = {"synchronous_commit": "on", "full_page_writes": "on"}
LOOK_SECONDS = 0.05
# Short slices, where processes die: what they had in hand comes back by itself, and soon.
SHORT_SLICES = {"TIME_BUDGET_SECONDS": "5", "ENGINE_TIMEOUT_SECONDS": "4", "BATCH_VISIBILITY_SECONDS": "16"}
LONG_SLICES = {"TIME_BUDGET_SECONDS": "600", "BATCH_VISIBILITY_SECONDS": "660"}

COUNT = b"""
select (select count(*) from public.scheduler_evaluations),
       coalesce(sum(evaluations - not_evaluated) filter (where state = 'done'), 0)::bigint,
       count(distinct worker)
  from public.scheduler_invocation_batches
"""
IS_QUIET = b"select not exists (select from net.http_request_queue)"
STATE = b"select status, error from public.scheduler_invocations"


@dataclass(frozen=True)
class DrainLoad:
    """What is to be drained, and by whom.

    Args:
        mentors: all of them active; each of three scenario types applies to everybody.
        processes: of the function.
        in_flight: calls of one process at once.
        users_per_call: who share a call, about all types.
        batch_size: users.
        latency_ms: of the engine.
    """

    mentors: int
    processes: int
    in_flight: int
    users_per_call: int
    batch_size: int
    latency_ms: float

    @property
    def evaluations(self) -> int:
        """Pairs of mentor and type."""
        return self.mentors * len(TYPES)


@dataclass(frozen=True)
class DrainFigures:
    """Of one run.

    Args:
        load: what was asked for.
        seconds: on the database's clock, from the dispatch that asks for the slices to the recorded end.
        machine_share: how much of the machine's CPU was used meanwhile, by any process; 1 is all of it.
        rows: of results, counted in the database.
        repeated: evaluations that the engine was asked for again, under the same key.
        workers: processes that recorded something.
        killed: processes that were killed in the middle.
    """

    load: DrainLoad
    seconds: float
    machine_share: float
    rows: int
    repeated: int
    workers: int
    killed: int

    @property
    def evaluations_per_second(self) -> float:
        """While it was drained."""
        return self.load.evaluations / self.seconds


async def drain_once(project: Project, engine_url: str, load: DrainLoad, *, kills: int = 0) -> DrainFigures:
    """Runs it once.

    Args:
        project: its mentors and its results are replaced; its server should have `SETTINGS`.
        engine_url: of a `fast_engine` with the load's latency and a row for every outcome; where processes are killed,
            of one that repeats its answers.
        load: what is to be drained.
        kills: how often a process is killed in the middle; another one takes its place. Slices are short then.

    Raises:
        EmulatorError: the run did not succeed, or somebody was not evaluated exactly once.
    """
    await prepare(project, load.mentors)
    await _forget_everything(project)
    async with _instances(project, engine_url, load, SHORT_SLICES if kills else {}, restart=kills > 0) as functions:
        await reset(engine_url)
        async with project.connect(superuser=True) as connection:
            await _pause(connection, paused=True)
            await _enumerate(connection)
            await _pause(connection, paused=False)
            before = psutil.cpu_times()
            seconds = await _drain(connection, functions, kills)
            machine_share = busy_share(before, psutil.cpu_times())
            counted = await (await connection.execute(COUNT)).fetchone()
    assert counted is not None
    rows, evaluated, workers = (int(value) for value in counted)
    stats = await read_stats(engine_url)
    _check(load, stats, rows, evaluated)
    return DrainFigures(
        load=load,
        seconds=seconds,
        machine_share=machine_share,
        rows=rows,
        repeated=stats.evaluations - stats.distinct,
        workers=workers,
        killed=kills,
    )


def busy_share(before: Any, after: Any) -> float:
    """The share of the machine's CPU that was used between two readings of `psutil.cpu_times`."""
    spent = {name: getattr(after, name) - getattr(before, name) for name in after._fields}
    # Time of guests is part of user time already.
    total = sum(seconds for name, seconds in spent.items() if not name.startswith("guest"))
    return 1 - (spent["idle"] + spent.get("iowait", 0.0)) / total if total else 0.0


def settings_of(load: DrainLoad) -> dict[str, str]:
    """What the function is told of a load by its environment; its slices may be long."""
    return {
        "SCENARIO_TYPES": json.dumps([{"type": name} for name in TYPES]),
        "EVALUATION_BATCH_SIZE": str(load.batch_size),
        "ENGINE_USERS_PER_CALL": str(load.users_per_call),
        "ENGINE_MAX_CONCURRENCY": str(load.in_flight),
        "MAX_WORKERS": str(load.processes),
        **LONG_SLICES,
    }


@asynccontextmanager
async def _instances(
    project: Project, engine_url: str, load: DrainLoad, slices: Mapping[str, str], *, restart: bool
) -> AsyncIterator[list[FunctionProcess]]:
    slot = datetime.now(UTC) - timedelta(minutes=1)
    env = {**settings_of(load), "EVALUATION_SCHEDULE": f"{slot.minute} {slot.hour} * * *", **slices}
    functions = [project.new_function(env, engine_url=engine_url, restart=restart) for _ in range(load.processes)]
    balancer = LoadBalancer(project.data_dir, [function.port for function in functions])
    try:
        await asyncio.gather(balancer.start(), *(function.start() for function in functions))
        await project.write_vault_secrets(balancer.url)
        if project.net is None:
            await project.start_net()
        yield functions
    finally:
        await asyncio.gather(balancer.stop(), *(function.stop() for function in functions))


async def _forget_everything(project: Project) -> None:
    """No runs, no queue, no posts; a slot that is due."""
    async with project.connect() as connection:
        await connection.execute(
            b"truncate public.scheduler_invocations, public.scheduler_invocation_batches, public.scheduler_evaluations,"
            b" scheduler.dispatches cascade"
        )
        await connection.execute(b"select pgmq.purge_queue(queue_name) from pgmq.list_queues()")
        await connection.execute(b"update scheduler.settings set next_due_at = null, engine_outages = 0")
    await project.make_slot_due()


async def _pause(connection: Connection, *, paused: bool) -> None:
    until = b"now() + interval '1 hour'" if paused else b"null"
    await connection.execute(b"update scheduler.settings set engine_paused_until = " + until)


async def _enumerate(connection: Connection) -> None:
    """Dispatch asks for one slice, which reads and queues all mentors; the pause keeps it from the engine."""
    await connection.execute(b"select scheduler.dispatch()")
    await _until_answered(connection)


async def _drain(connection: Connection, functions: Sequence[FunctionProcess], kills: int) -> float:
    """Dispatch asks for as many slices as there are processes: the seconds up to the recorded end."""
    (started,) = await _first(connection, b"select clock_timestamp()")
    await connection.execute(b"select scheduler.dispatch()")
    killed = 0
    while (state := await _first(connection, STATE))[0] in ("pending", "running"):
        if killed < kills and await _share_done(connection) > (killed + 1) / (kills + 2):
            await random.choice([function for function in functions if function.alive]).kill()
            killed += 1
        if kills:
            # The minute's tick, a bit faster.
            await connection.execute(b"select scheduler.dispatch()")
        await asyncio.sleep(LOOK_SECONDS)
    if killed < kills:
        raise EmulatorError(f"the run was over before {kills} processes could be killed: take more mentors")
    if state[0] != "succeeded":
        raise EmulatorError(f"the run did not succeed: {state}")
    (seconds,) = await _first(
        connection, b"select extract(epoch from finished_at - %s) from public.scheduler_invocations", started
    )
    await _until_answered(connection)
    return float(seconds)


async def _until_answered(connection: Connection) -> None:
    """Until every post has its answer."""
    while (await _first(connection, IS_QUIET)) != (True,):  # noqa: ASYNC110  # the database has no Event to set
        await asyncio.sleep(LOOK_SECONDS)


async def _share_done(connection: Connection) -> float:
    (share,) = await _first(
        connection,
        b"select count(*) filter (where state = 'done') / count(*)::float from public.scheduler_invocation_batches",
    )
    return float(share)


async def _first(connection: Connection, query: bytes, *parameters: object) -> tuple[Any, ...]:
    row = await (await connection.execute(query, parameters or None)).fetchone()
    assert row is not None
    return row


def _check(load: DrainLoad, stats: EngineStats, rows: int, evaluated: int) -> None:
    expected = load.evaluations
    if (stats.distinct, stats.duplicates, evaluated) != (expected, 0, expected):
        raise EmulatorError(
            f"{expected} evaluations, each once and recorded, were expected; the engine saw {stats.distinct}, and "
            f"{stats.duplicates} twice; {evaluated} are recorded"
        )
    if rows != expected:
        raise EmulatorError(f"{expected} rows were expected, found {rows}")
    if stats.max_in_flight > load.processes * load.in_flight and not stats.evaluations > stats.distinct:
        raise EmulatorError(
            f"at most {load.processes} x {load.in_flight} calls in flight were asked for, not {stats.max_in_flight}"
        )
