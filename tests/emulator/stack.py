"""The whole local stack: a project, its function, its engine and its clocks, in one data directory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from shared.concurrency import gather_or_cancel

from .connections import value
from .data_dir import DataDir, write_private
from .errors import EmulatorError
from .function import FunctionProcess
from .gateway import find_caddy
from .keys import Keys, SignInSecrets, Tokens, kept
from .migrations import run_script
from .options import StackOptions
from .postgres import PostgresBinaries, PostgresServer
from .postgrest import find_postgrest
from .processes import ChildProcess
from .project import SEED, Project

DEFAULT_MENTORS = 500
# A file in the data directory: how many sample mentors were put into its database.
SEEDED = "mentors"

UNFINISHED_SLOT = b"""
select scheduled_for from public.scheduler_invocations
where trigger = 'schedule' and status in ('pending', 'running')
  and expires_at > now() and scheduled_for > now() - interval '1 day'
"""

LATEST_UNUSED_SLOT = b"""
select max(slot)
from generate_series(date_trunc('minute', now()) - interval '1439 minutes', now() - interval '1 minute', '1 minute')
  as slot
where not exists (
  select from public.scheduler_invocations where idempotency_key = scheduler.slot_key(slot)
)
"""

# Earlier processes are gone. A call that is under way would hold back the next one, and a queued one would go to their
# ports.
FORGET_EARLIER_PROCESSES = b"""
delete from net.http_request_queue where true;
update scheduler.dispatches set ended_at = clock_timestamp(), error = 'no_answer' where ended_at is null;
delete from scheduler.engine_permits where true;
update scheduler.settings set engine_paused_until = null, engine_outages = 0 where singleton;
"""


def daily_at(slot: datetime) -> str:
    """Returns a schedule of one slot a day, the latest of which is this one."""
    slot = slot.astimezone(UTC)
    return f"{slot.minute} {slot.hour} * * *"


@dataclass
class Stack:
    """A project with its function and its engine; `running_stack` starts and stops it."""

    options: StackOptions
    project: Project
    schedule: str
    ready_at: datetime
    unfinished_slot: datetime | None = None

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
    def engine_token(self) -> str | None:
        """Returns the token of the engine, None where it is the user's own and its token was not named."""
        return self.project.engine_token if self.project.engine else self.options.engine_token

    @property
    def _processes(self) -> list[ChildProcess]:
        project = self.project
        apps = [app for app in (project.engine, project.auth) if app is not None]
        return [self.server.process, project.postgrest, project.gateway, self.function, *apps]

    @property
    def pids(self) -> dict[str, int | None]:
        """Returns the process of each part, None where it is not the stack's."""
        return {"engine": None} | {process.name: process.pid for process in self._processes}

    async def broken(self) -> NoReturn:
        """Waits until a part cannot be kept alive, and raises the reason."""
        supervised = [process.supervision for process in self._processes if process.supervision is not None]
        done, _ = await asyncio.wait(supervised, return_when=asyncio.FIRST_COMPLETED)
        await done.pop()

    async def start(self, *, is_new: bool) -> None:
        """Starts all parts; `is_new`: the database has to be made."""
        options, project, server = self.options, self.project, self.server
        if not is_new:
            # what it holds decides which slot can be due, and the function reads it at its start
            await self._start_database()
            await self._resume()
        engine = project.new_engine() if options.engine_url is None else None
        auth = project.new_auth() if options.sign_in else None
        function = project.new_function({"EVALUATION_SCHEDULE": self.schedule, **options.settings})
        # none of these calls another at its start
        starts = [project.gateway.start(), function.start()]
        starts += [self._start_database()] if is_new else []
        starts += [app.start() for app in (engine, auth) if app is not None]
        await gather_or_cancel(starts)
        for process in self._processes:
            if process.supervision is None:
                process.keep_alive(server.revive if process is server.process else None)
        await project.write_vault_secrets(function.url)
        await (project.make_slot_due() if options.due_slot else project.make_no_slot_due())
        self.ready_at = datetime.now(UTC)
        await project.start_net()
        if options.tick and not server.has_own_pg_cron:
            project.cron = project.cron_driver()
            await project.cron.start()

    async def _start_database(self) -> None:
        await self.server.start()
        await self.project.migrate()
        seeded = self.project.data_dir.path / SEEDED
        if not seeded.exists():
            mentors = str(DEFAULT_MENTORS if self.options.mentors is None else self.options.mentors)
            await run_script(self.project.database_url, SEED, {"seed.mentors": mentors})
            write_private(seeded, mentors)
        await self.project.postgrest.start()

    async def _resume(self) -> None:
        """Continues what an earlier start left in the database: its open run, else a slot that has had none."""
        async with self.project.connect(superuser=True) as database:
            await database.execute(FORGET_EARLIER_PROCESSES)
            self.unfinished_slot = await value(database, UNFINISHED_SLOT)
            slot: datetime | None = self.unfinished_slot or await value(database, LATEST_UNUSED_SLOT)
        if self.options.schedule is None and slot is not None:
            self.schedule = daily_at(slot)


@asynccontextmanager
async def running_stack(options: StackOptions) -> AsyncIterator[Stack]:
    """Yields a stack that is up, and stops callers before what they call, the database last."""
    binaries = await _check(options)
    data_dir = DataDir.kept(options.data_dir) if options.data_dir else DataDir.new_temporary()
    async with AsyncExitStack() as exits:
        exits.callback(data_dir.close)
        seeded = data_dir.path / SEEDED
        if options.mentors is not None and seeded.exists() and int(seeded.read_text()) != options.mentors:
            raise EmulatorError(
                f"--mentors {options.mentors}: {data_dir.path} was made with {seeded.read_text()} mentors; "
                "leave --mentors out, or name another --data-dir"
            )
        server = PostgresServer(data_dir, binaries=binaries, durable=not data_dir.temporary)
        exits.push_async_callback(server.stop)
        is_new = await server.prepare()
        keys, tokens = kept(Keys, data_dir.path / "keys.json"), kept(Tokens, data_dir.path / "tokens.json")
        sign_in = kept(SignInSecrets, data_dir.path / "sign-in.json")
        project = Project(server, "postgres", keys=keys, tokens=tokens, sign_in=sign_in)
        exits.push_async_callback(project.stop)
        now = datetime.now(UTC)
        stack = Stack(options, project, options.schedule or daily_at(now - timedelta(minutes=1)), now)
        await stack.start(is_new=is_new)
        yield stack


async def _check(options: StackOptions) -> PostgresBinaries:
    """Checks the options and finds all programs before anything is started, so that a fault is reported at once."""
    await options.check()
    find_postgrest()
    find_caddy()
    return PostgresBinaries.find()
