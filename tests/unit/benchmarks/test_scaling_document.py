"""The tables of docs/scaling.md are those of the measurements."""

from __future__ import annotations

import json

import pytest

from tests.benchmarks.capacity.document import DOCUMENT, tables_in, with_tables
from tests.benchmarks.capacity.measurements import Measurements
from tests.benchmarks.capacity.report import all_tables
from tests.benchmarks.scale_out import SCENARIOS


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return all_tables(Measurements.read())


def test_every_table_has_its_place(tables: dict[str, str]) -> None:
    assert tables_in(DOCUMENT.read_text(encoding="utf-8")) == tables.keys()


def test_its_tables_are_those_of_the_measurements(tables: dict[str, str]) -> None:
    """`python -m tests.benchmarks.capacity write` puts them in."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text, tables) == text


def test_what_it_says_of_eight_processes_is_what_the_benchmark_found() -> None:
    results = json.loads((DOCUMENT.parent / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    rows = {row["label"]: row["figures"] for row in results["sections"]["scale-out"]["rows"]}
    text = DOCUMENT.read_text(encoding="utf-8")
    for scenario in SCENARIOS:
        found = rows[f"{scenario.name}: 8 processes"]
        shares = (found[name]["median"] for name in ("share_of_linear", "independent_share", "machine_share"))
        assert f"| {scenario.name} | {' | '.join(f'{share:.2f}' for share in shares)} |" in text
