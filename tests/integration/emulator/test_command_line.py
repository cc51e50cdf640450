"""`run` and `up` as a user runs them: what they print, what they survive, and what they leave behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import pytest

from tests.emulator.banner import API
from tests.emulator.cli import main
from tests.emulator.connections import connect
from tests.emulator.errors import EmulatorError
from tests.emulator.options import NO_TOKEN, StackOptions
from tests.emulator.ports import LOCALHOST
from tests.emulator.processes import ChildProcess
from tests.emulator.safeupdate import WHEELS_SERVER, without_safeupdate
from tests.emulator.stack import running_stack
from tests.emulator.staging import ROOT
from tests.faults.system_packages import require_curl
from tests.integration.project_logs import check_folder
from tests.integration.scheduled_runs.harness import eventually
from tests.scripted_engine import ScriptedEngine, rules

WITHIN_SECONDS = 60
ENGINE_TOKEN = "an-engine-that-a-test-scripts"
COUNT_MENTORS = b"select count(*) from public.peer_mentors"
NO_COMPILER = f"emulator: {without_safeupdate(WHEELS_SERVER)}\n"


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Where PostgreSQL's account gets to as well, which pytest's own temporary folders are closed to."""
    with TemporaryDirectory(prefix="emulator-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"


@contextlib.asynccontextmanager
async def command(
    *arguments: str | Path, env: Mapping[str, str] | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.emulator", *map(str, arguments)),
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(WITHIN_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


async def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> tuple[int | None, str, str]:
    """Exit code, standard output and standard error, the latter without the line of a system that has no compiler."""
    async with command("run", *arguments, env=env) as process:
        output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode().replace(NO_COMPILER, "")


@contextlib.asynccontextmanager
async def up(*arguments: str | Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    async with command("up", "--json", *arguments) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = await process.stdout.readline()
        assert line, (await process.stderr.read()).decode()
        yield process, json.loads(line)


def with_engine(engine: ScriptedEngine) -> list[str]:
    return ["--engine-url", engine.url, "--engine-token", engine.token]


def running(pids: list[int]) -> list[int]:
    """Which of these still run; a zombie that was not collected does not."""
    found = psutil.process_iter(["status"])
    return [one.pid for one in found if one.pid in pids and one.info["status"] != psutil.STATUS_ZOMBIE]


async def execute(stack: dict[str, Any], query: bytes) -> list[Any]:
    async with connect(stack["database_url"]) as database:
        cursor = await database.execute(query)
        return await cursor.fetchall() if cursor.description else []


async def test_up_serves_what_it_prints_and_sigterm_leaves_nothing(http: httpx.AsyncClient) -> None:
    async with up("--mentors", "10", "--no-due-slot", "--no-tick") as (emulator, stack):
        assert (await http.get(f"{stack['function_url']}/health")).status_code == 200
        assert (await http.get(f"{stack['engine_url']}/health")).status_code == 200
        read = await http.get(f"{stack['rest_url']}/peer_mentors", headers={"apikey": stack["secret_key"]})
        assert len(read.json()) == 10
        email, password = next(iter(stack["users"].items()))
        signed_in = await http.post(
            f"{stack['auth_url']}/token?grant_type=password",
            headers={"apikey": stack["publishable_key"]},
            json={"email": email, "password": password},
        )
        bearer = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
        assert (await http.get(f"{stack['function_url']}{API}", headers=bearer)).status_code == 200
        assert await execute(stack, COUNT_MENTORS) == [(10,)]
        pids = list(stack["pids"].values())
        assert sorted(running(pids)) == sorted(pids)
        assert len(stack["engine_token"]) == len(stack["invoke_token"])
        folder = Path(psutil.Process(stack["pids"]["postgres"]).cwd()).parent
        emulator.send_signal(signal.SIGTERM)
        await emulator.wait()
    assert (emulator.returncode, running(pids), folder.exists()) == (0, [], False)


async def refusal(**options: Any) -> str:
    with pytest.raises(EmulatorError) as caught:
        async with running_stack(StackOptions(**options)):
            pass
    return str(caught.value)


async def test_kill_9_leaves_no_process_and_a_usable_directory(data_dir: Path) -> None:
    async with up("--data-dir", data_dir, "--mentors", "7", "--no-due-slot") as (emulator, first):
        pids = list(first["pids"].values())
        pids += [child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True)]
        emulator.kill()
        await emulator.wait()

    async def all_gone() -> bool:
        return not running(pids)

    await eventually(all_gone)
    async with (
        ScriptedEngine(token=NO_TOKEN) as engine,
        up("--data-dir", data_dir, "--no-due-slot", "--engine-url", engine.url) as (_, second),
    ):
        assert second["secret_key"] == first["secret_key"]
        assert (second["engine_url"], second["engine_token"], second["pids"]["engine"]) == (engine.url, None, None)
        assert await execute(second, COUNT_MENTORS) == [(7,)]
        assert "is in use by a running emulator" in await refusal(data_dir=data_dir)
        await execute(second, b"update supabase_migrations.schema_migrations set statements = '{}'")
    assert "was made with 7 mentors" in await refusal(data_dir=data_dir, mentors=8)
    assert "has changed since it was applied" in await refusal(data_dir=data_dir)
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")
    assert "was made by PostgreSQL 12" in await refusal(data_dir=data_dir)


async def test_an_interrupted_run_goes_on_before_the_next_slot(data_dir: Path) -> None:
    async with (
        ScriptedEngine(token=ENGINE_TOKEN, rules=[rules.retry_after(3600, times=1000)]) as engine,
        command("run", "--data-dir", data_dir, "--mentors", "10", *with_engine(engine)) as process,
    ):
        assert process.stdout is not None
        while b"(engine_unavailable)" not in await process.stdout.readline():
            assert process.returncode is None
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130

    exit_code, output, errors = await run("--data-dir", data_dir)
    assert (exit_code, errors) == (0, "")
    assert output.startswith("going on with the run of ")
    assert "every active mentor was evaluated for every scenario type that applies" in output
    assert "fired again: deduplicated, same counts, no new notification" in output

    next_run = json.loads((await run("--data-dir", data_dir, "--json"))[1])["invocation"]
    # Of what the processes of a whole run log, no line holds a secret, and each is one of the documented events.
    assert check_folder(data_dir) > 0
    async with up("--data-dir", data_dir, "--no-due-slot", "--no-tick") as (_, stack):
        runs = await execute(stack, b"select id::text, status from public.scheduler_invocations order by invoked_at")
    assert [status for _, status in runs] == ["success", "success"]
    assert runs[1][0] == next_run["id"]


async def test_json_is_one_object_and_partial_has_its_exit_code() -> None:
    def first_one_failed(results: list[dict[str, Any]]) -> list[Any]:
        error = {"code": "no_device", "message": "no device is registered", "retryable": False}
        return [{**results[0], "outcome": "failed", "error": error}, *results[1:]]

    async with ScriptedEngine(token=ENGINE_TOKEN, rules=[rules.alter_results(first_one_failed)]) as engine:
        exit_code, output, errors = await run("--json", "--mentors", "20", *with_engine(engine))

    summary = json.loads(output)
    assert output.count("\n") == 1
    assert (exit_code, summary["status"], summary["exit_code"]) == (3, "partial", 3)
    assert [(cause["code"], cause["count"]) for cause in summary["invocation"]["failures"]] == [("no_device", 1)]
    assert summary["fired_again"]["changed_nothing"] is True
    assert (summary["notifications"], summary["fired_again"]["new_notifications"]) == (None, None)
    assert len(summary["missing"]) == 1
    assert errors.splitlines()[-1].startswith("scheduled run: partial, ")


@pytest.mark.parametrize("supports", [[], ["--function-env", "ENGINE_SUPPORTS=dry_run,idempotency"]])
async def test_the_reference_engine_speaks_the_single_protocol(supports: list[str]) -> None:
    single = ["--function-env", "ENGINE_PROTOCOL=single", *supports]
    exit_code, output, _ = await run("--json", "--mentors", "50", *single)
    summary = json.loads(output)
    counts = summary["invocation"]["counts"]
    assert (exit_code, summary["status"], summary["fired_again"]["changed_nothing"]) == (0, "success", True)
    assert 0 < summary["notifications"] == counts["triggered"] < counts["evaluations"]
    assert counts["triggered"] + counts["not_triggered"] == counts["evaluations"]


async def test_a_pipe_gets_plain_lines_and_a_failed_exit_code() -> None:
    def all_fail(results: list[dict[str, Any]]) -> list[Any]:
        error = {"code": "no_device", "message": "no device is registered", "retryable": False}
        return [{**result, "outcome": "failed", "error": error} for result in results]

    async with ScriptedEngine(token=ENGINE_TOKEN, rules=[rules.alter_results(all_fail)]) as engine:
        exit_code, output, errors = await run("--mentors", "5", *with_engine(engine), env={"FORCE_COLOR": "1"})
    assert (exit_code, errors) == (4, "")
    assert not {"\x1b", "\r"} & set(output)
    lines = output.splitlines()
    assert any(line.startswith("scheduled run: failed, ") for line in lines)
    assert "  fired again: deduplicated, same counts" in lines


# Nothing listens there.
NOWHERE = f"http://{LOCALHOST}:9"


@pytest.mark.parametrize("command_name", ["run", "up"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mentors", "0"], "argument --mentors: expected a number of mentors from 1 to 99999999, found '0'"),
        (["--mentors", "-1"], "argument --mentors: expected a number of mentors from 1 to 99999999, found '-1'"),
        (["--function-env", "NAME"], "argument --function-env: expected NAME=VALUE, found 'NAME'"),
        (["--schedule", "at noon"], "--schedule: expected a cron expression of five fields, found 'at noon'"),
        (["--data-dir", str(ROOT)], f"--data-dir {ROOT} holds files of something else: name an empty or a new folder"),
        (
            ["--function-env", "LOG_LEVEL=no"],
            "--function-env LOG_LEVEL: expected 'DEBUG', 'INFO', 'WARNING' or 'ERROR', found 'no'",
        ),
        (
            ["--engine-token", "x"],
            "--engine-token: expected with --engine-url; the stack's engine has a token of its own",
        ),
        (["--engine-url", "localhost:9"], "--engine-url: expected a URL such as https://host.example"),
        (
            ["--engine-url", NOWHERE],
            f"--engine-url {NOWHERE}: expected an engine, found none (All connection attempts failed); start it first",
        ),
    ],
)
def test_what_cannot_start_says_so_and_starts_nothing(
    command_name: str,
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(ChildProcess, "spawn")
    assert main([command_name, "--json", *arguments]) == 2
    assert capsys.readouterr() == ("", f"emulator: {said}\n")


def test_a_function_that_does_not_start_shows_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--json", "--function-env", "PYTHONHOME=/nowhere"]) == 2
    output, errors = capsys.readouterr()
    assert (output, errors.partition(";")[0]) == ("", "emulator: function died 3 times at its start, last with code 1")


@pytest.mark.parametrize(
    "single", [[], ["--function-env", "ENGINE_PROTOCOL=single"]], ids=["batch", "single without dry runs"]
)
async def test_an_engine_that_refuses_the_token_is_reported_at_once(single: list[str]) -> None:
    async with ScriptedEngine(token=ENGINE_TOKEN) as engine:
        for token in ([], ["--engine-token", "another"]):
            refused = f"the engine at {engine.url} refuses it (401): name the one that it expects"
            found = await run("--engine-url", engine.url, *token, *single)
            assert found == (2, "", f"emulator: --engine-token: {refused}\n")
    # what may act on any call got none that it can read
    assert [call.dry_run for call in engine.calls] == [None if single else True] * 2


async def lines_until(stream: asyncio.StreamReader, start: str) -> list[str]:
    lines: list[str] = []
    while not (lines and lines[-1].startswith(start)):
        line = await stream.readline()
        assert line, lines
        lines.append(line.decode().rstrip("\n"))
    return lines


def paste(line: str, folder: Path) -> str:
    """Runs it in a shell as it stands, anywhere."""
    shell = ["bash", "-euo", "pipefail", "-c", line]
    return subprocess.run(shell, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout


async def test_every_line_that_up_prints_works_as_it_stands(tmp_path: Path) -> None:
    require_curl()
    # a PATH without psql, and without any other program
    async with command("up", "--mentors", "20", "--no-tick", env={"PATH": str(tmp_path)}) as process:
        assert process.stdout is not None
        lines = await lines_until(process.stdout, "Read a table")
        lines += await lines_until(process.stdout, "  curl")
        pasted = [line.strip() for line in lines if re.match(r"  (curl|\S*psql) ", line)]
        outputs = [await asyncio.to_thread(paste, line, tmp_path) for line in pasted]
        shown = await lines_until(process.stdout, "dry run: success")

    fired, health, last_run, listed, latest, started, dry_run, read = map(json.loads, [*outputs[:7], outputs[-1]])
    assert (fired["status"], fired["deduplicated"], fired["completed"]) == ("success", False, True)
    assert (health["status"], last_run["run_status"]) == ("ok", "success")
    assert [item["id"] for item in listed["data"]] == [latest["id"]] == [fired["id"]]
    assert (started["status"], started["trigger"], dry_run["dry_run"]) == ("success", "manual", True)
    assert len(read) == 1
    assert [line.partition(":")[0] for line in shown if "success" in line] == [
        "scheduled run",
        "manual run",
        "dry run",
    ]
