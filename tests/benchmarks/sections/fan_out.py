"""One user and one type a call: what is left of the time that the calls take by themselves."""

from __future__ import annotations

from tests.emulator.project import ProjectFactory

from ..contest import Contest, Entry, cores, cpu, efficiency, memory, wall
from ..peers.contenders import CONTENDERS, DBOS, GOOD_DENO, NAIVE_DENO, THIS_FUNCTION, WRK
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.requirements import require_all
from ..section import Conditions, Measured, Section, Target, at_most, reported

LATENCY_MS = 20
MENTORS = 10_000
# Wall time as a share of the good Deno program's, by calls in flight.
SHARE_OF_DENO = {32: 1.05, 64: 1.05, 256: 1.3}
# With few calls in flight these two take minutes and show nothing more.
SLOW_FROM = 64
# DBOS takes ten times as long as the others.
DBOS_TAKES = 10


async def measure(conditions: Conditions) -> Measured:
    """Measures the contenders at each concurrency."""
    mentors = conditions.sized(MENTORS, 300)
    entries = [
        Entry(
            contender,
            label_of(in_flight),
            Load.single(mentors // DBOS_TAKES if contender == DBOS else mentors, in_flight),
        )
        for in_flight in SHARE_OF_DENO
        for contender in _contenders(in_flight)
    ]
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, latency_ms=LATENCY_MS, notable=1) as engine,
    ):
        contest = await Contest.run(
            conditions, entries, lambda entry: CONTENDERS[entry.contender].run(project, engine, entry.load)
        )
    return Measured(
        contest.rows(),
        [target for in_flight in SHARE_OF_DENO for target in _targets(contest, in_flight)],
        [
            f"{mentors:,} mentors x 3 types; DBOS is given a tenth of the mentors: it would take minutes.",
            "wrk stores nothing and reads nothing; its time is from the first call's arrival to the last answer.",
        ],
    )


def label_of(in_flight: int) -> str:
    """Returns the load in short."""
    return f"{in_flight} in flight"


def _contenders(in_flight: int) -> tuple[str, ...]:
    slow = (NAIVE_DENO, DBOS) if in_flight >= SLOW_FROM else ()
    return (THIS_FUNCTION, GOOD_DENO, *slow, WRK)


def _targets(contest: Contest, in_flight: int) -> list[Target]:
    label = label_of(in_flight)
    ours = {figure: contest.spread(THIS_FUNCTION, label, figure) for figure in (efficiency, wall, cpu, memory)}
    deno = {figure: contest.spread(GOOD_DENO, label, figure) for figure in (wall, cpu, memory)}
    limit = {figure: contest.spread(WRK, label, figure) for figure in (efficiency, cores)}
    slow = [contender for contender in _contenders(in_flight) if contender in (NAIVE_DENO, DBOS)]
    return [
        at_most(
            f"wall time, as a share of the good Deno program's, {label}",
            ours[wall].over(deno[wall]),
            SHARE_OF_DENO[in_flight],
        ),
        at_most(f"peak memory, as a share of the good Deno program's, {label}", ours[memory].over(deno[memory]), 1),
        reported(f"CPU, as a share of the good Deno program's, {label}", ours[cpu].over(deno[cpu])),
        *(
            reported(
                f"efficiency, in those of the contender {contender}, {label}",
                ours[efficiency].over(contest.spread(contender, label, efficiency)),
            )
            for contender in slow
        ),
        reported(f"efficiency, as a share of wrk's, {label}", ours[efficiency].over(limit[efficiency])),
        reported(f"wrk itself: share of the ideal, {label}", limit[efficiency]),
        reported(f"wrk itself: share of a core, {label}", limit[cores]),
    ]


FAN_OUT = Section(
    "fan-out",
    "one user a call",
    "One user and one type a call, engine latency 20 ms, a row stored for each evaluation. Efficiency is the time that"
    " the calls take by themselves (calls x latency / calls in flight) as a share of the wall time.",
    require_all,
    measure,
)
