"""wrk: what engine, sockets and machine allow when nothing is read, decided or stored."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
import uuid
from pathlib import Path

from tests.emulator.errors import EmulatorError
from tests.emulator.processes import ChildProcess
from tests.emulator.project import Project

from .deno import HERE
from .fast_engine import EngineStats, read_stats, reset
from .figures import Figures, Load, ProcessUse, ideal_seconds
from .measured_call import check, pids_of
from .preparation import prepare, user_ids
from .process_use import FamilyMemory, ProcessMeter, cpu_seconds

THREADS = 2
MOST_SECONDS = 300
LOOK_SECONDS = 0.1


class Limit:
    """One user and one type a call; nothing is stored."""

    name = "wrk"

    async def run(self, project: Project, engine_url: str, load: Load) -> Figures:
        """The calls of one run of everybody; see `Contender`."""
        if load.users_per_call != 1 or load.types_per_call != 1:
            raise EmulatorError("wrk: only calls of one user and one type are made")
        wrk = find_wrk()
        await prepare(project, load.mentors)
        users = project.data_dir.folder("wrk") / f"users-{uuid.uuid4().hex[:8]}.txt"
        lines = "\n".join(await user_ids(project))
        await asyncio.to_thread(users.write_text, lines)
        process = ChildProcess(
            self.name, _command(wrk, engine_url, load, users, project.engine_token), data_dir=project.data_dir, env={}
        )
        with ProcessMeter(pids_of(project, await reset(engine_url))) as meter:
            await process.start()
            try:
                stats = await _until_sent(engine_url, load, process)
                processes = meter.read()
                # all that it ever used, from its start on
                use = ProcessUse(cpu_seconds(process.pid), *FamilyMemory(process.pid).read())
            finally:
                await process.stop()
                with contextlib.suppress(FileNotFoundError):
                    users.unlink()
        check(self.name, load, stats, load.evaluations)
        return Figures(
            wall_seconds=stats.busy_seconds,
            ideal_seconds=ideal_seconds(stats.latency_seconds, stats.longest_seconds, load.in_flight),
            use=use,
            rows_stored=0,
            engine_calls=stats.calls,
            evaluations=stats.distinct,
            max_in_flight=stats.max_in_flight,
            processes=processes,
        )


def find_wrk() -> Path:
    """`wrk` on PATH."""
    found = shutil.which("wrk")
    if found is None:
        raise EmulatorError("wrk is not installed: it is Debian's package `wrk`, and Homebrew's")
    return Path(found)


def _command(wrk: Path, engine_url: str, load: Load, users: Path, token: str) -> list[str | Path]:
    threads = min(THREADS, load.in_flight)
    sending: list[str | Path] = [f"-t{threads}", f"-c{load.in_flight}", f"-d{MOST_SECONDS}s", "-s", HERE / "limit.lua"]
    arguments = [str(threads), f"manual:{uuid.uuid4()}", ",".join(load.types), token]
    return [wrk, *sending, f"{engine_url}/v1/evaluations", "--", users, *arguments]


async def _until_sent(engine_url: str, load: Load, process: ChildProcess) -> EngineStats:
    """What the engine counted when all calls were answered; wrk itself would go on waiting."""
    give_up = time.monotonic() + MOST_SECONDS
    while time.monotonic() < give_up:
        stats = await read_stats(engine_url)
        if stats.calls >= load.calls and stats.in_flight == 0:
            return stats
        if not process.alive:
            raise EmulatorError(f"wrk ended early; its log says:\n{process.log_tail()}")
        await asyncio.sleep(LOOK_SECONDS)
    raise EmulatorError(f"wrk did not make its calls within {MOST_SECONDS} s")


LIMIT = Limit()
