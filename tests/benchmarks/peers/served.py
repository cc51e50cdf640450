"""Contenders that are programs behind HTTP: started warm, asked once by POST, and measured until they answer."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.emulator.errors import EmulatorError
from tests.emulator.ports import LOCALHOST, free_port
from tests.emulator.processes import ChildProcess, http_status
from tests.emulator.project import Project

from .deno import HERE, deno_command, deno_env
from .figures import Figures, Load
from .measured_call import call, figures_of
from .preparation import count_rows, prepare
from .scheduler import settings_for


def settings_of(project: Project, engine_url: str, load: Load) -> dict[str, str]:
    """What contenders of other kinds than this function are told by their environment."""
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


class Served(NamedTuple):
    """A process that serves. `log_tail`: the last of what it wrote."""

    url: str
    pid: int
    log_tail: Callable[[], str]


@dataclass(frozen=True)
class ServedContender:
    """A program that evaluates everybody when it is sent a POST.

    Args:
        name: in logs.
        command: starts it; called when it is needed, so that what is missing is said then.
        settings: its environment, beside the port on which it serves.
    """

    name: str
    command: Callable[[], Sequence[str | Path]]
    settings: Callable[[Project, str, Load], Mapping[str, str]] = settings_of

    async def run(self, project: Project, engine_url: str, load: Load) -> Figures:
        """One run of everybody; see `Contender`."""
        await prepare(project, load.mentors)
        async with self.serve(project, self.settings(project, engine_url, load)) as served:
            answered = await call(served.url, pid=served.pid, project=project, engine_url=engine_url)
            status = answered.response.status_code
            if status != httpx.codes.OK:
                raise EmulatorError(f"{self.name} answered {status}; its log says:\n{served.log_tail()}")
        rows = await count_rows(project)
        return await figures_of(self.name, load, engine_url, answered, results=rows, rows=rows)

    @asynccontextmanager
    async def serve(self, project: Project, settings: Mapping[str, str]) -> AsyncIterator[Served]:
        """One process of it that serves, for as long as the block runs.

        Args:
            project: keeps its log.
            settings: its environment, but for the port.
        """
        port = free_port()
        env = {**deno_env(project.data_dir), **settings, "PORT": str(port)}
        process = ChildProcess(self.name, self.command(), data_dir=project.data_dir, env=env, cwd=HERE.parents[2])
        await process.start()
        try:
            await process.until_ready(lambda: _answers(port))
            yield Served(f"http://{LOCALHOST}:{port}/", process.pid, process.log_tail)
        finally:
            await process.stop()


async def _answers(port: int) -> bool:
    return await http_status(port, "/") == httpx.codes.OK


def dbos_command() -> list[str | Path]:
    """Needs `pip install -r tests/benchmarks/requirements.txt`."""
    if importlib.util.find_spec("dbos") is None:
        raise EmulatorError("DBOS is not installed: run `pip install -r tests/benchmarks/requirements.txt`")
    return [sys.executable, "-m", "tests.benchmarks.peers.dbos_peer"]


def plain_loop_command() -> list[str | Path]:
    """Served as the function is; the port comes by its environment."""
    serve: list[str | Path] = [sys.executable, "-m", "functions_framework", "--target", "evaluate_everybody", "--asgi"]
    return [*serve, "--host", LOCALHOST, "--source", HERE / "plain_loop.py"]


GOOD = ServedContender("good-deno", lambda: deno_command("good.ts"))
NAIVE = ServedContender("naive-deno", lambda: deno_command("naive.ts"))
DBOS_QUEUE = ServedContender("dbos", dbos_command)
PLAIN_LOOP = ServedContender(
    "plain-loop",
    plain_loop_command,
    lambda project, engine_url, load: project.function_env(engine_url, settings_for(load)),
)
