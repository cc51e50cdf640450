"""The commands that the documents print for the database: no statement that a server keeps has the token."""

from __future__ import annotations

import asyncio
import os
import re
import secrets

from tests.emulator.connections import connect
from tests.emulator.postgres import SUPERUSER
from tests.emulator.project import ProjectFactory
from tests.emulator.staging import ROOT

DOCUMENTS = [path.read_text() for path in (ROOT / "README.md", ROOT / "SECURITY.md", *(ROOT / "docs").glob("*.md"))]
BLOCKS = [block for text in DOCUMENTS for block in re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]


async def run(commands: str, factory: ProjectFactory, database: str, token: str = "") -> int | None:
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", commands),
        env={
            "PATH": f"{factory.server.binaries.bin}:{os.environ['PATH']}",
            **dict.fromkeys(("DATABASE_URL", "DB_URL"), factory.server.url(database)),
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


async def test_the_documented_commands_leave_no_token_in_statements(server: ProjectFactory) -> None:
    commands = [block for block in BLOCKS if "connect.sql" in block]
    (uninstall,) = (block for block in BLOCKS if "uninstall.sql" in block)
    assert len(commands) == 3
    assert not any(re.search(r"(scheduler\.connect|vault\.\w+_secret)\('", text) for text in DOCUMENTS)
    for command in commands:
        # Whatever a setting allows a token to be.
        token = rf"""a"b'c\n,{secrets.token_urlsafe(24)}"""
        async with server.database() as name, connect(server.server.url(name, SUPERUSER)) as superuser:
            for setting in ("log_statement", "pg_stat_statements.track"):
                await superuser.execute(f"alter role postgres in database {name} set {setting} = 'all'".encode())
            log_from = server.server.log_path.stat().st_size
            assert await run(command, server, name, token) == 0
            found = await superuser.execute(b"select decrypted_secret from vault.decrypted_secrets order by name")
            (url,), (stored,) = await found.fetchall()
            assert (url[-1], stored) == ("/", token)

            # Nothing is installed any more: the statement fails, and a server logs those that fail.
            assert await run(re.sub(r"--set versions=\S+\(.*\)\"", "", uninstall), server, name) != 0
            assert await run(uninstall, server, name) == 0
            found = await superuser.execute(
                b"select to_regnamespace('scheduler'), version from supabase_migrations.schema_migrations"
            )
            assert await found.fetchall() == [(None, "20261120000100")]
            assert await run(command, server, name, token) != 0
            found = await superuser.execute(b"select string_agg(query, ' ') from extensions.pg_stat_statements")
            ((statements,),) = await found.fetchall()
            log = server.server.log_path.read_bytes()[log_from:].decode()
            assert "ERROR" in log
            for text in (log, statements):
                assert "scheduler.connect(" in text
                assert token[-24:] not in text
