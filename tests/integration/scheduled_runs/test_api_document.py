"""What docs/api.md and the README say is true: their commands run in order, and answers have the members shown."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from functions.http.schemas import RunSummary, ScheduleState
from shared.audit import AuditEntry
from shared.invocation import BatchResult, Counts, FailureCause, InvocationDetail, InvocationSummary
from shared.pauses import Pause
from shared.scenario_table import EffectiveConfig, ScenarioConfig
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.staging import ROOT
from tests.faults.system_packages import require_curl
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

TEXT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
# Each in the order of the document; the first block sets variables and answers nothing.
STATUSES = [*[200] * 8, 201, 201, 202, 201, 200, 204, *[200] * 10]


def examples() -> list[tuple[str, Any]]:
    """The commands, and the answer that is shown after each, None where there is none."""
    blocks = re.findall(r"^```(bash|json)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return [
        (text, json.loads(following[1]) if following[0] == "json" else None)
        for (language, text), following in pairwise([*blocks, ("", "")])
        if language == "bash"
    ]


async def run(script: str, harness: Harness, variables: Mapping[str, str]) -> str:
    """Returns what the commands print, with the status of each answer on a line of its own."""
    require_curl()
    script = script.replace("2026-11-23T02:00:00Z", harness.slot.isoformat())
    script = script.replace("curl ", "curl -sS -w '\\n%{http_code}\\n' ")
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        env={
            "PATH": f"{PostgresBinaries.find().bin}:{os.environ['PATH']}",
            "INVOKE_TOKEN": harness.project.invoke_token,
            "ADMIN_TOKEN": harness.project.admin_token,
            "DATABASE_URL": harness.project.database_url,
            **variables,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


def members(shown: Any, found: Any, where: str) -> None:
    """Fails where `found` lacks what is shown. What maps a chosen name to a value may have other names."""
    if isinstance(shown, dict):
        assert isinstance(found, dict), where
        if not where.endswith(("scenarios", "milestone")):
            assert shown.keys() <= found.keys(), where
        for name in shown.keys() & found.keys():
            members(shown[name], found[name], f"{where}.{name}")
    elif isinstance(shown, list) and shown:
        assert found, where
        members(shown[0], found[0], f"{where}[0]")
    elif shown is not None and found is not None:
        assert type(shown) is type(found), (where, found)


async def test_the_examples_work(harness: Harness) -> None:
    mentors = await harness.add_mentors(10)
    harness.engine.rules.append(rules.refuse_calls_with(mentors[:1]))
    function = await harness.start_function()
    (preamble, _), *others = examples()
    variables = {"FUNCTION_URL": function.url, "MENTOR": mentors[0]}
    await harness.execute(
        b"insert into scheduler.dispatches (requested_at, ended_at, status_code) values (now(), now(), 200)"
    )

    for (command, shown), expected in zip(others, STATUSES, strict=True):
        body, status = (await run(preamble + command, harness, variables))[:-1].rsplit("\n", 1)
        answer = json.loads(body) if body.startswith("{") else {}
        assert int(status) == expected, (command, answer)
        if shown is not None:
            members(shown, answer, "answer")
        for shown_run in (one for one in (answer, *answer.get("data", ())) if "trigger" in one):
            name = "SCHEDULED_RUN" if shown_run["trigger"] == "schedule" else "RUN"
            # A retry ends at once; the run to be cancelled and deleted is the one that is not worked on.
            if name not in variables or shown_run["trigger"] == "manual":
                variables[name] = shown_run["id"]


def test_the_examples_show_every_member() -> None:
    summary, page, *_ = shown = [answer for _, answer in examples() if answer]
    assert list(summary) == list(RunSummary.model_fields)
    (listed,) = page["data"]
    assert listed.keys() == InvocationSummary.model_fields.keys()
    assert list(listed["counts"]) == list(Counts.model_fields)
    detail = next(answer for answer in shown if "failures" in answer)
    assert detail.keys() == {"id"} | (InvocationDetail.model_fields.keys() - InvocationSummary.model_fields.keys())
    assert list(detail["failures"][0]) == list(FailureCause.model_fields)
    assert list(detail["batch_results"][0]) == list(BatchResult.model_fields)
    configs, state, paused = [answer for answer in shown if "evaluation_schedule" in answer]
    assert list(state) == list(paused) == list(ScheduleState.model_fields)
    assert list(paused["pause"]) == list(Pause.model_fields)
    changed = next(answer for answer in shown if answer.get("organization"))
    for entry in (*configs["data"], changed):
        assert list(entry) == list(ScenarioConfig.model_fields)
        assert list(entry["effective"]) == list(EffectiveConfig.model_fields)
    audit = next(answer for answer in shown if "actor" in answer.get("data", [{}])[0])
    assert list(audit["data"][0]) == list(AuditEntry.model_fields)


def test_every_code_that_the_source_answers_is_in_the_table() -> None:
    written = set(re.findall(r"`([a-z_]+)`", TEXT[TEXT.index("## Errors") :]))
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "functions").rglob("*.py"))
    answered = set(re.findall(r'(?:problem|RequestError)\(\s*(?:error\.)?\d{3},\s*"([a-z_]+)"', source))
    answered |= set(re.findall(r'\d{3}: \("([a-z_]+)",', source)) | set(re.findall(r'\(\d{3}, "([a-z_]+)", "', source))
    errors = (ROOT / "shared" / "errors.py").read_text(encoding="utf-8")
    answered |= set(re.findall(r'^    event = "([a-z_]+)"$', errors, re.MULTILINE))
    assert len(answered) > 15
    assert answered <= written, answered - written


def block_of_readme(language: str, containing: str) -> str:
    blocks: list[str] = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if containing in block)
    return block


async def test_the_readmes_commands_for_manual_calls_work(harness: Harness) -> None:
    mentors = await harness.add_mentors(10)
    harness.engine.rules.append(rules.refuse_calls_with(mentors[:1]))
    function = await harness.start_function()
    script = block_of_readme("bash", "INVOKE_TOKEN")
    script += 'SCHEDULED_RUN=$(psql -qAt "$DATABASE_URL" -c "select id from public.scheduler_invocations")\n'
    script += block_of_readme("bash", "retry_of")
    assert "2026-11-23T02:00:00Z" in script
    output = await run(script, harness, {"FUNCTION_URL": function.url})
    assert re.findall(r"^\d{3}$", output, re.MULTILINE) == ["200", "200", "200", "200", "201"], output
    for shown in ('"deduplicated":false', '"deduplicated":true', '"status": "partial"', '"trigger":"retry"'):
        assert shown in output


def test_every_file_and_name_in_the_readme_is_there() -> None:
    folder = ""
    for indent, name in re.findall(r"^( *)([\w./]+) ", block_of_readme("text", "functions/  "), re.MULTILINE):
        folder = folder if indent else name
        assert (ROOT / (folder + name if indent else name)).exists(), name
    names = re.findall(r"^\| `[\w()-]+` \| `((?:functions|shared)\.[\w.]+)(?:\(.*\))?` \|$", README, re.MULTILINE)
    assert len(names) == 5
    for name in names:
        module, _, member = name.rpartition(".")
        if module == "functions.main":
            # importing it would start the function
            assert f"def {member}(" in (ROOT / "functions" / "main.py").read_text(encoding="utf-8")
        else:
            assert hasattr(importlib.import_module(module), member), name
