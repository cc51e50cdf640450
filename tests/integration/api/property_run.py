"""Has schemathesis ask the running function whatever its OpenAPI document allows, and what it forbids.

It runs in a process of its own, through its command: it is synchronous, and so it also reads the document over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class PropertyRun:
    """What a run came to.

    Args:
        exit_code: 0: nothing was found.
        output: what it said, with a curl line for each failure.
        answers: how often each (phase, operation, status) was answered; an operation is `GET /health`.
        followed: the links of the document that led from one answer to the next request, by their names.
    """

    exit_code: int
    output: str
    answers: Counter[tuple[str, str, int]]
    followed: set[str]

    def operations(self, phase: str) -> set[str]:
        """The operations that answered in this phase."""
        return {operation for asked_in, operation, _ in self.answers if asked_in == phase}


async def run_schemathesis(
    function_url: str,
    *,
    admin_token: str,
    dictionaries: Mapping[str, Iterable[str]],
    phases: Iterable[str],
    folder: Path,
) -> PropertyRun:
    """Runs these phases with every check.

    Args:
        function_url: where the function is.
        admin_token: what it asks with.
        dictionaries: what exists, by the name under which schemathesis.toml looks for it.
        phases: some of examples, coverage, fuzzing, stateful.
        folder: where it may write; empty.
    """
    shutil.copy(HERE / "schemathesis.toml", folder)
    for name, values in dictionaries.items():
        (folder / f"{name}.dict").write_text("".join(f'"{value}"\n' for value in values))
    report = folder / "events.ndjson"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", folder / "schemathesis.toml"),
        *("run", f"{function_url}/openapi.json", "--checks", "all", "--phases", ",".join(phases)),
        *("--report-ndjson-path", report, "--no-color"),
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "ADMIN_TOKEN": admin_token,
            "SCHEMATHESIS_HOOKS": str(HERE / "documented_refusals.py"),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return PropertyRun(process.returncode, output.decode(), *_read_events(report))


def _read_events(report: Path) -> tuple[Counter[tuple[str, str, int]], set[str]]:
    answers: Counter[tuple[str, str, int]] = Counter()
    followed: set[str] = set()
    for line in report.read_text().splitlines() if report.exists() else ():
        scenario: dict[str, Any] | None = json.loads(line).get("ScenarioFinished")
        if scenario is None:
            continue
        recorder = scenario["recorder"]
        for case_id, case in recorder.get("cases", {}).items():
            answer = recorder.get("interactions", {}).get(case_id, {}).get("response")
            if answer is None:
                continue
            operation = f"{case['value']['method']} {case['value']['path']}"
            answers[scenario["phase"], operation, answer["status_code"]] += 1
            if case.get("is_transition_applied"):
                followed.add(case["transition"]["id"])
    return answers, followed
