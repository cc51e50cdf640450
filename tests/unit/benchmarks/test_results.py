"""A benchmark's figures: only of runs that did what was asked, compared round by round, and never mixed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import OUT, QUICK_OUT, parse
from tests.benchmarks.peers.fast_engine import EngineStats
from tests.benchmarks.peers.figures import Load
from tests.benchmarks.peers.measured_call import check
from tests.benchmarks.report import read_results, write_results
from tests.benchmarks.scale_out import SCENARIOS
from tests.benchmarks.section import at_least, at_most
from tests.benchmarks.spread import Spread
from tests.emulator.errors import EmulatorError
from tests.emulator.staging import ROOT

MACHINE = {"cores": 2, "versions": {"Python": "3.11"}}


def stats(*, calls: int = 300, distinct: int = 300, duplicates: int = 0, max_in_flight: int = 64) -> EngineStats:
    return EngineStats(1, calls, distinct + duplicates, distinct, duplicates, 0, max_in_flight, 64, 1.0, 6.0, 0.02)


@pytest.mark.parametrize(
    ("seen", "results", "complaint"),
    [
        (stats(distinct=299), 300, "the engine saw 299"),
        (stats(duplicates=1), 300, "1 again"),
        (stats(), 299, "299 are stored"),
        (stats(calls=100), 300, "300 calls were expected, not 100"),
        (stats(max_in_flight=65), 300, "at most 64 calls in flight"),
    ],
)
def test_a_run_with_other_work_than_asked_has_no_figures(seen: EngineStats, results: int, complaint: str) -> None:
    check("it", Load(100, in_flight=64), stats(), 300)
    with pytest.raises(EmulatorError, match=complaint):
        check("it", Load(100, in_flight=64), seen, results)


def test_ratios_are_taken_by_round_and_judged_by_median() -> None:
    ratio = Spread.of([1.0, 9.0, 2.0]).over(Spread.of([2.0, 9.0, 8.0]))
    assert (ratio.values, ratio.median) == ((0.5, 1.0, 0.25), 0.5)
    assert at_least("share", ratio, 0.5).met
    assert not at_least("share", ratio, 0.51).met
    assert at_most("share", ratio, 0.5).met
    assert not at_most("share", ratio, 0.49).met


def test_results_of_other_machines_and_quick_runs_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.json"
    assert read_results(path, MACHINE) == {}
    write_results(path, MACHINE, {"tail": {"rounds": 3}})
    assert read_results(path, MACHINE) == {"tail": {"rounds": 3}}
    assert read_results(path, MACHINE | {"cores": 4}) == {}
    assert [parse(arguments)[2] for arguments in ([], ["--quick"])] == [OUT, QUICK_OUT]


def test_the_sizing_document_has_the_figures_of_eight_processes() -> None:
    results = json.loads((ROOT / "docs" / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row["figures"] for row in results["sections"]["scale-out"]["rows"]}
    text = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
    for scenario in SCENARIOS:
        found = rows[f"{scenario.name}: 8 processes"]
        shares = (found[name]["median"] for name in ("share_of_linear", "independent_share", "machine_share"))
        assert f"| {scenario.name} | {' | '.join(f'{share:.2f}' for share in shares)} |" in text
