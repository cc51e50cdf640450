"""The real Supabase CLI on somebody else's schema: what its user reads, and that it goes on once the view is there."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from tests.emulator.project import ProjectFactory
from tests.emulator.staging import ROOT

from .conftest import EMPTY
from .database import Installation
from .test_apply import VERSIONS
from .test_other_schemas import THEIR_VIEW, THEIRS

CLI = ROOT / "tests" / "emulator" / "node_modules" / ".bin" / "supabase"


async def push(installation: Installation, folder: Path) -> tuple[int, str]:
    """`supabase db push`: its exit code, and what it says."""
    url = urlsplit(installation.url)
    process = await asyncio.create_subprocess_exec(
        *(CLI, "db", "push", "--workdir", folder, "--yes"),
        f"--remote={url._replace(netloc=f'{url.username}@{url.hostname}:{url.port}').geturl()}",
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "PGPASSWORD": url.password or ""},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def test_its_user_reads_what_to_do_and_does_it(projects: ProjectFactory, tmp_path: Path) -> None:
    await asyncio.to_thread(shutil.copytree, ROOT / "supabase", tmp_path / "supabase")
    async with projects.database(EMPTY) as name, Installation(projects.server, name) as installation:
        await installation.owner.run(THEIRS)
        before = await installation.dump()
        code, said = await push(installation, tmp_path)
        assert code != 0
        (error,) = (line for line in said.splitlines() if line.startswith("ERROR:"))
        assert "public.peer_mentors is a table of your own (" in error
        assert "nothing was changed" in error
        # It shows no hint, and the statement that failed below the message: which must not push that off the screen.
        assert "docs/adapting.md" in error
        assert "create table" not in said
        assert await installation.dump() == before

        await installation.owner.run(THEIR_VIEW)
        code, said = await push(installation, tmp_path)
        assert code == 0, said
        assert (
            await installation.owner.column("select version from supabase_migrations.schema_migrations order by 1")
            == VERSIONS
        )
        whole = await installation.dump()
        code, said = await push(installation, tmp_path)
        assert code == 0, said
        assert await installation.dump() == whole
