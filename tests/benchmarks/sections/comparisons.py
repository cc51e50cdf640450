"""Contenders on one project: fan-out, latency with a tail, a hundred users a call, and durability."""

from __future__ import annotations

from ..comparison import Comparison, Entry
from ..peers.contenders import DBOS, GOOD_DENO, NAIVE_DENO, PLAIN, THIS_FUNCTION, WRK
from ..peers.figures import Load
from ..section import Conditions, Measured, Section, Target, at_least, at_most, reported

IN_FLIGHT = 64
USERS_PER_CALL = 100
# Wall time as a share of the good Deno program's, by calls in flight.
SHARE_OF_DENO = {32: 1.05, 64: 1.05, 256: 1.3}
# With few calls in flight these take minutes and show nothing more.
SLOW = (NAIVE_DENO, DBOS)
SLOW_FROM = 64
EFFICIENCY = 0.90
TIMES_AS_FAST = 20
PRICE_OF_DURABILITY = 1.15


def in_flight_label(in_flight: int) -> str:
    return f"{in_flight} in flight"


def _single(conditions: Conditions, in_flight: int, *, share: int = 1) -> Load:
    return Load(conditions.sized(10_000, 300) // share, in_flight)


async def measure_fan_out(conditions: Conditions) -> Measured:
    contenders = {
        in_flight: (THIS_FUNCTION, GOOD_DENO, *(SLOW if in_flight >= SLOW_FROM else ()), WRK)
        for in_flight in SHARE_OF_DENO
    }
    entries = [
        Entry(name, in_flight_label(in_flight), _single(conditions, in_flight, share=10 if name == DBOS else 1))
        for in_flight, names in contenders.items()
        for name in names
    ]
    comparison = await Comparison.on_one_project(conditions, entries, latency_ms=20, notable=1)
    return Measured(
        comparison.rows,
        [
            target
            for in_flight, names in contenders.items()
            for target in _fan_out_targets(comparison, in_flight, names)
        ],
        [
            f"{entries[0].load.mentors:,} mentors x 3 types; DBOS is given a tenth of the mentors: it would take"
            " minutes.",
            "wrk stores nothing and reads nothing; its time is from the first call's arrival to the last answer.",
        ],
    )


def _fan_out_targets(comparison: Comparison, in_flight: int, contenders: tuple[str, ...]) -> list[Target]:
    label = in_flight_label(in_flight)
    of_deno = f"as a share of the good Deno program's, {label}"
    wall, memory, cpu = (
        comparison.share(figure, label, GOOD_DENO) for figure in ("wall_seconds", "peak_megabytes", "cpu_seconds")
    )
    slow = {name: comparison.share("efficiency", label, name) for name in contenders if name in SLOW}
    return [
        at_most(f"wall time, {of_deno}", wall, SHARE_OF_DENO[in_flight]),
        at_most(f"peak memory, {of_deno}", memory, 1),
        reported(f"CPU, {of_deno}", cpu),
        *(reported(f"efficiency, in those of the contender {name}, {label}", share) for name, share in slow.items()),
        reported(f"efficiency, as a share of wrk's, {label}", comparison.share("efficiency", label, WRK)),
        reported(f"wrk itself: share of the ideal, {label}", comparison.spread(WRK, label, "efficiency")),
        reported(f"wrk itself: share of a core, {label}", comparison.spread(WRK, label, "cores")),
    ]


async def measure_tail(conditions: Conditions) -> Measured:
    label = in_flight_label(IN_FLIGHT)
    entries = [
        Entry(name, label, _single(conditions, IN_FLIGHT, share=10 if name in SLOW else 1))
        for name in (THIS_FUNCTION, GOOD_DENO, *SLOW, WRK)
    ]
    comparison = await Comparison.on_one_project(conditions, entries, tail=True, notable=1)
    efficiency = comparison.spread(THIS_FUNCTION, label, "efficiency")
    return Measured(
        comparison.rows,
        [at_least(f"efficiency, {label}", efficiency, EFFICIENCY, digits=3)],
        [
            f"{entries[0].load.mentors:,} mentors x 3 types; the naive Deno program and DBOS are given a tenth of the"
            " mentors.",
            "The ideal is the sum of all latencies / calls in flight, and not less than the longest one.",
        ],
    )


async def measure_batched(conditions: Conditions) -> Measured:
    """All contenders with as many as in fan-out, the fastest two with ten times as many."""
    mentors, many = conditions.sized(10_000, 600), conditions.sized(100_000, 3_000)
    one, (few, most) = f"{mentors:,} mentors, 1 user a call", (_batched_label(mentors), _batched_label(many))
    few_load, many_load = (Load.shared(number, IN_FLIGHT, USERS_PER_CALL) for number in (mentors, many))
    entries = [
        Entry(THIS_FUNCTION, one, Load(mentors, IN_FLIGHT)),
        *(Entry(name, few, few_load) for name in (THIS_FUNCTION, GOOD_DENO, *SLOW)),
        *(Entry(name, most, many_load) for name in (THIS_FUNCTION, GOOD_DENO)),
    ]
    comparison = await Comparison.on_one_project(conditions, entries, notable=1, expect=many_load.evaluations)
    rate, rate_of_one = (comparison.spread(THIS_FUNCTION, label, "evaluations_per_second") for label in (few, one))
    times = f"evaluations/s, in those of one user a call ({mentors:,} mentors)"
    claim = "wall time, as a share of the good Deno program's"
    shares = {label: comparison.share("wall_seconds", label, GOOD_DENO) for label in (few, most)}
    return Measured(
        comparison.rows,
        [
            at_least(times, rate.over(rate_of_one), TIMES_AS_FAST, digits=1),
            *(at_most(f"{claim}, {label}", share, 1) for label, share in shares.items()),
        ],
        ["The engine's latency is 20 ms, however many users are in a call."],
    )


def _batched_label(mentors: int) -> str:
    return f"{mentors:,} mentors, {USERS_PER_CALL} users a call"


async def measure_durability(conditions: Conditions) -> Measured:
    many = Load.shared(conditions.sized(100_000, 3_000), IN_FLIGHT, USERS_PER_CALL)
    few = _single(conditions, IN_FLIGHT)
    loads = {f"{few.mentors:,} mentors, 1 user a call": few, _batched_label(many.mentors): many}
    entries = [Entry(name, label, load) for label, load in loads.items() for name in (THIS_FUNCTION, PLAIN)]
    comparison = await Comparison.on_one_project(conditions, entries, notable=1, expect=many.evaluations)
    claim = "wall time, as a share of the loop's that is not durable"
    shares = {label: comparison.share("wall_seconds", label, PLAIN) for label in loads}
    return Measured(
        comparison.rows,
        [at_most(f"{claim}, {label}", share, PRICE_OF_DURABILITY) for label, share in shares.items()],
        ["Both store a row for each evaluation; the loop's table has no other constraint than its key."],
    )


FAN_OUT = Section(
    "fan-out",
    "one user a call",
    "One user and one type a call, engine latency 20 ms, a row stored for each evaluation. Efficiency is the time that"
    " the calls take by themselves (calls x latency / calls in flight) as a share of the wall time.",
    measure_fan_out,
)
TAIL = Section(
    "tail",
    "one user a call, latency with a tail",
    "As fan-out, with log-normal latencies (p50 20 ms, p99 400 ms, at most 1.5 s), the same for all contenders.",
    measure_tail,
)
BATCHED = Section(
    "batched",
    "a hundred users a call",
    "100 users x 3 types a call, 64 in flight, engine latency 20 ms, a row stored for each evaluation; and this"
    " function with one user and one type.",
    measure_batched,
)
DURABILITY = Section(
    "durability",
    "the price of durability",
    "This function, and the same loop over the same engine client and Data API client without queue, frozen batches and"
    " recording in one transaction: it upserts rows. 64 in flight, engine latency 20 ms.",
    measure_durability,
)
