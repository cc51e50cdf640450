"""The command line: what it prints, what it survives, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psutil
import psycopg
import pytest

from tests.emulator.errors import EmulatorError
from tests.emulator.stack import Stack, StackOptions
from tests.emulator.staging import ROOT
from tests.integration.project_logs import check_folder
from tests.scripted_engine import ScriptedEngine, rules

from .looking import until

STARTS_WITHIN_SECONDS = 60


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Where PostgreSQL's account gets to as well, which pytest's own temporary folders are closed to."""
    with TemporaryDirectory(prefix="emulator-test-") as folder:
        Path(folder).chmod(0o711)
        yield Path(folder) / "data"


async def start(*arguments: str | Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.emulator", *map(str, arguments)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@contextlib.asynccontextmanager
async def up(*arguments: str | Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """A stack that is up, with what it says of itself; told to stop at the end if it still runs.

    Its logs are searched for secrets while they are there: before it is told to stop, and after that if they were kept.
    """
    process = await start("up", "--json", *arguments)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(STARTS_WITHIN_SECONDS):
            line = await process.stdout.readline()
        assert line, (await process.stderr.read()).decode()
        stack = json.loads(line)
        folder = folder_of(stack)
        check_folder(folder)
        yield process, stack
        if folder.exists():
            check_folder(folder)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.communicate()


def folder_of(stack: dict[str, Any]) -> Path:
    """Its data directory, which it does not tell: the one that its database is in."""
    return Path(psutil.Process(stack["pids"]["postgres"]).cwd()).parent


async def refusal(**options: Any) -> str:
    """What a stack says when it refuses to start with these options."""
    with pytest.raises(EmulatorError) as caught:
        async with asyncio.timeout(STARTS_WITHIN_SECONDS), Stack(StackOptions(**options)):
            pass
    return str(caught.value)


def running(pids: list[int]) -> list[int]:
    """Which of these still run; a zombie that nobody has collected does not."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


async def test_what_it_prints_is_what_it_serves_and_sigterm_leaves_nothing(http: httpx.AsyncClient) -> None:
    async with up("--mentors", "10", "--no-due-slot", "--no-tick") as (emulator, stack):
        assert (await http.get(f"{stack['function_url']}/health")).status_code == 200
        assert (await http.get(f"{stack['engine_url']}/health")).status_code == 200
        assert len(await mentors_of(stack, http)) == 10
        assert await execute(stack, b"select count(*) from public.peer_mentors") == [(10,)]
        pids = list(stack["pids"].values())
        assert running(pids) == pids
        folder = folder_of(stack)
        emulator.send_signal(signal.SIGTERM)
        await emulator.wait()
        assert (emulator.returncode, running(pids)) == (0, [])
        assert not folder.exists()


async def test_kill_9_leaves_nothing_running_and_a_directory_to_go_on_with(
    data_dir: Path, http: httpx.AsyncClient
) -> None:
    async with up("--data-dir", data_dir, "--mentors", "7", "--no-due-slot") as (emulator, first):
        children = [
            child.pid for pid in first["pids"].values() for child in psutil.Process(pid).children(recursive=True)
        ]
        emulator.kill()
        await emulator.wait()
    for pid in [*first["pids"].values(), *children]:
        await until(partial(gone, pid))

    async with up("--data-dir", data_dir, "--no-due-slot") as (_, second):
        # the same project: its keys, and the mentors of the first start
        assert second["secret_key"] == first["secret_key"]
        assert len(await mentors_of(second, http)) == 7


async def test_what_dies_is_started_again(http: httpx.AsyncClient) -> None:
    async with up("--mentors", "3", "--no-due-slot") as (_, stack):

        async def all_answer() -> bool:
            with contextlib.suppress(httpx.HTTPError):
                answers = [
                    await http.get(f"{stack['function_url']}/health"),
                    await http.get(f"{stack['engine_url']}/health"),
                    await http.get(f"{stack['rest_url']}/peer_mentors", headers={"apikey": stack["secret_key"]}),
                ]
                return all(answer.status_code == 200 for answer in answers)
            return False

        for pid in stack["pids"].values():
            os.kill(pid, signal.SIGKILL)
            await until(partial(gone, pid))
            await until(all_answer)


async def gone(pid: int) -> bool:
    return not running([pid])


async def test_a_taken_port_is_named_with_its_option() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert re.match(rf"port {port} is taken: .* --port-function", await refusal(port_function=port))


async def test_a_missing_postgresql_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMULATOR_POSTGRES_BIN", str(tmp_path))
    assert "EMULATOR_POSTGRES_BIN" in await refusal()


async def test_a_directory_that_does_not_fit_is_refused(data_dir: Path) -> None:
    async with up("--data-dir", data_dir, "--mentors", "7", "--no-due-slot") as (_, stack):
        assert "is in use by a running emulator" in await refusal(data_dir=data_dir)
        await execute(stack, b"update supabase_migrations.schema_migrations set statements = '{}'")
    assert "was made with 7 mentors" in await refusal(data_dir=data_dir, mentors=8)
    assert "has changed since it was applied" in await refusal(data_dir=data_dir, mentors=7)
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")
    assert "was made by PostgreSQL 12" in await refusal(data_dir=data_dir)


async def run(*arguments: str | Path) -> tuple[int | None, str, str]:
    process = await start("run", *arguments)
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def execute(stack: dict[str, Any], query: bytes) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(stack["database_url"], autocommit=True) as database:
        cursor = await database.execute(query)
        return await cursor.fetchall() if cursor.description else []


async def mentors_of(stack: dict[str, Any], http: httpx.AsyncClient) -> list[Any]:
    read = await http.get(f"{stack['rest_url']}/peer_mentors", headers={"apikey": stack["secret_key"]})
    return list(read.json())


async def test_each_start_on_a_directory_has_its_own_run(data_dir: Path, http: httpx.AsyncClient) -> None:
    kept = ("--data-dir", data_dir)
    an_hour_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%M %H * * *")
    exit_code, output, errors = await run(*kept, "--mentors", "50", "--schedule", an_hour_ago)
    assert exit_code == 0, output + errors
    assert "every active mentor was evaluated for every scenario type that applies" in output
    assert "fired again: deduplicated, same counts, no new notification" in output
    # kept, so that what a whole night logs can be searched
    assert check_folder(data_dir) > 0

    exit_code, output, errors = await run(*kept, "--schedule", an_hour_ago)
    assert (exit_code, output) == (1, "")
    assert "has had its run, which is succeeded" in errors

    second = json.loads((await run(*kept, "--json"))[1])["invocation"]
    log = (data_dir / "logs" / "function.log").read_text()
    async with up(*kept, "--no-due-slot", "--no-tick") as (_, stack):
        invoke = {"Authorization": f"Bearer {stack['invoke_token']}"}
        assert (await http.post(stack["function_url"], headers=invoke)).status_code == 200
        runs = await execute(stack, b"select id::text, status from public.scheduler_invocations order by created_at")
    assert runs[1:] == [(second["id"], "succeeded")]
    assert second["id"] in log
    assert runs[0][0] not in log


async def test_an_interrupted_run_goes_on_at_the_next_start(data_dir: Path) -> None:
    async with ScriptedEngine(token="a-token") as engine:
        engine.rules.append(rules.retry_after(3600, times=1000))
        other_engine = ("--engine-url", engine.url, "--function-env", "SCENARIO_ENGINE_TOKEN=a-token")
        process = await start("run", "--data-dir", data_dir, "--mentors", "10", *other_engine)
        assert process.stdout is not None
        async with asyncio.timeout(STARTS_WITHIN_SECONDS):
            while b"(engine_unavailable)" not in await process.stdout.readline():
                pass
        process.send_signal(signal.SIGINT)
        await process.communicate()
    assert process.returncode == 130

    exit_code, output, errors = await run("--data-dir", data_dir)
    assert exit_code == 0, errors
    assert output.startswith("going on with the run of ")
    assert "every active mentor was evaluated" in output
