"""Reads what a pgTAP file answers: the Test Anything Protocol, as far as pgTAP speaks it."""

from __future__ import annotations

import re
from collections.abc import Iterable

PLAN = re.compile(r"1\.\.(\d+)")
RESULT = re.compile(r"(?P<not>not )?ok \d+\b")


def complaints_of(answers: Iterable[str]) -> list[str]:
    """All that speaks against a file's answers, each of one or several lines."""
    planned: list[int] = []
    ran = 0
    complaints: list[str] = []
    for answer in answers:
        first, _, diagnostics = answer.strip().partition("\n")
        if plan := PLAN.fullmatch(first):
            planned.append(int(plan[1]))
        elif result := RESULT.match(first):
            ran += 1
            # also where it is expected to fail, or skipped
            if result["not"]:
                complaints.append(f"{first}\n{diagnostics}".rstrip())
        elif first.startswith("Bail out!"):
            complaints.append(first)
    if planned != [ran] or not ran:
        complaints.append(f"planned {planned} tests, ran {ran}")
    return complaints
