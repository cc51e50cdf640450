"""The costs that come nearest to the measured runs of `CALIBRATION`; the other runs are not looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..drained_run import DrainFigures
from .cases import CALIBRATION, FULL_CPU, ONE_BATCH, WAITING
from .costs import COMPONENTS, FEATURES, Costs, Work
from .measurements import Measurements
from .simulation import Place, simulate

# Exchanges are not slower than this.
LONGEST_DELAY_SECONDS = 0.01
HALVINGS = 12


def work_of(figures: DrainFigures) -> Work:
    """What a measured run consisted of."""
    return Work(
        calls=figures.engine_calls,
        evaluations=figures.load.evaluations,
        claims=figures.drain.requests["scheduler_claim"],
        batches=figures.batches,
        rows=figures.rows,
    )


def fit_costs(measured: Measurements) -> Costs:
    """CPU costs by least squares over all runs but three, each of which tells one thing that they do not.

    The shortest one tells what a run takes beside its batches; one that waits for the engine most of the time, how long
    an exchange takes beside its CPU time; and one that has more to do than there is CPU, how much of it can be used.
    """
    runs = [measured.typical(case) for case in CALIBRATION if case not in (ONE_BATCH, WAITING, FULL_CPU)]
    largest = max(runs, key=lambda run: run.load.mentors)
    wal = least_squares(
        [(run.load.evaluations - run.rows, run.rows) for run in runs], [run.drain.wal_bytes for run in runs]
    )
    costs = Costs(
        cpu={component: _fit_component(component, runs) for component in COMPONENTS},
        enumeration_cpu={
            component: seconds / largest.load.mentors for component, seconds in largest.enumeration.cpu_seconds.items()
        },
        enumeration_seconds=largest.enumeration.seconds / largest.load.mentors,
        start_seconds=0,
        delay_seconds=0,
        usable_share=1,
        wal_per_row=wal[1],
        wal_per_evaluation=wal[0],
        wal_per_mentor=largest.enumeration.wal_bytes / largest.load.mentors,
        stored_per_row=largest.evaluations_bytes / largest.rows,
        stored_per_mentor=largest.batches_bytes / largest.load.mentors,
    )
    costs = _fit_usable_share(costs, measured)
    costs = _fit_delay(costs, measured)
    return _fit_start(costs, measured)


def _fit_component(component: str, runs: Sequence[DrainFigures]) -> dict[str, float]:
    features = FEATURES[component]
    costs = least_squares(
        [tuple(work_of(run).of(feature) for feature in features) for run in runs],
        [run.drain.cpu_seconds[component] for run in runs],
    )
    return dict(zip(features, costs, strict=True))


def _fit_usable_share(costs: Costs, measured: Measurements) -> Costs:
    work = work_of(measured.typical(FULL_CPU))
    wanted = sum(costs.of(component, work) for component in COMPONENTS)
    return replace(costs, usable_share=min(1.0, wanted / (measured.seconds(FULL_CPU) * measured.cores)))


def _fit_delay(costs: Costs, measured: Measurements) -> Costs:
    """The delay with which the simulation takes as long as the run did."""
    shortest, longest = 0.0, LONGEST_DELAY_SECONDS
    for _ in range(HALVINGS):
        delay = (shortest + longest) / 2
        seconds = _simulated(replace(costs, delay_seconds=delay), measured, WAITING)
        shortest, longest = (delay, longest) if seconds < measured.seconds(WAITING) else (shortest, delay)
    return replace(costs, delay_seconds=(shortest + longest) / 2)


def _fit_start(costs: Costs, measured: Measurements) -> Costs:
    missing = measured.seconds(ONE_BATCH) - _simulated(costs, measured, ONE_BATCH)
    return replace(costs, start_seconds=max(0.0, missing))


def _simulated(costs: Costs, measured: Measurements, case: str) -> float:
    return simulate(CALIBRATION[case], costs, Place(measured.cores, shared=True)).seconds


def least_squares(rows: Sequence[Sequence[float]], totals: Sequence[float], *, sweeps: int = 20_000) -> list[float]:
    """Prices of the columns, none of them negative, whose sums come nearest to the totals.

    Every row counts by how far it is off in proportion to its total: a short run says as much as a long one.

    Args:
        rows: how much of each column there is.
        totals: what each row came to; above zero.
        sweeps: how often each price is set right given the others, which is all there is to it.
    """
    scaled = [[amount / total for amount in row] for row, total in zip(rows, totals, strict=True)]
    prices = [0.0] * len(rows[0])
    left = [1.0] * len(rows)
    for _ in range(sweeps):
        for column, price in enumerate(prices):
            amounts = [row[column] for row in scaled]
            square = sum(amount * amount for amount in amounts)
            if square == 0:
                continue
            better = max(0.0, price + sum(a * rest for a, rest in zip(amounts, left, strict=True)) / square)
            left = [rest - (better - price) * amount for amount, rest in zip(amounts, left, strict=True)]
            prices[column] = better
    return prices
