"""Contenders that are programs behind HTTP: started warm, asked once by POST, and measured until they answer."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status
from tests.emulator.project import Project

from .deno import HERE, deno_command, deno_env
from .fast_engine import EngineStats, read_stats, reset
from .figures import Figures, Load
from .preparation import count_rows, prepare
from .process_use import ProcessMeter

ANSWER_SECONDS = 900
CONTENDER = "contender"


@dataclass(frozen=True)
class ServedContender:
    """A program that evaluates everybody when it is sent a POST.

    Args:
        name: in logs.
        command: starts it; called when it is needed, so that what is missing is said then.
    """

    name: str
    command: Callable[[], Sequence[str | Path]]

    async def run(
        self,
        project: Project,
        engine_url: str,
        *,
        mentors: int,
        types: Sequence[str],
        in_flight: int,
        users_per_call: int,
        types_per_call: int | None = None,
    ) -> Figures:
        """One run of everybody; see `Contender`."""
        load = load_of(mentors, types, in_flight, users_per_call, types_per_call)
        command = self.command()
        await prepare(project, mentors)
        port = free_port()
        env = {**deno_env(project.data_dir), **self._env(project, engine_url, load), "PORT": str(port)}
        process = ChildProcess(self.name, command, data_dir=project.data_dir, env=env, cwd=HERE.parents[2])
        await process.start()
        try:
            await process.until_ready(lambda: _answers(port))
            stats = await reset(engine_url)
            meter = ProcessMeter.start({CONTENDER: process.pid, **pids_of(project, stats)})
            started = time.perf_counter()
            async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_SECONDS) as client:
                answer = await client.post(f"http://{LOCALHOST}:{port}/")
            wall = time.perf_counter() - started
            processes = meter.read()
            if answer.status_code != httpx.codes.OK:
                raise EmulatorError(f"{self.name} answered {answer.status_code}; its log says:\n{process.log_tail()}")
        finally:
            await process.stop()
        stats = await read_stats(engine_url)
        rows = await count_rows(project)
        check(self.name, load, stats, rows)
        contender = processes[CONTENDER]
        return Figures(
            wall_seconds=wall,
            cpu_seconds=contender.cpu_seconds,
            peak_megabytes=contender.peak_megabytes,
            rows_stored=rows,
            engine_calls=stats.calls,
            evaluations=stats.distinct,
            max_in_flight=stats.max_in_flight,
            processes=processes,
        )

    def _env(self, project: Project, engine_url: str, load: Load) -> dict[str, str]:
        return {
            "SUPABASE_URL": project.supabase_url,
            "SUPABASE_SECRET_KEY": project.secret_key,
            "DATABASE_URL": project.database_url,
            "SCENARIO_ENGINE_URL": engine_url,
            "SCENARIO_ENGINE_TOKEN": project.engine_token,
            "SCENARIO_TYPES": ",".join(load.types),
            "IN_FLIGHT": str(load.in_flight),
            "USERS_PER_CALL": str(load.users_per_call),
            "TYPES_PER_CALL": str(load.types_per_call),
        }


def load_of(
    mentors: int, types: Sequence[str], in_flight: int, users_per_call: int, types_per_call: int | None
) -> Load:
    """One type a call where a call is about one user, unless said otherwise; else all of them."""
    if types_per_call is None:
        types_per_call = 1 if users_per_call == 1 else len(types)
    return Load(mentors, tuple(types), in_flight, users_per_call, types_per_call)


def pids_of(project: Project, stats: EngineStats) -> dict[str, int]:
    """Who works for a contender."""
    return {
        "engine": stats.pid,
        "gateway": project.gateway.pid,
        "postgrest": project.postgrest.pid,
        "postgres": _postgres_pid(project),
    }


def _postgres_pid(project: Project) -> int:
    pid = project.server.pid
    assert pid is not None, "the server runs"
    return pid


def check(name: str, load: Load, stats: EngineStats, rows: int) -> None:
    """A run that lost or repeated anybody has no figures."""
    expected = load.evaluations
    if (stats.distinct, stats.duplicates, rows) != (expected, 0, expected):
        raise EmulatorError(
            f"{name}: {expected} evaluations, each once and stored, were expected; the engine saw {stats.distinct} and "
            f"{stats.duplicates} again, the table has {rows} rows"
        )
    if stats.max_in_flight > load.in_flight:
        raise EmulatorError(
            f"{name}: at most {load.in_flight} calls in flight were asked for, not {stats.max_in_flight}"
        )


async def _answers(port: int) -> bool:
    return await http_status(port, "/") == httpx.codes.OK


def dbos_command() -> list[str | Path]:
    """Needs `pip install -r tests/benchmarks/peers/requirements.txt`."""
    if importlib.util.find_spec("dbos") is None:
        raise EmulatorError("DBOS is not installed: run `pip install -r tests/benchmarks/peers/requirements.txt`")
    return [sys.executable, "-m", "tests.benchmarks.peers.dbos_peer"]


GOOD = ServedContender("good-deno", lambda: deno_command("good.ts"))
NAIVE = ServedContender("naive-deno", lambda: deno_command("naive.ts"))
DBOS_QUEUE = ServedContender("dbos", dbos_command)
