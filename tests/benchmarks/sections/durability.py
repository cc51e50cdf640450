"""What the queue, the batches, the heartbeat and the exactly-once recording cost."""

from __future__ import annotations

from tests.emulator.project import ProjectFactory

from ..contest import Contest, Entry, wall
from ..peers.contenders import CONTENDERS, PLAIN, THIS_FUNCTION
from ..peers.fast_engine import fast_engine
from ..peers.figures import Load
from ..peers.requirements import require_deno
from ..section import Conditions, Measured, Section, at_most

IN_FLIGHT = 64
USERS_PER_CALL = 100
PRICE = 1.15


async def measure(conditions: Conditions) -> Measured:
    """This function and the same loop without them, with one user a call and with many."""
    few, many = conditions.sized(10_000, 300), conditions.sized(100_000, 3_000)
    loads = {
        f"{few:,} mentors, 1 user a call": Load.single(few, IN_FLIGHT),
        f"{many:,} mentors, {USERS_PER_CALL} users a call": Load.shared(many, IN_FLIGHT, USERS_PER_CALL),
    }
    entries = [Entry(contender, label, load) for label, load in loads.items() for contender in (THIS_FUNCTION, PLAIN)]
    async with (
        ProjectFactory() as projects,
        projects.project() as project,
        fast_engine(project.data_dir, notable=1, expect=many * 3) as engine,
    ):
        contest = await Contest.run(
            conditions, entries, lambda entry: CONTENDERS[entry.contender].run(project, engine, entry.load)
        )
    return Measured(
        contest.rows(),
        [
            at_most(
                f"wall time, as a share of the loop's that is not durable, {label}",
                contest.spread(THIS_FUNCTION, label, wall).over(contest.spread(PLAIN, label, wall)),
                PRICE,
            )
            for label in loads
        ],
        ["Both store a row for each evaluation; the loop's table has no other constraint than its key."],
    )


DURABILITY = Section(
    "durability",
    "the price of durability",
    "This function, and the same loop over the same engine client and Data API client without queue, frozen batches and"
    " recording in one transaction: it upserts rows. 64 in flight, engine latency 20 ms.",
    require_deno,
    measure,
)
