"""The tables of docs/scaling.md, from the measurements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .cases import CALIBRATION, CASES, VALIDATION
from .costs import COMPONENTS, Costs
from .fitting import fit_costs
from .measurements import Measurements
from .nights import NIGHTS
from .prediction import Night, Prediction, predict
from .simulation import Place, simulate

# What the simulation may be off by, at most, in any run. Held by a test.
STATED_ERROR = 0.15
# The engine is not ours: what it costs here says nothing of a real one.
OURS = tuple(component for component in COMPONENTS if component != "engine")
BY_PROCESSES = ("8 calls in flight", *(f"8 calls in flight, {number} processes" for number in (2, 4, 8)))
MICROSECONDS = 1e6
GIGABYTE = 1e9

Table = tuple[Sequence[str], Sequence[Sequence[str]]]


def to_markdown(table: Table) -> str:
    """A table; all columns but the first are numbers, or treated as such."""
    headings, rows = table
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def costs_table(measured: Measurements, _: Costs) -> Table:
    """CPU seconds of each component for a million evaluations, as measured."""
    cases = [case for case in CALIBRATION if case.startswith(("1 user", "10 users", "100 users")) and "," not in case]
    cases += ["100 users a call, a quarter notable", "100 users a call, batches of 100"]
    rows = []
    for case in cases:
        run = measured.typical(case)
        millions = run.load.evaluations / 1e6
        spent = [
            (run.drain.cpu_seconds[component] + run.enumeration.cpu_seconds[component]) / millions for component in OURS
        ]
        requests = (sum(run.drain.requests.values()) + sum(run.enumeration.requests.values())) / millions
        wal = (run.drain.wal_bytes + run.enumeration.wal_bytes) / millions / 1e6
        rows.append(
            [case, *(f"{seconds:.1f}" for seconds in spent), f"{sum(spent):.1f}", f"{requests:,.0f}", f"{wal:.0f}"]
        )
    return (["a million evaluations", *OURS, "together", "Data API requests", "WAL, MB"], rows)


def units_table(_: Measurements, costs: Costs) -> Table:
    """What one of each thing costs."""
    features = ("call", "evaluation", "claim", "batch", "row")
    rows = [
        [component, *(_microseconds(costs.cpu[component].get(feature)) for feature in features),
         _microseconds(costs.enumeration_cpu[component])]
        for component in OURS
    ]  # fmt: skip
    return (["CPU, µs", *features, "enumerated mentor"], rows)


def bytes_table(measured: Measurements, costs: Costs) -> Table:
    """What is written and what stays."""
    return (
        ["bytes", "write-ahead log", "stored, with indexes"],
        [
            ["a result with a row of its own", f"{costs.wal_per_row:.0f}", f"{costs.stored_per_row:.0f}"],
            ["a result that is only counted", f"{costs.wal_per_evaluation:.0f}", "0"],
            ["a mentor in a batch", f"{costs.wal_per_mentor:.0f}", f"{costs.stored_per_mentor:.0f}"],
        ],
    )


def upkeep_table(measured: Measurements, _: Costs) -> Table:
    """What the number of open batches costs those who look at all of them."""
    names = list(next(iter(measured.upkeep.values())))
    rows = [[f"{batches:,}", *(f"{found[name]:.1f}" for name in names)] for batches, found in measured.upkeep.items()]
    return (["ms of the database, open batches", *names], rows)


def processes_table(measured: Measurements, _: Costs) -> Table:
    """One run by one process and by several."""
    rows = []
    one = measured.seconds(BY_PROCESSES[0])
    for case in BY_PROCESSES:
        run, seconds = measured.typical(case), measured.seconds(case)
        processes = run.load.processes
        rows.append(
            [
                str(processes),
                f"{seconds:.2f}",
                f"{run.load.evaluations / seconds:,.0f}",
                f"{one / seconds / processes:.2f}",
                f"{run.drain.machine_share:.2f}",
            ]
        )
    return (["processes", "seconds", "evaluations/s", "of linear", "of the machine's CPU"], rows)


def simulated_table(measured: Measurements, costs: Costs) -> Table:
    """The measured wall times and what the simulation makes of them."""
    rows = []
    for case in CASES:
        seconds, off = measured.seconds(case), error(measured, costs, case)
        known = "foretold" if case in VALIDATION else "known"
        rows.append([case, known, f"{seconds:.2f}", f"{seconds * (1 + off):.2f}", f"{100 * off:+.0f}%"])
    return (["run", "to the model", "measured, s", "simulated, s", "off by"], rows)


NIGHT_LINES: Mapping[str, Callable[[Night, Prediction], str]] = {
    "compute": lambda night, _: night.compute.name,
    "`MAX_WORKERS` x `ENGINE_MAX_CONCURRENCY`": lambda night, _: f"{night.load.processes} x {night.load.in_flight}",
    "users in a call, in a batch": lambda night, _: f"{night.load.users_per_call}, {night.load.batch_size}",
    "time budget, retention": lambda night, _: f"{night.time_budget_seconds:.0f} s, {night.retention_days} days",
    "**from the slot to the end**": lambda _, found: f"**{_duration(found.seconds)}**",
    "reading and queueing, in one process": lambda _, found: _duration(found.enumeration_seconds),
    "function: CPU seconds": lambda _, found: f"{found.function_cpu_seconds:,.0f}",
    "function: instance seconds": lambda _, found: f"{found.instance_seconds:,.0f}",
    "function: slices": lambda _, found: f"{found.slices:,}",
    "gateway, Data API, database: CPU seconds": lambda _, found: f"{found.database_cpu_seconds:,.0f}",
    "Data API requests": lambda _, found: f"{found.requests:,.0f}",
    "queue messages": lambda _, found: f"{found.messages:,}",
    "engine: calls": lambda _, found: f"{found.engine_calls:,}",
    "engine: seconds of calls": lambda _, found: f"{found.engine_seconds:,.0f}",
    "write-ahead log, GB": lambda _, found: f"{found.wal_bytes / GIGABYTE:.1f}",
    "kept by the retention, GB": lambda night, found: f"{found.stored_bytes * night.retention_days / GIGABYTE:,.0f}",
    "function, $ a night": lambda _, found: f"{found.function_dollars:.3f}",
    "compute, disk and function, $ a month": lambda night, found: f"{found.dollars_per_month(night):,.0f}",
    "what takes longest alone": lambda _, found: (
        f"{found.first_to_break}, {_duration(found.alone[found.first_to_break])}"
    ),
}


def nights_table(_: Measurements, costs: Costs) -> Table:
    """What is foretold, a column for each night."""
    found = [(night, predict(night, costs)) for night in NIGHTS.values()]
    rows = [[name, *(write(*pair) for pair in found)] for name, write in NIGHT_LINES.items()]
    return (["mentors", *NIGHTS], rows)


TABLES: Mapping[str, Callable[[Measurements, Costs], Table]] = {
    "costs": costs_table,
    "units": units_table,
    "bytes": bytes_table,
    "processes": processes_table,
    "simulated": simulated_table,
    "nights": nights_table,
    "upkeep": upkeep_table,
}


def all_tables(measured: Measurements) -> dict[str, str]:
    """Each as Markdown, by its name."""
    costs = fit_costs(measured)
    return {name: to_markdown(table(measured, costs)) for name, table in TABLES.items()} | {
        "measured": _measured(measured, costs)
    }


def _measured(measured: Measurements, costs: Costs) -> str:
    rounds = len(next(iter(measured.rounds.values())))
    off = max(abs(error(measured, costs, case)) for case in VALIDATION)
    return (
        f"Measured on {measured.measured_at[:10]} at commit `{measured.commit}`, {rounds} rounds, on {measured.cores} "
        f"cores ({measured.machine['cpu']}) that all components share, without TLS and without a network. Of the runs "
        f"that the model does not know the simulation is off by {100 * off:.0f}% at most. `scheduler.prune()` deletes "
        f"a million results in {measured.prune_seconds:.1f} s."
    )


def error(measured: Measurements, costs: Costs, case: str) -> float:
    """By how much the simulation is off: 0.1 if it takes a tenth longer than the run did."""
    simulated = simulate(CASES[case], costs, Place(measured.cores, shared=True)).seconds
    return simulated / measured.seconds(case) - 1


def _microseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * MICROSECONDS:,.1f}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
