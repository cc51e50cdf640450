"""The oldest and the newest PostgreSQL that the migrations have to work on, and databases as Supabase makes them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.project import ProjectFactory
from tests.faults.system_packages import OLDEST_SERVER, not_there, server_with_pg_cron

from .database import Installation

EMPTY = "postgres"


@pytest.fixture(scope="session")
async def projects_on_oldest() -> AsyncIterator[ProjectFactory]:
    binaries = server_with_pg_cron()
    if binaries.major != OLDEST_SERVER:
        not_there(f"no PostgreSQL {OLDEST_SERVER}", "install the packages postgresql-15 and postgresql-15-cron")
    async with ProjectFactory(binaries=binaries) as factory:
        yield factory


@pytest.fixture(params=["projects", "projects_on_oldest"], ids=["newest", "oldest"])
def server(request: pytest.FixtureRequest) -> ProjectFactory:
    """Of PostgreSQL 18 and of 15, the templates with the migrations in them."""
    factory: ProjectFactory = request.getfixturevalue(request.param)
    return factory


@pytest.fixture
async def empty(server: ProjectFactory) -> AsyncIterator[Installation]:
    """A project's database before its first migration."""
    async with server.database(EMPTY) as name, Installation(server.server, name) as installation:
        yield installation
