"""A run drawn from a seed: its size, its settings, how the engine behaves, what breaks and when.

The same seed draws the same run, on every machine. What comes of it is up to the machine: processes race.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tests.scripted_engine import Rule, rules

Kind = Literal["kills", "mixed", "crashes"]
KINDS: dict[Kind, str] = {
    "kills": "functions are killed, and that is all",
    "mixed": "whatever may happen to a run, and an engine that is not at its best",
    "crashes": "the same, and PostgreSQL itself is killed: on a server of its own",
}

Outage = Literal["kill", "postgrest_away", "gateway_away", "connections_cut", "engine_away"]
What = Outage | Literal["fire", "dispatch", "time_passes", "cancel", "postgres_crash"]
# How often each is drawn, beside the others. The first fault of a run takes something away in the middle of a call.
OUTAGES: dict[What, int] = {"kill": 8, "postgrest_away": 2, "gateway_away": 2, "connections_cut": 2, "engine_away": 2}
ANYTHING: dict[What, int] = OUTAGES | {"fire": 3, "dispatch": 3, "time_passes": 3, "cancel": 2}
AWAY_FOR_A_WHILE = ("postgrest_away", "gateway_away", "engine_away")
SEVERAL_AT_ONCE = ("fire", "dispatch")

# So many kills at most: one more delivery, and a batch would rightly be given up.
MAX_KILLS = 3
MAX_FAULTS = 4


@dataclass(frozen=True)
class Moment:
    """Once the engine was called, or batches were recorded, so many times; and then so many seconds later."""

    calls: int = 0
    batches: int = 0
    seconds_later: float = 0.0


@dataclass(frozen=True)
class Fault:
    """What happens, and when; to which instance, for how long, and how many at once, where it has such a thing."""

    what: What
    moment: Moment
    function: int = 0
    seconds: float = 0.0
    times: int = 1


@dataclass(frozen=True)
class EngineManners:
    """How the engine behaves: shares of its calls, numbers of mentors. A slow call may be slower than its caller waits.

    What goes beyond its capacity is answered 429; the undecided are answered "again" once (a second time could be
    the last attempt, after refusals in between); a call with a poison mentor is refused.
    """

    latency: float
    slow: float = 0.0
    slow_seconds: float = 0.0
    fails: float = 0.0
    acts_and_fails: float = 0.0
    resets: float = 0.0
    cuts_short: float = 0.0
    capacity: int | None = None
    undecided: int = 0
    poison: int = 0

    def rules(self, seed: int, undecided: Sequence[str], poison: Sequence[str]) -> list[Rule]:
        """The script that makes an engine so; the latency is the outermost and holds for refusals, too."""
        return [
            rules.slow(self.latency),
            rules.only(lambda call: call.in_flight > (self.capacity or math.inf), rules.respond(429)),
            rules.only(rules.share(self.slow, seed), rules.slow(self.slow_seconds)),
            rules.only(rules.share(self.fails, seed + 1), rules.respond(500)),
            rules.only(rules.share(self.acts_and_fails, seed + 2), rules.act_then(rules.respond(500))),
            rules.only(rules.share(self.resets, seed + 3), rules.reset()),
            rules.only(rules.share(self.cuts_short, seed + 4), rules.cut_short()),
            rules.refuse_calls_with(poison),
            rules.items_retryable(undecided, times=1),
        ]


def command(kind: str, seed: int) -> str:
    """What to type to have this again."""
    return f"make soak KIND={kind} SEED={seed} RUNS=1"


@dataclass(frozen=True)
class ChaosPlan:
    """Everything that was drawn.

    pg_net calls the first of the functions; the others are called by the faults that fire. The first fault is certain
    to find the run under way, unless it is cancelled before.
    """

    kind: Kind
    seed: int
    mentors: int
    functions: int
    env: dict[str, str]
    engine: EngineManners
    faults: tuple[Fault, ...]

    def undecided(self, mentors: Sequence[str]) -> list[str]:
        return random.Random(f"{self.seed} undecided").sample(mentors, self.engine.undecided)

    def poison(self, mentors: Sequence[str]) -> list[str]:
        return random.Random(f"{self.seed} poison").sample(mentors, self.engine.poison)

    def __str__(self) -> str:
        return "\n".join(
            (
                f"{self.kind} {self.seed}: {self.mentors} mentors, {self.functions} functions",
                f"  again     {command(self.kind, self.seed)}",
                f"  settings  {self.env}",
                f"  engine    {self.engine}",
                *(f"  drawn     {fault}" for fault in self.faults),
            )
        )


def draw(kind: Kind, seed: int) -> ChaosPlan:
    """The run of this seed."""
    dice = random.Random(f"{kind} {seed}")
    mentors = dice.randint(60, 400)
    functions = dice.choice((1, 1, 1, 2, 2, 3))
    batch_size = dice.choice((5, 10, 20, 40))
    users_per_call = dice.choice((1, 3, batch_size))
    concurrency = dice.randint(2, 8)
    batches = math.ceil(mentors / batch_size)
    whole_batches, remaining = divmod(mentors, batch_size)
    calls = whole_batches * math.ceil(batch_size / users_per_call) + math.ceil(remaining / users_per_call)
    # So slow that one instance would be at it for a second or two: there is something to be interrupted.
    latency = round(min(0.15, max(0.01, dice.uniform(0.8, 2.0) * concurrency / calls)), 3)
    env = {
        "EVALUATION_BATCH_SIZE": str(batch_size),
        "ENGINE_USERS_PER_CALL": str(users_per_call),
        "ENGINE_MAX_CONCURRENCY": str(concurrency),
        "MAX_WORKERS": str(dice.randint(1, 3)),
        "TIME_BUDGET_SECONDS": str(dice.randint(3, 6)),
        "ENGINE_TIMEOUT_SECONDS": "1",
    }
    if kind == "kills":
        engine = EngineManners(latency)
    else:
        engine = _draw_manners(dice, latency, concurrency)
        # Time passes under workers that live, and slices fail with the database: those deliveries prove nothing.
        env["MAX_BATCH_DELIVERIES"] = "30"
    faults = _draw_faults(dice, kind, functions=functions, latency=latency, calls=calls, batches=batches)
    return ChaosPlan(kind, seed, mentors, functions, env, engine, faults)


def _draw_manners(dice: random.Random, latency: float, concurrency: int) -> EngineManners:
    def share(most: float) -> float:
        """Half of the runs have none of it."""
        return round(dice.choice((0.0, dice.uniform(0, most))), 3)

    return EngineManners(
        latency,
        slow=share(0.06),
        slow_seconds=dice.choice((0.3, 1.3)),
        fails=share(0.08),
        acts_and_fails=share(0.08),
        resets=share(0.05),
        cuts_short=share(0.05),
        capacity=dice.choice((None, None, max(2, concurrency // 2))),
        undecided=dice.choice((0, dice.randint(1, 8))),
        poison=dice.choice((0, dice.randint(1, 3))),
    )


def _draw_faults(
    dice: random.Random, kind: Kind, *, functions: int, latency: float, calls: int, batches: int
) -> tuple[Fault, ...]:
    def moment() -> Moment:
        """Some time in the run, if nothing makes it shorter: while it is opened and read, or worked off."""
        seconds_later = round(dice.uniform(0, 0.3), 3)
        events = dice.choices(("none", "calls", "batches"), (1, 3, 3))[0]
        if events == "batches":
            return Moment(batches=dice.randrange(1, batches), seconds_later=seconds_later)
        return Moment(calls=dice.randint(1, calls) if events == "calls" else 0, seconds_later=seconds_later)

    # Before the call that it waits for can be answered: so much is left to do for certain.
    first = Moment(calls=dice.randint(1, calls), seconds_later=round(dice.uniform(0, latency * 0.9), 3))
    # A function that pg_net does not call is fired early on, or would have no part in the run: often at the very
    # moment of the first tick.
    others = [
        Fault("fire", Moment(seconds_later=round(dice.choice((0.0, dice.uniform(0, 0.5))), 3)), number)
        for number in range(1, functions)
    ]
    if kind == "kills":
        kills = [Fault("kill", moment(), dice.randrange(functions)) for _ in range(dice.randrange(MAX_KILLS))]
        return (Fault("kill", first), *kills, *others)

    def fault(chances: dict[What, int], when: Moment) -> Fault:
        what = dice.choices(list(chances), list(chances.values()))[0]
        return Fault(
            what,
            when,
            function=dice.randrange(functions),
            seconds=round(dice.uniform(0.05, 2.0), 2) if what in AWAY_FOR_A_WHILE else 0.0,
            times=dice.randint(1, 4) if what in SEVERAL_AT_ONCE else 1,
        )

    chances = ANYTHING
    certain = Fault("postgres_crash", first) if kind == "crashes" else fault(OUTAGES, first)
    if kind == "crashes":
        # What is recorded after the end comes from a slice that cannot be waited for once pg_net has forgotten it.
        chances = {what: chance for what, chance in ANYTHING.items() if what != "cancel"}
    return (certain, *(fault(chances, moment()) for _ in range(dice.randrange(MAX_FAULTS))), *others)
