"""Simulates a run being drained: processes that claim, call and record, on machines whose CPU is shared.

Discrete events and no services. What is modelled: each process has one thread and so many calls in flight, claims as
many batches as it has runners waiting and as keep its calls going, and records each; it works in rounds, as event loops
do, which makes its batches move together; every request of the Data API is served by a thread of its own, of which
there are ten; whatever wants CPU on a machine shares its cores evenly, one core each at most. What is not: memory,
disk, locks, garbage collection.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from functions.drain import RESERVE

from ..drained_run import TYPES, DrainLoad
from .costs import DATABASE, Costs, Work

# As the function has it: batches in hand beyond those that the calls need, and requests of the Data API at once.
MAX_IN_HAND = 64
MAX_REQUESTS = 4
# Of a batch's cost at the database: to hand it out; the rest is to record it.
CLAIM_SHARE = 0.25
# From the function to the gateway, the Data API and the database.
HOPS = 3

Then = Callable[[], None]


@dataclass(frozen=True)
class Simulated:
    """What a simulated run took.

    Args:
        seconds: to drain it.
        claims: requests that handed out batches.
    """

    seconds: float
    claims: int


@dataclass(frozen=True)
class Place:
    """Where it all runs.

    Args:
        database_cores: of the machine of the database, the Data API and its gateway.
        shared: processes and engine are on that machine, too; else each process has a core of its own, and the engine's
            CPU is nobody's concern here.
        pool: connections of the Data API to the database.
        network_seconds: there and back, for a request of the Data API; the engine's is part of its latency.
    """

    database_cores: int
    shared: bool
    pool: int = 10
    network_seconds: float = 0.0


class Simulation:
    """Time and CPU. Threads on a machine that all want CPU get the same share of it, one core each at most."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, int, Then]] = []
        self._machines: list[Machine] = []
        self._numbers = itertools.count()

    def machine(self, cores: float) -> Machine:
        """One more machine."""
        machine = Machine(cores, self._numbers)
        self._machines.append(machine)
        return machine

    def after(self, seconds: float, then: Then) -> None:
        """Later, without CPU."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), then))

    def run(self) -> float:
        """Until nothing is left to happen: the seconds that it took."""
        while True:
            timer = self._timers[0][0] if self._timers else math.inf
            machine = min(self._machines, key=lambda one: one.next_at(self.now))
            at = machine.next_at(self.now)
            if math.isinf(timer) and math.isinf(at):
                return self.now
            until = min(timer, at)
            for one in self._machines:
                one.advance(until - self.now)
            self.now = until
            if timer <= at:
                heapq.heappop(self._timers)[2]()
            else:
                machine.finish_next()


class Machine:
    """Cores that are shared evenly: all threads are at the same pace, and the one with the least work left is next."""

    def __init__(self, cores: float, numbers: itertools.count[int]) -> None:
        self._cores = cores
        self._numbers = numbers
        # CPU seconds that a thread has had which wanted CPU all the time.
        self._had = 0.0
        self._running: list[tuple[float, int, Thread | EventLoop]] = []

    def begin(self, seconds: float, thread: Thread | EventLoop) -> None:
        """A thread wants so much CPU."""
        heapq.heappush(self._running, (self._had + seconds, next(self._numbers), thread))

    def next_at(self, now: float) -> float:
        """When the next thread will be through, if nothing else begins."""
        if not self._running:
            return math.inf
        return now + max(0.0, self._running[0][0] - self._had) / self._pace()

    def advance(self, seconds: float) -> None:
        """Time passes."""
        if self._running:
            self._had += seconds * self._pace()

    def finish_next(self) -> None:
        """The next thread is through with what it was at."""
        heapq.heappop(self._running)[2].finish()

    def _pace(self) -> float:
        return min(1.0, self._cores / len(self._running))


class Thread:
    """Does one thing after another."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._work: deque[tuple[float, Then]] = deque()

    def do(self, seconds: float, then: Then) -> None:
        """Takes CPU, once all that came before is done."""
        self._work.append((seconds, then))
        if len(self._work) == 1:
            self._machine.begin(seconds, self)

    def finish(self) -> None:
        """What it was at is done."""
        _, then = self._work.popleft()
        if self._work:
            self._machine.begin(self._work[0][0], self)
        then()


class EventLoop:
    """A thread that works in rounds: what comes during a round waits for its end, and so does what follows from it."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._round: list[Then] = []
        self._next: list[tuple[float, Then]] = []

    def do(self, seconds: float, then: Then) -> None:
        """Takes CPU, in the next round."""
        self._next.append((seconds, then))
        if not self._round:
            self._begin()

    def finish(self) -> None:
        """The round is over."""
        done, self._round = self._round, []
        for then in done:
            then()
        if self._next and not self._round:
            self._begin()

    def _begin(self) -> None:
        self._round = [then for _, then in self._next]
        seconds = sum(seconds for seconds, _ in self._next)
        self._next = []
        self._machine.begin(seconds, self)


class Pool:
    """Lets so many in at a time."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: deque[Then] = deque()

    @property
    def waiting(self) -> int:
        """How many are not in yet."""
        return len(self._waiting)

    def enter(self, then: Then) -> None:
        """When there is a place."""
        if self._free:
            self._free -= 1
            then()
        else:
            self._waiting.append(then)

    def leave(self) -> None:
        """The place is the next one's."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


class _Process:
    """One process of the function."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._loop = EventLoop(run.database_machine if run.place.shared else run.simulation.machine(1))
        self._requests = Pool(MAX_REQUESTS)
        self._calls = Pool(run.load.in_flight)
        calls = math.ceil(run.load.batch_size / run.load.users_per_call)
        busy = math.ceil(run.load.in_flight / calls)
        self._waiting = min(MAX_IN_HAND, busy + max(2, busy // 2))
        self._is_claiming = False
        run.simulation.after(run.costs.start_seconds, self._claim)

    def _claim(self) -> None:
        shortage = RESERVE * self._run.load.in_flight - self._calls.waiting
        if self._is_claiming or not self._waiting or not self._run.left or shortage <= 0:
            return
        self._is_claiming = True
        batches = min(self._waiting, self._run.left, math.ceil(shortage / self._run.calls_per_batch))
        self._run.left -= batches
        self._run.claims += 1
        self._waiting -= batches
        run = self._run
        seconds = run.database_claim + CLAIM_SHARE * run.database_batch * batches
        self._loop.do(run.function_claim, lambda: self._ask_database(seconds, lambda: self._take(batches)))

    def _take(self, batches: int) -> None:
        self._is_claiming = False
        for _ in range(batches):
            self._evaluate()
        self._claim()

    def _evaluate(self) -> None:
        left = self._run.calls_per_batch

        def answered() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._record()

        for _ in range(left):
            self._calls.enter(lambda: self._call(answered))

    def _call(self, then: Then) -> None:
        run = self._run
        half = run.function_call / 2

        def answered() -> None:
            self._calls.leave()
            self._claim()
            then()

        self._loop.do(
            half,
            lambda: run.engine(lambda: run.simulation.after(run.engine_seconds, lambda: self._loop.do(half, answered))),
        )

    def _record(self) -> None:
        run = self._run
        seconds = (1 - CLAIM_SHARE) * run.database_batch + run.database_rows
        self._loop.do(run.function_batch, lambda: self._ask_database(seconds, self._recorded))

    def _recorded(self) -> None:
        self._waiting += 1
        self._claim()

    def _ask_database(self, seconds: float, then: Then) -> None:
        run = self._run

        def ask() -> None:
            run.simulation.after(
                run.request_seconds,
                lambda: run.pool.enter(lambda: Thread(run.database_machine).do(seconds, answered)),
            )

        def answered() -> None:
            run.pool.leave()
            self._requests.leave()
            then()

        self._requests.enter(ask)


class _Run:
    """What all processes have in common: the costs of one of each thing, and what is left in the queue."""

    def __init__(self, load: DrainLoad, costs: Costs, place: Place, batches: int) -> None:
        self.load, self.costs, self.place, self.left = load, costs, place, batches
        self.claims = 0
        self.simulation = Simulation()
        self.database_machine = self.simulation.machine(place.database_cores * costs.usable_share)
        self.request_seconds = HOPS * costs.delay_seconds + place.network_seconds
        self.engine_seconds = load.latency_ms / 1000 + costs.delay_seconds
        self.pool = Pool(place.pool)
        self.calls_per_batch = math.ceil(load.batch_size / load.users_per_call)
        pairs = load.batch_size * len(TYPES)
        call = Work(calls=1, evaluations=pairs / self.calls_per_batch)
        claim, batch, rows = Work(claims=1), Work(batches=1), Work(rows=load.notable * pairs)
        self.function_call = costs.of("function", call)
        self.function_claim = costs.of("function", claim)
        self.function_batch = costs.of("function", batch) + costs.of("function", rows)
        self.database_claim = sum(costs.of(component, claim) for component in DATABASE)
        self.database_batch = sum(costs.of(component, batch) for component in DATABASE)
        self.database_rows = sum(costs.of(component, rows) for component in DATABASE)
        self._engine_call = costs.of("engine", call)
        self._engine_thread = Thread(self.database_machine) if place.shared else None

    def engine(self, then: Then) -> None:
        """The CPU that the engine takes for a call, where it is ours."""
        if self._engine_thread is None:
            then()
        else:
            self._engine_thread.do(self._engine_call, then)


def simulate(load: DrainLoad, costs: Costs, place: Place) -> Simulated:
    """Drains a run that is queued already.

    Args:
        load: how much of it, by how many processes.
        costs: of one of each thing.
        place: on which machines.
    """
    run = _Run(load, costs, place, math.ceil(load.mentors / load.batch_size))
    for _ in range(load.processes):
        _Process(run)
    return Simulated(run.simulation.run(), run.claims)
