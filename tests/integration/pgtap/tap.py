"""Reads what a pgTAP file answers: the Test Anything Protocol, as far as pgTAP speaks it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

PLAN = re.compile(r"1\.\.(\d+)")
RESULT = re.compile(r"(?P<not>not )?ok (?P<number>\d+)\b")


@dataclass(frozen=True)
class TapReport:
    """How many tests were planned (None: nobody said), how many passed, and all that speaks against it."""

    planned: int | None
    passed: int
    complaints: tuple[str, ...]


def read_tap(answers: Iterable[str]) -> TapReport:
    """Reads a file's answers, each of one or several lines, in their order.

    A test that is expected to fail, or skipped, counts as what it says: `not ok` is a failure whatever stands behind.
    """
    planned: int | None = None
    ran = 0
    passed = 0
    complaints: list[str] = []
    for answer in answers:
        first, _, diagnostics = answer.strip().partition("\n")
        if plan := PLAN.fullmatch(first):
            if planned is not None:
                complaints.append(f"a second plan: {first}")
            planned = int(plan[1])
        elif result := RESULT.match(first):
            ran += 1
            if int(result["number"]) != ran:
                complaints.append(f"expected test {ran}, found: {first}")
            if result["not"]:
                complaints.append(f"{first}\n{diagnostics}".rstrip())
            else:
                passed += 1
        elif first.startswith("Bail out!"):
            complaints.append(first)
    if planned != ran:
        complaints.append(f"planned {planned} tests, ran {ran}")
    if not ran:
        complaints.append("nothing was tested")
    return TapReport(planned, passed, tuple(complaints))
