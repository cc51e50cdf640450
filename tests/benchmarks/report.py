"""Results as tables: on a terminal, and in a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from .figure_names import FIGURES
from .results import Results, SectionResult
from .section import Row, Target

QUICK = "Quick: loads are far too small for these figures to mean anything."
VERDICTS = {True: "met", False: "NOT MET", None: ""}


@dataclass(frozen=True)
class Table:
    """Texts in rows; the first `texts` columns are words, the others numbers."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int

    def to_markdown(self) -> str:
        """As GitHub reads it."""
        rule = ["---"] * self.texts + ["--:"] * (len(self.headings) - self.texts)
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.headings, rule, *self.rows))

    def to_rich(self) -> RichTable:
        """As a terminal shows it."""
        table = RichTable(box=SIMPLE_HEAD, pad_edge=False)
        for number, heading in enumerate(self.headings):
            table.add_column(heading, justify="left" if number < self.texts else "right")
        for row in self.rows:
            table.add_row(*row)
        return table


def figures_tables(rows: Sequence[Row]) -> list[Table]:
    """Returns a table for those rows that follow one another and have the same figures, or some of them."""
    groups: list[list[Row]] = []
    for row in rows:
        before = groups[-1][-1].figures.keys() if groups else set()
        if groups and (row.figures.keys() <= before or row.figures.keys() >= before):
            groups[-1].append(row)
        else:
            groups.append([row])
    return [_figures_table(group) for group in groups]


def _figures_table(rows: Sequence[Row]) -> Table:
    """Medians, with the least and the greatest value."""
    names = [name for name in FIGURES if any(name in row.figures for row in rows)]
    return Table(
        ["contender", "load", *(FIGURES[name].heading for name in names)],
        [
            [
                row.contender,
                row.label,
                *(FIGURES[name].write(row.figures[name]) if name in row.figures else "" for name in names),
            ]
            for row in rows
        ],
        texts=2,
    )


def processes_table(rows: Sequence[Row]) -> Table | None:
    """What those used who worked for the contenders; None where nobody looked."""
    names = list(dict.fromkeys(name for row in rows for name in row.processes))
    if not names:
        return None
    return Table(
        ["contender", "load", *names],
        [
            [
                row.contender,
                row.label,
                *(
                    f"{uses['cpu_seconds'].median:.2f} s, {uses['peak_megabytes'].median:.0f} MB"
                    if (uses := row.processes.get(name))
                    else ""
                    for name in names
                ),
            ]
            for row in rows
            if row.processes
        ],
        texts=2,
    )


def targets_table(targets: Sequence[Target], *, judged: bool) -> Table:
    """What was to be reached and, unless it means nothing, whether it was."""
    return Table(
        ["target", "found", "wanted", ""],
        [
            [
                target.claim,
                f"{target.found:,.{target.digits}f}",
                target.wanted,
                VERDICTS[target.met] if judged else "",
            ]
            for target in targets
        ],
        texts=1,
    )


def print_section(console: Console, result: SectionResult) -> None:
    """A section's tables, as soon as it is through."""
    console.print()
    console.rule(f"{result.name}: {result.title}", align="left")
    if result.quick:
        console.print(QUICK)
    for table in figures_tables(result.measured.rows):
        console.print(table.to_rich())
    if result.measured.targets:
        console.print(targets_table(result.measured.targets, judged=not result.quick).to_rich())
    for note in result.measured.notes:
        console.print(f"- {note}", highlight=False)


def to_markdown(results: Results) -> str:
    """The whole report."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    parts = [
        "# Benchmark",
        "Written by `make bench`. How it is measured and how to read it stands in `tests/benchmarks/README.md`. Figures"
        " are medians of the rounds, with the least and the greatest in brackets. Compare them within a section.",
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gigabytes']} GB, {machine['system']};"
        f" {versions}.",
        "![The figures in a chart](chart.png)",
    ]
    for result in results.sections.values():
        parts += _section_markdown(result)
    return "\n\n".join(parts) + "\n"


def _section_markdown(result: SectionResult) -> list[str]:
    measured = result.measured
    rounds = "one round" if result.rounds == 1 else f"{result.rounds} rounds"
    parts = [
        f"## {result.name}: {result.title}",
        result.about,
        f"{result.started_at}, {rounds}{f', commit {result.commit}' if result.commit else ''}."
        + (f" **{QUICK}**" if result.quick else ""),
    ]
    if measured.targets:
        parts.append(targets_table(measured.targets, judged=not result.quick).to_markdown())
    parts += [table.to_markdown() for table in figures_tables(measured.rows)]
    processes = processes_table(measured.rows)
    if processes is not None:
        parts += ["Who worked for them, CPU and peak memory:", processes.to_markdown()]
    if measured.notes:
        parts.append("\n".join(f"- {note}" for note in measured.notes))
    return parts
