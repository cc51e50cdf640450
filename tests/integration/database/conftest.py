"""A migrated database for each test, without the Data API, and one worker's session in it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.project import ProjectFactory

from .sql_core import SqlCore, Worker


@pytest.fixture
async def core(projects: ProjectFactory) -> AsyncIterator[SqlCore]:
    async with projects.database() as name, SqlCore(projects.server.url(name)) as core:
        yield core


@pytest.fixture
async def worker(core: SqlCore) -> Worker:
    return await core.worker()
