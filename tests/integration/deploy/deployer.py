"""Somebody who deploys: a project without anything in it, a file of settings, and deploy.sh."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.emulator.postgres import PostgresBinaries
from tests.emulator.project import Project
from tests.emulator.staging import ROOT
from tests.integration.deploy.pretend_cloud import PROJECT, PretendCloud, Service
from tests.integration.nightly.night import mentor_ids
from tests.scripted_engine import ScriptedEngine
from tests.secret_scan import Secrets, leaks_in

FUNCTION = "scenario-evaluation-scheduler"
# What the function is told by way of Secret Manager.
SECRETS = {"SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"}
SUPABASE_CLI = ROOT / "tests" / "emulator" / "node_modules" / ".bin"


@dataclass(frozen=True)
class Deployed:
    """What a call of deploy.sh came to."""

    code: int
    output: str

    def steps(self) -> list[str]:
        """The steps that were begun, in their order."""
        return [line.removeprefix("== ") for line in self.output.splitlines() if line.startswith("== ")]


@dataclass
class Deployer:
    """Runs deploy.sh. Whatever it prints, and every command's arguments, are searched for secrets each time."""

    project: Project
    cloud: PretendCloud
    engine: ScriptedEngine
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def env_file(self) -> Path:
        return self.folder / "settings.env"

    @property
    def service(self) -> Service:
        return self.cloud.services[FUNCTION]

    def fill_in_example(self) -> None:
        """Copies .env.example and fills in what has no default, as the README says."""
        lines = (ROOT / ".env.example").read_text().splitlines()
        filled = [self._filled_in(line) for line in lines]
        self.env_file.write_text("\n".join(filled) + "\n")

    def _filled_in(self, line: str) -> str:
        name = line.partition("=")[0]
        return f"{name}={self.settings[name]}" if name in self.settings else line

    def write_settings(self, **changed: str | None) -> None:
        """Writes the file of settings anew; None takes one out."""
        self.settings |= {name: value for name, value in changed.items() if value is not None}
        for name in [name for name, value in changed.items() if value is None]:
            self.settings.pop(name, None)
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        self.env_file.chmod(0o600)
        self._keep_secrets(self.settings)

    def read_settings(self) -> dict[str, str]:
        """What stands in the file now."""
        lines = [line for line in self.env_file.read_text().splitlines() if line and not line.startswith("#")]
        self.settings = {name: value for name, value in (line.split("=", 1) for line in lines) if value}
        self._keep_secrets(self.settings)
        return self.settings

    async def run(self, *arguments: str, env: Mapping[str, str] | None = None, answer: str = "") -> Deployed:
        """Calls deploy.sh with the file of settings, `answer` on its standard input."""
        process = await asyncio.create_subprocess_exec(
            *(str(ROOT / "deploy.sh"), "--env-file", str(self.env_file), *arguments),
            env={
                "PATH": f"{self.cloud.bin}:{SUPABASE_CLI}:{PostgresBinaries.find().bin}:{os.environ['PATH']}",
                # The CLI keeps things there; so might psql.
                "HOME": str(self.folder / "home"),
                "SUPABASE_TELEMETRY_DISABLED": "1",
                **(env or {}),
            },
            cwd=self.folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output = (await process.communicate(answer.encode()))[0].decode()
        assert process.returncode is not None
        if self.env_file.exists():
            self.read_settings()
        self._check_nothing_leaked(output)
        return Deployed(process.returncode, output)

    async def succeed(self, *arguments: str, **options: Any) -> Deployed:
        """The same, and it has to end well."""
        deployed = await self.run(*arguments, **options)
        assert deployed.code == 0, deployed.output
        return deployed

    async def add_mentors(self, count: int) -> None:
        """The application's own data comes."""
        async with self.project.connect() as connection:
            await connection.execute(
                b"insert into public.peer_mentors (user_id, status, segments, joined_at, onboarding_completed_at)"
                b" select id::uuid, 'active', '{}', now() - interval '90 days', now() from unnest(%s::text[]) as id",
                [mentor_ids(count)],
            )

    async def make_slot_due(self) -> None:
        """Nights pass: the latest slot comes after the installation, and cron looks."""
        await self.project.make_slot_due()
        await self.rows("update scheduler.settings set next_due_at = now()")

    async def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Reads or writes as the owner of the database."""
        async with self.project.connect() as connection:
            cursor = await connection.execute(query.encode())
            return await cursor.fetchall() if cursor.description is not None else []

    async def vault(self) -> dict[str, str]:
        """What Vault holds, by name."""
        return dict(await self.rows("select name, decrypted_secret from vault.decrypted_secrets"))

    async def invocations(self) -> list[dict[str, Any]]:
        """Every invocation as callers see it, the oldest first."""
        return [
            row[0]
            for row in await self.rows(
                "select scheduler.describe_invocation(id) from public.scheduler_invocations order by created_at"
            )
        ]

    async def snapshot(self) -> list[tuple[Any, ...]]:
        """What the database holds by way of installation: catalogue, migrations, settings, Vault, cron jobs."""
        objects = await self.rows(
            "select relnamespace::regnamespace::text, relname from pg_class"
            " where relnamespace::regnamespace::text not in ('pg_toast', 'net', 'cron') order by 1, 2"
        )
        if not await self.rows("select where to_regclass('scheduler.settings') is not null"):
            return objects
        return [
            *objects,
            *await self.rows("select version from supabase_migrations.schema_migrations order by version"),
            *await self.rows("select schedule, slot_high_water_mark, next_due_at from scheduler.settings"),
            *await self.rows("select id, decrypted_secret, updated_at from vault.decrypted_secrets order by id"),
            *await self.rows("select jobid, jobname, schedule, command from cron.job order by jobid"),
        ]

    def _keep_secrets(self, settings: Mapping[str, str]) -> None:
        for name in sorted(SECRETS):
            for value in settings.get(name, "").split(","):
                self.secrets[f"{name} {len(self.secrets)}"] = value
        self.secrets["the database's password"] = self.project.database_url.split(":")[2].partition("@")[0]

    def _check_nothing_leaked(self, output: str) -> None:
        argv = [part for command in self.cloud.commands for part in command.argv]
        leaks = leaks_in([*output.splitlines(), *argv], "deploy.sh", Secrets(self.secrets))
        assert leaks == []


@contextlib.asynccontextmanager
async def deployer(project: Project, folder: Path) -> AsyncIterator[Deployer]:
    """Somebody with a project that is empty, an engine that is up, and all settings."""
    (folder / "home").mkdir()
    async with (
        ScriptedEngine(token=project.engine_token) as engine,
        PretendCloud(folder / "cloud", project.data_dir, project.database) as cloud,
    ):
        somebody = Deployer(project, cloud, engine, folder)
        somebody.write_settings(
            DATABASE_URL=project.database_url,
            SUPABASE_URL=project.supabase_url,
            SUPABASE_SECRET_KEY=project.secret_key,
            SCENARIO_ENGINE_URL=engine.url,
            SCENARIO_ENGINE_TOKEN=project.engine_token,
            SCHEDULER_INVOKE_TOKENS=project.invoke_token,
            SCHEDULER_ADMIN_TOKENS=project.admin_token,
            GOOGLE_CLOUD_PROJECT=PROJECT,
            GOOGLE_CLOUD_REGION="europe-north1",
            EVALUATION_BATCH_SIZE="50",
        )
        await project.start_net()
        yield somebody
