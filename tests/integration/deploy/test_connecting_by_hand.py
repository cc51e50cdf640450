"""The commands that the documents print for the database: no statement that a server keeps has the token."""

from __future__ import annotations

import asyncio
import os
import re
import secrets

import pytest

from tests.emulator.connections import connect
from tests.emulator.postgres import SUPERUSER, PostgresBinaries
from tests.emulator.project import ProjectFactory
from tests.emulator.staging import ROOT
from tests.faults.system_packages import server_with_pg_cron

DOCUMENTS = [path.read_text() for path in (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md"))]
BLOCKS = [block for text in DOCUMENTS for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
# A server that keeps all that it is asked: pg_stat_statements, and every statement in its log.
SETTINGS = {"pg_stat_statements.track": "all", "log_statement": "all"}


async def run(commands: str, factory: ProjectFactory, database: str, token: str) -> int | None:
    url = factory.server.url(database)
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", commands),
        env={
            "PATH": f"{factory.server.binaries.bin}:{os.environ['PATH']}",
            **dict.fromkeys(("DATABASE_URL", "DB_URL"), url),
            **dict.fromkeys(("INVOKE_TOKEN", "SCHEDULER_INVOKE_TOKENS"), token),
            "FUNCTION_URL": "https://your-function.example.org",
        },
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await process.communicate(f"{token}\n".encode())
    return process.returncode


@pytest.mark.parametrize("server", ["newest", "oldest"])
async def test_the_documented_commands_leave_no_token_in_statements(server: str) -> None:
    commands = [block for block in BLOCKS if "connect.sql" in block]
    (uninstall,) = (block for block in BLOCKS if "uninstall.sql" in block)
    assert len(commands) == 3
    assert not any(re.search(r"(scheduler\.connect|vault\.\w+_secret)\('", text) for text in DOCUMENTS)
    # Whatever a setting allows a token to be.
    tail = secrets.token_urlsafe(24)
    token = rf"""a"b'c\n,{tail}"""
    binaries = server_with_pg_cron() if server == "oldest" else PostgresBinaries.find()
    async with ProjectFactory(settings=SETTINGS, binaries=binaries) as factory:
        await factory.server.create_database("statements")
        for command in commands:
            async with factory.database() as name:
                assert await run(command, factory, name, token) == 0
                async with connect(factory.server.url(name)) as owner:
                    found = await owner.execute(b"select decrypted_secret from vault.decrypted_secrets order by name")
                    url, stored = [text for (text,) in await found.fetchall()]
            assert (url[-1], stored) == ("/", token)
            # Nothing is installed there: the statement fails, and a server logs those that fail.
            assert await run(command, factory, "postgres", token) != 0
        async with connect(factory.server.url("statements", SUPERUSER)) as superuser:
            found = await superuser.execute(b"select string_agg(query, ' ') from pg_stat_statements")
            ((statements,),) = await found.fetchall()
        log = factory.server.log_path.read_text()
        assert "ERROR" in log
        for text in (log, statements):
            assert "scheduler.connect(" in text
            assert tail not in text

        async with factory.database() as name:
            assert await run(re.sub(r"--set versions=\S+\(.*\)\"", "", uninstall), factory, name, "") != 0
            assert await run(uninstall, factory, name, "") == 0
            async with connect(factory.server.url(name)) as owner:
                left = await owner.execute(
                    b"select to_regnamespace('scheduler'), version from supabase_migrations.schema_migrations"
                )
                assert await left.fetchall() == [(None, "20261120000100")]
