"""What an earlier release left is all there after the migrations since, and today's function goes on from it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.emulator.connections import connect
from tests.emulator.postgres import SUPERUSER
from tests.emulator.project import MIGRATIONS, Project, ProjectFactory
from tests.integration.manual.caller import Caller
from tests.integration.nightly.night import Night
from tests.integration.nightly.night import night as a_night
from tests.integration.project_logs import check_project, size_of
from tests.releases.kept import Release, all_releases
from tests.releases.rows import read_rows, write_rows

from .conftest import EMPTY
from .database import Installation

RELEASES = list(all_releases())
# It was kept long ago, and is to go on as if it had been a minute.
A_MINUTE_LATER = """
update public.scheduler_invocations set expires_at = now() + interval '20 hours' where finished_at is null;
update pgmq.q_scenario_evaluation_batches_manual set vt = now();
update scheduler.settings set engine_paused_until = null, engine_outages = 0;
"""


@pytest.fixture(params=RELEASES, ids=[path.stem for path in RELEASES])
def release(request: pytest.FixtureRequest) -> Release:
    return Release.load(request.param)


@contextlib.asynccontextmanager
async def upgraded(projects: ProjectFactory, release: Release, folder: Path) -> AsyncIterator[Installation]:
    """A database that had this release, with what it left, and has all migrations now."""
    _copy(release, folder)
    async with projects.database(EMPTY) as name, Installation(projects.server, name) as installation:
        await installation.push(folder)
        async with connect(projects.server.url(name, SUPERUSER)) as superuser:
            await write_rows(superuser, release.rows)
        newer = await installation.push()
        assert len(newer) == len(list(MIGRATIONS.glob("*.sql"))) - len(release.migrations)
        yield installation


def _copy(release: Release, folder: Path) -> None:
    folder.mkdir()
    for name in release.migrations:
        shutil.copy(MIGRATIONS / name, folder)


def with_times(told: dict[str, Any]) -> dict[str, Any]:
    """With its times as such: SQL and the API write them in two of the ways that mean the same."""

    def read(members: dict[str, Any]) -> dict[str, Any]:
        return {
            name: datetime.fromisoformat(value) if value and name.endswith(("_at", "scheduled_for")) else value
            for name, value in members.items()
        }

    return dict(json.loads(json.dumps(told), object_hook=read))


async def outcomes_by_run(night: Night, mentor: str) -> dict[str, dict[str, str]]:
    """What came of one mentor in the runs that she was in, from rows and batches."""
    outcomes: dict[str, dict[str, str]] = {}
    for invocation in await night.invocations():
        for (user_id, scenario_type), outcome in (await night.recorded_pairs(invocation["id"])).items():
            if user_id == mentor:
                outcomes.setdefault(invocation["id"], {})[scenario_type] = outcome
    return outcomes


def test_a_release_is_kept() -> None:
    assert RELEASES


def test_migrations_of_a_release_that_went_out_are_as_they_were(release: Release) -> None:
    assert release.changes(MIGRATIONS) == []


async def test_everything_that_was_told_is_told_as_before(
    server: ProjectFactory, release: Release, tmp_path: Path
) -> None:
    async with upgraded(server, release, tmp_path / "then") as installation:
        for invocation_id, told in release.told.items():
            now = await installation.owner.value("select scheduler.describe_invocation(%s::uuid)", invocation_id)
            assert {member: now[member] for member in told} == told
        listed = await installation.owner.value(
            "select public.scheduler_list(null, null, null, null, null, 100, null, null) -> 'items'"
        )
        assert {item["id"] for item in listed} == release.told.keys()
        (mentor, *_) = release.mentors
        hers = await installation.owner.value(
            "select public.scheduler_list(null, null, null, null, %s::uuid, 100, null, null) -> 'items'", mentor
        )
        assert "no_device" in {result["error_code"] for item in hers for result in item["results"]}


async def test_no_row_is_lost(server: ProjectFactory, release: Release, tmp_path: Path) -> None:
    async with upgraded(server, release, tmp_path / "then") as installation:
        rows = await read_rows(installation.owner.connection)
        assert {table: len(content) for table, content in rows.items()} == {
            table: len(content) for table, content in release.rows.items()
        }


async def test_what_was_open_goes_on_and_the_next_night_comes(
    projects: ProjectFactory, release: Release, tmp_path: Path, http: httpx.AsyncClient
) -> None:
    async with upgraded(projects, release, tmp_path / "then") as installation:
        await installation.owner.run(A_MINUTE_LATER)
        written_before = size_of(projects.server.log_path)
        project = Project(projects.server, installation.database, label=f"-{installation.database}")
        try:
            await project.start()
            async with a_night(project, http) as night:
                night.mentors = release.mentors
                function = await night.start_function()
                answer = await night.fire(function)
                assert answer.status_code == 200, answer.text
                tonight = answer.json()
                assert (tonight["triggered_by"], tonight["status"]) == ("schedule", "succeeded")
                assert await night.recorded_pairs(tonight["id"]) == night.expected_pairs()

                (open_then,) = (told for told in release.told.values() if told["finished_at"] is None)
                now = await night.describe(open_then["id"])
                assert (now["status"], now["counts"]["failed"]) == ("succeeded", 0)
                assert now["counts"]["evaluations"] == open_then["counts"]["evaluations"]
                assert set(night.engine.keys_seen.values()) == {1}

                caller = Caller(night, function)
                for told in release.told.values():
                    if told["finished_at"] is not None:
                        seen = await caller.see(told["id"])
                        assert with_times({member: seen[member] for member in told}) == with_times(told)
                assert await caller.history(release.mentors[0]) == await outcomes_by_run(night, release.mentors[0])
        finally:
            await project.stop()
        check_project(project, server_log_from=written_before)


async def test_a_migration_that_is_changed_after_its_release_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "migrations"
    await asyncio.to_thread(shutil.copytree, MIGRATIONS, folder)
    release = Release.load(RELEASES[-1])
    first, second, *_ = release.migrations
    (folder / first).write_text("select 1;\n")
    release.freeze(folder)
    assert release.changes(folder) == []
    (folder / first).write_text("select 2;\n")
    (folder / second).unlink()
    (folder / "99990101000000_newer.sql").write_text("select 3;\n")
    changed, removed = release.changes(folder)
    assert changed.startswith(f"{first} was changed after release {release.version}")
    assert removed.startswith(f"{second} was removed after release {release.version}")


async def test_a_newer_migration_that_loses_rows_is_found(projects: ProjectFactory, tmp_path: Path) -> None:
    """The oracle itself: with one more migration that drops what was recorded, rows are missing."""
    release = Release.load(RELEASES[-1])
    async with upgraded(projects, release, tmp_path / "then") as installation:
        later = tmp_path / "later"
        await asyncio.to_thread(shutil.copytree, MIGRATIONS, later)
        (later / "99990101000000_forget.sql").write_text("delete from public.scheduler_evaluations;\n")
        assert await installation.push(later) == ["99990101000000"]
        assert await read_rows(installation.owner.connection) != release.rows
        told = release.told.values()
        now = [
            await installation.owner.value("select scheduler.describe_invocation(%s::uuid)", one["id"]) for one in told
        ]
        assert now != list(told)
