"""What a night will take, by the measured costs: time, work of every kind, and money."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from functions.peer_mentors import PAGE_SIZE

from ..drained_run import TYPES, DrainLoad
from .costs import DATABASE, Costs, Work
from .prices import Compute, disk_dollars_per_month, function_dollars
from .simulation import Place, simulate

NIGHTS_PER_MONTH = 30
# Between a function and a project in the same region.
NETWORK_SECONDS = 0.002
# In the simulation, of each process: enough for a steady pace, and as many again to see what it is.
STEADY_CALLS = 800
STEADY_BATCHES = 100


@dataclass(frozen=True)
class Night:
    """What is asked for, and how the function is set.

    Args:
        load: its processes are `MAX_WORKERS`.
        compute: of the project.
        time_budget_seconds: of a slice.
        retention_days: how long results are kept.
    """

    load: DrainLoad
    compute: Compute
    time_budget_seconds: float
    retention_days: int


@dataclass(frozen=True)
class Prediction:
    """What comes of it.

    Args:
        enumeration_seconds: reading and queueing everybody, in one process.
        seconds: from the slot to the end.
        function_cpu_seconds: of all processes.
        instance_seconds: that processes are busy or wait.
        slices: calls of the function.
        database_cpu_seconds: of gateway, Data API and database.
        requests: of the Data API.
        messages: through the queue: sent, read and deleted once each.
        engine_calls: to the engine.
        engine_seconds: that the engine is at them, one after another.
        wal_bytes: written ahead.
        stored_bytes: that stay, for the days of the retention.
        alone: the seconds that each part would take if there were no other: reading and queueing everybody, and
            draining, by what it needs.
    """

    enumeration_seconds: float
    seconds: float
    function_cpu_seconds: float
    instance_seconds: float
    slices: int
    database_cpu_seconds: float
    requests: float
    messages: int
    engine_calls: int
    engine_seconds: float
    wal_bytes: float
    stored_bytes: float
    alone: Mapping[str, float]

    @property
    def function_dollars(self) -> float:
        """Of one night."""
        return function_dollars(self.instance_seconds, self.slices)

    def dollars_per_month(self, night: Night) -> float:
        """Of everything, with a run each night."""
        disk = disk_dollars_per_month(self.stored_bytes * night.retention_days)
        return NIGHTS_PER_MONTH * self.function_dollars + night.compute.dollars_per_month + disk

    @property
    def first_to_break(self) -> str:
        """What takes longest alone: with more of everything else the night would not be shorter than that."""
        return max(self.alone, key=lambda name: self.alone[name])


def predict(night: Night, costs: Costs) -> Prediction:
    """What a night takes.

    The first slice reads everybody and works alone until its time budget ends; then dispatch asks for all workers.
    """
    load = night.load
    batches = math.ceil(load.mentors / load.batch_size)
    rows = load.evaluations * load.notable
    calls = batches * math.ceil(load.batch_size / load.users_per_call)
    enumeration = load.mentors * costs.enumeration_seconds
    alone, _ = _pace(replace(load, processes=1), costs, night.compute)
    together, claims_per_batch = _pace(load, costs, night.compute)
    done_alone = max(0.0, night.time_budget_seconds - enumeration) * alone
    seconds = enumeration + batches / alone
    instances = seconds
    if done_alone < batches:
        later = (batches - done_alone) / together
        seconds = max(night.time_budget_seconds + later, enumeration)
        instances = night.time_budget_seconds + load.processes * (seconds - night.time_budget_seconds)
    work = Work(calls, load.evaluations, claims_per_batch * batches, batches, rows)
    wal_bytes = (
        load.mentors * costs.wal_per_mentor
        + rows * costs.wal_per_row
        + (load.evaluations - rows) * costs.wal_per_evaluation
    )
    stored_bytes = rows * costs.stored_per_row + load.mentors * costs.stored_per_mentor
    database_work = sum(costs.of(component, work) for component in DATABASE)
    return Prediction(
        enumeration_seconds=enumeration,
        seconds=seconds,
        function_cpu_seconds=costs.of("function", work) + load.mentors * costs.enumeration_cpu["function"],
        instance_seconds=instances,
        slices=math.ceil(instances / night.time_budget_seconds),
        database_cpu_seconds=database_work + load.mentors * sum(costs.enumeration_cpu[name] for name in DATABASE),
        # A page is read and queued; a batch is recorded.
        requests=2 * math.ceil(load.mentors / PAGE_SIZE) + claims_per_batch * batches + batches,
        messages=batches,
        engine_calls=calls,
        engine_seconds=calls * load.latency_ms / 1000,
        wal_bytes=wal_bytes,
        stored_bytes=stored_bytes,
        alone={
            "enumeration": enumeration,
            "function CPU": costs.of("function", work) / load.processes,
            "database CPU": database_work / night.compute.cores,
            "disk": batches * _written(load, costs) / 1e6 / night.compute.disk_megabytes_per_second,
            "engine": calls * load.latency_ms / 1000 / (load.processes * load.in_flight),
        },
    )


def _written(load: DrainLoad, costs: Costs) -> float:
    """Bytes that go to disk for a batch: its write-ahead log, and what stays."""
    pairs = load.batch_size * len(TYPES)
    notable = load.notable * (costs.wal_per_row + costs.stored_per_row)
    return pairs * (notable + (1 - load.notable) * costs.wal_per_evaluation)


def _pace(load: DrainLoad, costs: Costs, compute: Compute) -> tuple[float, float]:
    """Batches a second, once it goes steadily, and claims for each; as fast as the disk is, at most."""
    place = Place(compute.cores, shared=False, network_seconds=NETWORK_SECONDS)
    calls = math.ceil(load.batch_size / load.users_per_call)
    batches = max(STEADY_BATCHES, STEADY_CALLS // calls) * load.processes
    begun = simulate(replace(load, mentors=batches * load.batch_size), costs, place)
    whole = simulate(replace(load, mentors=2 * batches * load.batch_size), costs, place)
    pace = batches / (whole.seconds - begun.seconds)
    slowest = compute.disk_megabytes_per_second * 1e6 / _written(load, costs)
    return min(pace, slowest), whole.claims / (2 * batches)
