"""A Supabase project: one database with its Data API, and what is attached to it for a run or a test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString, Self

from .connections import Connection, connect
from .data_dir import DataDir
from .engine import EngineProcess
from .function import FunctionProcess
from .gateway import Gateway
from .keys import Keys, Tokens
from .migrations import apply_migrations, run_script
from .pg_cron import CronDriver
from .pg_net import NetDriver
from .ports import LOCALHOST
from .postgres import SUPERUSER, PostgresBinaries, PostgresServer
from .postgrest import PostgREST
from .staging import ROOT

MIGRATIONS = ROOT / "supabase" / "migrations"
SEED = ROOT / "supabase" / "seed.sql"
ENGINE_SCHEMA = Path(__file__).parent / "reference_engine" / "schema.sql"


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

FORGET_EARLIER_PROCESSES = b"""
delete from net.http_request_queue where true;
update scheduler.dispatches set ended_at = clock_timestamp(), error = 'no_answer' where ended_at is null;
delete from scheduler.engine_permits where true;
update scheduler.settings set engine_paused_until = null, engine_outages = 0 where singleton;
"""


class Project:
    """One database of a server, served at `supabase_url` to all holders of one of the keys."""

    def __init__(
        self,
        server: PostgresServer,
        database: str,
        *,
        keys: Keys | None = None,
        tokens: Tokens | None = None,
        label: str = "",
    ) -> None:
        self.server = server
        self.data_dir = server.data_dir
        self.database = database
        # As role postgres, who owns the database and is no superuser.
        self.database_url = server.url(database)
        self.superuser_url = server.url(database, SUPERUSER)
        self.keys = keys or Keys.generate()
        self.secret_key, self.publishable_key = self.keys.secret_key, self.keys.publishable_key
        # The legacy keys.
        self.anon_jwt, self.service_role_jwt = self.keys.anon_jwt, self.keys.service_role_jwt
        tokens = tokens or Tokens.generate()
        self.invoke_token, self.admin_token, self.engine_token = tokens.invoke, tokens.admin, tokens.engine
        self.net: NetDriver | None = None
        self.cron: CronDriver | None = None
        self.functions: list[FunctionProcess] = []
        self.engine: EngineProcess | None = None
        self._label = label
        authenticator = server.url(database, "authenticator")
        self.postgrest = PostgREST(self.data_dir, authenticator, self.keys.jwt_secret, name=f"postgrest{label}")
        self.gateway = Gateway(self.data_dir, self.keys, self.postgrest.port, name=f"gateway{label}")
        self.supabase_url = self.gateway.url
        self.rest_url = f"{self.gateway.url}/rest/v1"

    @contextlib.asynccontextmanager
    async def connect(self, *, superuser: bool = False) -> AsyncIterator[Connection]:
        """A connection to the database, each statement its own transaction."""
        async with connect(self.superuser_url if superuser else self.database_url) as connection:
            yield connection

    async def migrate(self) -> None:
        """Apply the migrations that are new, and the schema of the reference engine."""
        await apply_migrations(self.database_url, MIGRATIONS)
        await run_script(self.database_url, ENGINE_SCHEMA)

    async def start(self) -> Self:
        """Serve the Data API; the database must be there."""
        await asyncio.gather(self.postgrest.start(), self.gateway.start())
        return self

    async def stop(self) -> None:
        """Stop everything that was started here, callers before those they call."""
        if self.cron is not None:
            await self.cron.stop()
        if self.net is not None:
            await self.net.stop()
        await asyncio.gather(*(function.stop() for function in self.functions))
        if self.engine is not None:
            await self.engine.stop()
        await asyncio.gather(self.gateway.stop(), self.postgrest.stop())

    async def start_net(self) -> NetDriver:
        """Send what the database posts through pg_net."""
        self.net = NetDriver(self.superuser_url)
        await self.net.start()
        return self.net

    async def start_cron(self) -> CronDriver:
        """Run the jobs of cron.job: all at once now, then at their minutes. A test may prefer `cron_driver()`."""
        self.cron = CronDriver(self.superuser_url)
        await self.cron.start()
        return self.cron

    def cron_driver(self) -> CronDriver:
        """One that does not tick: `await driver.run_all()` runs every job once."""
        return CronDriver(self.superuser_url)

    def function_env(self, engine_url: str, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment that a deployment gives the function."""
        return {
            "SUPABASE_URL": self.supabase_url,
            "SUPABASE_SECRET_KEY": self.secret_key,
            "SCENARIO_ENGINE_URL": engine_url,
            "SCENARIO_ENGINE_TOKEN": self.engine_token,
            "SCHEDULER_INVOKE_TOKENS": self.invoke_token,
            "SCHEDULER_ADMIN_TOKENS": self.admin_token,
            **(overrides or {}),
        }

    def new_function(
        self,
        env: Mapping[str, str] | None = None,
        *,
        engine_url: str | None = None,
        port: int | None = None,
        root: Path = ROOT,
        restart: bool = True,
    ) -> FunctionProcess:
        """One more instance of the function, not started yet; `env` goes over the usual environment.

        Without `engine_url` it calls the project's own engine, or a port on which nothing answers.
        """
        if engine_url is None:
            engine_url = self.engine.url if self.engine else f"http://{LOCALHOST}:9"
        number = len(self.functions)
        function = FunctionProcess(
            self.data_dir,
            self.function_env(engine_url, env),
            port=port,
            root=root,
            name=f"function{self._label}{f'-{number}' if number else ''}",
            restart=restart,
        )
        self.functions.append(function)
        return function

    async def start_function(self, env: Mapping[str, str] | None = None, **options: Any) -> FunctionProcess:
        """Start one more instance and wait until it serves; see `new_function`."""
        function = self.new_function(env, **options)
        await function.start()
        return function

    def new_engine(self) -> EngineProcess:
        """The reference trigger engine on this project's Data API, not started yet."""
        env = {
            "SUPABASE_URL": self.supabase_url,
            "SUPABASE_SECRET_KEY": self.secret_key,
            "SCENARIO_ENGINE_TOKEN": self.engine_token,
        }
        self.engine = EngineProcess(self.data_dir, env, name=f"engine{self._label}")
        return self.engine

    async def start_engine(self) -> EngineProcess:
        """Start the reference trigger engine and wait until it serves."""
        engine = self.new_engine()
        await engine.start()
        return engine

    async def write_vault_secrets(self, function_url: str) -> None:
        """Tell the database where the function is and how to call it, as the README tells a user to."""
        async with self.connect() as connection:
            for name, value in (
                ("scheduler_function_url", f"{function_url.rstrip('/')}/"),
                ("scheduler_invoke_token", self.invoke_token),
            ):
                cursor = await connection.execute(b"select id from vault.secrets where name = %s", (name,))
                if found := await cursor.fetchone():
                    await connection.execute(b"select vault.update_secret(%s, %s)", (found[0], value))
                else:
                    await connection.execute(b"select vault.create_secret(%s, %s)", (value, name))

    async def make_slot_due(self, days: int = 7) -> None:
        """Make the latest slot of the schedule due, although this installation is younger than it.

        The next tick then calls the function even where an earlier schedule says that nothing is due yet.
        """
        await self._count_as_used("now() - make_interval(days => %s)", days)

    async def make_no_slot_due(self) -> None:
        """Count every slot until now as used. The next tick calls the function, which says when the next one is."""
        await self._count_as_used("greatest(slot_high_water_mark, now())")

    async def _count_as_used(self, until: LiteralString, *parameters: int) -> None:
        statement: LiteralString = "update scheduler.settings set next_due_at = null, slot_high_water_mark = "
        async with self.connect() as connection:
            await connection.execute(statement + until + " where singleton", parameters)

    async def unfinished_slot(self) -> datetime | None:
        """The slot of the scheduled run that an earlier start of this database left open; None if there is none."""
        return await self._slot(UNFINISHED_SLOT)

    async def latest_unused_slot(self) -> datetime | None:
        """The latest full minute of the last day that has no scheduled run."""
        return await self._slot(LATEST_UNUSED_SLOT)

    async def _slot(self, query: bytes) -> datetime | None:
        async with self.connect() as connection:
            row = await (await connection.execute(query)).fetchone()
        return row[0] if row else None

    async def forget_earlier_processes(self) -> None:
        """End what is recorded of processes that an earlier start of this database ran: they are gone.

        A call that is under way would hold back the next one, and a call that is queued would go to their ports.
        """
        async with self.connect(superuser=True) as connection:
            await connection.execute(FORGET_EARLIER_PROCESSES)


class ProjectFactory:
    """Projects for tests: the migrations run once, into a template that every project's database is cloned from."""

    TEMPLATE = "project_template"
    # A real pg_cron keeps the database open whose jobs it runs, and what is open cannot be cloned: not ours, then.
    SETTINGS: Mapping[str, str] = {"max_connections": "200", "cron.database_name": "template1"}

    def __init__(self, *, settings: Mapping[str, str] | None = None, binaries: PostgresBinaries | None = None) -> None:
        self._binaries = binaries
        self._settings = {**self.SETTINGS, **(settings or {})}
        self._numbers = itertools.count(1)
        self._server: PostgresServer | None = None

    @property
    def server(self) -> PostgresServer:
        if self._server is None:
            raise RuntimeError("the factory is used with `async with`")
        return self._server

    async def __aenter__(self) -> Self:
        self._server = PostgresServer(
            DataDir.new_temporary(in_memory=True), binaries=self._binaries, settings=self._settings
        )
        try:
            await self._server.prepare()
            await self._server.start()
            await self._server.create_database(self.TEMPLATE)
            await apply_migrations(self._server.url(self.TEMPLATE), MIGRATIONS)
            await run_script(self._server.url(self.TEMPLATE), ENGINE_SCHEMA)
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()
            server.data_dir.close()

    @contextlib.asynccontextmanager
    async def database(self, template: str = TEMPLATE) -> AsyncIterator[str]:
        """The name of a new clone, dropped at the end; for tests that need no Data API."""
        name = f"project_{next(self._numbers)}"
        await self.server.create_database(name, template)
        try:
            yield name
        finally:
            await self.server.drop_database(name)

    @contextlib.asynccontextmanager
    async def project(self, template: str = TEMPLATE) -> AsyncIterator[Project]:
        """A project on a new clone, with its Data API up; what is started on it ends with it."""
        async with self.database(template) as name:
            project = Project(self.server, name, label=f"-{name}")
            try:
                yield await project.start()
            finally:
                await project.stop()
