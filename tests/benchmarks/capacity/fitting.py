"""The costs that come nearest to the measured runs of `CALIBRATION`; the other runs are not looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from ..drained_run import DrainFigures
from .cases import CALIBRATION, ONE_BATCH, WAITING
from .costs import COMPONENTS, FEATURES, Costs, Work
from .measurements import Measurements
from .simulation import Place, simulate

# Exchanges are not slower than this.
LONGEST_DELAY_SECONDS = 0.01
# Less of the CPU than this is not lost to switching.
LEAST_USABLE_SHARE = 0.6
HALVINGS = 10
NARROWINGS = 8
# Of the least squares: rounds, at most, and the share of a total that no longer matters.
SWEEPS = 20_000
SETTLED = 1e-9
GOLDEN = (math.sqrt(5) - 1) / 2


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
    """CPU costs by least squares over all runs but two, each of which tells one thing that they do not.

    The shortest one tells what a run takes beside its batches; and one that waits for the engine most of the time, how
    long an exchange takes beside its CPU time. How much of a machine's CPU can be used is what makes the simulation
    take as long as the runs did, all in all.
    """
    runs = [measured.typical(case) for case in _mixtures()]
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
    costs = _fit_delay(costs, measured)
    costs = _fit_usable_share(costs, measured)
    return _fit_start(costs, measured)


def _mixtures() -> list[str]:
    return [case for case in CALIBRATION if case not in (ONE_BATCH, WAITING)]


def _fit_component(component: str, runs: Sequence[DrainFigures]) -> dict[str, float]:
    features = FEATURES[component]
    costs = least_squares(
        [tuple(work_of(run).of(feature) for feature in features) for run in runs],
        [run.drain.cpu_seconds[component] for run in runs],
    )
    return dict(zip(features, costs, strict=True))


def _fit_usable_share(costs: Costs, measured: Measurements) -> Costs:
    """The share with which the simulation is least off, by the squares of its errors: a search by golden section."""

    @lru_cache
    def off(share: float) -> float:
        trial = replace(costs, usable_share=share)
        return sum((_simulated(trial, measured, case) / measured.seconds(case) - 1) ** 2 for case in _mixtures())

    low, high = LEAST_USABLE_SHARE, 1.0
    left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    for _ in range(NARROWINGS):
        # One of the two is looked at again, which is what is golden about it.
        if off(left) < off(right):
            high, left, right = right, right - GOLDEN * (right - low), left
        else:
            low, left, right = left, right, left + GOLDEN * (high - left)
    return replace(costs, usable_share=(low + high) / 2)


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


def least_squares(rows: Sequence[Sequence[float]], totals: Sequence[float]) -> list[float]:
    """Prices of the columns, none of them negative, whose sums come nearest to the totals.

    Every row counts by how far it is off in proportion to its total: a short run says as much as a long one.

    Args:
        rows: how much of each column there is.
        totals: what each row came to; above zero.
    """
    scaled = [[amount / total for amount in row] for row, total in zip(rows, totals, strict=True)]
    columns = [[row[column] for row in scaled] for column in range(len(rows[0]))]
    squares = [sum(amount * amount for amount in column) for column in columns]
    prices = [0.0] * len(columns)
    left = [1.0] * len(rows)
    # Each price is set right given the others, again and again; that is all there is to it.
    for _ in range(SWEEPS):
        moved = 0.0
        for number, (column, square) in enumerate(zip(columns, squares, strict=True)):
            if square == 0:
                continue
            wanted = prices[number] + sum(amount * rest for amount, rest in zip(column, left, strict=True)) / square
            step = max(0.0, wanted) - prices[number]
            left = [rest - step * amount for amount, rest in zip(column, left, strict=True)]
            prices[number] += step
            moved = max(moved, abs(step) * math.sqrt(square))
        if moved < SETTLED:
            break
    return prices
