"""One user and one type a call: what is left of the time that the calls take by themselves."""

from __future__ import annotations

from tests.emulator.project import ProjectFactory

from ..contest import Contest, Entry, cpu, efficiency, memory, wall
from ..peers.contenders import CONTENDERS, DBOS, GOOD_DENO, NAIVE_DENO, THIS_FUNCTION, WRK
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.requirements import require_all
from ..section import Conditions, Measured, Section, Target, at_least, at_most

LATENCY_MS = 20
# How close to wrk, by calls in flight.
SHARE_OF_LIMIT = {64: 0.95, 256: 0.90}
# DBOS takes ten times as long as the others.
DBOS_TAKES = 10


async def measure(conditions: Conditions) -> Measured:
    """All contenders at both concurrencies."""
    mentors = conditions.sized(10_000, 300)
    entries = [
        Entry(
            contender,
            _label(in_flight),
            Load.single(mentors // DBOS_TAKES if contender == DBOS else mentors, in_flight),
        )
        for in_flight in SHARE_OF_LIMIT
        for contender in (THIS_FUNCTION, GOOD_DENO, NAIVE_DENO, DBOS, WRK)
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
        [target for in_flight in SHARE_OF_LIMIT for target in _targets(contest, in_flight)],
        [
            f"{mentors:,} mentors x 3 types; DBOS is given a tenth of the mentors: it would take minutes.",
            "wrk stores nothing and reads nothing; its time is from the first call's arrival to the last answer.",
        ],
    )


def _label(in_flight: int) -> str:
    return f"{in_flight} in flight"


def _targets(contest: Contest, in_flight: int) -> list[Target]:
    label = _label(in_flight)
    ours = {figure: contest.spread(THIS_FUNCTION, label, figure) for figure in (efficiency, wall, cpu, memory)}
    deno = {figure: contest.spread(GOOD_DENO, label, figure) for figure in (wall, cpu, memory)}
    limit = contest.spread(WRK, label, efficiency)
    return [
        at_least(
            f"efficiency, as a share of wrk's, {label}",
            ours[efficiency].over(limit),
            SHARE_OF_LIMIT[in_flight],
            digits=3,
        ),
        at_most(f"wall time, as a share of the good Deno program's, {label}", ours[wall].over(deno[wall]), 1),
        at_most(f"CPU, as a share of the good Deno program's, {label}", ours[cpu].over(deno[cpu]), 1),
        at_most(f"peak memory, as a share of the good Deno program's, {label}", ours[memory].over(deno[memory]), 0.5),
    ]


FAN_OUT = Section(
    "fan-out",
    "one user a call",
    "One user and one type a call, engine latency 20 ms, a row stored for each evaluation. Efficiency is the time that"
    " the calls take by themselves (calls x latency / calls in flight) as a share of the wall time.",
    require_all,
    measure,
)
