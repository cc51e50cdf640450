"""The results in a picture, drawn from what is stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .peers.contenders import DBOS, GOOD_DENO, NAIVE_DENO, THIS_FUNCTION, WRK
from .report import Stored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the palette by Okabe and Ito, which the colour-blind can tell apart.
COLOURS = {THIS_FUNCTION: "#0072B2", GOOD_DENO: "#E69F00", NAIVE_DENO: "#F0C987", DBOS: "#CC79A7", WRK: "#8A8A8A"}


def draw(machine: Stored, sections: Mapping[str, Stored], path: Path) -> None:
    """Writes a PNG of the sections that it shows; what was not measured is left blank."""
    # imported late: it takes a second, and `--help` need not have it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["efficiency", "rates"], ["efficiency", "memory"]], width_ratios=[1.15, 1])
    quick = " (quick: these figures mean nothing)" if any(one["quick"] for one in sections.values()) else ""
    title = f"Medians, with the least and the greatest of all rounds; {machine['cores']} cores, {machine['cpu']}{quick}"
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    rows = {name: result["rows"] for name, result in sections.items()}
    tail = [{**row, "label": f"{row['label']}, latency with a tail"} for row in rows.get("tail", [])]
    million = [row for row in rows.get("million", []) if "peak_megabytes" in row["figures"]]
    _draw(panels["efficiency"], [*rows.get("fan-out", []), *tail], "efficiency", digits=2)
    panels["efficiency"].set_title("One user a call: the ideal's share of the wall time", loc="left")
    _draw(panels["rates"], rows.get("batched", []), "evaluations_per_second", digits=0)
    panels["rates"].set_title("Many users a call: evaluations a second, all rows stored", loc="left")
    _draw(panels["memory"], million, "peak_megabytes", digits=0)
    panels["memory"].set_title("This function's peak memory in MB, all of its processes", loc="left")
    figure.savefig(path, dpi=110)


def _draw(axes: Axes, rows: Collection[Stored], figure: str, *, digits: int) -> None:
    if not rows:
        return
    places: list[float] = []
    at, label = -1.4, None
    for row in rows:
        if row["label"] != label:
            at, label = at + 1.4, row["label"]
            axes.text(0, at, label, fontweight="bold", va="center")
        at += 1
        places.append(at)
    spreads = [row["figures"][figure] for row in rows]
    medians = [spread["median"] for spread in spreads]
    below, above = [one["median"] - one["min"] for one in spreads], [one["max"] - one["median"] for one in spreads]
    colours = [COLOURS[row["contender"]] for row in rows]
    bars = axes.barh(places, medians, height=0.72, color=colours, xerr=[below, above], capsize=2.5)
    axes.bar_label(bars, [f"{median:,.{digits}f}" for median in medians], padding=5, fontsize=9)
    axes.set_yticks(places, [row["contender"] for row in rows])
    axes.set_ylim(at + 0.7, -0.7)
    axes.margins(x=0.15)
