"""The tables of docs/scaling.md are those of the measurements."""

from __future__ import annotations

import pytest

from tests.benchmarks.capacity.document import DOCUMENT, tables_in, with_tables
from tests.benchmarks.capacity.measurements import Measurements
from tests.benchmarks.capacity.report import all_tables


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return all_tables(Measurements.read())


def test_every_table_has_its_place(tables: dict[str, str]) -> None:
    assert tables_in(DOCUMENT.read_text(encoding="utf-8")) == tables.keys()


def test_its_tables_are_those_of_the_measurements(tables: dict[str, str]) -> None:
    """`python -m tests.benchmarks.capacity write` puts them in."""
    text = DOCUMENT.read_text(encoding="utf-8")
    assert with_tables(text, tables) == text
