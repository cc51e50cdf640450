"""What the documents point to is there: a promise is worth no more than the test that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.emulator.staging import ROOT

DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "tests" / "README.md",
    ROOT / "tests" / "emulator" / "README.md",
]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)[^)]*\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = [link for link in LINK.findall(document.read_text()) if not (document.parent / link).exists()]
    assert broken == []


def test_every_promise_names_a_test_that_shows_it() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    promised = text.split("## What is promised")[1].split("## What a fault costs")[0]
    promises = re.split(r"^(?=\*\*)", promised, flags=re.MULTILINE)[1:]
    assert len(promises) >= 7
    for promise in promises:
        assert "Shown by" in promise, promise[:80]
        assert "](../tests/" in promise.replace("\n", " "), promise[:80]


def test_every_metric_is_documented_and_no_other() -> None:
    code = (ROOT / "shared" / "telemetry.py").read_text()
    measured = set(re.findall(r'meter\.create_\w+\(\s*"([a-z._]+)"', code))
    assert len(measured) >= 7
    metrics = (ROOT / "docs" / "observability.md").read_text().split("## Metrics")[1].split("## What it costs")[0]
    assert set(re.findall(r"^\| `([a-z._]+)` \|", metrics, re.MULTILINE)) == measured
