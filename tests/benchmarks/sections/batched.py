"""A hundred users a call: a hundredth of the calls, and what stores the rows decides."""

from __future__ import annotations

from tests.emulator.project import ProjectFactory

from ..contest import Contest, Entry, rate, wall
from ..peers.contenders import CONTENDERS, DBOS, GOOD_DENO, NAIVE_DENO, THIS_FUNCTION
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.requirements import require_all
from ..section import Conditions, Measured, Section, at_least, at_most

IN_FLIGHT = 64
USERS_PER_CALL = 100
TIMES_AS_FAST = 20


async def measure(conditions: Conditions) -> Measured:
    """All contenders with as many as in fan-out, the fastest two with ten times as many."""
    mentors = conditions.sized(10_000, 600)
    many = conditions.sized(100_000, 3_000)
    one = f"{mentors:,} mentors, 1 user a call"
    few_label, many_label = (f"{number:,} mentors, {USERS_PER_CALL} users a call" for number in (mentors, many))
    few_load, many_load = (Load.shared(number, IN_FLIGHT, USERS_PER_CALL) for number in (mentors, many))
    entries = [
        Entry(THIS_FUNCTION, one, Load.single(mentors, IN_FLIGHT)),
        *(Entry(contender, few_label, few_load) for contender in (THIS_FUNCTION, GOOD_DENO, NAIVE_DENO, DBOS)),
        *(Entry(contender, many_label, many_load) for contender in (THIS_FUNCTION, GOOD_DENO)),
    ]
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, notable=1, expect=many_load.evaluations) as engine,
    ):
        contest = await Contest.run(
            conditions, entries, lambda entry: CONTENDERS[entry.contender].run(project, engine, entry.load)
        )
    rates = {label: contest.spread(THIS_FUNCTION, label, rate) for label in (one, few_label)}
    return Measured(
        contest.rows(),
        [
            at_least(
                f"evaluations/s, in those of one user a call ({mentors:,} mentors)",
                rates[few_label].over(rates[one]),
                TIMES_AS_FAST,
                digits=1,
            ),
            *(
                at_most(
                    f"wall time, as a share of the good Deno program's, {label}",
                    contest.spread(THIS_FUNCTION, label, wall).over(contest.spread(GOOD_DENO, label, wall)),
                    1,
                )
                for label in (few_label, many_label)
            ),
        ],
        ["The engine's latency is 20 ms, however many users are in a call."],
    )


BATCHED = Section(
    "batched",
    "a hundred users a call",
    "100 users x 3 types a call, 64 in flight, engine latency 20 ms, a row stored for each evaluation; and this"
    " function with one user and one type.",
    require_all,
    measure,
)
