"""What the README says is true: its commands run, its files are there, its names exist."""

from __future__ import annotations

import asyncio
import importlib
import os
import re

from tests.emulator.postgres import PostgresBinaries
from tests.emulator.staging import ROOT
from tests.faults.system_packages import require_curl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

README = (ROOT / "README.md").read_text(encoding="utf-8")


def code_block(language: str, containing: str) -> str:
    """The README's block that holds these words."""
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if containing in block)
    return block


async def test_the_commands_for_manual_calls_work(harness: Harness) -> None:
    require_curl()
    mentors = await harness.add_mentors(10)
    harness.engine.rules.append(rules.refuse_calls_with(mentors[:1]))
    function = await harness.start_function()
    script = code_block("bash", "INVOKE_TOKEN")
    script += 'SCHEDULED_RUN=$(psql -qAt "$DATABASE_URL" -c "select id from public.scheduler_invocations")\n'
    script += code_block("bash", "retry_of")
    assert "2026-11-23T02:00:00Z" in script
    script = script.replace("2026-11-23T02:00:00Z", harness.slot.isoformat()).replace(
        "curl ", "curl -sS -w '\\n%{http_code}\\n' "
    )

    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        env={
            "PATH": f"{PostgresBinaries.find().bin}:{os.environ['PATH']}",
            "FUNCTION_URL": function.url,
            "INVOKE_TOKEN": harness.project.invoke_token,
            "ADMIN_TOKEN": harness.project.admin_token,
            "DATABASE_URL": harness.project.database_url,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()

    assert process.returncode == 0, output
    assert re.findall(r"^\d{3}$", output, re.MULTILINE) == ["200", "200", "200", "200", "201"], output
    for shown in ('"deduplicated":false', '"deduplicated":true', '"status": "partial"', '"trigger":"retry"'):
        assert shown in output


def test_every_file_of_the_map_is_there() -> None:
    folder = ""
    for line in code_block("text", "functions/  ").splitlines():
        names = re.match(r"( *)((?:[\w./-]+ {2})*[\w./-]+)(?: {3,}|$)", line)
        assert names, line
        if not names[1]:
            folder = names[2]
            assert (ROOT / folder).is_dir(), folder
        else:
            for name in names[2].split():
                assert (ROOT / folder / name).exists(), f"{folder}{name}"


def test_the_names_of_the_source_lead_to_code() -> None:
    names = re.findall(r"^\| `[\w()-]+` \| `((?:functions|shared)\.[\w.]+)(?:\(.*\))?` \|$", README, re.MULTILINE)
    assert len(names) == 5
    for name in names:
        module, _, member = name.rpartition(".")
        if module == "functions.main":
            assert f"def {member}(" in (ROOT / "functions" / "main.py").read_text(encoding="utf-8")
        else:
            assert hasattr(importlib.import_module(module), member), name
