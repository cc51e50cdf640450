"""The contenders: this function, programs behind HTTP that are called once by POST, and wrk.

Each `run` starts from empty tables and ends with the last stored row; it raises `EmulatorError` unless each pair was
evaluated exactly once.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import shutil
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess
from tests.emulator.project import Project
from tests.emulator.staging import ROOT

from .fast_engine import HERE, EngineStats, deno_command, deno_env, find_deno, read_stats, reset
from .figures import Figures, Load, ProcessUse, ideal_seconds
from .measured_call import check, measured_call, pids_of
from .preparation import count_rows, prepare, user_ids
from .process_use import FamilyMemory, ProcessMeter, cpu_seconds
from .scheduler import SCHEDULER, Scheduler, settings_for

WRK_BINARY = shutil.which("wrk")
WRK_THREADS = 2
WRK_SECONDS = 300
LOOK_SECONDS = 0.1
PACKAGES = ("dbos", "aiohttp", "matplotlib")


def settings_of(project: Project, engine_url: str, load: Load) -> dict[str, str]:
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


@dataclass(frozen=True)
class ServedContender:
    """A program that evaluates all mentors at a POST; `settings`: its environment without the port."""

    name: str
    command: Callable[[], Sequence[str | Path]]
    settings: Callable[[Project, str, Load], Mapping[str, str]] = settings_of

    async def run(self, project: Project, engine_url: str, load: Load) -> Figures:
        await prepare(project, load.mentors)
        async with self.serve(project, self.settings(project, engine_url, load)) as (url, process):

            async def count_results(response: httpx.Response) -> int:
                if response.status_code != httpx.codes.OK:
                    said = f"{response.status_code}; its log says:\n{process.log_tail()}"
                    raise EmulatorError(f"{self.name} answered {said}")
                return await count_rows(project)

            return await measured_call(self.name, url, process.pid, project, engine_url, load, count_results)

    @contextlib.asynccontextmanager
    async def serve(self, project: Project, settings: Mapping[str, str]) -> AsyncIterator[tuple[str, ChildProcess]]:
        """Yields the URL of one process of it that serves, and the process."""
        port = free_port()
        env = {**deno_env(project.data_dir), **settings, "PORT": str(port)}
        health = (port, "/")
        process = ChildProcess(self.name, self.command(), data_dir=project.data_dir, env=env, cwd=ROOT, health=health)
        try:
            await process.start()
            yield f"http://{LOCALHOST}:{port}/", process
        finally:
            await process.stop()


class Wrk:
    async def run(self, project: Project, engine_url: str, load: Load) -> Figures:
        await prepare(project, load.mentors)
        users = project.data_dir.folder("wrk") / f"users-{uuid.uuid4().hex[:8]}.txt"
        await asyncio.to_thread(users.write_text, "\n".join(await user_ids(project)))
        threads = min(WRK_THREADS, load.in_flight)
        command: list[str | Path] = [f"-t{threads}", f"-c{load.in_flight}", f"-d{WRK_SECONDS}s"]
        command += ["-s", HERE / "limit.lua", f"{engine_url}/v1/evaluations", "--", users]
        command += [str(threads), f"manual:{uuid.uuid4()}", ",".join(load.types), project.engine_token]
        process = ChildProcess("wrk", [str(WRK_BINARY), *command], data_dir=project.data_dir, env={})
        with ProcessMeter(pids_of(project, await reset(engine_url))) as meter:
            await process.start()
            try:
                stats = await self._until_sent(engine_url, load, process)
                processes = meter.read()
                # all that it ever used, from its start on
                use = ProcessUse(cpu_seconds(process.pid), *FamilyMemory(process.pid).read())
            finally:
                await process.stop()
        check("wrk", load, stats, load.evaluations)
        ideal = ideal_seconds(stats.latency_seconds, stats.longest_seconds, load.in_flight)
        return Figures(stats.busy_seconds, ideal, use, stats.distinct, processes)

    async def _until_sent(self, engine_url: str, load: Load, process: ChildProcess) -> EngineStats:
        """Returns the engine's counts when all calls were answered; wrk itself would wait for more."""
        give_up = time.monotonic() + WRK_SECONDS
        while process.alive and time.monotonic() < give_up:
            stats = await read_stats(engine_url)
            if stats.calls >= load.calls and stats.in_flight == 0:
                return stats
            await asyncio.sleep(LOOK_SECONDS)
        raise EmulatorError(f"wrk did not make its calls within {WRK_SECONDS} s; its log says:\n{process.log_tail()}")


def require_all() -> None:
    find_deno()
    if WRK_BINARY is None:
        raise EmulatorError("wrk is not installed: it is Debian's package `wrk`, and Homebrew's")
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise EmulatorError(f"run `pip install -r tests/benchmarks/requirements.txt`: no {', '.join(missing)}")


# Served as the function is; the port comes by its environment.
FUNCTIONS_FRAMEWORK = ("-m", "functions_framework", "--target", "evaluate_all", "--asgi", "--host", LOCALHOST)
PLAIN_LOOP = ServedContender(
    "plain-loop",
    lambda: [sys.executable, *FUNCTIONS_FRAMEWORK, "--source", HERE / "plain_loop.py"],
    lambda project, engine_url, load: project.function_env(engine_url, settings_for(load)),
)

GOOD = ServedContender("good-deno", partial(deno_command, "good.ts"))

THIS_FUNCTION = "this function"
GOOD_DENO = "good Deno"
NAIVE_DENO = "naive Deno"
DBOS = "DBOS queue"
WRK = "wrk"
PLAIN = "the same loop, not durable"

CONTENDERS: Mapping[str, Scheduler | ServedContender | Wrk] = {
    THIS_FUNCTION: SCHEDULER,
    GOOD_DENO: GOOD,
    NAIVE_DENO: ServedContender("naive-deno", partial(deno_command, "naive.ts")),
    DBOS: ServedContender("dbos", lambda: [sys.executable, "-m", "tests.benchmarks.peers.dbos_peer"]),
    WRK: Wrk(),
    PLAIN: PLAIN_LOOP,
}
