"""What the documents point to is there, and they name the words of the code: each of them, and no other."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shared import evaluations
from shared.errors import OUTCOME_UNKNOWN
from tests.benchmarks.scale_out import SCENARIOS
from tests.emulator.staging import ROOT

DOCS = ROOT / "docs"
DOCUMENTS = [*ROOT.glob("*.md"), *DOCS.glob("*.md"), ROOT / "tests/README.md", ROOT / "tests/emulator/README.md"]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")
CODE = "\n".join(path.read_text() for folder in ("functions", "shared") for path in (ROOT / folder).rglob("*.py"))
SQL = "\n".join(path.read_text() for path in (ROOT / "supabase" / "migrations").glob("*.sql"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    assert [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()] == []


def test_every_promise_names_a_test_that_shows_it() -> None:
    text = (DOCS / "reliability.md").read_text()
    promised = text.split("## What is promised")[1].split("## What a fault costs")[0]
    promises = re.split(r"^(?=\*\*)", promised, flags=re.MULTILINE)[1:]
    assert [promise[:80] for promise in promises if not re.search(r"Shown by[^*]*\]\(\.\./tests/", promise)] == []


def test_the_sizing_document_has_the_figures_of_eight_processes() -> None:
    results = json.loads((DOCS / "benchmarks" / "results.json").read_text())
    rows = {row["label"]: row["figures"] for row in results["sections"]["scale-out"]["rows"]}
    text = (DOCS / "deployment.md").read_text()
    for scenario in SCENARIOS:
        found = rows[f"{scenario.name}: 8 processes"]
        shares = (found[name]["median"] for name in ("share_of_linear", "independent_share", "machine_share"))
        assert f"| {scenario.name} | {' | '.join(f'{share:.2f}' for share in shares)} |" in text


def test_every_metric_is_documented_and_no_other() -> None:
    measured = re.findall(r'(?:meter\.create_\w+|histogram)\(\s*"([a-z._]+)"', CODE)
    metrics = (DOCS / "observability.md").read_text().split("## Metrics")[1].split("## Delivery of measurements")[0]
    assert sorted(re.findall(r"^\| `([a-z._]+)` \|", metrics, re.MULTILINE)) == sorted(measured)


def column(heads: str) -> set[str]:
    """The words in a column of docs/operations.md: of the table whose first columns have these heads, in the last."""
    wanted = heads.split()
    for table in re.findall(r"((?:^\|.*\n)+)", (DOCS / "operations.md").read_text(), re.MULTILINE):
        head, _, *rows = ([cell.strip().strip("`") for cell in row.split("|")[1:-1]] for row in table.splitlines())
        if head[: len(wanted)] == wanted:
            words = {re.sub("(: )?…", "", row[len(wanted) - 1]) for row in rows}
            return words - {"", "any other"}
    raise AssertionError(f"no table that begins with {heads}")


def in_constraint(name: str) -> set[str]:
    """The texts that a CHECK constraint allows."""
    (check,) = re.findall(rf"constraint {name} check \((.*?)\)\s*[,)]", SQL, re.DOTALL)
    return set(re.findall(r"'(\w+)'", check))


CAUSES = r'(?:(?:Engine|_Unsettled)\w*Error\(\s*|fail_unresolved\(|code else |\bcode = f|OUTCOME_UNKNOWN = )"([a-z_]+)'
DISPATCH_ERRORS = r"(?:v_error :=|error = coalesce\(error,) '(\w+)(?:: )?'"


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ("status", in_constraint("status_is_known")),
        ("error_code", in_constraint("error_code_is_known")),
        ("code", set(re.findall(CAUSES, CODE))),
        (
            "reason",
            {text for name, text in vars(evaluations).items() if name.isupper() and isinstance(text, str)}
            | {OUTCOME_UNKNOWN},
        ),
        ("status_code error", set(re.findall(DISPATCH_ERRORS, SQL))),
    ],
)
def test_the_operations_document_explains_every_word_and_no_other(heads: str, words: set[str]) -> None:
    assert len(words) >= 3
    assert column(heads) == words
