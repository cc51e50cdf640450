"""The OpenAPI document is true, in what it allows and in what it forbids: schemathesis sends both."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from shared.scenario_types import DEFAULT_SCENARIO_TYPES, ScenarioType
from tests.integration.manual.caller import Caller
from tests.integration.scheduled_runs.harness import Harness
from tests.scripted_engine import rules

HERE = Path(__file__).parent
SPARE_TYPE = ScenarioType(type="spare", segments=frozenset({"no mentor's"}))


async def test_every_operation_keeps_to_the_document(harness: Harness, tmp_path: Path) -> None:
    await harness.add_mentors(12)
    types = [each.model_dump(mode="json") for each in (*DEFAULT_SCENARIO_TYPES, SPARE_TYPE)]
    function = await harness.start_function({"SCENARIO_TYPES": json.dumps(types)})
    caller = Caller(harness, function)
    assert (await harness.fire(function)).json()["status"] == "success"
    # That a run ended well is remembered for half a minute, and so is that none did.
    assert (await caller.call("GET", "/health/last-run", token="")).status_code == 200
    harness.engine.rules = [rules.refuse_calls_with({harness.mentors[0]})]
    await caller.run()
    harness.engine.rules = []
    await caller.ask({"note": "waits"}, prefer="respond-async")
    await caller.cancel((await caller.ask({"dry_run": True}, prefer="respond-async")).json()["id"])
    runs = await harness.invocations()
    assert {run["status"] for run in runs} == {"success", "partial", "pending", "cancelled"}
    pages = [await caller.page(path, limit=2) for path in ("", "/active-peer-mentors")]
    # What exists, by the names under which schemathesis.toml looks for it.
    for name, values in {
        "mentors": harness.mentors,
        "invocations": [run["id"] for run in runs],
        "cursors": [page["pagination"]["next_cursor"] for page in pages],
    }.items():
        (tmp_path / f"{name}.dict").write_text("".join(f'"{value}"\n' for value in values))
    shutil.copy(HERE / "schemathesis.toml", tmp_path)

    # In a process of its own: it is synchronous, and so it also reads the document over HTTP.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", tmp_path / "schemathesis.toml"),
        *("run", f"{function.url}/openapi.json", "--checks", "all", "--no-color"),
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ADMIN_TOKEN": harness.project.admin_token,
            "SCHEMATHESIS_HOOKS": str(HERE / "documented_refusals.py"),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()

    assert process.returncode == 0, output
    assert "Stateful" in output, output
    lines = harness.log_lines(function)
    assert [line for line in lines if line["severity"] not in ("DEBUG", "INFO", "WARNING")] == []
    assert harness.engine.violations == []
    configured = await harness.rows(b"select scenario_type from public.scenario_evaluation_config")
    assert (SPARE_TYPE.type,) in configured
