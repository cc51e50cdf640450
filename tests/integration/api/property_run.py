"""Has schemathesis ask the running function whatever its OpenAPI document allows, and what it forbids.

It runs in a process of its own, through its command: it is synchronous, and so it also reads the document over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent


@dataclass
class PropertyRun:
    """The exit code (0: nothing was found), what it said, and what was answered.

    `statuses` has those of each (phase, operation), an operation is `GET /health`; `followed` the links of the document
    that led from an answer to the next request, by their names.
    """

    exit_code: int
    output: str
    statuses: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    followed: set[str] = field(default_factory=set)

    def operations(self, phase: str) -> set[str]:
        """The operations that answered in this phase."""
        return {operation for asked_in, operation in self.statuses if asked_in == phase}

    def read_events(self, report: Path) -> None:
        """Reads what schemathesis kept."""
        for line in report.read_text().splitlines():
            recorder = json.loads(line).get("ScenarioFinished", {"phase": "", "recorder": {}})
            for case_id, case in recorder["recorder"].get("cases", {}).items():
                answer = recorder["recorder"].get("interactions", {}).get(case_id, {}).get("response")
                if answer is not None:
                    operation = f"{case['value']['method']} {case['value']['path']}"
                    self.statuses.setdefault((recorder["phase"], operation), set()).add(answer["status_code"])
                    if case.get("is_transition_applied"):
                        self.followed.add(case["transition"]["id"])


async def run_schemathesis(
    function_url: str, *, admin_token: str, dictionaries: Mapping[str, Iterable[str]], folder: Path
) -> PropertyRun:
    """Runs all phases with every check, in an empty folder.

    `dictionaries` say what exists, by the name under which schemathesis.toml looks for it.
    """
    shutil.copy(HERE / "schemathesis.toml", folder)
    for name, values in dictionaries.items():
        (folder / f"{name}.dict").write_text("".join(f'"{value}"\n' for value in values))
    report = folder / "events.ndjson"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", folder / "schemathesis.toml"),
        *("run", f"{function_url}/openapi.json", "--checks", "all", "--report-ndjson-path", report, "--no-color"),
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
    run = PropertyRun(process.returncode or 0, output.decode())
    if report.exists():
        run.read_events(report)
    return run
