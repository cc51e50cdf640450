"""Figures and results as a benchmark makes them."""

from __future__ import annotations

from tests.benchmarks.peers.figures import Figures, ProcessUse
from tests.benchmarks.results import SectionResult
from tests.benchmarks.section import Measured, Row, Target
from tests.benchmarks.spread import Spread


def figures(*, wall_seconds: float = 2.0, ideal_seconds: float = 1.0, peak_megabytes: float = 80.0) -> Figures:
    """Of one run of 300 evaluations."""
    return Figures(
        wall_seconds=wall_seconds,
        ideal_seconds=ideal_seconds,
        use=ProcessUse(0.5, peak_megabytes, 60.0),
        rows_stored=300,
        engine_calls=300,
        evaluations=300,
        max_in_flight=64,
        processes={"PostgreSQL": ProcessUse(0.25, 40.0, 30.0)},
    )


def section_result(name: str = "fan-out", *, quick: bool = False, found: float = 0.97) -> SectionResult:
    """A section with one row and one target."""
    row = Row(
        "this function",
        "64 in flight",
        {"mentors": 100},
        {"efficiency": Spread.of([0.9, 0.92, 0.91]), "evaluations_per_second": Spread.of([12345.6])},
        {"PostgreSQL": {"cpu_seconds": Spread.of([1.5, 1.7]), "peak_megabytes": Spread.of([40.0, 42.0])}},
    )
    measured = Measured([row], [Target("share of wrk's", found, 0.95, at_least=True, digits=3)], ["a note"])
    return SectionResult(name, "a title", "what it is", "2026-11-25T02:00:00+00:00", 12.5, "abc", 3, quick, measured)
