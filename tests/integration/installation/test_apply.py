"""Migrations on an empty database, again, and in several goes; on the oldest and on the newest PostgreSQL."""

from __future__ import annotations

import shutil
from pathlib import Path

import psycopg
import pytest

from tests.emulator.errors import EmulatorError
from tests.emulator.project import MIGRATIONS, ProjectFactory

from .conftest import EMPTY
from .database import Installation

FILES = sorted(MIGRATIONS.glob("*.sql"))
VERSIONS = [file.name.partition("_")[0] for file in FILES]
WORKS = "select public.scheduler_finish(gen_random_uuid()) ->> 'ended_now'"


async def test_an_empty_database_gets_everything_and_once(empty: Installation) -> None:
    assert await empty.push() == VERSIONS
    assert await empty.owner.value(WORKS) == "false"
    jobs = "select jobname from cron.job where jobname like 'scheduler-%' order by jobname"
    assert await empty.owner.column(jobs) == ["scheduler-dispatch", "scheduler-prune"]

    before = await empty.dump()
    assert await empty.push() == []
    assert await empty.dump() == before


async def test_a_push_that_broke_off_goes_on_where_it_was(
    empty: Installation, server: ProjectFactory, tmp_path: Path
) -> None:
    folder = tmp_path / "migrations"
    shutil.copytree(MIGRATIONS, folder)
    broken = folder / FILES[6].name
    # Its statements before the last one are undone with it.
    broken.write_bytes(FILES[6].read_bytes() + b"\nselect no_such_function();\n")

    with pytest.raises(EmulatorError, match=FILES[6].name):
        await empty.push(folder)
    assert await empty.push() == VERSIONS[6:]

    async with server.database(EMPTY) as name, Installation(server.server, name) as whole:
        await whole.push()
        assert await empty.dump("--schema-only") == await whole.dump("--schema-only")


async def test_without_its_history_it_is_told_and_left_alone(empty: Installation) -> None:
    await empty.push()
    await empty.owner.run("drop schema supabase_migrations cascade")
    said = await empty.refusal()
    assert "20261120000100_create_sample_peer_mentors.sql: the scheduler is in this database already" in said
    assert "nothing was changed" in said
    assert "supabase migration repair --status applied" in said


async def test_no_file_does_anything_a_second_time(empty: Installation) -> None:
    await empty.push()
    before = await empty.dump()
    for file in FILES:
        with pytest.raises(psycopg.Error):
            async with empty.owner.connection.transaction():
                await empty.owner.connection.execute(file.read_bytes())
    assert await empty.dump() == before
