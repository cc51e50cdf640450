"""The OpenAPI document says what is: whatever it allows and whatever it forbids, asked by schemathesis."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

from tests.integration.api.served import API, Served
from tests.scripted_engine import rules

HERE = Path(__file__).parent


async def test_every_operation_keeps_to_the_document(served: Served, tmp_path: Path) -> None:
    night, waits = served.night, {"Prefer": "respond-async"}
    assert (await night.fire(served.function)).json()["status"] == "succeeded"
    # That a run ended well is remembered for half a minute, and so is that none did.
    assert (await served.call("GET", "/health/last-run", token="")).status_code == 200
    night.engine.rules = [rules.refuse_calls_with({night.mentors[0]})]
    await served.open_run()
    night.engine.rules = []
    await served.open_run({"note": "waits"}, headers=waits)
    given_up = await served.open_run({"dry_run": True}, headers=waits)
    assert (await served.call("PUT", f"{API}/{given_up}", json={"status": "cancelled"})).status_code == 200
    runs = await night.invocations()
    assert {run["status"] for run in runs} == {"succeeded", "partial", "pending", "cancelled"}
    pages = [await served.call("GET", f"{API}{path}?limit=2") for path in ("", "/active-peer-mentors")]
    # What exists, by the names under which schemathesis.toml looks for it.
    for name, values in {
        "mentors": night.mentors,
        "invocations": [run["id"] for run in runs],
        "cursors": [page.json()["next_cursor"] for page in pages],
    }.items():
        (tmp_path / f"{name}.dict").write_text("".join(f'"{value}"\n' for value in values))
    shutil.copy(HERE / "schemathesis.toml", tmp_path)

    # In a process of its own: it is synchronous, and so it also reads the document over HTTP.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", tmp_path / "schemathesis.toml"),
        *("run", f"{served.function.url}/openapi.json", "--checks", "all", "--no-color"),
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ADMIN_TOKEN": night.project.admin_token,
            "SCHEMATHESIS_HOOKS": str(HERE / "documented_refusals.py"),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()

    assert process.returncode == 0, output
    assert "Stateful" in output, output
    assert served.defects() == []
    assert night.engine.violations == []
