"""`python -m tests.engine_conformance`, as its users run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from tests.emulator.project import Project
from tests.engine_conformance.__main__ import main
from tests.engine_conformance.rules import names
from tests.scripted_engine import ScriptedEngine, rules

SILENT_MENTORS = b"""
insert into public.peer_mentors (user_id, joined_at, onboarding_completed_at, last_contact_at)
select gen_random_uuid(), now() - interval '90 days', now() - interval '80 days', now() - interval '31 days'
from generate_series(1, 6)
"""
NOTIFIED = b"select count(*), count(distinct user_id) from public.engagement_notifications"


async def run(url: str, *arguments: str, token: str) -> tuple[int | None, str]:
    """The exit code and the output, in which the token is never shown."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engine_conformance", url, *arguments),
        env={**os.environ, "SCENARIO_ENGINE_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert token not in output.decode()
    return process.returncode, output.decode()


async def test_the_reference_engine_keeps_every_rule_and_notifies_once(project: Project) -> None:
    engine = await project.start_engine()
    async with project.connect() as database:
        await database.execute(SILENT_MENTORS)
        ids = await (await database.execute(b"select string_agg(user_id::text, ',') from peer_mentors")).fetchone()
        assert ids is not None
        arguments = ("--user-ids", ids[0], "--scenario-types", "inactivity")
        code, output = await run(engine.url, *arguments, "--dry-run-only", token=project.engine_token)
        assert (code, output.splitlines()[-1]) == (0, f"{len(names()) - 6} rules kept, 0 broken, 6 not judged")
        assert await (await database.execute(NOTIFIED)).fetchone() == (0, 0)

        code, output = await run(engine.url, *arguments, "--json", token=project.engine_token)
        report = json.loads(output)
        assert {finding["rule"]: finding["verdict"] for finding in report["findings"]} == dict.fromkeys(names(), "pass")
        assert (code, report["kept"], report["broken"], report["not_judged"]) == (0, len(names()), 0, 0)
        assert await (await database.execute(NOTIFIED)).fetchone() == (6, 6)


async def test_what_is_broken_is_said_with_what_to_do() -> None:
    async with ScriptedEngine() as engine:
        engine.rules.append(rules.foreign_results({f"{engine.token}\x1b[2J"}))
        arguments = ("--user-ids", "00000000-0000-4000-8000-000000000001", "--scenario-types", "a_type", "--json")
        code, output = await run(engine.url, *arguments, token=engine.token)
    foreign = next(found for found in json.loads(output)["findings"] if found["rule"] == "nothing-foreign")
    assert (code, foreign["verdict"]) == (1, "FAIL")
    assert foreign["found"].startswith("a result for [token] [2J")
    assert foreign["fix"].startswith("answer the pairs of this call and no others")


@pytest.mark.parametrize(
    ("arguments", "token", "said"),
    [
        (["http://user:password@engine.example.org"], "t", "expected http:// or https://"),
        (["http://127.0.0.1:9", "--user-ids", "@/nowhere"], "t", "expected a readable file, found FileNotFoundError"),
        (["http://127.0.0.1:9", "--user-ids", ","], "t", "expected at least one user id, found none"),
        (["http://127.0.0.1:9"], "", "expected SCENARIO_ENGINE_TOKEN in the environment, found none"),
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
    assert said in capsys.readouterr().err
