"""Up to a million mentors in one worker: how fast, and whether memory stays flat."""

from __future__ import annotations

import contextlib
from collections import Counter

from tests.emulator.project import Project, ProjectFactory

from ..comparison import Comparison, Entry
from ..peers.contenders import THIS_FUNCTION
from ..peers.counting_gateway import counting_gateway
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.scheduler import Scheduler
from ..section import Conditions, Measured, Row, Section, Target, at_most, reported
from ..spread import Spread

IN_FLIGHT = 32
USERS_PER_CALL = 100
# What docs/deployment.md, "Sizing", recommends for this many users a call.
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
    sizes = [conditions.sized(full, full // 100) for full in MENTORS]
    _, middle, largest = sizes
    outcomes_of = {_label(mentors, outcomes): outcomes for outcomes in OUTCOMES for mentors in sizes}
    async with contextlib.AsyncExitStack() as stack:
        projects = await stack.enter_async_context(ProjectFactory())
        project = await stack.enter_async_context(projects.project())
        engines = {
            outcomes: await stack.enter_async_context(
                fast_engine(project.data_dir, notable=notable, expect=3 * largest)
            )
            for outcomes, notable in OUTCOMES.items()
        }
        comparison = await Comparison.run(
            conditions,
            [
                Entry(THIS_FUNCTION, _label(mentors, outcomes), Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL))
                for outcomes in OUTCOMES
                for mentors in sizes
            ],
            lambda entry: Scheduler(SETTINGS).run(project, engines[outcomes_of[entry.label]], entry.load),
        )
        counted = {outcomes: await _count_requests(project, engines[outcomes], middle) for outcomes in OUTCOMES}
    batches = -(-middle // BATCH_SIZE)
    per_batch = {outcomes: Spread.of([requests.total() / batches]) for outcomes, requests in counted.items()}
    rows, targets = list(comparison.rows), []
    for outcomes, requests in per_batch.items():
        label = f"{_label(middle, outcomes)}, requests counted"
        rows.append(Row(THIS_FUNCTION, label, {"mentors": middle}, {"requests_per_batch": requests}))
        targets += _targets(comparison, outcomes, middle, largest)
        targets.append(at_most(f"Data API requests a batch, {outcomes}", requests, REQUESTS_PER_BATCH))
    in_words = "; ".join(
        f"{outcomes}: {', '.join(f'{count:,} {path}' for path, count in requests.most_common())}"
        for outcomes, requests in counted.items()
    )
    note = f"Requests are counted by a gateway, in a run of their own whose time does not count. {in_words}"
    return Measured(rows, targets, [note])


def _label(mentors: int, outcomes: str) -> str:
    return f"{mentors:,} mentors, {outcomes}"


async def _count_requests(project: Project, engine: str, mentors: int) -> Counter[str]:
    load = Load.shared(mentors, IN_FLIGHT, USERS_PER_CALL)
    async with counting_gateway(project) as gateway:
        await Scheduler(SETTINGS | {"SUPABASE_URL": gateway.url}).run(project, engine, load)
    return gateway.requests


def _targets(comparison: Comparison, outcomes: str, middle: int, largest: int) -> list[Target]:
    label = _label(largest, outcomes)
    peak, peak_of_middle = (
        comparison.spread(THIS_FUNCTION, _label(mentors, outcomes), "peak_megabytes") for mentors in (largest, middle)
    )
    growth = f"peak memory, as a share of that with {middle:,}, {label}"
    return [
        reported(
            f"evaluations/s, {label}", comparison.spread(THIS_FUNCTION, label, "evaluations_per_second"), digits=0
        ),
        at_most(f"peak memory in MB, {label}", peak, MEMORY_MEGABYTES, digits=1),
        at_most(growth, peak.over(peak_of_middle), MEMORY_GROWTH),
    ]


MILLION = Section(
    "million",
    "a million mentors in one worker",
    "100 users x 3 types a call, 32 in flight, engine latency 20 ms; with a row of its own for each outcome, and for a"
    " quarter of them while the others are counted in their batch.",
    measure,
)
