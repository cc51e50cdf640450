"""An operator who has nothing but the document, a shell, the addresses and the tokens."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.emulator.function import FunctionProcess
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.staging import ROOT
from tests.faults.runbook.runbook import PARTS, Incident, blocks, incidents
from tests.faults.system_packages import require_curl
from tests.integration.scheduled_runs.harness import Harness


@dataclass(frozen=True)
class Seen:
    """What commands printed: all of it; what the API said, in order; the statuses of those answers."""

    text: str
    answers: list[dict[str, Any]]
    statuses: list[int]


class Operator:
    """Runs the commands of one section against a function, which may be replaced by another instance."""

    def __init__(self, harness: Harness, described: Incident, function: FunctionProcess) -> None:
        self.function = function
        self.mentor: str | None = None
        self._harness = harness
        self._incident = described
        self._left = set(PARTS)

    async def look_around(self) -> Seen:
        """Runs what the document says to look at before anything is known."""
        return await self._run(blocks()[1])

    async def check(self, *symptom: str) -> Seen:
        """Runs what is under "Check"; the document names each word of the symptom, and the commands show it."""
        seen = await self._run_part("Check")
        for word in symptom:
            assert f"`{word}`" in self._incident.parts["Symptom"], f"the document does not say {word!r}"
            assert word in seen.text, seen.text
        return seen

    async def fix(self) -> Seen:
        return await self._run_part("Fix")

    async def confirm(self) -> Seen:
        return await self._run_part("Confirm")

    def assert_nothing_is_left(self) -> None:
        """Every command of the section was run."""
        left = [part for part in self._left if self._incident.commands(part)]
        assert not left, left

    async def _run_part(self, part: str) -> Seen:
        self._left.discard(part)
        return await self._run("\n".join(self._incident.commands(part)))

    async def _run(self, commands: str) -> Seen:
        """Runs the document's commands as they stand, after its preamble."""
        require_curl()
        script = f"{blocks()[0]}\n{commands}".replace("curl -sS ", "curl -sS -w '\\n%{http_code}\\n' ")
        project = self._harness.project
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", script),
            env={
                "PATH": f"{PostgresBinaries.find().bin}:{os.environ['PATH']}",
                "FUNCTION_URL": self.function.url,
                "INVOKE_TOKEN": project.invoke_token,
                "ADMIN_TOKEN": project.admin_token,
                "DATABASE_URL": project.database_url,
                **({"MENTOR": self.mentor} if self.mentor else {}),
            },
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
        return Seen(
            text=output,
            answers=[json.loads(line) for line in output.splitlines() if line.startswith("{")],
            statuses=[int(line) for line in re.findall(r"^(\d{3})$", output, re.MULTILINE)],
        )


@asynccontextmanager
async def incident(title: str, harness: Harness, function: FunctionProcess) -> AsyncIterator[Operator]:
    """An operator for the section of this title, who has run every command of it in the end."""
    (described,) = (one for one in incidents() if one.title == title)
    operator = Operator(harness, described, function)
    yield operator
    operator.assert_nothing_is_left()
