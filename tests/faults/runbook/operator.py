"""docs/operations.md, read, and an operator who has nothing but it, a shell, the addresses and the tokens."""

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
from tests.faults.system_packages import require_curl
from tests.integration.scheduled_runs.harness import Harness

DOCUMENT = ROOT / "docs" / "operations.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
PARTS = ("Symptom", "Check", "Cause", "Fix", "Confirm")
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
_SHOWN_BY = re.compile(r"^Shown by \[a test\]\((\S+)\)\.$", re.MULTILINE)


@dataclass(frozen=True)
class Incident:
    """One section: its place, its heading, the text of each of PARTS, and the file of its test as it is linked."""

    number: int
    title: str
    parts: dict[str, str]
    shown_by: str

    def commands(self, part: str) -> list[str]:
        """The blocks of a part, in order."""
        return _BLOCK.findall(self.parts[part])


def incidents() -> list[Incident]:
    """All of them, in order."""
    found = []
    for section in re.split(r"^### ", TEXT.split("## Ten incidents")[1], flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        number, _, title = heading.partition(". ")
        pieces = re.split(rf"^\*\*({'|'.join(PARTS)})(?:\.\*\*|\*\*)", body, flags=re.MULTILINE)
        parts = dict(zip(pieces[1::2], pieces[2::2], strict=True))
        found.append(Incident(int(number), title, parts, "".join(_SHOWN_BY.findall(body))))
    return found


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
        self.left = {part for part in PARTS if described.commands(part)}
        self._harness = harness
        self._incident = described

    async def look_around(self) -> Seen:
        """Runs what the document says to look at before anything is known."""
        return await self._run(_BLOCK.findall(TEXT)[1])

    async def follow(self, heading: str) -> Seen:
        """Runs the commands of a section that is no incident, in order."""
        section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        return await self._run("\n".join(_BLOCK.findall(section)))

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

    async def _run_part(self, part: str) -> Seen:
        self.left.discard(part)
        return await self._run("\n".join(self._incident.commands(part)))

    async def _run(self, commands: str) -> Seen:
        """Runs the document's commands as they stand, after its first block, of which all others make use."""
        require_curl()
        script = f"{_BLOCK.findall(TEXT)[0]}\n{commands}".replace("curl -sS ", "curl -sS -w '\\n%{http_code}\\n' ")
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
    assert operator.left == set()
