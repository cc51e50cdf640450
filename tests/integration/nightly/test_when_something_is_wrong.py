"""What is wrong is said clearly, with the right status, and nothing is half-written."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from collections.abc import Mapping

import pytest
import trustme

from tests.emulator.staging import ROOT
from tests.integration.nightly.night import Night
from tests.integration.project_logs import secrets_of
from tests.scripted_engine import Rule, rules
from tests.secret_scan import leaks_in


async def start_and_wait(env: Mapping[str, str]) -> tuple[int, str]:
    """Starts the function as a deployment would; answers its exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "functions_framework", "--target", "handle_scheduled_invocation", "--asgi"),
        *("--source", str(ROOT / "functions" / "main.py"), "--host", "127.0.0.1", "--port", "0"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_bad_settings_are_all_named_at_once_and_the_function_does_not_start(night: Night) -> None:
    secret = "too-short-a-secret"
    env = night.project.function_env(night.engine.url) | {
        "SUPABASE_URL": "",
        "SCHEDULER_INVOKE_TOKENS": secret,
        "EVALUATION_SCHEDULE": "61 2 * * *",
        "EVALUATION_TIMEZONE": "Europe/Olso",
        "ENGINE_MAX_ATTEMPTS": "many",
        "SCENARIO_TYPES": "{",
    }

    code, output = await start_and_wait(env)

    assert code == 1
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
    assert leaks_in(output.splitlines(), "output", secrets_of(night.project)) == []


async def test_a_certificate_that_is_not_trusted_is_named_in_the_run(night: Night) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    await night.add_mentors(1)
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        function = await night.start_function({"ENGINE_MAX_ATTEMPTS": "1"}, engine_url=url)
        assert (await night.fire(function)).json()["error"] == "engine_unavailable"

    [(message,)] = await night.rows(b"select error_message from public.scheduler_invocations")
    assert "invalid peer certificate: UnknownIssuer: no certificate authority that is trusted here signed it" in message


async def test_a_wrong_api_key_is_named_and_nothing_is_written(night: Night) -> None:
    await night.add_mentors(5)
    function = await night.start_function({"SUPABASE_SECRET_KEY": "sb_secret_of_another_project"})

    answer = await night.fire(function)

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "database_key_rejected"
    assert await night.invocations() == []
    assert night.engine.calls == []


async def test_a_publishable_key_can_do_nothing(night: Night) -> None:
    await night.add_mentors(5)
    function = await night.start_function({"SUPABASE_SECRET_KEY": night.project.publishable_key})

    answer = await night.fire(function)

    assert answer.status_code == 500
    assert answer.json()["code"] in ("database_key_rejected", "database_refused")
    assert await night.invocations() == []


async def test_an_unreachable_engine_is_nobodys_failure(night: Night) -> None:
    await night.add_mentors(250)
    function = await night.start_function()
    async with night.engine.unreachable():
        answer = await night.fire(function)

    assert answer.status_code == 202
    invocation = answer.json()
    assert invocation["status"] == "running"
    assert invocation["error"] == "engine_unavailable"
    assert invocation["counts"]["failed"] == 0
    assert invocation["counts"]["evaluations"] == 500
    assert set((await night.recorded_pairs(invocation["id"])).values()) == {"open"}

    # The breaker that all workers share is open: nobody bothers the engine until the pause is over.
    calls = len(night.engine.calls)
    assert (await night.fire(function)).status_code == 202
    assert len(night.engine.calls) == calls
    await night.execute(b"update scheduler.settings set engine_paused_until = now()")
    answer = await night.fire(function)
    assert answer.status_code == 200
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["error"] is None
    await night.check_truth(answer.json())


async def test_an_engine_that_rejects_our_token_is_said_and_nobody_failed(night: Night) -> None:
    await night.add_mentors(250)
    function = await night.start_function(
        {"SCENARIO_ENGINE_TOKEN": "a-token-that-the-engine-does-not-know", "EVALUATION_BATCH_SIZE": "100"}
    )

    answer = await night.fire(function)

    assert answer.status_code == 202
    assert answer.json()["error"] == "engine_rejected"
    assert answer.json()["counts"]["failed"] == 0
    assert await night.queue_lengths() == [3, 0, 0]


async def test_a_time_that_is_none_and_a_time_that_is_no_slot_are_refused(night: Night) -> None:
    function = await night.start_function()
    for scheduled_for, code in (
        ("last night", "invalid_field"),
        ("2026-02-30T02:00:00Z", "invalid_field"),
        ("2026-02-03T02:00:00", "invalid_field"),
        ("2001-02-03T02:00:00Z", "not_a_slot"),
    ):
        answer = await night.fire(function, {"scheduled_for": scheduled_for})
        assert answer.status_code == 422, scheduled_for
        assert answer.json()["code"] == code
        assert answer.json()["field"] == "scheduled_for"
    answer = await night.fire(function, headers={"X-CloudScheduler-ScheduleTime": "2001-02-03T02:00:00Z"})
    assert answer.json()["code"] == "not_a_slot"
    assert await night.invocations() == []


async def test_the_due_slot_may_be_named_in_body_or_header_to_the_second(night: Night) -> None:
    function = await night.start_function()
    opened = await night.fire(function, {"scheduled_for": night.slot.replace(second=42).isoformat()})
    again = await night.fire(function, headers={"X-CloudScheduler-ScheduleTime": night.slot.isoformat()})

    assert opened.json()["deduplicated"] is False
    assert again.json() == opened.json() | {"deduplicated": True}


async def test_a_scheduled_run_that_reads_nobody_has_failed(night: Night) -> None:
    function = await night.start_function()

    answer = await night.fire(function)

    assert answer.status_code == 200
    assert answer.json()["status"] == "failed"
    assert answer.json()["error"] == "no_active_mentors"
    assert answer.json()["counts"]["mentors"] == 0


async def test_installing_at_noon_notifies_nobody_for_last_night(night: Night) -> None:
    await night.add_mentors(5)
    await night.execute(b"update scheduler.settings set slot_high_water_mark = null")
    function = await night.start_function()

    for _ in range(2):
        answer = await night.fire(function)
        assert (answer.status_code, answer.json()) == (200, {"status": "idle"})

    assert night.engine.calls == []


async def test_a_slot_missed_for_longer_than_the_limit_is_not_caught_up(night: Night) -> None:
    await night.add_mentors(5)
    schedule = f"{night.slot.minute} {(night.slot.hour - 3) % 24} * * *"
    function = await night.start_function({"EVALUATION_SCHEDULE": schedule, "MISSED_SLOT_MAX_GAP_HOURS": "2"})

    answer = await night.fire(function)

    assert (answer.status_code, answer.json()) == (200, {"status": "idle"})
    assert night.engine.calls == []


@pytest.mark.parametrize("rule", [rules.not_json(), rules.deep_json(), rules.wrong_types(), rules.redirect_to("/")])
async def test_a_hostile_engine_brings_nothing_down_and_costs_nobody_her_evaluation(night: Night, rule: Rule) -> None:
    await night.add_mentors(20)
    night.engine.rules.append(rules.only(rules.first(2), rule))
    function = await night.start_function()

    answer = await night.fire(function)
    while answer.status_code == 202:
        await night.execute(b"update scheduler.settings set engine_paused_until = now()")
        answer = await night.fire(function)

    assert answer.json()["status"] == "succeeded"
    await night.check_truth(answer.json())
