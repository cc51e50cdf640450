"""The model says of the measured runs what was measured, within what it says of itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.capacity.cases import CALIBRATION, CASES, VALIDATION
from tests.benchmarks.capacity.costs import Costs
from tests.benchmarks.capacity.fitting import fit_costs, least_squares, work_of
from tests.benchmarks.capacity.measurements import Measurements
from tests.benchmarks.capacity.nights import NIGHTS
from tests.benchmarks.capacity.prediction import predict
from tests.benchmarks.capacity.report import OURS, STATED_ERROR, error

# Of the CPU time: a machine that has little to do takes more for the same, so only runs are looked at in which it has.
BUSY = 0.7
# What has less than a second of CPU to do, differs by so much from one run to the next.
SMALL_SECONDS = 0.2
CPU_ERROR = 0.25
# A checkpoint in the middle of a run makes it write whole pages once more.
BYTES_ERROR = 0.25


@pytest.fixture(scope="module")
def measured() -> Measurements:
    return Measurements.read()


@pytest.fixture(scope="module")
def costs(measured: Measurements) -> Costs:
    """Of a model that knows nothing but the runs of `CALIBRATION`."""
    return fit_costs(replace(measured, rounds={case: measured.rounds[case] for case in CALIBRATION}))


def test_every_case_was_measured_as_it_stands_now(measured: Measurements) -> None:
    """Whoever changes a case measures it again: `python -m tests.benchmarks.capacity measure`."""
    assert {case: measured.typical(case).load for case in measured.rounds} == CASES


@pytest.mark.parametrize("case", CASES)
def test_the_simulation_takes_as_long_as_the_run_did(measured: Measurements, costs: Costs, case: str) -> None:
    assert abs(error(measured, costs, case)) <= STATED_ERROR


@pytest.mark.parametrize("case", VALIDATION)
def test_cpu_time_is_foretold_where_the_machine_has_enough_to_do(
    measured: Measurements, costs: Costs, case: str
) -> None:
    run = measured.typical(case)
    if run.drain.machine_share < BUSY:
        return
    for component in OURS:
        spent = run.drain.cpu_seconds[component]
        assert costs.of(component, work_of(run)) == pytest.approx(spent, rel=CPU_ERROR, abs=SMALL_SECONDS), component


@pytest.mark.parametrize("case", VALIDATION)
def test_what_is_written_ahead_is_foretold(measured: Measurements, costs: Costs, case: str) -> None:
    run = measured.typical(case)
    counted = run.load.evaluations - run.rows
    foretold = run.rows * costs.wal_per_row + counted * costs.wal_per_evaluation
    # What slices and the end of a run write does not grow with it.
    assert foretold == pytest.approx(run.drain.wal_bytes, rel=BYTES_ERROR, abs=1_000_000)


def test_every_run_evaluated_everybody_once(measured: Measurements) -> None:
    for case, runs in measured.rounds.items():
        for run in runs:
            assert run.repeated == 0, case
            assert run.workers == min(run.load.processes, run.batches), case
            assert run.drain.requests["scheduler_complete"] == run.batches, case


def test_several_processes_are_as_good_as_linear_while_the_machine_has_cpu(measured: Measurements) -> None:
    one = measured.seconds("8 calls in flight")
    for processes in (2, 4, 8):
        case = f"8 calls in flight, {processes} processes"
        assert one / measured.seconds(case) / processes >= 0.85, case


@pytest.mark.parametrize("name", NIGHTS)
def test_no_night_is_shorter_than_what_its_longest_part_takes_alone(costs: Costs, name: str) -> None:
    found = predict(NIGHTS[name], costs)
    assert found.seconds >= max(found.alone.values()) * 0.99
    assert found.instance_seconds >= found.function_cpu_seconds * 0.9
    pages = -(-NIGHTS[name].load.mentors // 1000)
    assert found.requests <= 2 * found.messages + 2 * pages


def test_prices_are_found_and_none_is_negative() -> None:
    amounts = [(1, 10, 0), (5, 1, 3), (2, 2, 2), (9, 1, 0)]
    assert least_squares(amounts, [2 * a + 3 * b + 5 * c for a, b, c in amounts]) == pytest.approx([2, 3, 5])
    assert least_squares([(1, 1), (1, 2), (1, 3)], [3, 2, 1])[1] == 0


def test_what_is_written_is_read_again(measured: Measurements, tmp_path: Path) -> None:
    measured.write(tmp_path / "measurements.json")
    assert Measurements.read(tmp_path / "measurements.json") == measured
