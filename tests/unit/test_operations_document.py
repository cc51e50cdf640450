"""docs/operations.md names every status, error and cause that the code knows, no other; mornings have their tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.emulator.staging import ROOT
from tests.faults.mornings.runbook import DOCUMENT, PARTS, blocks, mornings, text
from tests.unit.failure_codes import failure_codes, skip_codes

MORNINGS = ROOT / "tests" / "faults" / "mornings"
# The table's row for what is somebody else's.
ANY_OTHER = "any other"


def column(section: str, header: str) -> list[str]:
    """A column of the table with this header in a section, backquotes taken off, without rows where it is empty."""
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## )", text(), re.DOTALL | re.MULTILINE)
    for table in re.findall(r"((?:^\|.*\n)+)", body, re.MULTILINE):
        rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines()]
        if f"`{header}`" in rows[0]:
            place = rows[0].index(f"`{header}`")
            return [row[place].strip("`") for row in rows[2:] if row[place]]
    raise AssertionError(f"{section}: no table with a column {header}")


def migrations() -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / "supabase" / "migrations").glob("*.sql")))


def texts_of_constraint(name: str) -> set[str]:
    """The texts that a CHECK constraint of the tables allows."""
    (check,) = re.findall(rf"constraint {name} check \((.*?)\)\s*[,)]", migrations(), re.DOTALL)
    return set(re.findall(r"'(\w+)'", check))


def test_every_status_is_explained() -> None:
    documented = column("What a status means", "status")
    assert len(documented) == len(set(documented))
    assert set(documented) == texts_of_constraint("status_is_known")


def test_every_error_of_a_run_is_explained() -> None:
    assert sorted(column("What a run's `error` means", "error")) == sorted(texts_of_constraint("error_is_known"))


def test_every_cause_of_a_failure_is_explained() -> None:
    assert {"worker_lost", "engine_failed", "engine_http_…"} <= failure_codes(), "the code is not read as it is written"
    assert sorted(column("Why somebody failed", "code")) == sorted(failure_codes() | {ANY_OTHER})


def test_every_reason_to_skip_somebody_is_explained() -> None:
    assert sorted(column("Why somebody failed", "error_code")) == sorted(skip_codes())


def test_every_error_of_a_dispatch_is_explained() -> None:
    given = re.findall(r"(?:v_error :=|error = coalesce\(error,) '(\w+)(: )?'", migrations())
    assert len(given) == 3
    codes = {f"{code}: …" if more else code for code, more in given}
    assert sorted(column("What the clock was answered", "error")) == sorted(codes | {ANY_OTHER})


def test_there_are_ten_mornings_each_with_all_of_its_parts() -> None:
    assert [morning.number for morning in mornings()] == list(range(1, 11))
    for morning in mornings():
        assert tuple(morning.parts) == PARTS, morning.title
        assert all(morning.commands(part) for part in ("Look", "Press", "Mended")), morning.title


def test_there_are_no_commands_that_no_test_runs() -> None:
    """What comes before the mornings is what each test runs first, and what one of them looks around with."""
    of_mornings = [command for morning in mornings() for part in PARTS for command in morning.commands(part)]
    assert blocks()[2:] == of_mornings
    assert "NIGHT=" in blocks()[0]
    assert len(re.findall(r"^```", text(), re.MULTILINE)) == 2 * len(blocks())


def test_every_morning_names_the_file_of_its_test_and_every_test_has_its_morning() -> None:
    tests = {
        node.name: path
        for path in MORNINGS.glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    named = {morning.test_name: (DOCUMENT.parent / morning.shown_by).resolve() for morning in mornings()}
    assert named == {name: Path(path) for name, path in tests.items()}


def test_links_within_the_document_lead_to_its_headings() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text(), re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text())) <= headings
