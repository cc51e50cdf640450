"""The whole local stack: a project, its function, its engine and its clocks, in one data directory."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn, Self

from cronsim import CronSim, CronSimError

from .data_dir import DataDir, write_private
from .errors import EmulatorError
from .function import FunctionProcess
from .gateway import find_caddy
from .keys import Keys, Tokens
from .migrations import require_unchanged, run_script
from .postgres import PostgresBinaries, PostgresServer
from .postgrest import find_postgrest
from .processes import ChildProcess
from .project import MIGRATIONS, SEED, Project

DEFAULT_MENTORS = 500
# A file in the data directory: how many sample mentors were put into its database.
SEEDED = "mentors"


def daily_at(slot: datetime) -> str:
    """A schedule of one slot a day, the latest of which is this one."""
    slot = slot.astimezone(UTC)
    return f"{slot.minute} {slot.hour} * * *"


@dataclass(frozen=True)
class StackOptions:
    """What the command line lets a user choose.

    Args:
        mentors: sample mentors in a new database; None: 500 there, and as many as there are in one that was kept.
        schedule: in UTC; None: daily, with a slot that was due a minute ago, or earlier where that has had its run.
    """

    mentors: int | None = None
    engine_url: str | None = None
    schedule: str | None = None
    function_env: Mapping[str, str] = field(default_factory=dict)
    tick: bool = True
    due_slot: bool = True
    data_dir: Path | None = None


class Stack:
    """`async with Stack(options)`: everything is up inside the block, and nothing is left after it."""

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self._data_dir: DataDir | None = None
        self._server: PostgresServer | None = None
        self._project: Project | None = None
        self.schedule = options.schedule or daily_at(datetime.now(UTC) - timedelta(minutes=1))
        self.unfinished_slot: datetime | None = None
        self.ready_at = datetime.now(UTC)

    @property
    def project(self) -> Project:
        if self._project is None:
            raise RuntimeError("the stack is used with `async with`")
        return self._project

    @property
    def server(self) -> PostgresServer:
        return self.project.server

    @property
    def function(self) -> FunctionProcess:
        return self.project.functions[0]

    @property
    def engine_url(self) -> str:
        return self.project.engine.url if self.project.engine else str(self.options.engine_url)

    @property
    def _processes(self) -> list[ChildProcess]:
        project = self.project
        engine = [project.engine] if project.engine else []
        return [self.server.process, project.postgrest, project.gateway, self.function, *engine]

    @property
    def pids(self) -> dict[str, int]:
        return {process.name: process.pid for process in self._processes}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop callers before what they call, the database last. The data directory is given up whatever happens."""
        try:
            if self._project is not None:
                await self._project.stop()
            if self._server is not None:
                await self._server.stop()
        finally:
            if self._data_dir is not None:
                self._data_dir.close()

    async def broken(self) -> NoReturn:
        """Wait until a part cannot be kept alive, and raise the reason."""
        supervised = [process.supervision for process in self._processes if process.supervision is not None]
        done, _ = await asyncio.wait(supervised, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()

    async def _start(self) -> None:
        options = self.options
        binaries = _check(options)
        data_dir = self._data_dir = DataDir.kept(options.data_dir) if options.data_dir else DataDir.new_temporary()
        seeded = data_dir.path / SEEDED
        if options.mentors is not None and seeded.exists() and int(seeded.read_text()) != options.mentors:
            raise EmulatorError(
                f"--mentors {options.mentors}: {data_dir.path} was made with {seeded.read_text()} mentors; "
                "leave --mentors out, or name another --data-dir"
            )
        server = self._server = PostgresServer(data_dir, binaries=binaries, durable=not data_dir.temporary)
        is_new = await server.prepare()
        keys, tokens = Keys.kept(data_dir.path / "keys.json"), Tokens.kept(data_dir.path / "tokens.json")
        project = self._project = Project(server, "postgres", keys=keys, tokens=tokens)
        if not is_new:
            # what it holds decides which slot can be due, and the function reads it at its start
            await self._start_database()
            await self._resume()
        engine = project.new_engine() if options.engine_url is None else None
        function = project.new_function(
            {"EVALUATION_SCHEDULE": self.schedule, **options.function_env}, engine_url=options.engine_url
        )
        # none of these asks another at its own start; what takes longest is thus all that one waits for
        starts = [project.gateway.start(), function.start()]
        starts += [self._start_database()] if is_new else []
        starts += [engine.start()] if engine else []
        await _together(starts)
        for process in self._processes:
            if process.supervision is None:
                process.keep_alive(server.revive if process is server.process else None)
        await project.write_vault_secrets(function.url)
        await (project.make_slot_due() if options.due_slot else project.make_no_slot_due())
        self.ready_at = datetime.now(UTC)
        await project.start_net()
        if options.tick and not server.has_own_pg_cron:
            await project.start_cron()

    async def _start_database(self) -> None:
        await self.server.start()
        await require_unchanged(self.project.database_url, MIGRATIONS)
        await self.project.migrate()
        seeded = self.project.data_dir.path / SEEDED
        if not seeded.exists():
            mentors = str(DEFAULT_MENTORS if self.options.mentors is None else self.options.mentors)
            await run_script(self.project.database_url, SEED, {"seed.mentors": mentors})
            write_private(seeded, mentors)
        await self.project.postgrest.start()

    async def _resume(self) -> None:
        """Go on from what an earlier start left in the database: its open run, else a slot that has had none."""
        await self.project.forget_earlier_processes()
        self.unfinished_slot = await self.project.unfinished_slot()
        slot = self.unfinished_slot or await self.project.latest_unused_slot()
        if self.options.schedule is None and slot is not None:
            self.schedule = daily_at(slot)


def _check(options: StackOptions) -> PostgresBinaries:
    """Find everything before anything is started, so that what is missing is said at once."""
    if options.schedule is not None:
        try:
            CronSim(options.schedule, datetime.now(UTC))
        except CronSimError as error:
            raise EmulatorError(f"--schedule {options.schedule!r}: {error}; five fields are expected") from error
    find_postgrest()
    find_caddy()
    return PostgresBinaries.find()


async def _together(starts: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Run all; the first failure stops the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
