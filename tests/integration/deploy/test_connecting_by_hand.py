"""The commands that the documents print for connecting the database: no statement that a server keeps has the token."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import AsyncIterator

import pytest

from tests.emulator.connections import connect
from tests.emulator.postgres import SUPERUSER, PostgresBinaries
from tests.emulator.project import ProjectFactory
from tests.emulator.staging import ROOT
from tests.faults.system_packages import server_with_pg_cron

DOCUMENTS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    pytest.param(block, id=f"{path.stem}-{number}")
    for path in DOCUMENTS
    for number, block in enumerate(re.findall(r"^```bash\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE), 1)
    if "connect.sql" in block
]
STATEMENTS = "statements"


@pytest.fixture(scope="module", params=["newest", "oldest"])
async def recording(request: pytest.FixtureRequest) -> AsyncIterator[ProjectFactory]:
    """A server that keeps all that it is asked: pg_stat_statements, and every statement in its log."""
    binaries = server_with_pg_cron() if request.param == "oldest" else PostgresBinaries.find()
    settings = {"pg_stat_statements.track": "all", "log_statement": "all"}
    async with ProjectFactory(settings=settings, binaries=binaries) as factory:
        await factory.server.create_database(STATEMENTS)
        yield factory


async def kept_by(factory: ProjectFactory, *, log_from: int = 0) -> dict[str, str]:
    """All of its log from a place on, and all of pg_stat_statements."""
    async with connect(factory.server.url(STATEMENTS, SUPERUSER)) as superuser:
        statements = await (await superuser.execute(b"select query from pg_stat_statements")).fetchall()
    log = factory.server.log_path.read_bytes()[log_from:].decode()
    return {"log": log, "pg_stat_statements": "\n".join(text for (text,) in statements)}


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


@pytest.mark.parametrize("commands", COMMANDS)
async def test_the_documented_commands_leave_no_token_in_statements(recording: ProjectFactory, commands: str) -> None:
    # Whatever a setting allows a token to be.
    token = rf"""a"b'c\n,{secrets.token_urlsafe(24)}"""
    log_from = recording.server.log_path.stat().st_size
    async with recording.database() as name:
        assert await run(commands, recording, name, token) == 0
        async with connect(recording.server.url(name)) as owner:
            found = await owner.execute(b"select decrypted_secret from vault.decrypted_secrets order by name")
            url, stored = [text for (text,) in await found.fetchall()]
    assert url.endswith("/")
    assert stored == token
    # Nothing is installed there: the statement fails, and a server logs those that fail.
    assert await run(commands, recording, "postgres", token) != 0

    kept = await kept_by(recording, log_from=log_from)
    assert {place: "scheduler.connect(" in text for place, text in kept.items()} == dict.fromkeys(kept, True)
    assert "ERROR" in kept["log"]
    assert {place for place, text in kept.items() if token in text or token[-24:] in text} == set()


async def test_the_documented_command_uninstalls(recording: ProjectFactory) -> None:
    document = (ROOT / "docs" / "deployment.md").read_text()
    (command,) = re.findall(r"^```bash\n([^`]*uninstall\.sql)\n```", document, re.MULTILINE)
    async with recording.database() as name:
        assert await run(re.sub(r"--set versions=\S+\(.*\)\"", "", command), recording, name, "") != 0
        assert await run(command, recording, name, "") == 0
        async with connect(recording.server.url(name)) as owner:
            left = await owner.execute(
                b"select to_regnamespace('scheduler'), version from supabase_migrations.schema_migrations"
            )
            assert await left.fetchall() == [(None, "20261120000100")]


def test_no_document_prints_a_statement_with_a_secret() -> None:
    assert len(COMMANDS) == 3
    for path in DOCUMENTS:
        assert not re.search(r"(scheduler\.connect|vault\.\w+_secret)\('", path.read_text()), path
