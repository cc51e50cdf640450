"""Past one process: two, four and eight drain one run, against an engine of fixed latency.

Everybody is enumerated while the engine is paused; then dispatch posts a slice for each process at once, through a load
balancer that gives each process one. As many mentors for each process, however many there are, so that beginning and
end weigh the same. The heavier loads come to where the machine's CPU is full. Where that is, processes tell that have
nothing in common but the machine and are given the same load: the loop of the benchmark of durability, once in each
process, each with mentors of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psutil

from tests.emulator.connections import Connection
from tests.emulator.errors import EmulatorError
from tests.emulator.load_balancer import LoadBalancer
from tests.emulator.project import Project, ProjectFactory

from .peers.contenders import PLAIN_LOOP, THIS_FUNCTION
from .peers.fast_engine import fast_engine, read_stats, reset
from .peers.figures import TYPES, Load
from .peers.measured_call import ANSWER_SECONDS, check
from .peers.preparation import count_rows, prepare, user_ids
from .peers.scheduler import forget_everything, settings_for
from .section import Conditions, Measured, Row, Section, at_least
from .spread import Spread

PROCESSES = (1, 2, 4, 8)
# Of linear throughput, as long as there is CPU; and always, of what independent processes reach.
WANTED_SHARE = 0.85
# How PostgreSQL writes where a crash must not lose anything, but for waiting for the disk.
POSTGRES = {"synchronous_commit": "on", "full_page_writes": "on"}
LOOK_SECONDS = 0.05
RESULTS = b"""
select coalesce(sum(evaluations - not_evaluated) filter (where state = 'done'), 0)::bigint
  from public.scheduler_invocation_batches
"""
STATE = b"select status, error, finished_at from public.scheduler_invocations"


@dataclass(frozen=True)
class Scenario:
    """A load of one process, by its name in tables."""

    name: str
    load: Load
    batch_size: int
    latency_ms: float

    def load_of(self, processes: int) -> Load:
        """What all of them are given together."""
        return Load(processes * self.load.mentors, processes * self.load.in_flight, 1, len(TYPES))

    def env_of(self, processes: int) -> dict[str, str]:
        """What each of them is told."""
        sizes = {"EVALUATION_BATCH_SIZE": str(self.batch_size), "MAX_WORKERS": str(processes)}
        return settings_for(self.load) | sizes


SCENARIOS = (
    Scenario("8 calls in flight each, 50 ms", Load(1_000, 8, 1, len(TYPES)), 20, 50),
    Scenario("16 calls in flight each, 20 ms", Load(5_000, 16, 1, len(TYPES)), 200, 20),
    Scenario("32 calls in flight each, 20 ms", Load(10_000, 32, 1, len(TYPES)), 200, 20),
)


async def measure(conditions: Conditions) -> Measured:
    """This function alone, on a stack of its own."""
    rows: dict[str, list[Row]] = {}
    numbers = PROCESSES[:2] if conditions.quick else PROCESSES
    async with ProjectFactory(settings=POSTGRES) as projects, projects.project() as project:
        for scenario in SCENARIOS:
            runs: dict[int, list[tuple[float, float, float]]] = {number: [] for number in numbers}
            async with fast_engine(project.data_dir, latency_ms=scenario.latency_ms, notable=1) as engine:
                for _ in range(conditions.rounds):
                    for number in numbers:
                        together, busy = await _drain(project, engine, scenario, number)
                        apart = await _run_apart(project, engine, scenario, number)
                        runs[number].append((together, apart, busy))
                        said = f"{number} processes: {together:.2f} s, independent ones {apart:.2f} s"
                        conditions.say(f"{scenario.name}, {said}")
            rows[scenario.name] = _rows(scenario, runs)
    return _measured(rows)


def _rows(scenario: Scenario, runs: dict[int, list[tuple[float, float, float]]]) -> list[Row]:
    """With as many mentors for each, the share of linear is the ratio of one process's time to that of several."""
    spreads = {number: [Spread.of(values) for values in zip(*found, strict=True)] for number, found in runs.items()}
    alone, alone_apart, _ = spreads[1]
    return [
        Row(
            THIS_FUNCTION,
            f"{scenario.name}: {number} processes",
            {"processes": number},
            {
                "wall_seconds": wall,
                "evaluations_per_second": Spread.of(
                    scenario.load_of(number).evaluations / seconds for seconds in wall.values
                ),
                "share_of_linear": alone.over(wall),
                "independent_share": alone_apart.over(wall_apart),
                "machine_share": busy,
            },
        )
        for number, (wall, wall_apart, busy) in spreads.items()
    ]


def _measured(rows: dict[str, list[Row]]) -> Measured:
    every = [row for of_scenario in rows.values() for row in of_scenario]
    full = [row.label for row in every if _is_cpu_full(row)]
    reached = [row.figures["share_of_linear"].over(row.figures["independent_share"]) for row in every]
    return Measured(
        every,
        [
            *(
                at_least(
                    f"share of linear throughput until the CPU is full, {name}",
                    _least([row.figures["share_of_linear"] for row in of_scenario if not _is_cpu_full(row)]),
                    WANTED_SHARE,
                )
                for name, of_scenario in rows.items()
            ),
            at_least(
                "share of what independent processes reach, whatever the CPU", _least(reached), WANTED_SHARE
            ),
        ],
        [
            "Independent processes share nothing but the machine: each has mentors of its own, and no queue. Where even"
            f" they stay below {WANTED_SHARE} of linear, the machine's CPU is full: {'; '.join(full) or 'nowhere'}."
        ],
    )


def _is_cpu_full(row: Row) -> bool:
    """Before all of the CPU is used: the nearer it comes, the longer each process waits for its turn."""
    return row.figures["independent_share"].median < WANTED_SHARE


def _least(spreads: Sequence[Spread]) -> Spread:
    return min(spreads, key=lambda spread: spread.median)


async def _drain(project: Project, engine: str, scenario: Scenario, processes: int) -> tuple[float, float]:
    """Seconds on the database's clock, from dispatch to the recorded end; and the share of the CPU that was used."""
    load = scenario.load_of(processes)
    await prepare(project, load.mentors)
    await forget_everything(project)
    await project.make_slot_due()
    slot = datetime.now(UTC) - timedelta(minutes=1)
    env = scenario.env_of(processes) | {"EVALUATION_SCHEDULE": f"{slot.minute} {slot.hour} * * *"}
    functions = [project.new_function(env, engine_url=engine, restart=False) for _ in range(processes)]
    balancer = LoadBalancer(project.data_dir, [function.port for function in functions])
    try:
        await asyncio.gather(balancer.start(), *(function.start() for function in functions))
        await project.write_vault_secrets(balancer.url)
        if project.net is None:
            await project.start_net()
        await reset(engine)
        async with project.connect(superuser=True) as connection:
            await connection.execute(b"truncate scheduler.dispatches cascade")
            await _dispatch(connection, pause=b"now() + interval '1 hour'")
            await _until_answered(connection)
            psutil.cpu_percent()
            (started,) = await _first(connection, b"select clock_timestamp()")
            await _dispatch(connection, pause=b"null")
            while (state := await _first(connection, STATE))[0] in ("pending", "running"):
                await asyncio.sleep(LOOK_SECONDS)
            busy = psutil.cpu_percent() / 100
            await _until_answered(connection)
            (results,) = await _first(connection, RESULTS)
    finally:
        await asyncio.gather(balancer.stop(), *(function.stop() for function in functions))
    status, error, finished = state
    if status != "succeeded":
        raise EmulatorError(f"the run did not succeed: {status}, {error}")
    check(scenario.name, load, await read_stats(engine), results)
    return (finished - started).total_seconds(), busy


async def _dispatch(connection: Connection, *, pause: bytes) -> None:
    """Asks for one slice, which reads and queues all mentors, while the engine is paused; else one for each process."""
    await connection.execute(b"update scheduler.settings set engine_paused_until = " + pause)
    await connection.execute(b"select scheduler.dispatch()")


async def _until_answered(connection: Connection) -> None:
    """Until every post has its answer."""
    quiet = b"select not exists (select from net.http_request_queue)"
    while (await _first(connection, quiet)) != (True,):  # noqa: ASYNC110  # the database has no Event to set
        await asyncio.sleep(LOOK_SECONDS)


async def _first(connection: Connection, query: bytes) -> tuple[Any, ...]:
    row = await (await connection.execute(query)).fetchone()
    assert row is not None
    return row


async def _run_apart(project: Project, engine: str, scenario: Scenario, processes: int) -> float:
    """Seconds from the calls of all independent processes to the last one's answer."""
    load = scenario.load_of(processes)
    await prepare(project, load.mentors)
    users = await user_ids(project)
    last = [users[load.mentors * number // processes - 1] for number in range(1, processes + 1)]
    async with AsyncExitStack() as stack:
        served = []
        for after, up_to in zip(["", *last], last, strict=False):
            env = scenario.env_of(processes) | {"MENTORS_AFTER": after, "MENTORS_UP_TO": up_to}
            process = PLAIN_LOOP.serve(project, project.function_env(engine, env))
            served.append(await stack.enter_async_context(process))
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS))
        await reset(engine)
        started = time.perf_counter()
        answers = await asyncio.gather(*(client.post(one.url) for one in served))
        seconds = time.perf_counter() - started
        for one, answer in zip(served, answers, strict=True):
            if answer.status_code != httpx.codes.OK:
                raise EmulatorError(f"a process answered {answer.status_code}; its log says:\n{one.log_tail()}")
    check(f"independent processes, {scenario.name}", load, await read_stats(engine), await count_rows(project))
    return seconds


SCALE_OUT = Section(
    "scale-out",
    "several processes drain one run",
    "One to eight processes of the function, started at once, against an engine of fixed latency; as many mentors for"
    " each process, however many there are.",
    measure,
)
