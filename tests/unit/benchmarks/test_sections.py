"""Contenders take turns, targets are judged, and a section that breaks costs only itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import pytest

from tests.benchmarks.__main__ import OUT, QUICK_OUT, parse, run_sections
from tests.benchmarks.child_run import run_child
from tests.benchmarks.contest import Contest, Entry, in_turn, wall
from tests.benchmarks.peers.figures import Figures, Load
from tests.benchmarks.peers.limit import find_wrk
from tests.benchmarks.results import Results, SectionResult
from tests.benchmarks.section import Conditions, Measured, Section, at_least, at_most, reported
from tests.benchmarks.sections import SECTIONS
from tests.benchmarks.spread import Spread
from tests.emulator.data_dir import DataDir
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT
from tests.unit.benchmarks.measured import figures


def conditions(rounds: int = 3) -> Conditions:
    return Conditions(rounds, quick=False, say=lambda _: None)


async def test_contenders_take_turns_and_every_second_round_backwards() -> None:
    order: list[str] = []

    def runner(name: str) -> Callable[[], Awaitable[int]]:
        async def run() -> int:
            order.append(name)
            return len(order)

        return run

    found = await in_turn(conditions(), {name: runner(name) for name in "abc"}, lambda name, number: f"{name} {number}")
    assert "".join(order) == "abccbaabc"
    assert found == {"a": [1, 6, 7], "b": [2, 5, 8], "c": [3, 4, 9]}


async def test_the_first_run_warms_up_and_does_not_count() -> None:
    mentors: list[int] = []

    async def run(entry: Entry) -> Figures:
        mentors.append(entry.load.mentors)
        return figures(wall_seconds=float(len(mentors)))

    contest = await Contest.run(conditions(2), [Entry("it", "many", Load.single(5000, 64))], run)
    assert mentors == [1000, 5000, 5000]
    assert contest.spread("it", "many", wall).values == (2.0, 3.0)


async def test_a_row_has_an_efficiency_only_where_latency_is_what_takes_the_time() -> None:
    async def run(entry: Entry) -> Figures:
        return figures()

    entries = [Entry("it", "one", Load.single(100, 64)), Entry("it", "many", Load.shared(100, 64))]
    one, many = (await Contest.run(conditions(1), entries, run)).rows()
    assert one.figures["efficiency"].median == 0.5
    assert "efficiency" not in many.figures
    assert many.load == {"mentors": 100, "in_flight": 64, "users_per_call": 100, "types_per_call": 3, "types": 3}
    assert many.processes["PostgreSQL"]["cpu_seconds"].median == 0.25


def test_a_target_is_met_by_the_median_up_to_its_bound() -> None:
    values = Spread.of([0.90, 0.95, 1.00])
    assert at_least("share", values, 0.95).met
    assert not at_least("share", values, 0.951).met
    assert at_most("share", values, 0.95).met
    assert not at_most("share", values, 0.949).met


def test_a_ratio_without_a_target_has_no_verdict() -> None:
    ratio = reported("share", Spread.of([0.9]))
    assert (ratio.met, ratio.wanted) == (None, "")


def section(name: str, measure: Callable[[Conditions], Awaitable[Measured]]) -> Section:
    return Section(name, "a title", "what it is", lambda: None, measure)


async def test_a_section_that_breaks_leaves_the_others_their_turn(capsys: pytest.CaptureFixture[str]) -> None:
    async def works(_: Conditions) -> Measured:
        return Measured([], [])

    async def breaks(_: Conditions) -> Measured:
        raise EmulatorError("somebody was lost")

    published: list[list[str]] = []

    def publish(results: Results, result: SectionResult) -> None:
        published.append([*results.sections, result.name])

    broken = await run_sections(
        [section("one", works), section("two", breaks), section("three", works)],
        conditions(1),
        Results({}, {}),
        publish=publish,
    )
    assert broken == ["two"]
    # after each, with what there was
    assert published == [["one", "one"], ["one", "three", "three"]]
    assert "two broke: somebody was lost" in capsys.readouterr().err


async def test_a_section_that_does_not_end_is_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = False

    async def hangs(_: Conditions) -> Measured:
        nonlocal ended
        try:
            async with asyncio.timeout(10):
                return await asyncio.Future()
        finally:
            ended = True

    monkeypatch.setattr("tests.benchmarks.__main__.ROUND_SECONDS", 0)
    assert await run_sections([section("one", hangs)], conditions(1), Results({}, {}), publish=lambda *_: None) == [
        "one"
    ]
    assert ended
    assert "expected an end within 0 s" in capsys.readouterr().err


async def test_a_program_without_figures_is_quoted_with_the_end_of_its_log() -> None:
    data_dir = DataDir.new_temporary()
    command = [sys.executable, "-c", "import sys; sys.exit('no' + ' engine')"]
    try:
        with pytest.raises(EmulatorError, match="no engine"):
            await run_child(command, root=ROOT, data_dir=data_dir)
    finally:
        data_dir.close()


def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmulatorError, match="Debian's package `wrk`"):
        find_wrk()


def test_all_sections_run_in_their_order_unless_some_are_named() -> None:
    everything, usual, out = parse([])
    assert everything == list(SECTIONS)
    assert (usual.rounds, usual.quick, out) == (3, False, OUT)
    names = [section.name for section in SECTIONS]
    some, quick, quick_out = parse([names[-1], names[0], "--quick"])
    assert [one.name for one in some] == [names[0], names[-1]]
    # what a quick run finds must not take the place of real figures
    assert (quick.rounds, quick.quick, quick_out) == (1, True, QUICK_OUT)


def test_an_unknown_section_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["fan-in"])
    assert "fan-out" in capsys.readouterr().err


def test_only_sections_with_common_loads_run_beside_a_checkout(capsys: pytest.CaptureFixture[str]) -> None:
    chosen, _, _ = parse(["--beside", str(ROOT)])
    assert [one.name.partition(",")[0] for one in chosen] == ["fan-out", "tail", "batched", "million"]
    with pytest.raises(SystemExit):
        parse(["history", "--beside", str(ROOT)])
    assert "history cannot be run so" in capsys.readouterr().err
