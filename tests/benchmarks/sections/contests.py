"""Contenders on one project: one user a call, a latency with a tail, a hundred users a call, the price of durability."""

from __future__ import annotations

from ..contest import Contest, Entry
from ..peers.contenders import DBOS, GOOD_DENO, NAIVE_DENO, PLAIN, THIS_FUNCTION, WRK
from ..peers.figures import Load
from ..section import Conditions, Measured, Section, Target, Task, at_least, at_most, reported

IN_FLIGHT = 64
USERS_PER_CALL = 100
# Wall time as a share of the good Deno program's, by calls in flight.
SHARE_OF_DENO = {32: 1.05, 64: 1.05, 256: 1.3}
# With few calls in flight these take minutes and show nothing more.
SLOW = (NAIVE_DENO, DBOS)
SLOW_FROM = 64
FAN_OUT_ENGINE = {"latency_ms": 20, "notable": 1}
TAIL_ENGINE = {"tail": True, "notable": 1}
EFFICIENCY = 0.90
TIMES_AS_FAST = 20
PRICE_OF_DURABILITY = 1.15


def in_flight_label(in_flight: int) -> str:
    return f"{in_flight} in flight"


def fan_out_tasks(conditions: Conditions) -> list[Task]:
    mentors = conditions.sized(10_000, 300)
    return [
        Task(in_flight_label(in_flight), Load.single(mentors, in_flight), FAN_OUT_ENGINE)
        for in_flight in SHARE_OF_DENO
    ]


async def measure_fan_out(conditions: Conditions) -> Measured:
    """All contenders at each concurrency."""
    mentors = conditions.sized(10_000, 300)
    contenders = {
        in_flight: (THIS_FUNCTION, GOOD_DENO, *(SLOW if in_flight >= SLOW_FROM else ()), WRK)
        for in_flight in SHARE_OF_DENO
    }
    entries = [
        Entry(name, in_flight_label(in_flight), Load.single(mentors // 10 if name == DBOS else mentors, in_flight))
        for in_flight, names in contenders.items()
        for name in names
    ]
    contest = await Contest.on_one_project(conditions, entries, FAN_OUT_ENGINE)
    return Measured(
        contest.rows,
        [target for in_flight, names in contenders.items() for target in _fan_out_targets(contest, in_flight, names)],
        [
            f"{mentors:,} mentors x 3 types; DBOS is given a tenth of the mentors: it would take minutes.",
            "wrk stores nothing and reads nothing; its time is from the first call's arrival to the last answer.",
        ],
    )


def _fan_out_targets(contest: Contest, in_flight: int, contenders: tuple[str, ...]) -> list[Target]:
    label = in_flight_label(in_flight)
    deno = {
        name: contest.share(name, label, GOOD_DENO) for name in ("wall_seconds", "peak_megabytes", "cpu_seconds")
    }
    slow = {name: contest.share("efficiency", label, name) for name in contenders if name in SLOW}
    return [
        at_most(
            f"wall time, as a share of the good Deno program's, {label}", deno["wall_seconds"], SHARE_OF_DENO[in_flight]
        ),
        at_most(f"peak memory, as a share of the good Deno program's, {label}", deno["peak_megabytes"], 1),
        reported(f"CPU, as a share of the good Deno program's, {label}", deno["cpu_seconds"]),
        *(reported(f"efficiency, in those of the contender {name}, {label}", share) for name, share in slow.items()),
        reported(f"efficiency, as a share of wrk's, {label}", contest.share("efficiency", label, WRK)),
        reported(f"wrk itself: share of the ideal, {label}", contest.spread(WRK, label, "efficiency")),
        reported(f"wrk itself: share of a core, {label}", contest.spread(WRK, label, "cores")),
    ]


def tail_tasks(conditions: Conditions) -> list[Task]:
    load = Load.single(conditions.sized(10_000, 300), IN_FLIGHT)
    return [Task(in_flight_label(IN_FLIGHT), load, TAIL_ENGINE)]


async def measure_tail(conditions: Conditions) -> Measured:
    """All contenders: what waits for the slowest call of a chunk waits for ever."""
    mentors, label = conditions.sized(10_000, 300), in_flight_label(IN_FLIGHT)
    entries = [
        Entry(name, label, Load.single(mentors // 10 if name in SLOW else mentors, IN_FLIGHT))
        for name in (THIS_FUNCTION, GOOD_DENO, *SLOW, WRK)
    ]
    contest = await Contest.on_one_project(conditions, entries, TAIL_ENGINE)
    efficiency = contest.spread(THIS_FUNCTION, label, "efficiency")
    return Measured(
        contest.rows,
        [at_least(f"efficiency, {label}", efficiency, EFFICIENCY, digits=3)],
        [
            f"{mentors:,} mentors x 3 types; the naive Deno program and DBOS are given a tenth of the mentors.",
            "The ideal is the sum of all latencies / calls in flight, and not less than the longest one.",
        ],
    )


def batched_tasks(conditions: Conditions) -> list[Task]:
    load = Load.shared(conditions.sized(100_000, 3_000), IN_FLIGHT, USERS_PER_CALL)
    return [Task(f"{load.mentors:,} mentors", load, {"notable": 1, "expect": load.evaluations})]


async def measure_batched(conditions: Conditions) -> Measured:
    """All contenders with as many as in fan-out, the fastest two with ten times as many."""
    mentors, many = conditions.sized(10_000, 600), conditions.sized(100_000, 3_000)
    one = f"{mentors:,} mentors, 1 user a call"
    few_label, many_label = (f"{number:,} mentors, {USERS_PER_CALL} users a call" for number in (mentors, many))
    few_load, many_load = (Load.shared(number, IN_FLIGHT, USERS_PER_CALL) for number in (mentors, many))
    entries = [
        Entry(THIS_FUNCTION, one, Load.single(mentors, IN_FLIGHT)),
        *(Entry(name, few_label, few_load) for name in (THIS_FUNCTION, GOOD_DENO, *SLOW)),
        *(Entry(name, many_label, many_load) for name in (THIS_FUNCTION, GOOD_DENO)),
    ]
    contest = await Contest.on_one_project(conditions, entries, {"notable": 1, "expect": many_load.evaluations})
    rate, rate_of_one = (
        contest.spread(THIS_FUNCTION, label, "evaluations_per_second") for label in (few_label, one)
    )
    times = f"evaluations/s, in those of one user a call ({mentors:,} mentors)"
    return Measured(
        contest.rows,
        [
            at_least(times, rate.over(rate_of_one), TIMES_AS_FAST, digits=1),
            *(
                at_most(
                    f"wall time, as a share of the good Deno program's, {label}",
                    contest.share("wall_seconds", label, GOOD_DENO),
                    1,
                )
                for label in (few_label, many_label)
            ),
        ],
        ["The engine's latency is 20 ms, however many users are in a call."],
    )


async def measure_durability(conditions: Conditions) -> Measured:
    """This function and the same loop without what makes it durable, with one user a call and with many."""
    few, many = conditions.sized(10_000, 300), conditions.sized(100_000, 3_000)
    loads = {
        f"{few:,} mentors, 1 user a call": Load.single(few, IN_FLIGHT),
        f"{many:,} mentors, {USERS_PER_CALL} users a call": Load.shared(many, IN_FLIGHT, USERS_PER_CALL),
    }
    entries = [Entry(name, label, load) for label, load in loads.items() for name in (THIS_FUNCTION, PLAIN)]
    contest = await Contest.on_one_project(conditions, entries, {"notable": 1, "expect": 3 * many})
    return Measured(
        contest.rows,
        [
            at_most(
                f"wall time, as a share of the loop's that is not durable, {label}",
                contest.share("wall_seconds", label, PLAIN),
                PRICE_OF_DURABILITY,
            )
            for label in loads
        ],
        ["Both store a row for each evaluation; the loop's table has no other constraint than its key."],
    )


FAN_OUT = Section(
    "fan-out",
    "one user a call",
    "One user and one type a call, engine latency 20 ms, a row stored for each evaluation. Efficiency is the time that"
    " the calls take by themselves (calls x latency / calls in flight) as a share of the wall time.",
    measure_fan_out,
    fan_out_tasks,
)
TAIL = Section(
    "tail",
    "one user a call, latency with a tail",
    "As fan-out, with log-normal latencies (p50 20 ms, p99 400 ms, at most 1.5 s), the same for all contenders.",
    measure_tail,
    tail_tasks,
)
BATCHED = Section(
    "batched",
    "a hundred users a call",
    "100 users x 3 types a call, 64 in flight, engine latency 20 ms, a row stored for each evaluation; and this"
    " function with one user and one type.",
    measure_batched,
    batched_tasks,
)
DURABILITY = Section(
    "durability",
    "the price of durability",
    "This function, and the same loop over the same engine client and Data API client without queue, frozen batches and"
    " recording in one transaction: it upserts rows. 64 in flight, engine latency 20 ms.",
    measure_durability,
)
