"""Whether a night stays as fast as the first one, and a look back quick, after years."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from urllib.parse import quote

import httpx

from functions.http.invocations import cursor_of
from tests.emulator.errors import EmulatorError
from tests.emulator.project import Project, ProjectFactory

from ..contest import Contest, Entry, in_turn, wall
from ..peers.contenders import THIS_FUNCTION
from ..peers.fast_engine import fast_engine
from ..peers.figures import Figures, Load
from ..peers.old_nights import EVALUATIONS_PER_NIGHT, find_night, forget_new_nights, plant_nights
from ..peers.requirements import require_deno
from ..peers.scheduler import SCHEDULER, Scheduler
from ..section import Conditions, Measured, Row, Section, at_most
from ..spread import Spread, percentile

IN_FLIGHT = 32
USERS_PER_CALL = 100
GROWTH = 1.10
LOOK_BACK_MS = 20
# Of each kind in each round.
REQUESTS = 100
FEW_REQUESTS = 10
# What a filter steps over is not paged: there is no target for it.
FILTERED = "filtered list"
INVOCATIONS = "/api/v1/scheduler-invocations"


async def measure(conditions: Conditions) -> Measured:
    """The same night without history and with it, then looks back at it."""
    # A run of some seconds: shorter ones differ more from one another than history makes of them.
    mentors, nights = conditions.sized(300_000, 2_000), conditions.sized(100_000, 2_000)
    without, with_history = "no history", f"{nights * EVALUATIONS_PER_NIGHT:,} old rows"
    entries = [
        Entry(THIS_FUNCTION, label, Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL))
        for label in (without, with_history)
    ]
    async with (
        ProjectFactory() as projects,
        projects.project() as young,
        projects.project() as old,
        fast_engine(young.data_dir, notable=1, expect=3 * mentors) as engine,
    ):
        started = time.monotonic()
        await plant_nights(old, nights)
        conditions.say(f"{nights:,} old nights were planted in {time.monotonic() - started:.0f} s")
        measured = {without: (young, SCHEDULER), with_history: (old, Scheduler(forget=forget_new_nights))}

        async def run(entry: Entry) -> Figures:
            project, scheduler = measured[entry.label]
            return await scheduler.run(project, engine, entry.load)

        contest = await Contest.run(conditions, entries, run)
        looks = await _look_back(conditions, old, nights)
    ratio = contest.spread(THIS_FUNCTION, with_history, wall).over(contest.spread(THIS_FUNCTION, without, wall))
    return Measured(
        [*contest.rows(), *looks],
        [
            at_most(f"wall time, as a share of that without history, {with_history}", ratio, GROWTH),
            *(
                at_most(f"{row.label}, {what}", row.figures[figure], LOOK_BACK_MS, digits=1)
                for row in looks
                if not row.label.startswith(FILTERED)
                for figure, what in (("milliseconds", "median ms"), ("p95_milliseconds", "p95 ms"))
            ),
        ],
        [
            f"{mentors:,} mentors x 3 types, {USERS_PER_CALL} users a call. The history is {nights:,} nights of one"
            f" batch and {EVALUATIONS_PER_NIGHT} rows.",
            f"Requests go over HTTP, one after the other: {REQUESTS} of each kind a round, {FEW_REQUESTS} if filtered.",
        ],
    )


async def _look_back(conditions: Conditions, project: Project, nights: int) -> list[Row]:
    middle = await find_night(project, nights // 2)
    newest = await find_night(project, 1)
    await forget_new_nights(project)
    paths = {
        "list, the newest 20": "?limit=20",
        "list, 20 from half-way back": f"?limit=20&cursor={cursor_of(middle.created_at, middle.id)}",
        "get": f"/{middle.id}",
        f"{FILTERED}, 20 before half-way back": f"?limit=20&scheduled_to={quote(middle.created_at)}",
        f"{FILTERED}, failed ones (there are none)": "?limit=20&status=failed",
        f"{FILTERED}, a mentor who is in none": f"?limit=20&user_id={newest.id}",
    }
    function = await project.start_function(restart=False)
    headers = {"Authorization": f"Bearer {project.admin_token}"}
    try:
        async with httpx.AsyncClient(trust_env=False, base_url=function.url, headers=headers, timeout=60) as client:
            found = await in_turn(
                conditions,
                {
                    label: _bind(
                        client, path, FEW_REQUESTS if conditions.quick or label.startswith(FILTERED) else REQUESTS
                    )
                    for label, path in paths.items()
                },
                lambda label, took: f"{label}: {took[0]:.1f} ms, p95 {took[1]:.1f} ms",
            )
    finally:
        await function.stop()
    return [
        Row(
            THIS_FUNCTION,
            label,
            {},
            {
                "milliseconds": Spread.of(median for median, _ in took),
                "p95_milliseconds": Spread.of(p95 for _, p95 in took),
            },
        )
        for label, took in found.items()
    ]


def _bind(client: httpx.AsyncClient, path: str, requests: int) -> Callable[[], Awaitable[tuple[float, float]]]:
    async def look() -> tuple[float, float]:
        """Milliseconds: the median, and the 95th percentile."""
        await _timed(client, path)
        took = [await _timed(client, path) for _ in range(requests)]
        return percentile(took, 0.5), percentile(took, 0.95)

    return look


async def _timed(client: httpx.AsyncClient, path: str) -> float:
    started = time.perf_counter()
    answer = await client.get(INVOCATIONS + path)
    took = time.perf_counter() - started
    if answer.status_code != httpx.codes.OK:
        raise EmulatorError(f"GET {path} was answered {answer.status_code}: {answer.text}")
    return took * 1000


HISTORY = Section(
    "history",
    "after years",
    "The same night in a database without history and in one with 5,000,000 old rows, in turn; then looks back at"
    " 100,000 nights.",
    require_deno,
    measure,
)
