"""A Supabase project: one database with its Data API, and what is attached to it for a run or a test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Self

from .connections import Connection, connect, value
from .data_dir import DataDir
from .function import FunctionProcess
from .gateway import Gateway
from .keys import Keys, SignInSecrets, Tokens
from .migrations import apply_migrations, run_script
from .pg_cron import CronDriver
from .pg_net import NetDriver
from .ports import LOCALHOST, free_port
from .postgres import SUPERUSER, PostgresBinaries, PostgresServer
from .postgrest import PostgREST
from .processes import ChildProcess
from .staging import ROOT

MIGRATIONS = ROOT / "supabase" / "migrations"
SEED = ROOT / "supabase" / "seed.sql"
ENGINE_SCHEMA = Path(__file__).parent / "reference_engine" / "schema.sql"

COUNT_AS_USED = b"update scheduler.settings set next_due_at = null, slot_high_water_mark = "


async def migrate(database_url: str) -> None:
    await apply_migrations(database_url, MIGRATIONS, refuse_changed=True)
    await run_script(database_url, ENGINE_SCHEMA)


class AppProcess(ChildProcess):
    """An ASGI application of the emulator, by the place of its factory, in a process of its own."""

    def __init__(
        self, data_dir: DataDir, app: str, env: Mapping[str, str], *, name: str, port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://{LOCALHOST}:{self.port}"
        options = ["--host", LOCALHOST, "--port", str(self.port), "--no-access-log", "--log-level", "warning"]
        super().__init__(
            name,
            [sys.executable, "-m", "uvicorn", "--factory", f"tests.emulator.{app}:create_app", *options],
            data_dir=data_dir,
            env={"PATH": os.environ.get("PATH", os.defpath), "HOME": str(data_dir.path), **env},
            cwd=ROOT,
            health=(self.port, "/health"),
        )


class Project:
    """One database of a server, served at `supabase_url` to all holders of one of the keys."""

    def __init__(
        self,
        server: PostgresServer,
        database: str,
        *,
        keys: Keys | None = None,
        tokens: Tokens | None = None,
        sign_in: SignInSecrets | None = None,
        label: str = "",
        forked: bool = False,
    ) -> None:
        self.server = server
        self.data_dir = server.data_dir
        self.database = database
        # As role postgres, which owns the database and is no superuser.
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
        self.engine: AppProcess | None = None
        self.sign_in = sign_in or SignInSecrets.generate()
        self.auth: AppProcess | None = None
        self._auth_port = free_port()
        self._label = label
        self._forked = forked
        authenticator = server.url(database, "authenticator")
        self.postgrest = PostgREST(self.data_dir, authenticator, self.keys.jwt_secret, name=f"postgrest{label}")
        self.gateway = Gateway(self.data_dir, self.keys, self.postgrest.port, self._auth_port, name=f"gateway{label}")
        self.supabase_url = self.gateway.url
        self.rest_url = f"{self.gateway.url}/rest/v1"
        self.auth_url = f"{self.gateway.url}/auth/v1"

    @contextlib.asynccontextmanager
    async def connect(self, *, superuser: bool = False) -> AsyncIterator[Connection]:
        async with connect(self.superuser_url if superuser else self.database_url) as connection:
            yield connection

    async def migrate(self) -> None:
        await migrate(self.database_url)

    async def start(self) -> Self:
        """Starts the Data API; the database must be there."""
        await asyncio.gather(self.postgrest.start(), self.gateway.start())
        return self

    async def stop(self) -> None:
        """Stops everything that was started here, callers before those they call."""
        if self.cron is not None:
            await self.cron.stop()
        if self.net is not None:
            await self.net.stop()
        await asyncio.gather(*(function.stop() for function in self.functions))
        for app in filter(None, (self.engine, self.auth)):
            await app.stop()
        await asyncio.gather(self.gateway.stop(), self.postgrest.stop())

    async def start_net(self) -> None:
        self.net = NetDriver(self.superuser_url)
        await self.net.start()

    def cron_driver(self) -> CronDriver:
        """Returns one that does not tick: `await driver.run_all()` runs every job once."""
        return CronDriver(self.superuser_url)

    def function_env(self, engine_url: str, overrides: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "SUPABASE_URL": self.supabase_url,
            "SUPABASE_SECRET_KEY": self.secret_key,
            "SCENARIO_ENGINE_URL": engine_url,
            "SCENARIO_ENGINE_TOKEN": self.engine_token,
            "SCHEDULER_INVOKE_TOKENS": self.invoke_token,
            "SCHEDULER_ADMIN_TOKENS": self.admin_token,
            **({"SUPABASE_PUBLISHABLE_KEY": self.publishable_key} if self.auth else {}),
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
        """Adds one more instance of the function, not started yet; `env` goes over the usual environment.

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
            forked=self._forked,
        )
        self.functions.append(function)
        return function

    async def start_function(self, env: Mapping[str, str] | None = None, **options: Any) -> FunctionProcess:
        """Adds an instance as `new_function` does, starts it and waits until it serves."""
        function = self.new_function(env, **options)
        await function.start()
        return function

    def new_auth(self) -> AppProcess:
        """Adds Auth, not started yet; from now on new functions let its users sign in."""
        own = {"signing_secret": self.sign_in.signing_secret, "passwords": self.sign_in.passwords}
        arguments = {"issuer": self.auth_url, "jwt_secret": self.keys.jwt_secret, **own}
        env = {"AUTH": json.dumps(arguments)}
        self.auth = AppProcess(self.data_dir, "auth", env, name=f"auth{self._label}", port=self._auth_port)
        return self.auth

    async def start_auth(self) -> None:
        await self.new_auth().start()

    def new_engine(self) -> AppProcess:
        env = {
            "SUPABASE_URL": self.supabase_url,
            "SUPABASE_SECRET_KEY": self.secret_key,
            "SCENARIO_ENGINE_TOKEN": self.engine_token,
        }
        self.engine = AppProcess(self.data_dir, "reference_engine.app", env, name=f"engine{self._label}")
        return self.engine

    async def start_engine(self) -> AppProcess:
        engine = self.new_engine()
        await engine.start()
        return engine

    async def write_vault_secrets(self, function_url: str) -> None:
        """Writes the function's address and token into Vault, as the README has a user do it."""
        async with self.connect() as connection:
            url = f"{function_url.rstrip('/')}/"
            for name, secret in (("scheduler_function_url", url), ("scheduler_invoke_token", self.invoke_token)):
                if found := await value(connection, b"select id from vault.secrets where name = %s", name):
                    await connection.execute(b"select vault.update_secret(%s, %s)", (found, secret))
                else:
                    await connection.execute(b"select vault.create_secret(%s, %s)", (secret, name))

    async def make_slot_due(self, days: int = 7) -> None:
        """Makes the latest slot due, although this installation is younger; the next tick calls the function."""
        async with self.connect() as connection:
            await connection.execute(COUNT_AS_USED + b"now() - make_interval(days => %s) where singleton", (days,))

    async def make_no_slot_due(self) -> None:
        """Counts every slot until now as used. The next tick calls the function, which says when the next one is."""
        async with self.connect() as connection:
            await connection.execute(COUNT_AS_USED + b"greatest(slot_high_water_mark, now()) where singleton")


class ProjectFactory:
    """Projects for tests: the migrations run once, into a template that every project's database is cloned from.

    `forked`: their functions are forked, which has to be left out where a start or its memory is measured.
    """

    TEMPLATE = "project_template"
    # A real pg_cron keeps the database open whose jobs it runs, and what is open cannot be cloned: not ours, then.
    SETTINGS: Mapping[str, str] = {"max_connections": "200", "cron.database_name": "template1"}

    def __init__(
        self,
        *,
        settings: Mapping[str, str] | None = None,
        binaries: PostgresBinaries | None = None,
        forked: bool = False,
    ) -> None:
        data_dir = DataDir.new_temporary(in_memory=True)
        self.server = PostgresServer(data_dir, binaries=binaries, settings={**self.SETTINGS, **(settings or {})})
        self._numbers = itertools.count(1)
        self._forked = forked

    async def __aenter__(self) -> Self:
        try:
            await self.server.prepare()
            await self.server.start()
            await self.server.create_database(self.TEMPLATE)
            await migrate(self.server.url(self.TEMPLATE))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop()
        self.server.data_dir.close()

    @contextlib.asynccontextmanager
    async def database(self, template: str = TEMPLATE) -> AsyncIterator[str]:
        """Yields the name of a new clone, dropped at the end; for tests that need no Data API."""
        name = f"project_{next(self._numbers)}"
        await self.server.create_database(name, template)
        try:
            yield name
        finally:
            await self.server.drop_database(name)

    @contextlib.asynccontextmanager
    async def project(self, template: str = TEMPLATE) -> AsyncIterator[Project]:
        """Yields a project on a new clone, with its Data API up; what is started on it ends with it."""
        async with self.database(template) as name:
            project = Project(self.server, name, label=f"-{name}", forked=self._forked)
            try:
                yield await project.start()
            finally:
                await project.stop()
