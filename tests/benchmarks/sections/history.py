"""Whether a run, and reading old runs, stays fast with a long history."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from urllib.parse import quote

import httpx

from functions.http.cursors import cursor_of
from shared.run_repository import Position
from tests.emulator.errors import EmulatorError
from tests.emulator.migrations import run_script
from tests.emulator.project import Project, ProjectFactory

from ..comparison import Contest, Entry, in_turn
from ..peers.contenders import THIS_FUNCTION
from ..peers.fast_engine import fast_engine
from ..peers.figures import Figures, Load
from ..peers.scheduler import SCHEDULER, Scheduler
from ..section import Conditions, Measured, Row, Section, at_most
from ..spread import Spread, percentile

IN_FLIGHT = 32
USERS_PER_CALL = 100
GROWTH = 1.10
REQUEST_MS = 20
# Of each kind in each round.
REQUESTS = 100
FEW_REQUESTS = 10
# A filter reads all rows that it skips: there is no target for it.
FILTERED = "filtered list"
INVOCATIONS = "/api/v1/scheduler-invocations"

OLD_RUNS = Path(__file__).with_name("old_runs.sql")
ROWS_PER_RUN = 50
TABLES = b"public.scheduler_invocations, public.scheduler_invocation_batches, public.scheduler_evaluations"


async def measure(conditions: Conditions) -> Measured:
    # A run of some seconds: shorter ones differ more from one another than history makes of them.
    mentors, runs = conditions.sized(300_000, 2_000), conditions.sized(100_000, 2_000)
    without, with_history = "no history", f"{runs * ROWS_PER_RUN:,} old rows"
    load = Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL)
    async with (
        ProjectFactory() as projects,
        projects.project() as young,
        projects.project() as old,
        fast_engine(young.data_dir, notable=1, expect=load.evaluations) as engine,
    ):
        started = time.monotonic()
        await run_script(old.superuser_url, OLD_RUNS, {"benchmark.runs": str(runs)})
        await _forget_new_runs(old)
        conditions.say(f"{runs:,} old runs were planted in {time.monotonic() - started:.0f} s")
        measured = {without: (young, SCHEDULER), with_history: (old, Scheduler(forget=_forget_new_runs))}

        async def run(entry: Entry) -> Figures:
            project, scheduler = measured[entry.label]
            return await scheduler.run(project, engine, entry.load)

        contest = await Contest.run(conditions, [Entry(THIS_FUNCTION, label, load) for label in measured], run)
        requests = await _request_old_runs(conditions, old, runs)
    wall = {label: contest.spread(THIS_FUNCTION, label, "wall_seconds") for label in measured}
    growth = wall[with_history].over(wall[without])
    return Measured(
        [*contest.rows, *requests],
        [
            at_most(f"wall time, as a share of that without history, {with_history}", growth, GROWTH),
            *(
                at_most(f"{row.label}, {what}", row.figures[figure], REQUEST_MS, digits=1)
                for row in requests
                if not row.label.startswith(FILTERED)
                for figure, what in (("milliseconds", "median ms"), ("p95_milliseconds", "p95 ms"))
            ),
        ],
        [
            f"{mentors:,} mentors x 3 types, {USERS_PER_CALL} users a call. The history is {runs:,} runs of one"
            f" batch and {ROWS_PER_RUN} rows.",
            f"Requests go over HTTP, one after the other: {REQUESTS} of each kind a round, {FEW_REQUESTS} if filtered.",
        ],
    )


async def _forget_new_runs(project: Project) -> None:
    async with project.connect(superuser=True) as connection:
        await connection.execute(
            b"delete from public.scheduler_invocations where idempotency_key not like 'slot:old-%'"
        )
        # nothing of this is to be left to autovacuum during a measurement
        await connection.execute(b"vacuum (analyze) " + TABLES)
        await connection.execute(b"checkpoint")
        await connection.execute(b"select pgmq.purge_queue(queue_name) from pgmq.list_queues()")


async def _find(project: Project, number: int) -> Position:
    """Returns an old run's place in the list; 1 is the newest."""
    query = b"select invoked_at, id from public.scheduler_invocations where idempotency_key = %s"
    async with project.connect() as connection:
        row = await (await connection.execute(query, (f"slot:old-{number}",))).fetchone()
    assert row is not None
    return Position(row[0].isoformat(), str(row[1]))


async def _request_old_runs(conditions: Conditions, project: Project, runs: int) -> list[Row]:
    middle, newest = await _find(project, runs // 2), await _find(project, 1)
    await _forget_new_runs(project)
    paths = {
        "list, the newest 20": "?limit=20",
        "list, 20 from half-way back": f"?limit=20&cursor={cursor_of(middle.invoked_at, middle.id)}",
        "get": f"/{middle.id}",
        f"{FILTERED}, 20 before half-way back": f"?limit=20&scheduled_to={quote(middle.invoked_at)}",
        f"{FILTERED}, failed ones (there are none)": "?limit=20&status=failed",
        f"{FILTERED}, a mentor who is in none": f"?limit=20&user_id={newest.id}",
    }
    function = await project.start_function(restart=False)
    headers = {"Authorization": f"Bearer {project.admin_token}"}
    async with httpx.AsyncClient(trust_env=False, base_url=function.url, headers=headers, timeout=60) as client:
        found = await in_turn(
            conditions,
            {
                label: partial(
                    _ask, client, path, FEW_REQUESTS if conditions.quick or label.startswith(FILTERED) else REQUESTS
                )
                for label, path in paths.items()
            },
            lambda label, took: f"{label}: {took[0]:.1f} ms, p95 {took[1]:.1f} ms",
        )
    names = ("milliseconds", "p95_milliseconds")
    return [
        Row(THIS_FUNCTION, label, {}, {name: Spread.of(one[at] for one in took) for at, name in enumerate(names)})
        for label, took in found.items()
    ]


async def _ask(client: httpx.AsyncClient, path: str, requests: int) -> tuple[float, float]:
    """Returns milliseconds: the median, and the 95th percentile; a first request is not counted."""
    took = []
    for _ in range(requests + 1):
        started = time.perf_counter()
        answer = await client.get(INVOCATIONS + path)
        took.append((time.perf_counter() - started) * 1000)
        if answer.status_code != httpx.codes.OK:
            raise EmulatorError(f"GET {path} was answered {answer.status_code}: {answer.text}")
    return percentile(took[1:], 0.5), percentile(took[1:], 0.95)


HISTORY = Section(
    "history",
    "a long history",
    "The same run in a database without history and in one with 5,000,000 old rows, in turn; then requests to"
    " list and get 100,000 runs.",
    measure,
)
