"""The simulation takes as long as can be reckoned by hand, where that is easy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.benchmarks.capacity.costs import COMPONENTS, Costs
from tests.benchmarks.capacity.simulation import Place, Simulated, simulate
from tests.benchmarks.drained_run import DrainLoad

NOTHING = Costs(
    cpu={component: {} for component in COMPONENTS},
    enumeration_cpu=dict.fromkeys(COMPONENTS, 0.0),
    enumeration_seconds=0,
    start_seconds=0,
    delay_seconds=0,
    usable_share=1,
    wal_per_row=0,
    wal_per_evaluation=0,
    wal_per_mentor=0,
    stored_per_row=0,
    stored_per_mentor=0,
)
# Two hundred batches of ten calls.
LOAD = DrainLoad(2000, processes=1, in_flight=10, users_per_call=1, batch_size=10, latency_ms=0)
CALLS, BATCHES = 2000, 200
APART = Place(database_cores=4, shared=False)


def costing(**cpu: Mapping[str, float]) -> Costs:
    """Where only these cost anything, in milliseconds."""
    named = {name: {feature: cost / 1000 for feature, cost in of.items()} for name, of in cpu.items()}
    return replace(NOTHING, cpu={**NOTHING.cpu, **named})


def seconds(found: Simulated) -> float:
    return found.seconds


def test_where_nothing_takes_time_nothing_does() -> None:
    assert seconds(simulate(LOAD, NOTHING, APART)) == 0


@pytest.mark.parametrize(("processes", "in_flight"), [(1, 10), (1, 40), (2, 10), (8, 5)])
def test_a_run_that_waits_for_the_engine_takes_its_latency_for_each_round_of_calls(
    processes: int, in_flight: int
) -> None:
    load = replace(LOAD, processes=processes, in_flight=in_flight, latency_ms=50)
    ideal = CALLS / (processes * in_flight) * 0.05
    # The last batches of a process leave some of its calls unused.
    assert ideal * 0.999 <= seconds(simulate(load, NOTHING, APART)) <= ideal * 1.1 + 0.05


def test_a_process_has_one_thread() -> None:
    found = simulate(LOAD, costing(function={"call": 1}), Place(database_cores=8, shared=True))
    assert seconds(found) == pytest.approx(CALLS * 0.001)


@pytest.mark.parametrize(("cores", "expected"), [(1, 2.0), (2, 1.0), (4, 0.5), (8, 0.5)])
def test_processes_share_the_cores_there_are(cores: int, expected: float) -> None:
    load = replace(LOAD, processes=4)
    found = simulate(load, costing(function={"call": 1}), Place(database_cores=cores, shared=True))
    assert seconds(found) == pytest.approx(expected, rel=0.05)


def test_processes_on_machines_of_their_own_do_not_share() -> None:
    found = simulate(replace(LOAD, processes=4), costing(function={"call": 1}), Place(database_cores=1, shared=False))
    assert seconds(found) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(("cores", "expected"), [(1, 2.0), (2, 1.0)])
def test_requests_of_the_data_api_share_the_cores_of_the_database(cores: int, expected: float) -> None:
    load = replace(LOAD, processes=4)
    found = simulate(load, costing(postgres={"batch": 10}), Place(database_cores=cores, shared=False))
    assert seconds(found) == pytest.approx(expected, rel=0.05)


def test_no_more_requests_are_served_at_a_time_than_there_are_connections() -> None:
    load = replace(LOAD, processes=4)
    costs = costing(postgres={"batch": 10})
    assert seconds(simulate(load, costs, Place(64, shared=False, pool=1))) == pytest.approx(2.0, rel=0.05)
    assert seconds(simulate(load, costs, Place(64, shared=False, pool=4))) == pytest.approx(0.5, rel=0.1)


def test_one_process_has_no_more_than_four_requests_at_a_time() -> None:
    load = replace(LOAD, in_flight=1000)
    found = simulate(load, costing(postgres={"batch": 10}), Place(64, shared=False, pool=64))
    assert seconds(found) >= 2.0 / 4


def test_what_cannot_be_used_of_the_cores_is_not_there() -> None:
    costs = replace(costing(postgres={"batch": 10}), usable_share=0.5)
    assert seconds(simulate(replace(LOAD, processes=4), costs, Place(2, shared=False))) == pytest.approx(2.0, rel=0.05)


def test_delays_count_for_calls_and_for_requests() -> None:
    load = replace(LOAD, in_flight=1, batch_size=10, mentors=100)
    found = simulate(load, replace(NOTHING, delay_seconds=0.001), APART)
    # A hundred calls one after another; requests are made meanwhile, but for the first and the last.
    assert seconds(found) == pytest.approx(100 * 0.001 + 2 * 3 * 0.001, rel=0.1)


def test_an_engine_beside_us_takes_its_cpu_from_us() -> None:
    costs = costing(function={"call": 1}, engine={"call": 1})
    alone = simulate(LOAD, costs, Place(database_cores=1, shared=False))
    beside = simulate(LOAD, costs, Place(database_cores=1, shared=True))
    assert seconds(alone) == pytest.approx(2.0)
    assert seconds(beside) == pytest.approx(4.0, rel=0.05)


def test_every_batch_is_claimed_once_and_several_with_one_request_where_several_wait() -> None:
    load = replace(LOAD, in_flight=100, latency_ms=20)
    assert simulate(load, NOTHING, APART).claims < BATCHES
    assert simulate(replace(load, processes=BATCHES, in_flight=10), NOTHING, APART).claims <= BATCHES
