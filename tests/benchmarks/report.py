"""Results as they are stored, and as tables in Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FORMAT = 1
QUICK = "Quick: loads are far too small for these figures to mean anything."
VERDICTS = {True: "met", False: "NOT MET", None: ""}
# The figures that rows may have, in the order of the columns: how each is called, and its digits after the point.
FIGURES = {
    "efficiency": ("of the ideal", 3),
    "wall_seconds": ("wall s", 2),
    "evaluations_per_second": ("evaluations/s", 0),
    "share_of_linear": ("of linear", 2),
    "independent_share": ("of linear, independent processes", 2),
    "machine_share": ("of the machine's CPU", 2),
    "milliseconds": ("median ms", 1),
    "p95_milliseconds": ("p95 ms", 1),
    "cpu_microseconds": ("CPU µs a call", 0),
    "import_milliseconds": ("import ms", 0),
    "cpu_seconds": ("CPU s", 2),
    "cores": ("cores", 2),
    "peak_megabytes": ("peak MB", 0),
    "largest_megabytes": ("largest process", 0),
    "requests_per_batch": ("Data API requests a batch", 2),
    "requests": ("Data API requests", 0),
}

# A section's result, a target or a row as it is stored.
Stored = Mapping[str, Any]


def read_results(path: Path, machine: Stored) -> dict[str, Stored]:
    """Returns the sections that were measured before on the same machine and with the same versions."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return dict(stored["sections"]) if (stored["format"], stored["machine"]) == (FORMAT, machine) else {}


def write_results(path: Path, machine: Stored, sections: Mapping[str, Stored]) -> None:
    """Writes the file, at once or not at all."""
    stored = {"format": FORMAT, "machine": machine, "sections": sections}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def to_markdown(machine: Stored, sections: Mapping[str, Stored]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        "# Benchmark",
        "For the engineer who compares the function with its alternatives, or checks a figure that another document"
        " quotes. Written by `make bench`; `tests/benchmarks/README.md` describes how it is measured and how to read"
        " it. Figures are medians of the rounds, with the least and the greatest in brackets. Compare them within a"
        " section.",
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gigabytes']} GB, {machine['system']};"
        f" {versions}.",
        "![The figures in a chart](chart.png)",
        *(section_markdown(name, result) for name, result in sections.items()),
    ]
    return "\n\n".join(parts) + "\n"


def section_markdown(name: str, result: Stored) -> str:
    rounds = "one round" if result["rounds"] == 1 else f"{result['rounds']} rounds"
    commit = f", commit {result['commit']}" if result["commit"] else ""
    quick = f" **{QUICK}**" if result["quick"] else ""
    parts = [f"## {name}: {result['title']}", result["about"], f"{result['started_at']}, {rounds}{commit}.{quick}"]
    if result["targets"]:
        cells = [_target(target, judged=not result["quick"]) for target in result["targets"]]
        parts.append(_table(["target", "found", "wanted", ""], cells, texts=1))
    for rows in _alike(result["rows"]):
        names = [name for name in FIGURES if any(name in row["figures"] for row in rows)]
        parts.append(_rows_table(rows, {name: FIGURES[name][0] for name in names}, _figure))
    if processes := {name: name for row in result["rows"] for name in row["processes"]}:
        rows = [row for row in result["rows"] if row["processes"]]
        parts += ["The processes behind them, CPU and peak memory:", _rows_table(rows, processes, _process)]
    if result["notes"]:
        parts.append("\n".join(f"- {note}" for note in result["notes"]))
    return "\n\n".join(parts)


def _alike(rows: Sequence[Stored]) -> list[list[Stored]]:
    """Groups rows that follow one another and have the same figures, or some of them."""
    groups: list[list[Stored]] = []
    for row in rows:
        before = groups[-1][-1]["figures"].keys() if groups else set()
        if groups and (row["figures"].keys() <= before or row["figures"].keys() >= before):
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def _rows_table(rows: Sequence[Stored], headings: Mapping[str, str], cell: Callable[[Stored, str], str]) -> str:
    cells = [[row["contender"], row["label"], *(cell(row, name) for name in headings)] for row in rows]
    return _table(["contender", "load", *headings.values()], cells, texts=2)


def _figure(row: Stored, name: str) -> str:
    spread, digits = row["figures"].get(name), FIGURES[name][1]
    if spread is None:
        return ""
    several = f" ({spread['min']:,.{digits}f} to {spread['max']:,.{digits}f})" if len(spread["values"]) > 1 else ""
    return f"{spread['median']:,.{digits}f}{several}"


def _process(row: Stored, name: str) -> str:
    use = row["processes"].get(name)
    return f"{use['cpu_seconds']['median']:.2f} s, {use['peak_megabytes']['median']:.0f} MB" if use else ""


def _target(target: Stored, *, judged: bool) -> list[str]:
    digits = target["digits"]
    wanted = "" if target["bound"] is None else f"{target['wanted']} {target['bound']:,.{digits}f}"
    return [target["claim"], f"{target['found']:,.{digits}f}", wanted, VERDICTS[target["met"]] if judged else ""]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> str:
    """Returns a table whose first `texts` columns are words, the others numbers."""
    rule = ["---"] * texts + ["--:"] * (len(headings) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, rule, *rows))
