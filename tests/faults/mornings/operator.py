"""Somebody who has nothing but the document, a shell, the addresses and the tokens."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.emulator.function import FunctionProcess
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.staging import ROOT
from tests.faults.mornings.runbook import PARTS, Morning, blocks, morning_called
from tests.faults.system_packages import require_curl
from tests.integration.nightly.night import Night


@dataclass(frozen=True)
class Seen:
    """What commands printed.

    Args:
        text: all of it.
        answers: what the API said, in order.
        statuses: of those answers.
    """

    text: str
    answers: list[dict[str, Any]]
    statuses: list[int]


class Operator:
    """Lives through one morning.

    Args:
        night: the project.
        morning: what the document says of it.
        function: whom the commands call; may be replaced by another instance.
    """

    def __init__(self, night: Night, morning: Morning, function: FunctionProcess) -> None:
        self.function = function
        self.mentor: str | None = None
        self._night = night
        self._morning = morning
        self._left = {part: set(range(len(morning.commands(part)))) for part in PARTS}

    async def look_around(self) -> Seen:
        """Runs what the document says to look at before anything is known."""
        return await run_commands(blocks()[1], self._night, self.function)

    async def look(self, *symptom: str) -> Seen:
        """Runs what is under "Look"; the document names each word of the symptom, and the commands show it."""
        seen = await self._run("Look")
        for word in symptom:
            assert f"`{word}`" in self._morning.parts["Symptom"], f"the document does not say {word!r}"
            assert word in seen.text, seen.text
        return seen

    async def press(self, *some: int) -> Seen:
        """Runs what is under "Press", or some blocks of it."""
        return await self._run("Press", *some)

    async def see_that_it_is_mended(self) -> Seen:
        return await self._run("Mended")

    def leave_out(self, part: str, block: int) -> None:
        """This way to mend it is for another case of the same morning."""
        self._left[part].discard(block)

    def assert_nothing_is_left(self) -> None:
        """Every command of the morning was run."""
        assert not any(self._left.values()), self._left

    async def _run(self, part: str, *some: int) -> Seen:
        commands = self._morning.commands(part)
        chosen = some or range(len(commands))
        self._left[part] -= set(chosen)
        return await run_commands(
            "\n".join(commands[block] for block in chosen),
            self._night,
            self.function,
            {"MENTOR": self.mentor} if self.mentor else {},
        )


@asynccontextmanager
async def living_through(title: str, night: Night, function: FunctionProcess) -> AsyncIterator[Operator]:
    """An operator in the morning of this title, who has run every command of it in the end."""
    operator = Operator(night, morning_called(title), function)
    yield operator
    operator.assert_nothing_is_left()


async def run_commands(
    commands: str, night: Night, function: FunctionProcess, variables: Mapping[str, str] | None = None
) -> Seen:
    """Runs the document's commands as they stand, after its preamble."""
    require_curl()
    script = f"{blocks()[0]}\n{commands}".replace("curl -sS ", "curl -sS -w '\\n%{http_code}\\n' ")
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        env={
            "PATH": f"{PostgresBinaries.find().bin}:{os.environ['PATH']}",
            "FUNCTION_URL": function.url,
            "INVOKE_TOKEN": night.project.invoke_token,
            "ADMIN_TOKEN": night.project.admin_token,
            "DATABASE_URL": night.project.database_url,
            **(variables or {}),
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
