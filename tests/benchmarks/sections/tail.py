"""One user a call and an engine that is slow now and then: who waits for the slowest of a chunk waits for ever."""

from __future__ import annotations

from tests.emulator.project import ProjectFactory

from ..contest import Contest, Entry, efficiency
from ..peers.contenders import CONTENDERS, DBOS, GOOD_DENO, NAIVE_DENO, THIS_FUNCTION, WRK
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.requirements import require_all
from ..section import Conditions, Measured, Section, at_least

IN_FLIGHT = 64
LABEL = f"{IN_FLIGHT} in flight"
# These take ten times as long as the others.
SLOW = {NAIVE_DENO: 10, DBOS: 10}
EFFICIENCY = 0.90


async def measure(conditions: Conditions) -> Measured:
    """All contenders."""
    mentors = conditions.sized(10_000, 300)
    entries = [
        Entry(contender, LABEL, Load.single(mentors // SLOW.get(contender, 1), IN_FLIGHT))
        for contender in (THIS_FUNCTION, GOOD_DENO, NAIVE_DENO, DBOS, WRK)
    ]
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, tail=True, notable=1) as engine,
    ):
        contest = await Contest.run(
            conditions, entries, lambda entry: CONTENDERS[entry.contender].run(project, engine, entry.load)
        )
    return Measured(
        contest.rows(),
        [at_least(f"efficiency, {LABEL}", contest.spread(THIS_FUNCTION, LABEL, efficiency), EFFICIENCY, digits=3)],
        [
            f"{mentors:,} mentors x 3 types; the naive Deno program and DBOS are given a tenth of the mentors.",
            "The ideal is the sum of all latencies / calls in flight, and not less than the longest one.",
        ],
    )


TAIL = Section(
    "tail",
    "one user a call, latency with a tail",
    "As fan-out, with log-normal latencies (p50 20 ms, p99 400 ms, at most 1.5 s), the same for all contenders.",
    require_all,
    measure,
)
