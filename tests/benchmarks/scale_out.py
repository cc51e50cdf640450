"""Several processes: one, two, four and eight drain one run, against an engine of fixed latency.

All mentors are enumerated while the engine is paused; then dispatch posts a slice for each process at once, through a
load balancer that gives each process one. Each process has as many mentors, so that beginning and end weigh the same.
The heavier loads fill the machine's CPU. The machine's limit is measured with independent processes under the same
load: the loop of the durability benchmark, each with mentors of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import psutil

from tests.emulator.connections import Connection, value
from tests.emulator.errors import EmulatorError
from tests.emulator.gateway import LoadBalancer
from tests.emulator.project import Project, ProjectFactory

from .peers.contenders import PLAIN_LOOP, THIS_FUNCTION
from .peers.fast_engine import fast_engine, read_stats, reset
from .peers.figures import TYPES, Load
from .peers.measured_call import ANSWER_SECONDS, check
from .peers.preparation import count, count_rows, prepare, user_ids
from .peers.scheduler import RESULTS, forget_everything, settings_for
from .section import Conditions, Measured, Row, Section, at_least
from .spread import Spread

PROCESSES = (1, 2, 4, 8)
# Of linear throughput, as long as there is CPU; and always, of what independent processes reach.
WANTED_SHARE = 0.85
# How PostgreSQL writes where a crash must not lose anything, but for waiting for the disk.
POSTGRES = {"synchronous_commit": "on", "full_page_writes": "on"}
LOOK_SECONDS = 0.05
QUIET = b"select not exists (select from net.http_request_queue)"
ENDED = b"select finished_at is not null from public.scheduler_invocations"
END = b"select id::text, status, finished_at from public.scheduler_invocations"


@dataclass(frozen=True)
class Scenario:
    """A load, in numbers of one process."""

    name: str
    mentors: int
    in_flight: int
    batch_size: int
    latency_ms: float

    def load_of(self, processes: int) -> Load:
        return Load(processes * self.mentors, processes * self.in_flight, 1, len(TYPES))

    def settings_of(self, processes: int) -> dict[str, str]:
        sizes = {"EVALUATION_BATCH_SIZE": str(self.batch_size), "MAX_WORKERS": str(processes)}
        return settings_for(self.load_of(1)) | sizes


SCENARIOS = (
    Scenario("8 calls in flight each, 50 ms", 1_000, 8, 20, 50),
    Scenario("16 calls in flight each, 20 ms", 5_000, 16, 200, 20),
    Scenario("32 calls in flight each, 20 ms", 10_000, 32, 200, 20),
)


async def measure(conditions: Conditions) -> Measured:
    rows: dict[str, list[Row]] = {}
    async with ProjectFactory(settings=POSTGRES) as projects, projects.project() as project:
        for scenario in SCENARIOS:
            runs: dict[int, list[tuple[float, ...]]] = {}
            most, latency = scenario.load_of(max(PROCESSES)).evaluations, scenario.latency_ms
            async with fast_engine(project.data_dir, latency_ms=latency, notable=1, expect=most) as engine:
                for _ in range(conditions.rounds):
                    for number in PROCESSES[:2] if conditions.quick else PROCESSES:
                        together, busy = await _run_together(project, engine, scenario, number)
                        apart = await _run_apart(project, engine, scenario, number)
                        runs.setdefault(number, []).append((together, apart, busy))
                        said = f"{together:.2f} s, independent ones {apart:.2f} s"
                        conditions.say(f"{scenario.name}, {number} processes: {said}")
            rows[scenario.name] = [_row(scenario, number, found, runs[1]) for number, found in runs.items()]
    every = [row for of_scenario in rows.values() for row in of_scenario]
    full = [row.label for row in every if _is_cpu_full(row)]
    reached = [row.figures["share_of_linear"].over(row.figures["independent_share"]) for row in every]
    until_full = {
        name: [row.figures["share_of_linear"] for row in of_scenario if not _is_cpu_full(row)]
        for name, of_scenario in rows.items()
    }
    return Measured(
        every,
        [
            *(
                at_least(f"share of linear throughput until the CPU is full, {name}", _least(shares), WANTED_SHARE)
                for name, shares in until_full.items()
            ),
            at_least("share of what independent processes reach, whatever the CPU", _least(reached), WANTED_SHARE),
        ],
        [
            "Independent processes share nothing but the machine: each has mentors of its own, and no queue. Where even"
            f" they stay below {WANTED_SHARE} of linear, the machine's CPU is full: {'; '.join(full) or 'nowhere'}."
        ],
    )


def _row(scenario: Scenario, processes: int, runs: list[tuple[float, ...]], of_one: list[tuple[float, ...]]) -> Row:
    """With as many mentors for each, the share of linear is the ratio of one process's time to that of several."""
    wall, wall_apart, busy = (Spread.of(values) for values in zip(*runs, strict=True))
    wall_of_one, apart_of_one, _ = (Spread.of(values) for values in zip(*of_one, strict=True))
    evaluations = scenario.load_of(processes).evaluations
    figures = {
        "wall_seconds": wall,
        "evaluations_per_second": Spread.of(evaluations / seconds for seconds in wall.values),
        "share_of_linear": wall_of_one.over(wall),
        "independent_share": apart_of_one.over(wall_apart),
        "machine_share": busy,
    }
    return Row(THIS_FUNCTION, f"{scenario.name}: {processes} processes", {"processes": processes}, figures)


def _is_cpu_full(row: Row) -> bool:
    """Also shortly before all of the CPU is used: the nearer it comes, the longer each process waits for its turn."""
    return row.figures["independent_share"].median < WANTED_SHARE


def _least(spreads: Iterable[Spread]) -> Spread:
    return min(spreads, key=lambda spread: spread.median)


async def _run_together(project: Project, engine: str, scenario: Scenario, processes: int) -> tuple[float, float]:
    """Returns the seconds from dispatch to the recorded end, and the share of the CPU that was used."""
    load = scenario.load_of(processes)
    await prepare(project, load.mentors)
    await forget_everything(project)
    await project.make_slot_due()
    slot = datetime.now(UTC) - timedelta(minutes=1)
    env = scenario.settings_of(processes) | {"EVALUATION_SCHEDULE": f"{slot.minute} {slot.hour} * * *"}
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
            # one slice reads and queues all mentors; the pause keeps it from the engine
            await _dispatch(connection, paused_until=b"now() + interval '1 hour'")
            await _until(connection, QUIET)
            psutil.cpu_percent()
            started = datetime.now(UTC)
            await _dispatch(connection, paused_until=b"null")
            await _until(connection, ENDED)
            busy = psutil.cpu_percent() / 100
            await _until(connection, QUIET)
            ((run, status, finished),) = await (await connection.execute(END)).fetchall()
    finally:
        await asyncio.gather(balancer.stop(), *(function.stop() for function in functions))
    if status != "success":
        raise EmulatorError(f"the run did not succeed: it is {status}")
    check(scenario.name, load, await read_stats(engine), await count(project, RESULTS, run))
    return (finished - started).total_seconds(), busy


async def _dispatch(connection: Connection, *, paused_until: bytes) -> None:
    await connection.execute(b"update scheduler.settings set engine_paused_until = " + paused_until)
    await connection.execute(b"select scheduler.dispatch()")


async def _until(connection: Connection, condition: bytes) -> None:
    while not await value(connection, condition):  # noqa: ASYNC110  # the database has no Event to set
        await asyncio.sleep(LOOK_SECONDS)


async def _run_apart(project: Project, engine: str, scenario: Scenario, processes: int) -> float:
    """Returns the seconds from the calls of all independent processes to the last one's answer."""
    load = scenario.load_of(processes)
    await prepare(project, load.mentors)
    users = await user_ids(project)
    last = [users[scenario.mentors * number - 1] for number in range(1, processes + 1)]
    async with AsyncExitStack() as stack:
        urls: list[str] = []
        for after, up_to in zip(["", *last], last, strict=False):
            env = scenario.settings_of(processes) | {"MENTORS_AFTER": after, "MENTORS_UP_TO": up_to}
            served = PLAIN_LOOP.serve(project, project.function_env(engine, env))
            urls.append((await stack.enter_async_context(served))[0])
        client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS))
        await reset(engine)
        started = time.perf_counter()
        answers = await asyncio.gather(*map(client.post, urls))
        seconds = time.perf_counter() - started
        if failed := [answer.text for answer in answers if answer.status_code != httpx.codes.OK]:
            raise EmulatorError(f"{len(failed)} of {processes} independent processes failed: {failed[0]}")
    check(f"independent processes, {scenario.name}", load, await read_stats(engine), await count_rows(project))
    return seconds


SCALE_OUT = Section(
    "scale-out",
    "several processes drain one run",
    "One to eight processes of the function, started at once, against an engine of fixed latency; as many mentors for"
    " each process, however many there are.",
    measure,
)
