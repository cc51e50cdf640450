"""`python -m tests.engine_conformance`, as its users run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.emulator.project import Project
from tests.engine_conformance.__main__ import main
from tests.engine_conformance.protocols import Batch
from tests.engine_conformance.rules import names
from tests.scripted_engine import ScriptedEngine, rules

SILENT_MENTORS = b"""
insert into public.peer_mentors (user_id, joined_at, onboarding_completed_at, last_contact_at)
select gen_random_uuid(), now() - interval '90 days', now() - interval '80 days', now() - interval '31 days'
from generate_series(1, 6)
"""
NOTIFIED = b"select count(*), count(distinct user_id) from public.engagement_notifications"


async def start(url: str, *arguments: str, token: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engine_conformance", url, *arguments),
        env={**os.environ, "SCENARIO_ENGINE_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def end_of(process: asyncio.subprocess.Process, token: str) -> tuple[int | None, str]:
    """The exit code and the output, in which the token is never shown."""
    output, progress = await process.communicate()
    assert token not in (output + progress).decode()
    return process.returncode, output.decode()


async def test_the_reference_engine_keeps_every_rule_and_notifies_once(project: Project) -> None:
    engine, every = await project.start_engine(), names(Batch())
    async with project.connect() as database:
        await database.execute(SILENT_MENTORS)
        ids = await (await database.execute(b"select string_agg(user_id::text, ',') from peer_mentors")).fetchone()
        assert ids is not None
        arguments = ("--user-ids", ids[0], "--scenario-types", "inactivity")
        token = project.engine_token
        code, output = await end_of(await start(engine.url, *arguments, "--dry-run-only", token=token), token)
        assert (code, output.splitlines()[-1]) == (0, f"{len(every) - 6} rules kept, 0 broken, 6 not judged")
        assert await (await database.execute(NOTIFIED)).fetchone() == (0, 0)

        code, output = await end_of(await start(engine.url, *arguments, "--json", token=token), token)
        report = json.loads(output)
        assert {finding["rule"]: finding["verdict"] for finding in report["findings"]} == dict.fromkeys(every, "pass")
        assert (code, report["kept"], report["broken"], report["not_judged"]) == (0, len(every), 0, 0)
        assert await (await database.execute(NOTIFIED)).fetchone() == (6, 6)


async def test_each_rule_is_shown_once_judged_and_says_what_to_do(tmp_path: Path) -> None:
    go_on = asyncio.Event()
    async with ScriptedEngine(token='a "secret"') as engine:
        engine.rules.append(rules.other_json(json.dumps({f"{engine.token}\x1b[2J": [], "total": 0}).encode()))
        engine.rules.append(rules.only(lambda call: call.number > 1, rules.hold_until(go_on)))
        token_file = tmp_path / "token"
        token_file.write_text(f"{engine.token}\n")
        arguments = ("--user-ids", "0" * 32, "--scenario-types", "a_type", "--json", "--token-file", str(token_file))
        process = await start(engine.url, *arguments, token="not-this-one")
        assert process.stderr is not None
        assert (await process.stderr.readline()).startswith(b"pass        one-user: ")
        assert len(engine.calls) <= 2
        go_on.set()
        code, output = await end_of(process, engine.token)
    findings = json.loads(output)["findings"]
    [failed] = [found for found in findings if found["verdict"] == "FAIL"]
    assert (code, failed["rule"], failed["fix"]) == (1, "members", "answer what the contract's example shows")
    assert failed["found"] == "the body: expected `results`, found `[token] [2J`, `total`"
    unjudged = {found["found"] for found in findings if found["verdict"] == "not judged"}
    assert unjudged == {"it rests on members, which failed"}


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (["http://user:password@engine.example.org"], "t", "expected http:// or https://"),
        (["http://127.0.0.1:9", "--user-ids", "@/nowhere"], "t", "expected a readable file, found FileNotFoundError"),
        (["http://127.0.0.1:9", "--user-ids", ","], "t", "--user-ids: expected at least one, found none"),
        (["http://127.0.0.1:9"], "", "expected a token that a header may hold"),
        (["http://127.0.0.1:9", "--token-env", "a-secret"], "t", "expected a token that a header may hold"),
        (["http://127.0.0.1:9", "--users-per-call", "0"], "t", "expected a whole number from 1 to 1000"),
        (["http://127.0.0.1:9", "--supports", "dry_run"], "t", "--supports is for --protocol single"),
        (["http://127.0.0.1:9", "--protocol", "single", "--types-per-call", "2"], "t", "single has one pair a call"),
        (["http://127.0.0.1:9", "--protocol", "single", "--supports", "all"], "t", "expected dry_run or idempotency"),
        (["http://127.0.0.1:9", "--protocol", "single", "--dry-run-only"], "t", "nothing can be checked without"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_asked(
    arguments: list[str], token: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENARIO_ENGINE_TOKEN", token)
    try:
        code: object = main([arguments[0], "--user-ids", "x", "--scenario-types", "x", *arguments[1:]])
    except SystemExit as refused:
        code = refused.code
    assert code == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "a-secret" not in shown
