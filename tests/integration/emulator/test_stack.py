"""The command line: what it prints, what it survives, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
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

from tests.emulator.data_dir import PROCESSES
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


@pytest.fixture
def thesis(tmp_path: Path) -> Iterator[Path]:
    """Somebody's work, which must still be there after the test."""
    path = tmp_path / "thesis.txt"
    path.write_text("mine")
    yield path
    assert path.read_text() == "mine"


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


async def refusal(*arguments: str | Path) -> str:
    """What the emulator says when it refuses to start; one line, and exit code 2."""
    process = await start(*arguments)
    try:
        async with asyncio.timeout(STARTS_WITHIN_SECONDS):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
    assert process.returncode == 2
    assert errors.decode().count("\n") == 1
    return errors.decode()


def running(pids: list[int]) -> list[int]:
    """Which of these still run; a zombie that nobody has collected does not."""
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found


async def test_what_it_prints_is_what_it_serves(http: httpx.AsyncClient) -> None:
    async with up("--mentors", "10", "--no-due-slot", "--no-tick") as (_, stack):
        assert (await http.get(f"{stack['function_url']}/health")).status_code == 200
        assert (await http.get(f"{stack['engine_url']}/health")).status_code == 200
        read = await http.get(
            f"{stack['rest_url']}/peer_mentors?select=user_id", headers={"apikey": stack["secret_key"]}
        )
        assert len(read.json()) == 10
        async with await psycopg.AsyncConnection.connect(stack["database_url"]) as database:
            cursor = await database.execute(b"select count(*) from public.peer_mentors")
            assert await cursor.fetchone() == (10,)
        assert running(list(stack["pids"].values())) == list(stack["pids"].values())


async def test_sigterm_leaves_no_process_and_no_temporary_folder() -> None:
    async with up("--mentors", "1") as (emulator, stack):
        folder = folder_of(stack)
        emulator.send_signal(signal.SIGTERM)
        await emulator.wait()
        assert emulator.returncode == 0
        assert running(list(stack["pids"].values())) == []
        assert not folder.exists()


async def test_kill_9_leaves_nothing_after_a_new_start_on_the_same_directory(
    data_dir: Path, http: httpx.AsyncClient
) -> None:
    async with up("--data-dir", data_dir, "--mentors", "7", "--no-due-slot") as (emulator, first):
        children = [
            child.pid for pid in first["pids"].values() for child in psutil.Process(pid).children(recursive=True)
        ]
        emulator.kill()
        await emulator.wait()
    before = [*first["pids"].values(), *children]

    async with up("--data-dir", data_dir, "--no-due-slot") as (_, second):
        assert running(before) == []
        # the same project: its keys, and the mentors of the first start
        assert second["secret_key"] == first["secret_key"]
        read = await http.get(
            f"{second['rest_url']}/peer_mentors?select=user_id", headers={"apikey": second["secret_key"]}
        )
        assert len(read.json()) == 7


async def test_a_process_that_outlived_its_emulator_is_ended_and_no_other(data_dir: Path) -> None:
    """Where the kernel does not end orphans, the list in the data directory does."""
    orphan = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    bystander = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
    try:
        async with up("--data-dir", data_dir, "--mentors", "1", "--no-due-slot"):
            pass
        started = psutil.Process(orphan.pid).create_time()
        entries = [
            {"name": "function", "pid": orphan.pid, "started": started},
            # a number that was given to somebody else since
            {"name": "engine", "pid": bystander.pid, "started": started - 1000},
        ]
        (data_dir / PROCESSES).write_text(json.dumps(entries))
        async with up("--data-dir", data_dir, "--no-due-slot"):
            # killed only where SIGINT is ignored, as everything is told to that a shell starts in the background
            assert await orphan.wait() in (-signal.SIGINT, -signal.SIGKILL)
            assert bystander.returncode is None
    finally:
        for process in (orphan, bystander):
            if process.returncode is None:
                process.kill()
                await process.wait()


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
        assert f"port {port} is taken" in (said := await refusal("up", "--port-function", str(port)))
        assert "--port-function" in said


async def test_a_foreign_directory_is_refused_and_left_alone(thesis: Path) -> None:
    assert "holds files of something else" in await refusal("up", "--data-dir", thesis.parent)


async def test_a_directory_of_another_postgresql_is_refused(data_dir: Path) -> None:
    async with up("--data-dir", data_dir, "--mentors", "1", "--no-due-slot"):
        pass
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")
    assert "was made by PostgreSQL 12" in await refusal("up", "--data-dir", data_dir)


async def test_a_directory_with_other_mentors_or_migrations_is_refused(data_dir: Path) -> None:
    async with up("--data-dir", data_dir, "--mentors", "7", "--no-due-slot") as (_, stack):
        await execute(stack, b"update supabase_migrations.schema_migrations set statements = '{}'")
    assert "was made with 7 mentors" in await refusal("up", "--data-dir", data_dir, "--mentors", "8")
    assert "has changed since it was applied" in await refusal("up", "--data-dir", data_dir, "--mentors", "7")


async def test_a_directory_in_use_is_refused(data_dir: Path) -> None:
    async with up("--data-dir", data_dir, "--mentors", "1", "--no-due-slot"):
        assert "is in use by a running emulator" in await refusal("up", "--data-dir", data_dir)


async def test_a_schedule_that_is_none_is_refused() -> None:
    assert "--schedule 'at night'" in await refusal("up", "--schedule", "at night")


async def test_a_missing_postgresql_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMULATOR_POSTGRES_BIN", str(tmp_path))
    assert "EMULATOR_POSTGRES_BIN" in await refusal("up")


async def run(*arguments: str | Path) -> tuple[int | None, str, str]:
    process = await start("run", *arguments)
    output, errors = await process.communicate()
    return process.returncode, output.decode(), errors.decode()


async def execute(stack: dict[str, Any], query: bytes) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(stack["database_url"], autocommit=True) as database:
        cursor = await database.execute(query)
        return await cursor.fetchall() if cursor.description else []


async def test_each_start_on_a_directory_has_its_own_run(data_dir: Path, http: httpx.AsyncClient) -> None:
    runs = b"select id::text from public.scheduler_invocations where status = 'succeeded' order by created_at"
    kept = ("--data-dir", data_dir)
    first = json.loads((await run(*kept, "--json", "--mentors", "10"))[1])["invocation"]
    second = json.loads((await run(*kept, "--json"))[1])["invocation"]
    assert (first["status"], second["status"]) == ("succeeded", "succeeded")
    log = (data_dir / "logs" / "function.log").read_text()
    assert second["id"] in log
    assert first["id"] not in log

    async with up(*kept) as (_, stack):

        async def third() -> list[Any]:
            return (await execute(stack, runs))[2:]

        ((id_of_third,),) = await until(third, STARTS_WITHIN_SECONDS)
    async with up(*kept, "--no-due-slot", "--no-tick") as (_, stack):
        invoke = {"Authorization": f"Bearer {stack['invoke_token']}"}
        assert (await http.post(stack["function_url"], headers=invoke)).status_code == 200
        assert await execute(stack, runs) == [(first["id"],), (second["id"],), (id_of_third,)]


async def test_a_schedule_without_a_due_slot_is_refused_at_once(data_dir: Path) -> None:
    kept = ("--data-dir", data_dir, "--schedule")
    an_hour_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%M %H * * *")
    assert (await run(*kept, an_hour_ago, "--mentors", "1"))[0] == 0
    exit_code, output, errors = await run(*kept, an_hour_ago)
    assert (exit_code, output) == (1, "")
    assert "has had its run, which is succeeded" in errors
    long_ago = (datetime.now(UTC) - timedelta(days=3)).strftime("%M %H %d %m *")
    assert "MISSED_SLOT_MAX_GAP_HOURS" in (await run(*kept, long_ago))[2]


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


async def test_a_scheduled_run_ends_and_a_second_fire_changes_nothing(data_dir: Path) -> None:
    exit_code, output, errors = await run("--mentors", "50", "--data-dir", data_dir)
    assert exit_code == 0, output + errors
    assert "every active mentor was evaluated for every scenario type that applies" in output
    assert "fired again: deduplicated, same counts, no new notification" in output
    # kept, so that what a whole night logs can be searched
    assert check_folder(data_dir) > 0
