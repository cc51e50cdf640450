"""Runs deploy.sh with a file of settings, on a project, and looks at what is there afterwards."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import STDOUT
from typing import Any

from shared.deployment.settings import read_env_file
from tests.emulator.postgres import PostgresBinaries
from tests.emulator.project import Project
from tests.emulator.staging import ROOT
from tests.integration.deploy.fake_cloud import FakeCloud, Service
from tests.integration.scheduled_runs.harness import mentor_ids
from tests.scripted_engine import ScriptedEngine
from tests.secret_scan import Secrets, leaks_in

# Until its end nothing is changed.
CHECK = "Check credentials, database and project"
FUNCTION = "scenario-evaluation-scheduler"
# What the function gets from Secret Manager.
SECRETS = {"SUPABASE_SECRET_KEY", "SCENARIO_ENGINE_TOKEN", "SCHEDULER_INVOKE_TOKENS", "SCHEDULER_ADMIN_TOKENS"}
SUPABASE_CLI = ROOT / "tests" / "emulator" / "node_modules" / ".bin"


def steps(output: str) -> list[str]:
    """Returns the steps that were begun, in their order."""
    return [line.removeprefix("== ") for line in output.splitlines() if line.startswith("== ")]


@dataclass
class Deployer:
    """Runs deploy.sh, and searches what it prints, and every command's arguments, for secrets each time."""

    project: Project
    cloud: FakeCloud
    engine: ScriptedEngine
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    # Whose deploy.sh runs, and what it deploys.
    root: Path = ROOT
    has_real_cli: bool = False

    def __post_init__(self) -> None:
        self.env_file = self.folder / "settings.env"
        self.printed = self.folder / "printed"

    @property
    def service(self) -> Service:
        return self.cloud.services[FUNCTION]

    def write_settings(self, **changed: str | None) -> None:
        """Writes the file of settings anew; None takes one out."""
        merged = self.settings | changed
        self.settings = {name: value for name, value in merged.items() if value is not None}
        self.env_file.write_text("".join(f"{name}={value}\n" for name, value in self.settings.items()))
        self._keep_secrets()

    def _keep_secrets(self) -> None:
        self.secrets |= {value for name in SECRETS for value in self.settings.get(name, "").split(",")}
        self.secrets.add(self.project.database_url.split(":")[2].partition("@")[0])

    async def run(self, *arguments: str, answer: str = "", **env: str) -> tuple[int | None, str]:
        """Calls deploy.sh, `answer` on its standard input, and returns its exit code and what it `printed`."""
        cli = SUPABASE_CLI if self.has_real_cli else self.cloud.cli
        path = f"{self.cloud.bin}:{cli}:{PostgresBinaries.find().bin}:{os.environ['PATH']}"
        # The CLI keeps things at home; so might psql.
        env = {"PATH": path, "HOME": str(self.folder), "SUPABASE_TELEMETRY_DISABLED": "1", **env}
        argv: list[str | Path] = [self.root / "deploy.sh", "--env-file", self.env_file, *arguments]
        with self.printed.open("w") as output:
            process = await asyncio.to_thread(
                subprocess.run, argv, env=env, cwd=self.folder, input=answer, stdout=output, stderr=STDOUT, text=True
            )
        text = self.printed.read_text()
        self.settings = {name: value for name, value in read_env_file(self.env_file).items() if value}
        self._keep_secrets()
        secrets = Secrets({f"secret {number}": value for number, value in enumerate(sorted(self.secrets))})
        assert leaks_in([*text.splitlines(), *self.cloud.argv], "deploy.sh", secrets) == []
        other = "Google|gcloud|Cloud Run" if "container" in arguments else "[Cc]ontainer|[Dd]ocker"
        assert re.findall(other, text) == [], "it speaks of the other target"
        return process.returncode, text

    async def succeed(self, *arguments: str, answer: str = "") -> str:
        """Runs it to its end, and returns what it prints."""
        code, output = await self.run(*arguments, answer=answer)
        assert code == 0, output
        return output

    async def refused(self, *arguments: str, step: str, **env: str) -> str:
        """Runs it until it stops in this step, and returns what it prints."""
        code, output = await self.run(*arguments, **env)
        assert (code, steps(output)[-1]) == (1, step), output
        assert f'stopped at "{step}"' in output
        return output

    async def add_mentors(self, count: int) -> None:
        """Adds the application's own data."""
        await self.rows(
            "insert into public.peer_mentors (user_id, status, segments, joined_at, onboarding_completed_at)"
            " select id::uuid, 'active', '{}', now() - interval '90 days', now() from unnest(%s::text[]) as id",
            mentor_ids(count),
        )

    async def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Reads or writes as the owner of the database."""
        async with self.project.connect() as connection:
            cursor = await connection.execute(query.encode(), parameters or None)
            return await cursor.fetchall() if cursor.description is not None else []

    async def vault(self) -> dict[str, str]:
        """Returns what Vault holds, by name."""
        return dict(await self.rows("select name, decrypted_secret from vault.decrypted_secrets"))

    async def invocations(self) -> list[dict[str, Any]]:
        """Returns every invocation as callers see it, the oldest first."""
        described = "select scheduler.describe_invocation(id) from public.scheduler_invocations order by invoked_at"
        return [row[0] for row in await self.rows(described)]

    async def snapshot(self) -> list[tuple[Any, ...]]:
        """Returns what an installation leaves in the database: catalogue, migrations, settings, Vault, cron jobs."""
        found = await self.rows(
            "select relnamespace::regnamespace::text, relname from pg_class"
            " where relnamespace::regnamespace::text not in ('pg_toast', 'net', 'cron') order by 1, 2"
        )
        if ("scheduler", "settings") in found:
            for query in (
                "select version from supabase_migrations.schema_migrations order by version",
                "select schedule, slot_high_water_mark, next_due_at from scheduler.settings",
                "select id, decrypted_secret, updated_at from vault.decrypted_secrets order by id",
                "select jobid, jobname, schedule, command from cron.job order by jobid",
            ):
                found += await self.rows(query)
        return found
