"""Up to a million mentors in one worker: how fast, and whether memory stays flat."""

from __future__ import annotations

import contextlib
from collections import Counter

from tests.emulator.project import Project, ProjectFactory

from ..contest import Contest, Entry
from ..peers.contenders import THIS_FUNCTION
from ..peers.counting_gateway import counting_gateway
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.scheduler import Scheduler
from ..section import Conditions, Measured, Row, Section, Target, Task, at_most, reported
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
# Of another commit's evaluations a second, with a million mentors.
SHARE_OF_RATE = 0.8


def million_tasks(conditions: Conditions) -> list[Task]:
    sizes = _sizes(conditions)
    return [
        Task(
            _label(mentors, outcomes),
            Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL),
            {"notable": notable, "expect": 3 * mentors},
            SETTINGS,
            SHARE_OF_RATE if mentors == sizes[-1] else None,
        )
        for outcomes, notable in OUTCOMES.items()
        for mentors in sizes
    ]


async def measure(conditions: Conditions) -> Measured:
    """This function alone."""
    tasks = {task.label: task for task in million_tasks(conditions)}
    _, middle, largest = _sizes(conditions)
    scheduler = Scheduler(SETTINGS)
    async with contextlib.AsyncExitStack() as stack:
        projects = await stack.enter_async_context(ProjectFactory())
        project = await stack.enter_async_context(projects.project())
        engines = {
            notable: await stack.enter_async_context(
                fast_engine(project.data_dir, notable=notable, expect=3 * largest)
            )
            for notable in OUTCOMES.values()
        }
        contest = await Contest.run(
            conditions,
            [Entry(THIS_FUNCTION, task.label, task.load) for task in tasks.values()],
            lambda entry: scheduler.run(project, engines[tasks[entry.label].engine["notable"]], entry.load),
        )
        counted = {
            outcomes: await _count_requests(project, engines[notable], middle) for outcomes, notable in OUTCOMES.items()
        }
    per_batch = {
        outcomes: Spread.of([requests.total() / -(-middle // BATCH_SIZE)]) for outcomes, requests in counted.items()
    }
    rows = [
        Row(
            THIS_FUNCTION,
            f"{_label(middle, outcomes)}, requests counted",
            {"mentors": middle},
            {"requests_per_batch": requests},
        )
        for outcomes, requests in per_batch.items()
    ]
    return Measured(
        [*contest.rows, *rows],
        [
            target
            for outcomes in OUTCOMES
            for target in (
                *_targets(contest, outcomes, middle, largest),
                at_most(f"Data API requests a batch, {outcomes}", per_batch[outcomes], REQUESTS_PER_BATCH),
            )
        ],
        [
            "Requests are counted by a gateway, in a run of their own whose time does not count. "
            + "; ".join(f"{outcomes}: {_in_words(requests)}" for outcomes, requests in counted.items())
        ],
    )


def _sizes(conditions: Conditions) -> list[int]:
    """The numbers of mentors, in rising order."""
    return [conditions.sized(full, full // 100) for full in MENTORS]


def _label(mentors: int, outcomes: str) -> str:
    return f"{mentors:,} mentors, {outcomes}"


async def _count_requests(project: Project, engine: str, mentors: int) -> Counter[str]:
    load = Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL)
    async with counting_gateway(project) as gateway:
        await Scheduler(SETTINGS | {"SUPABASE_URL": gateway.url}).run(project, engine, load)
    return gateway.requests


def _targets(contest: Contest, outcomes: str, middle: int, largest: int) -> list[Target]:
    label = _label(largest, outcomes)
    rate = contest.spread(THIS_FUNCTION, label, "evaluations_per_second")
    peak = contest.spread(THIS_FUNCTION, label, "peak_megabytes")
    growth = peak.over(contest.spread(THIS_FUNCTION, _label(middle, outcomes), "peak_megabytes"))
    return [
        reported(f"evaluations/s, {label}", rate, digits=0),
        at_most(f"peak memory in MB, {label}", peak, MEMORY_MEGABYTES, digits=1),
        at_most(f"peak memory, as a share of that with {middle:,}, {label}", growth, MEMORY_GROWTH),
    ]


def _in_words(requests: Counter[str]) -> str:
    return ", ".join(f"{count:,} {path}" for path, count in requests.most_common())


MILLION = Section(
    "million",
    "a million mentors in one worker",
    "100 users x 3 types a call, 32 in flight, engine latency 20 ms; with a row of its own for each outcome, and for a"
    " quarter of them while the others are counted in their batch.",
    measure,
    million_tasks,
)
