"""The oldest and the newest PostgreSQL that the migrations have to work on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.emulator.project import ProjectFactory
from tests.faults.system_packages import OLDEST_SERVER, not_there, server_with_pg_cron


@pytest.fixture(scope="session")
async def projects_on_oldest() -> AsyncIterator[ProjectFactory]:
    binaries = server_with_pg_cron()
    if binaries.major != OLDEST_SERVER:
        not_there(f"no PostgreSQL {OLDEST_SERVER}", "install the packages postgresql-15 and postgresql-15-cron")
    async with ProjectFactory(binaries=binaries, forked=True) as factory:
        yield factory


@pytest.fixture(scope="session", params=["projects", "projects_on_oldest"], ids=["newest", "oldest"])
def server(request: pytest.FixtureRequest) -> ProjectFactory:
    factory: ProjectFactory = request.getfixturevalue(request.param)
    return factory
