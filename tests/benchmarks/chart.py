"""The results in a picture, drawn from what is stored."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tests.emulator.errors import EmulatorError

from .peers.contenders import DBOS, GOOD_DENO, NAIVE_DENO, THIS_FUNCTION, WRK
from .results import Results
from .spread import Spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Of the palette by Okabe and Ito, which the colour-blind can tell apart.
COLOURS = {
    THIS_FUNCTION: "#0072B2",
    GOOD_DENO: "#E69F00",
    NAIVE_DENO: "#F0C987",
    DBOS: "#CC79A7",
    WRK: "#8A8A8A",
}
OTHER = "#BBBBBB"
INK = "#222222"
RULE = "#E3E3E3"
MEMORY_TARGET_MEGABYTES = 160


def require_matplotlib() -> None:
    """What draws.

    Raises:
        EmulatorError: it is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise EmulatorError("matplotlib is not installed: run `pip install -r tests/benchmarks/requirements.txt`")


def draw(results: Results, path: Path) -> None:
    """Writes a PNG of the sections that it shows; what was not measured is left blank.

    Args:
        results: what was measured.
        path: the file.
    """
    # imported late: it takes a second, and who only wants to read or test a report need not have it
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 8), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplot_mosaic([["efficiency", "rates"], ["efficiency", "memory"]], width_ratios=[1.15, 1])
    figure.suptitle(_title(results), fontsize=11, color=INK, x=0.01, ha="left")
    _draw_bars(panels["efficiency"], _groups(results, "efficiency", "fan-out", "tail"), digits=2)
    panels["efficiency"].set_title("One user a call: the ideal's share of the wall time", loc="left", color=INK)
    panels["efficiency"].set_xlim(0, 1.08)
    panels["efficiency"].set_xlabel("calls x latency / calls in flight / wall time (1 = nothing but the calls)")
    _draw_bars(panels["rates"], _groups(results, "evaluations_per_second", "batched"), digits=0)
    panels["rates"].set_title("Many users a call", loc="left", color=INK)
    panels["rates"].set_xlabel("evaluations a second, all rows stored")
    panels["rates"].margins(x=0.15)
    _draw_memory(panels["memory"], results)
    figure.savefig(path, dpi=110)


def _title(results: Results) -> str:
    machine = results.machine
    quick = " (quick: these figures mean nothing)" if any(one.quick for one in results.sections.values()) else ""
    return f"Medians, with the least and the greatest of all rounds; {machine['cores']} cores, {machine['cpu']}{quick}"


def _groups(results: Results, figure: str, *names: str) -> list[tuple[str, list[tuple[str, Spread]]]]:
    """Bars by load, in the order of the tables."""
    groups: dict[str, list[tuple[str, Spread]]] = {}
    for name in names:
        if (section := results.sections.get(name)) is not None:
            for row in section.measured.rows:
                label = f"{row.label}, latency with a tail" if name == "tail" else row.label
                groups.setdefault(label, []).append((row.contender, row.figures[figure]))
    return list(groups.items())


def _draw_bars(axes: Axes, groups: Sequence[tuple[str, Sequence[tuple[str, Spread]]]], *, digits: int) -> None:
    _make_plain(axes)
    if not groups:
        _leave_blank(axes)
        return
    ticks: list[tuple[float, str]] = []
    at = 0.0
    for label, bars in groups:
        axes.text(0, at, label, fontsize=10, fontweight="bold", color=INK, va="center")
        for contender, spread in bars:
            at += 1
            whisker = [[spread.median - spread.lowest], [spread.highest - spread.median]]
            axes.barh(
                at,
                spread.median,
                height=0.72,
                color=COLOURS.get(contender, OTHER),
                xerr=whisker,
                ecolor=INK,
                capsize=2.5,
            )
            axes.annotate(
                f"{spread.median:,.{digits}f}",
                (spread.highest, at),
                xytext=(5, 0),
                textcoords="offset points",
                fontsize=9,
                color=INK,
                va="center",
            )
            ticks.append((at, contender))
        at += 1.4
    axes.set_yticks([tick for tick, _ in ticks], [contender for _, contender in ticks])
    axes.set_ylim(at - 0.7, -0.7)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.{min(digits, 1)}f}")
    axes.grid(axis="x", color=RULE, linewidth=0.8)


def _draw_memory(axes: Axes, results: Results) -> None:
    _make_plain(axes)
    axes.set_title("Peak memory of this function", loc="left", color=INK)
    section = results.sections.get("million")
    lines: dict[str, list[tuple[int, Spread]]] = {}
    for row in section.measured.rows if section else ():
        if "peak_megabytes" in row.figures:
            outcomes = row.label.partition(", ")[2]
            lines.setdefault(outcomes, []).append((row.load["mentors"], row.figures["peak_megabytes"]))
    if not lines:
        _leave_blank(axes)
        return
    for (outcomes, points), colour, marker in zip(
        lines.items(), (COLOURS[THIS_FUNCTION], "#009E73"), "os", strict=False
    ):
        mentors = [number for number, _ in points]
        medians = [spread.median for _, spread in points]
        whiskers = [
            [spread.median - spread.lowest for _, spread in points],
            [spread.highest - spread.median for _, spread in points],
        ]
        axes.errorbar(mentors, medians, yerr=whiskers, color=colour, marker=marker, capsize=3, label=outcomes)
    axes.axhline(MEMORY_TARGET_MEGABYTES, color=INK, linestyle="--", linewidth=1, label="target")
    axes.set_xscale("log")
    numbers = sorted({number for points in lines.values() for number, _ in points})
    axes.set_xticks(numbers, [f"{number:,}" for number in numbers])
    axes.minorticks_off()
    axes.set_xlim(numbers[0] / 1.2, numbers[-1] * 1.2)
    axes.set_ylim(
        0, 1.2 * max(MEMORY_TARGET_MEGABYTES, *(one.highest for points in lines.values() for _, one in points))
    )
    axes.set_xlabel("mentors, three types each, 100 users a call (logarithmic)")
    axes.set_ylabel("MB, all of its processes")
    axes.grid(color=RULE, linewidth=0.8)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _make_plain(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)


def _leave_blank(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", color=INK)
    axes.set_xticks([])
    axes.set_yticks([])
