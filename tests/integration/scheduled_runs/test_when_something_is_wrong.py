"""Wrong settings and keys are named, with the right status, and nothing is half-written."""

from __future__ import annotations

import asyncio
import os
import sys

from tests.emulator.staging import ROOT
from tests.integration.project_logs import secrets_of
from tests.integration.scheduled_runs.harness import Harness
from tests.secret_scan import leaks_in


async def test_bad_settings_are_all_named_and_nothing_starts(harness: Harness) -> None:
    secret = "too-short-a-secret"
    env = harness.project.function_env(harness.engine.url) | {
        "SUPABASE_URL": "",
        "SCHEDULER_INVOKE_TOKENS": secret,
        "EVALUATION_SCHEDULE": "61 2 * * *",
        "EVALUATION_TIMEZONE": "Europe/Olso",
        "ENGINE_MAX_ATTEMPTS": "many",
        "SCENARIO_TYPES": "{",
    }
    # As a deployment would start it.
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "functions_framework", "--target", "handle_scheduled_invocation", "--asgi"),
        *("--source", str(ROOT / "functions" / "main.py"), "--host", "127.0.0.1", "--port", "0"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output = (await asyncio.wait_for(process.communicate(), 30))[0].decode()
    finally:
        if process.returncode is None:
            process.kill()

    assert process.returncode == 1
    for key in (
        "SUPABASE_URL: missing",
        "SCHEDULER_INVOKE_TOKENS, entry 1: expected 32 to 256 printable ASCII characters",
        "EVALUATION_SCHEDULE: expected a cron expression of five fields, found '61 2 * * *'",
        "EVALUATION_TIMEZONE: expected an IANA time zone such as Europe/Oslo, found 'Europe/Olso'",
        "ENGINE_MAX_ATTEMPTS: ",
        "SCENARIO_TYPES: expected JSON or @file",
    ):
        assert key in output
    assert "Traceback" not in output
    assert secret not in output
    assert leaks_in(output.splitlines(), "output", secrets_of(harness.project)) == []


async def test_a_wrong_api_key_is_named_and_can_do_nothing(harness: Harness) -> None:
    await harness.add_mentors(5)
    function = await harness.start_function({"SUPABASE_SECRET_KEY": "sb_secret_of_another_project"})

    answer = await harness.fire(function)

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "database_key_rejected"
    assert (await harness.invocations(), harness.engine.calls) == ([], [])


async def test_installing_starts_no_run_of_the_last_slot(harness: Harness) -> None:
    await harness.add_mentors(5)
    await harness.execute(b"update scheduler.settings set slot_high_water_mark = null")
    function = await harness.start_function()

    for _ in range(2):
        answer = await harness.fire(function)
        assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
    refused = await harness.fire(function, {"scheduled_for": "2026-02-30T02:00:00Z"})
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_field")
    assert harness.engine.calls == []
