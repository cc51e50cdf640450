"""The figures that rows may have: how each is called and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .spread import Spread


@dataclass(frozen=True)
class FigureName:
    """A figure in a table.

    Args:
        heading: with its unit.
        digits: after the point.
    """

    heading: str
    digits: int

    def write(self, spread: Spread) -> str:
        """The median, and the least and the greatest value where there are several."""
        text = f"{spread.median:,.{self.digits}f}"
        if len(spread.values) > 1:
            text += f" ({spread.lowest:,.{self.digits}f} to {spread.highest:,.{self.digits}f})"
        return text


# In the order of the tables' columns.
FIGURES: Mapping[str, FigureName] = {
    "efficiency": FigureName("of the ideal", 3),
    "wall_seconds": FigureName("wall s", 2),
    "evaluations_per_second": FigureName("evaluations/s", 0),
    "share_of_linear": FigureName("of linear", 2),
    "independent_share": FigureName("of linear, independent processes", 2),
    "machine_share": FigureName("of the machine's CPU", 2),
    "milliseconds": FigureName("median ms", 1),
    "p95_milliseconds": FigureName("p95 ms", 1),
    "cpu_microseconds": FigureName("CPU µs a call", 0),
    "import_milliseconds": FigureName("import ms", 0),
    "cpu_seconds": FigureName("CPU s", 2),
    "cores": FigureName("cores", 2),
    "peak_megabytes": FigureName("peak MB", 0),
    "largest_megabytes": FigureName("largest process", 0),
    "requests_per_batch": FigureName("Data API requests a batch", 2),
    "requests": FigureName("Data API requests", 0),
}
