"""Results are kept in a file, and written as tables."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.peers.counting_gateway import count_requests
from tests.benchmarks.report import figures_tables, to_markdown
from tests.benchmarks.results import Results, read_results
from tests.benchmarks.section import Row
from tests.benchmarks.spread import Spread
from tests.unit.benchmarks.measured import section_result

MACHINE = {"cores": 2, "cpu": "a processor", "memory_gigabytes": 8, "system": "Linux", "versions": {"Python": "3.11"}}
ORDER = ["fan-out", "tail"]


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    results = Results(MACHINE, {}).with_section(section_result(), ORDER)
    results.write(tmp_path / "results.json")
    assert read_results(tmp_path / "results.json", MACHINE) == results


def test_a_section_that_is_run_again_takes_its_own_place_only(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    Results(MACHINE, {}).with_section(section_result("tail"), ORDER).with_section(
        section_result(found=0.5), ORDER
    ).write(path)
    again = read_results(path, MACHINE).with_section(section_result(found=0.99), ORDER)
    assert list(again.sections) == ORDER
    assert again.sections["fan-out"].measured.targets[0].found == 0.99


def test_results_of_another_machine_are_not_mixed_with_these(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    Results(MACHINE, {}).with_section(section_result(), ORDER).write(path)
    assert read_results(path, MACHINE | {"versions": {"Python": "3.12"}}).sections == {}
    assert read_results(tmp_path / "nothing.json", MACHINE).sections == {}


def test_the_report_has_medians_with_their_spread_and_the_verdicts() -> None:
    text = to_markdown(Results(MACHINE, {}).with_section(section_result(found=0.94), ORDER))
    assert "| this function | 64 in flight | 0.910 (0.900 to 0.920) | 12,346 |" in text
    assert "| share of wrk's | 0.940 | at least 0.950 | NOT MET |" in text
    assert "| this function | 64 in flight | 1.60 s, 41 MB |" in text
    assert "- a note" in text
    assert "2 cores (a processor)" in text


def test_the_report_says_which_figures_mean_nothing() -> None:
    quick, real = (
        to_markdown(Results(MACHINE, {}).with_section(section_result(quick=quick, found=0.5), ORDER))
        for quick in (True, False)
    )
    assert "far too small" in quick
    assert "MET" not in quick
    assert "far too small" not in real
    assert "NOT MET" in real


def test_rows_with_other_figures_get_a_table_of_their_own() -> None:
    one = Spread.of([1.0])
    wall, both, other = {"wall_seconds": one}, {"wall_seconds": one, "efficiency": one}, {"milliseconds": one}
    rows = [Row("it", "a load", {}, figures) for figures in (wall, both, other, other)]
    assert [len(table.rows) for table in figures_tables(rows)] == [2, 2]


def test_requests_are_counted_by_what_they_asked_for(tmp_path: Path) -> None:
    log = tmp_path / "requests"
    log.write_text(
        '{"request": {"uri": "/rest/v1/rpc/scheduler_claim"}, "status": 200}\n'
        '{"request": {"uri": "/rest/v1/rpc/scheduler_claim"}, "status": 200}\n'
        '{"request": {"uri": "/rest/v1/active_peer_mentors?select=user_id&limit=1000"}, "status": 200}\n'
        '{"request": {"uri": "/"}, "status": 404}\n'
    )
    assert count_requests(log) == {"rpc/scheduler_claim": 2, "active_peer_mentors": 1}
