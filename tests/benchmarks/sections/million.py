"""Up to a million mentors in one worker: how fast, and whether memory stays flat."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from tests.emulator.project import Project, ProjectFactory

from ..contest import Contest, Entry, memory, rate
from ..peers.contenders import THIS_FUNCTION
from ..peers.counting_gateway import CountingGateway
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.requirements import require_deno
from ..peers.scheduler import Scheduler
from ..section import Conditions, Measured, Row, Section, Target, at_most, reported
from ..spread import Spread

IN_FLIGHT = 32
USERS_PER_CALL = 100
# What docs/scaling.md advises where that many users share a call.
BATCH_SIZE = 1000
SETTINGS = {"EVALUATION_BATCH_SIZE": str(BATCH_SIZE)}
# The share of outcomes that get a row of their own.
OUTCOMES = {"all rows stored": 1.0, "a quarter notable": 0.25}
MENTORS = (10_000, 100_000, 1_000_000)
MEMORY_MEGABYTES = 160
# From 100,000 mentors on.
MEMORY_GROWTH = 1.05
REQUESTS_PER_BATCH = 3


async def measure(conditions: Conditions) -> Measured:
    """Measures this function alone."""
    sizes = sizes_of(conditions)
    outcomes_of = {label_of(mentors, outcomes): outcomes for outcomes in OUTCOMES for mentors in sizes}
    entries = [
        Entry(THIS_FUNCTION, label_of(mentors, outcomes), Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL))
        for outcomes in OUTCOMES
        for mentors in sizes
    ]
    contender = Scheduler(SETTINGS)
    async with ProjectFactory() as projects, projects.project() as project, _engines(project, 3 * sizes[-1]) as engines:
        contest = await Contest.run(
            conditions,
            entries,
            lambda entry: contender.run(project, engines[outcomes_of[entry.label]], entry.load),
        )
        counted = {outcomes: await _count_requests(project, engines[outcomes], sizes[1]) for outcomes in OUTCOMES}
    conditions.say(f"requests: {counted}")
    rows = contest.rows()
    rows += [_requests_row(outcomes, sizes[1], requests) for outcomes, requests in counted.items()]
    return Measured(
        rows,
        [target for outcomes in OUTCOMES for target in _targets(contest, outcomes, sizes, counted[outcomes])],
        [
            "Requests are counted by a gateway, in a run of their own whose time does not count. "
            + "; ".join(f"{outcomes}: {_write(requests)}" for outcomes, requests in counted.items())
        ],
    )


def sizes_of(conditions: Conditions) -> list[int]:
    """Returns the numbers of mentors, in rising order."""
    return [conditions.sized(full, full // 100) for full in MENTORS]


def label_of(mentors: int, outcomes: str) -> str:
    """Returns the load in short."""
    return f"{mentors:,} mentors, {outcomes}"


@contextlib.asynccontextmanager
async def _engines(project: Project, evaluations: int) -> AsyncIterator[dict[str, str]]:
    """The URL of an engine for each of the outcomes."""
    async with contextlib.AsyncExitStack() as stack:
        yield {
            outcomes: await stack.enter_async_context(
                fast_engine(project.data_dir, notable=notable, expect=evaluations)
            )
            for outcomes, notable in OUTCOMES.items()
        }


async def _count_requests(project: Project, engine: str, mentors: int) -> Counter[str]:
    async with CountingGateway(project) as gateway:
        await Scheduler(SETTINGS | {"SUPABASE_URL": gateway.url}).run(
            project, engine, Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL)
        )
    return gateway.requests


def _per_batch(requests: Counter[str], mentors: int) -> Spread:
    return Spread.of([requests.total() / -(-mentors // BATCH_SIZE)])


def _requests_row(outcomes: str, mentors: int, requests: Counter[str]) -> Row:
    return Row(
        THIS_FUNCTION,
        f"{label_of(mentors, outcomes)}, requests counted",
        {"mentors": mentors},
        {"requests_per_batch": _per_batch(requests, mentors)},
    )


def _targets(contest: Contest, outcomes: str, sizes: list[int], requests: Counter[str]) -> list[Target]:
    largest = label_of(sizes[-1], outcomes)
    peaks = [contest.spread(THIS_FUNCTION, label_of(mentors, outcomes), memory) for mentors in sizes]
    return [
        reported(f"evaluations/s, {largest}", contest.spread(THIS_FUNCTION, largest, rate), digits=0),
        at_most(f"peak memory in MB, {largest}", peaks[-1], MEMORY_MEGABYTES, digits=1),
        at_most(
            f"peak memory, as a share of that with {sizes[1]:,}, {largest}", peaks[-1].over(peaks[1]), MEMORY_GROWTH
        ),
        at_most(f"Data API requests a batch, {outcomes}", _per_batch(requests, sizes[1]), REQUESTS_PER_BATCH),
    ]


def _write(requests: Counter[str]) -> str:
    return ", ".join(f"{count:,} {path}" for path, count in requests.most_common())


MILLION = Section(
    "million",
    "a million mentors in one worker",
    "100 users x 3 types a call, 32 in flight, engine latency 20 ms; with a row of its own for each outcome, and for a"
    " quarter of them while the others are counted in their batch.",
    require_deno,
    measure,
)
