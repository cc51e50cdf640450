"""The command, asked about the reference engine as anybody would ask it about theirs."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from tests.emulator.project import Project
from tests.engine_conformance.__main__ import main
from tests.engine_conformance.rules import names
from tests.integration.reference_engine.programme import SILENT, TYPES, Programme

from .broken_engine import TOKEN, USERS, broken_engine
from .broken_engine import TYPES as ITS_TYPES


async def run(url: str, *arguments: str, token: str) -> tuple[int, str, str]:
    """The command's exit code, and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.engine_conformance", url, *arguments),
        env={**os.environ, "SCENARIO_ENGINE_TOKEN": token},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await process.communicate()
    assert process.returncode is not None
    assert not token or token not in output.decode() + errors.decode()
    return process.returncode, output.decode(), errors.decode()


async def test_the_reference_engine_keeps_every_rule_and_notifies_once(
    engine_project: Project, programme: Programme, tmp_path: Path
) -> None:
    mentors = [await programme.mentor(SILENT) for _ in range(6)]
    ids = tmp_path / "ids"
    ids.write_text("\n".join(mentors))
    assert engine_project.engine is not None
    code, output, _ = await run(
        *(engine_project.engine.url, "--user-ids", f"@{ids}", "--scenario-types", ",".join(TYPES), "--json"),
        token=engine_project.engine_token,
    )
    report = json.loads(output)
    assert {finding["rule"]: finding["verdict"] for finding in report["findings"]} == dict.fromkeys(names(), "pass")
    assert (code, report["kept"], report["broken"], report["not_judged"]) == (0, len(names()), 0, 0)
    queued = await programme.database.execute(
        b"select count(*), count(distinct user_id) from public.engagement_notifications"
        b" where user_id = any (%s::uuid[])",
        (mentors,),
    )
    assert await queued.fetchone() == (6, 6)


async def test_a_dry_examination_notifies_nobody(engine_project: Project, programme: Programme) -> None:
    mentor = await programme.mentor(SILENT)
    assert engine_project.engine is not None
    code, output, _ = await run(
        *(engine_project.engine.url, "--user-ids", mentor, "--scenario-types", ",".join(TYPES), "--dry-run-only"),
        token=engine_project.engine_token,
    )
    assert code == 0
    assert output.splitlines()[-1] == f"{len(names()) - 6} rules kept, 0 broken, 6 not judged"
    queued = await programme.database.execute(
        b"select count(*) from public.engagement_notifications where user_id = %s", (mentor,)
    )
    assert await queued.fetchone() == (0,)


async def test_what_is_broken_is_said_with_what_to_do() -> None:
    async with broken_engine("leaves a pair out") as url:
        code, output, _ = await run(
            *(url, "--user-ids", ",".join(USERS), "--scenario-types", ",".join(ITS_TYPES)), token=TOKEN
        )
    assert code == 1
    lines = output.splitlines()
    (broken,) = (number for number, line in enumerate(lines) if line.startswith("FAIL"))
    assert "every-pair-once" in lines[broken]
    assert "have no result" in lines[broken + 1]
    assert "answer each pair" in lines[broken + 2]


async def test_without_a_token_or_a_user_nothing_is_asked() -> None:
    code, output, errors = await run("http://127.0.0.1:9", "--user-ids", "x", "--scenario-types", "x", token="")
    assert (code, output, errors) == (2, "", "expected SCENARIO_ENGINE_TOKEN in the environment, found none\n")
    code, output, errors = await run("http://127.0.0.1:9", "--user-ids", ",", "--scenario-types", "x", token=TOKEN)
    assert (code, output, errors) == (2, "", "expected at least one user id, found none\n")


async def test_what_an_engine_sends_is_shown_without_the_token_and_harmless_to_a_terminal() -> None:
    async with broken_engine("echoes the token") as url:
        code, output, _ = await run(
            *(url, "--user-ids", ",".join(USERS), "--scenario-types", ",".join(ITS_TYPES)), token=TOKEN
        )
    assert code == 1
    assert "a result for [token]" in output
    assert "\x1b" not in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ftp://engine.example.org"], "expected http:// or https://"),
        (["http://engine.example.org:99999"], "expected http:// or https://"),
        (["http://user:password@engine.example.org"], "expected http:// or https://"),
        (["http://127.0.0.1:9", "--user-ids", "@/nowhere"], "expected a readable file, found FileNotFoundError"),
        (["http://127.0.0.1:9", "--timeout", "0"], "expected seconds above 0"),
        (["http://127.0.0.1:9", "--timeout", "nan"], "expected seconds above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_said_before_anything_is_asked(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([arguments[0], "--user-ids", "x", "--scenario-types", "x", *arguments[1:]])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_token_that_no_header_can_hold_and_no_type_at_all_are_wrong_usage_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCENARIO_ENGINE_TOKEN", "töken")
    assert main(["http://127.0.0.1:9", "--user-ids", "x", "--scenario-types", "x"]) == 2
    assert "characters that a header may hold" in capsys.readouterr().err
    assert main(["http://127.0.0.1:9", "--user-ids", "x", "--scenario-types", ","]) == 2
    assert "expected at least one scenario type, found none" in capsys.readouterr().err
